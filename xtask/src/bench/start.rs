//! From the start of the program to the first event that it sees, on a host where connections come and go.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::figures::{median, percentile, range};

/// Options of `bench start`.
#[derive(clap::Args)]
pub struct Args {
    /// Starts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Further arguments of `tcptrace watch`
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    watch: String,
}

/// Runs the benchmark and prints what it found.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing needs root");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let port = addr.port().to_string();
    let done = AtomicBool::new(false);
    let (mut to_event_ms, mut to_line_ms) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Closed by a reset: thousands of starts leave nothing behind.
                if let Ok(client) = TcpStream::connect(addr) {
                    let _ = set_socket_linger(&client, Some(Duration::ZERO));
                }
                drop(listener.accept());
                sleep(Duration::from_millis(1));
            }
        });
        let outcome = (0..args.rounds).try_for_each(|_| {
            let mut command = Command::new(binary);
            command.args(["watch", "--json", "--port", &port]).args(args.watch.split_whitespace());
            let (event_ms, line_ms) = start(&mut command)?;
            to_event_ms.push(event_ms);
            to_line_ms.push(line_ms);
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        outcome
    })
    .and_then(|()| {
        println!("{} starts of `watch --json`, a connection about every millisecond", args.rounds);
        print("to the first event", &to_event_ms)?;
        print("to its line", &to_line_ms)
    })
}

/// One start; milliseconds to the first event, by its own time, and to its line.
fn start(command: &mut Command) -> Result<(f64, f64)> {
    let started_ns = now_ns();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("stdout")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let seen_ns = now_ns();
    kill_process(i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("pid")?, Signal::INT)?;
    // Until it ends, so that it never waits for somebody to read.
    stdout.read_to_end(&mut Vec::new())?;
    let status = child.wait()?;
    let first: Value = serde_json::from_str(&line).with_context(|| format!("it ended with {status}"))?;
    let event_ns = first["mono_ns"].as_u64().with_context(|| format!("no time in {line}"))?;
    let ms = |until: u64| until.saturating_sub(started_ns) as f64 / 1e6;
    Ok((ms(event_ns), ms(seen_ns)))
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn print(what: &str, values: &[f64]) -> Result<()> {
    let (least, greatest) = range(values).context("no starts")?;
    let middle = median(values).context("no starts")?;
    let p90 = percentile(values, 0.9).context("no starts")?;
    println!("{what:>20}: median {middle:.0} ms, p90 {p90:.0} ms ({least:.0}–{greatest:.0})");
    Ok(())
}
