//! `tcptrace demo`: a private network namespace full of closing states, and a command that watches it.
//!
//! The traffic lives under a supervisor process (`__sandbox`). This process then *becomes* the command, so that
//! signals, the terminal and the exit status are the command's own; the kernel ends the supervisor, and with
//! it everything else, when the command ends in whatever way.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;
use serde::{Deserialize, Serialize};

use super::Exit;
use crate::cli::hidden::{ExecArgs, SandboxArgs};
use crate::cli::{Cli, DemoArgs};
use crate::sandbox::{Sandbox, end_with_parent, exec_ending_with_parent};
use crate::settings::UsageError;
use crate::text;
use crate::workload::records::{self, ReplayArgs};
use crate::workload::{self, RoleArgs, Running, Settings};

/// What is shown when no command is given: long enough for TIME_WAITs to run their 60 s.
const DEFAULT_COMMAND: [&str; 3] = ["report", "--duration", "75s"];

/// What `leaks` does without options: long enough for each kind of leak to show, with its line of code.
const DEFAULT_LEAKS: [&str; 4] = ["leaks", "--duration", "30s", "--stacks"];

fn defaults(command: &[&str]) -> (OsString, Vec<OsString>) {
    let mut words = command.iter().map(OsString::from);
    (words.next().unwrap_or_default(), words.collect())
}

/// What the supervisor says once the traffic flows.
#[derive(Debug, Serialize, Deserialize)]
struct Started {
    netns: u32,
    processes: Vec<StartedProcess>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StartedProcess {
    comm: String,
    pid: u32,
}

/// Starts the traffic and becomes the command; returns only when that failed.
pub fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    let (name, options) = match args.command.split_first() {
        Some((name, [])) if name == DEFAULT_LEAKS[0] => defaults(&DEFAULT_LEAKS),
        Some((name, options)) => (name.clone(), options.to_vec()),
        None => defaults(&DEFAULT_COMMAND),
    };
    check_command(&name)?;
    let started = start_supervisor(args)?;
    let own_path = std::env::current_exe().context("cannot find the path of this program")?;
    let mut command = Command::new(own_path);
    command.arg(&name).arg("--netns").arg(started.netns.to_string()).args(options);
    introduce(&started, args, &command)?;
    Err(command.exec()).context("cannot start the command of the demonstration")
}

/// Any command that can be told to look at one network namespace.
fn check_command(name: &OsStr) -> anyhow::Result<()> {
    let cli = Cli::command();
    let mut fitting = cli.get_subcommands().filter(|command| {
        // Recordings have been made elsewhere, and an experiment has a sandbox of its own.
        !matches!(command.get_name(), "compare" | "experiment")
            && !command.is_hide_set()
            && command.get_arguments().any(|arg| arg.get_long() == Some("netns"))
    });
    let known: Vec<_> = fitting.by_ref().map(clap::Command::get_name).collect();
    if known.iter().any(|&fit| fit == name) {
        return Ok(());
    }
    Err(UsageError::new(format!("demo cannot run {:?}", text::escape(name.as_encoded_bytes())))
        .hint(format!("commands that it can run: {}", known.join(", "))))?
}

fn start_supervisor(args: &DemoArgs) -> anyhow::Result<Started> {
    let own_path = std::env::current_exe().context("cannot find the path of this program")?;
    let mut supervisor = Command::new(own_path)
        .args(["__sandbox", "--workload", "mixed"])
        .args(["--fin-timeout", &args.fin_timeout.to_string()])
        .args(["--rate", &args.rate.to_string()])
        .args(["--parent", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Ctrl-C is for the command, which still has to report what is open.
        .process_group(0)
        .spawn()
        .context("cannot start the demonstration's traffic")?;
    let mut line = String::new();
    if let Some(stdout) = supervisor.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot read from the demonstration's traffic")?;
    }
    if line.is_empty() {
        // It has said why on standard error.
        bail!("the demonstration's traffic did not start ({})", supervisor.wait()?);
    }
    serde_json::from_str(&line).context("the demonstration's traffic gave a strange answer")
}

fn introduce(started: &Started, args: &DemoArgs, command: &Command) -> anyhow::Result<()> {
    let pid = |comm: &str| {
        let process = started.processes.iter().find(|process| process.comm == comm);
        process.map_or_else(|| comm.to_owned(), |process| format!("{comm}[{}]", process.pid))
    };
    let line: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let mut err = anstream::stderr().lock();
    writeln!(
        err,
        "demo: private network namespace {}, tcp_fin_timeout {} s, tcp_tw_reuse 0; this host is not touched",
        started.netns, args.fin_timeout
    )?;
    for (comm, does) in [
        ("demo-leaky", "is told EOF and forgets to close: CLOSE_WAIT for ever"),
        ("demo-client", "closes first after each exchange: TIME_WAIT"),
        ("demo-orphans", "closes first, but the server does not follow: FIN_WAIT2 without a process"),
        ("demo-halfclosed", "shuts down and waits for the answer: FIN_WAIT2 with a process"),
        ("demo-reset", "ends by RST: no closing state"),
    ] {
        writeln!(err, "demo: {:<22} {does}", pid(comm))?;
    }
    writeln!(err, "demo: tcptrace {}\n", line.join(" "))?;
    Ok(())
}

/// `__sandbox`: keeps the namespace and its traffic until the parent ends.
pub fn run_sandbox(args: &SandboxArgs) -> anyhow::Result<Exit> {
    end_with_parent(args.parent)?;
    let sandbox = Sandbox::new()?;
    sandbox.set_sysctl("net.ipv4.tcp_fin_timeout", &args.fin_timeout.to_string())?;
    // 2, the default, lets connect() on loopback take over a TIME_WAIT after a second: the picture would be a
    // mixture of that and of the timer.
    sandbox.set_sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    let fin_timeout = Duration::from_secs(args.fin_timeout.into());
    let settings = Settings { rate: args.rate.into(), ..Settings::for_fin_timeout(fin_timeout) };
    let running = Running::start(&sandbox, args.workload, &settings)?;
    let processes =
        running.processes().map(|(role, pid)| StartedProcess { comm: role.comm().to_owned(), pid }).collect();
    let started = Started { netns: sandbox.netns(), processes };
    println!("{}", serde_json::to_string(&started)?);
    std::thread::sleep(args.lifetime);
    Ok(Exit::Done)
}

/// `__workload`: becomes one of the traffic's processes.
pub fn run_workload(args: &RoleArgs) -> anyhow::Result<Exit> {
    workload::run(args).with_context(|| args.role.comm())?;
    Ok(Exit::Done)
}

/// `__replay`: what events cost in user space.
pub fn run_replay(args: &ReplayArgs) -> anyhow::Result<Exit> {
    records::run(args)?;
    Ok(Exit::Done)
}

/// `__exec`: becomes a program that ends with its parent.
pub fn run_exec(args: &ExecArgs) -> anyhow::Result<Exit> {
    let program = args.program.first().map(|name| text::escape(name.as_encoded_bytes()).into_owned());
    let error = exec_ending_with_parent(args.parent, &args.program);
    Err(error).with_context(|| format!("cannot start {}", program.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_that_take_a_namespace_are_run() {
        for name in ["completions", "man", "demo", "__sandbox", "nonsense", ""] {
            let error = check_command(OsStr::new(name)).unwrap_err();
            assert!(error.downcast_ref::<UsageError>().is_some(), "{name}");
        }
    }
}
