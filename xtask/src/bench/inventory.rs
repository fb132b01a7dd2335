//! Looking without tracing: `states` and `leaks` beside the tools that people use instead.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::figures::{median, range, shown};
use super::load;
use super::program::Program;

/// Options of `bench inventory`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds; in each, every tool runs once
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Established sockets, both ends of each connection counted
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    sockets: u32,
    /// Instead: so many processes with 50 descriptors each, 5,000 of them sockets in CLOSE_WAIT
    #[arg(long, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    processes: Option<u32>,
}

/// In CLOSE_WAIT, and descriptors of each process.
const LEAKED: u32 = 5_000;
const FDS: u32 = 50;
/// Connections of a process, both ends: within what a process may have open by default nearly everywhere.
const PER_PROCESS: u32 = 4_000;

/// A tool, and what its runs took.
struct Tool {
    name: String,
    command: Vec<String>,
    took_ms: Vec<f64>,
    peak_kb: Vec<f64>,
}

impl Tool {
    fn new(name: &str, command: &[&str]) -> Self {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        Self { name: name.to_owned(), command, took_ms: Vec::new(), peak_kb: Vec::new() }
    }

    /// In the network namespace of a process, because this tool lists only that which it is in.
    fn inside(name: &str, pid: &str, command: &[&str]) -> Self {
        Self::new(name, &[&["nsenter", "--net", "--target", pid], command].concat())
    }

    /// From the start of its process to its end. What it says goes nowhere, so that no tool waits for a reader.
    fn run(&mut self) -> Result<()> {
        let begun = Instant::now();
        let status = self.started(&self.command)?.wait()?;
        self.took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        // `leaks` and lsof have statuses of their own.
        ensure!(status.code().is_some_and(|code| code <= 1), "{}: {status}", self.name);
        Ok(())
    }

    /// Runs it under GNU time, which knows how much memory it took at most; nothing where that is not installed.
    fn weigh(&mut self) -> Result<()> {
        let said = tempfile::NamedTempFile::new()?;
        let path = said.path().to_str().context("a path of UTF-8")?;
        let words: Vec<String> =
            ["time", "-q", "-f", "%M", "-o", path].iter().map(|&word| word.to_owned()).collect();
        let Ok(mut child) = self.started(&[words, self.command.clone()].concat()) else { return Ok(()) };
        child.wait()?;
        self.peak_kb.extend(std::fs::read_to_string(path)?.trim().parse::<f64>());
        Ok(())
    }

    fn started(&self, words: &[String]) -> Result<std::process::Child> {
        let (program, args) = words.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().with_context(|| format!("cannot run {program}"))
    }

    fn print(&self) {
        let ms = |value: Option<f64>| shown(value.map(|ms| format!("{ms:.1}")));
        let (least, greatest) = range(&self.took_ms).unzip();
        let peak = range(&self.peak_kb).map(|(_, most)| format!("{:.1} MB", most / 1024.0));
        println!(
            "{:<28} {:>9} {:>9} {:>9} {:>10}",
            self.name,
            ms(median(&self.took_ms)),
            ms(least),
            ms(greatest),
            shown(peak)
        );
    }
}

/// Runs the benchmark and prints the table.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "network namespaces, and who holds which socket, need root"
    );
    let mut program = Program::start()?;
    let pid = program.pid().to_string();
    let mut tools = match args.processes {
        None => many_sockets(args, binary, &mut program, &pid)?,
        Some(processes) => many_processes(processes, binary, &mut program, &pid)?,
    };
    for _ in 0..args.rounds {
        tools.iter_mut().try_for_each(Tool::run)?;
    }
    tools.iter_mut().try_for_each(Tool::weigh)?;
    println!("{} rounds, {} cores, wall-clock milliseconds", args.rounds, load::cores()?);
    println!("{:<28} {:>9} {:>9} {:>9} {:>10}", "", "median", "least", "greatest", "peak");
    tools.iter().for_each(Tool::print);
    Ok(())
}

fn many_sockets(args: &Args, binary: &Path, program: &mut Program, pid: &str) -> Result<Vec<Tool>> {
    let connections = args.sockets / 2;
    program.tell(&format!("calm {} {connections}", connections.div_ceil(PER_PROCESS)))?;
    let tcptrace = binary.to_str().context("a path of UTF-8")?;
    let line = said(tcptrace, &["states", "--json", "--netns", pid])?;
    let counted = &line["counts"]["ESTABLISHED"];
    ensure!(
        *counted == u64::from(connections) * 2,
        "{} established sockets, but counted: {line}",
        args.sockets
    );
    println!("{counted} established sockets in one network namespace");
    Ok(vec![
        Tool::new("tcptrace states", &[tcptrace, "states", "--netns", pid]),
        Tool::inside("ss -tan", pid, &["ss", "-tan"]),
        Tool::new("tcptrace leaks", &[tcptrace, "leaks", "--netns", pid]),
        Tool::new("tcptrace states --by port", &[tcptrace, "states", "--by", "port", "--netns", pid]),
        Tool::new("tcptrace states --by process", &[tcptrace, "states", "--by", "process", "--netns", pid]),
        Tool::inside("ss -tanp", pid, &["ss", "-tanp"]),
        // The least that anything started here takes.
        Tool::new("tcptrace --version", &[tcptrace, "--version"]),
        Tool::inside("true", pid, &["true"]),
    ])
}

fn many_processes(processes: u32, binary: &Path, program: &mut Program, pid: &str) -> Result<Vec<Tool>> {
    program.tell(&format!("crowd {processes} {LEAKED} {FDS}"))?;
    // Old enough for `--min-age 1s`.
    sleep(Duration::from_millis(1500));
    let tcptrace = binary.to_str().context("a path of UTF-8")?;
    let json = ["leaks", "--json", "--min-age", "1s", "--netns", pid];
    let line = said(tcptrace, &json)?;
    let is_right = line["sockets"] == LEAKED && line["processes"] == processes.min(LEAKED);
    ensure!(is_right, "{LEAKED} sockets of {processes} processes, but counted: {line}");
    println!("{processes} processes with {FDS} descriptors each, {LEAKED} sockets in CLOSE_WAIT");
    let text = [&[tcptrace][..], &["leaks", "--min-age", "1s", "--netns", pid]].concat();
    Ok(vec![
        Tool::new("tcptrace leaks", &text),
        Tool::new("tcptrace leaks --json", &[&[tcptrace][..], &json].concat()),
        Tool::inside("ss -tanp", pid, &["ss", "-tanp"]),
        Tool::inside("lsof -iTCP -sTCP:CLOSE_WAIT", pid, &["lsof", "-nP", "-iTCP", "-sTCP:CLOSE_WAIT"]),
    ])
}

/// The last line of what tcptrace says with these arguments.
fn said(tcptrace: &str, args: &[&str]) -> Result<Value> {
    let output = Command::new(tcptrace).args(args).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().context("tcptrace said nothing")?;
    serde_json::from_str(last).with_context(|| format!("tcptrace said {last:?}"))
}
