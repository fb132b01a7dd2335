//! `leaks` on a host with many processes, beside the tools that people use instead. Not run unless asked for
//! (`cargo test -p tests --test live -- --ignored leaks_among`), best with TCPTRACE_BIN set to a release build:
//! the limits are for that.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::clock::sleep_ms;
use tests::leaker::{Language, Leaker};
use tests::trial::live;

const PROCESSES: u64 = 2_000;
const SOCKETS: u64 = 5_000;
/// Of each process: 100,000 in all.
const FDS: u64 = 50;
const LIMIT: Duration = Duration::from_secs(1);
const LIMIT_KB: i64 = 100_000;
/// Times that each tool is run; the best counts, because the machine has other things to do.
const RUNS: usize = 5;

pub fn trials() -> Vec<Trial> {
    vec![live("leaks_among_2000_processes_and_100000_descriptors", crowd).with_ignored_flag(true)]
}

fn crowd(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl("net.ipv4.ip_local_port_range", "10000 60999")?;
    let mut program = Leaker::start(Language::C, &[])?;
    program.tell(&format!("crowd {PROCESSES} {SOCKETS} {FDS}"))?;
    sleep_ms(1500);
    let netns = sandbox.netns().to_string();
    let json = ["leaks", "--json", "--min-age", "1s", "--netns", &netns];
    let text = ["leaks", "--min-age", "1s", "--netns", &netns];
    let mut tcptrace = Command::new(binary::path());
    let (elapsed, max_rss_kb, lines) = best(tcptrace.args(json))?;
    let lines = contents(lines)?;
    let total: Value = serde_json::from_str(lines.lines().last().context("no output")?)?;
    ensure!(total["sockets"] == SOCKETS && total["processes"] == PROCESSES, "{total}");
    let mut tcptrace = Command::new(binary::path());
    let (elapsed_text, _, page) = best(tcptrace.args(text))?;
    let page = contents(page)?;
    ensure!(page.starts_with("2,000 processes leak 5,000 sockets"), "{page}");
    println!("tcptrace leaks --json  {elapsed:?}, {max_rss_kb} KB");
    println!("tcptrace leaks         {elapsed_text:?}");
    for (tool, args) in [("ss", &["-tanp"][..]), ("lsof", &["-nP", "-iTCP", "-sTCP:CLOSE_WAIT"])] {
        match best(Command::new(tool).args(args)) {
            Ok((elapsed, max_rss_kb, _)) => {
                println!("{tool} {:<20} {elapsed:?}, {max_rss_kb} KB", args.join(" "));
            }
            Err(error) => println!("{tool} {}: {error:#}", args.join(" ")),
        }
    }
    ensure!(elapsed < LIMIT && elapsed_text < LIMIT, "{elapsed:?} and {elapsed_text:?}");
    ensure!(max_rss_kb < LIMIT_KB, "{max_rss_kb} KB");
    Ok(())
}

/// The shortest of some runs, the most memory that one of them took, and what the last one said: a file, because
/// one of them writes half a gigabyte.
fn best(command: &mut Command) -> Result<(Duration, i64, File)> {
    let mut best = Duration::MAX;
    let mut most = 0;
    let mut said = tempfile::tempfile()?;
    for _ in 0..RUNS {
        let file = tempfile::tempfile()?;
        let start = Instant::now();
        let child = command.stdout(file.try_clone()?).stderr(Stdio::null()).spawn()?;
        let max_rss_kb = wait(child.id())?;
        best = best.min(start.elapsed());
        most = most.max(max_rss_kb);
        said = file;
    }
    Ok((best, most, said))
}

fn contents(mut file: File) -> Result<String> {
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Waits for a child, which must succeed, and says how much memory it took at most, in KB.
fn wait(pid: u32) -> Result<i64> {
    let mut status = 0;
    // SAFETY: `rusage` is made of integers, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are live and writable during the call and used by nobody else.
    let waited = unsafe { libc::wait4(i32::try_from(pid)?, &raw mut status, 0, &raw mut usage) };
    ensure!(waited > 0, "wait4: {}", std::io::Error::last_os_error());
    ensure!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) <= 1, "status {status}");
    Ok(usage.ru_maxrss)
}
