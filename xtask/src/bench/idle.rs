//! What tracing takes of a host on which nothing happens: time, wake-ups, memory.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::contender::{Contender, Running};
use super::figures::{median, range};
use super::process::{Counts, counted};

/// Options of `bench idle`.
#[derive(clap::Args)]
pub struct Args {
    /// Slices of time; the medians are of these
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=1000))]
    slices: u32,
    /// Seconds of a slice
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Arguments of a tcptrace to look at; repeatable [default: `report --json`, `serve`, `watch --json`]
    #[arg(long, value_name = "ARGS")]
    tcptrace: Vec<String>,
}

/// Runs the benchmark and prints the table. All run side by side: each only waits, and the host is the same to all.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing needs root");
    let listen = super::scrape::free_address()?;
    let defaults =
        ["report --json".to_owned(), format!("serve --listen {listen}"), "watch --json".to_owned()];
    let lines = if args.tcptrace.is_empty() { &defaults[..] } else { &args.tcptrace };
    let contenders: Vec<_> = lines.iter().map(|line| Contender::tcptrace(binary, line)).collect();
    let running = contenders.iter().map(Contender::start).collect::<Result<Vec<_>>>()?;
    // The first look at all sockets and their owners is over by then.
    sleep(Duration::from_secs(3));

    let look = || {
        running.iter().map(|tracer| counted(tracer.pid().context("not started")?)).collect::<Result<Vec<_>>>()
    };
    let mut before = look()?;
    let mut slices: Vec<Vec<Counts>> = running.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.slices {
        sleep(Duration::from_secs(args.seconds.into()));
        let after = look()?;
        for ((slices, before), after) in slices.iter_mut().zip(&before).zip(&after) {
            slices.push(after.since(before));
        }
        before = after;
    }
    println!("{} slices of {} s", args.slices, args.seconds);
    println!(
        "{:>24}  {:>20}  {:>10}  {:>10}  {:>8}  contender",
        "of a core", "wake-ups/s", "resident", "private", "events"
    );
    for ((contender, tracer), slices) in contenders.iter().zip(running).zip(&slices) {
        print_line(contender, tracer, slices, f64::from(args.seconds))?;
    }
    Ok(())
}

fn print_line(contender: &Contender, tracer: Running, slices: &[Counts], seconds: f64) -> Result<()> {
    let spread = |values: &[f64], digits: usize| {
        let (middle, ends) =
            (median(values).unwrap_or(f64::NAN), range(values).unwrap_or((f64::NAN, f64::NAN)));
        format!("{middle:.digits$} ({:.digits$}–{:.digits$})", ends.0, ends.1)
    };
    let percent: Vec<f64> = slices.iter().map(|slice| slice.cpu_ns as f64 / seconds / 1e7).collect();
    let wakeups: Vec<f64> = slices.iter().map(|slice| slice.wakeups as f64 / seconds).collect();
    let pid = tracer.pid().context("not started")?;
    let rss = super::figures::megabytes(tracer.rss());
    let private = super::figures::megabytes(private(pid));
    let usage = tracer.stop(None)?;
    println!(
        "{:>24}  {:>20}  {rss:>10}  {private:>10}  {:>8}  {}",
        format!("{} %", spread(&percent, 3)),
        spread(&wakeups, 1),
        super::figures::shown(usage.events),
        contender.name
    );
    Ok(())
}

/// Resident memory that would be free without the process, bytes: the ring, which the kernel shows twice because it is
/// mapped twice in a row, is not in it.
fn private(pid: u32) -> Option<u64> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kilobytes = |name: &str| {
        let line = smaps.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kilobytes("Private_Clean:")? + kilobytes("Private_Dirty:")?) * 1024)
}
