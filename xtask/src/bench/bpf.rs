//! What each BPF program takes for a run, by the kernel's own statistics, less what the statistics take themselves.
//!
//! The statistics read a clock before and after each run. An empty program beside ours shows what that takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::contender::Contender;
use super::figures::{median, range};
use super::foreign::Foreign;
use super::load::Load;
use super::syscall::{self, Empty, Runs};

/// Options of `bench bpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds; in each, connections and foreign timers are made once
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Threads that make connections
    #[arg(long, default_value_t = 1)]
    threads: u16,
    /// Arguments of the tcptrace
    #[arg(long, value_name = "ARGS", default_value = "report --json")]
    tcptrace: String,
}

/// Milliseconds of connections in a round.
const CHURN_MS: &str = "1500";
/// Until a namespace that is given up has ended its TIME_WAITs, and connections elsewhere are no longer looked at for that.
const AFTERMATH: Duration = Duration::from_secs(4);
/// Timers set and removed in a round.
const TIMERS: u32 = 300_000;

/// What was measured of a program under a load.
#[derive(Debug, Default)]
struct Row {
    /// Nanoseconds a run beyond the floor, round by round.
    beyond_ns: Vec<f64>,
    /// What an empty program beside it took, nanoseconds a run, round by round.
    floors_ns: Vec<f64>,
    /// Runs of all rounds.
    runs: u64,
}

/// Runs the benchmark and prints the table.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing and network namespaces need root");
    let _stats = syscall::enable_stats()?;
    let tracer = Contender::tcptrace(binary, &args.tcptrace).start()?;
    sleep(Duration::from_millis(500));
    let pid = tracer.pid().context("not started")?;
    let timer = Foreign::new()?;
    // By load and tracepoint.
    let mut table: BTreeMap<(&str, String), Row> = BTreeMap::new();
    for _ in 0..args.rounds {
        let mut measure = |load: &'static str, make: &dyn Fn() -> Result<()>| -> Result<()> {
            let ours = syscall::attached(pid)?;
            let beside = |(tracepoint, before): (String, Runs)| -> Result<(String, Runs, Empty)> {
                let empty = Empty::attach(&tracepoint)?;
                Ok((tracepoint, before, empty))
            };
            let ours: Vec<_> = ours.into_iter().map(beside).collect::<Result<_>>()?;
            make()?;
            let after = syscall::attached(pid)?;
            for (tracepoint, before, empty) in ours {
                let Some((_, after)) = after.iter().find(|(_, runs)| runs.id == before.id) else { continue };
                let floor_ns = per_run(Runs::default(), empty.runs()?);
                let Some((ns, floor_ns)) = per_run(before, *after).zip(floor_ns) else { continue };
                let row = table.entry((load, tracepoint)).or_default();
                row.beyond_ns.push(ns - floor_ns);
                row.floors_ns.push(floor_ns);
                row.runs += after.count - before.count;
            }
            Ok(())
        };
        measure("connections", &|| {
            let mut load = Load::start(binary, args.threads, &["--hold-ms", CHURN_MS])?;
            load.go()?;
            load.result()?;
            load.end()
        })?;
        sleep(AFTERMATH);
        measure("foreign timers", &|| timer.set_and_remove(TIMERS).map(drop))?;
    }
    tracer.stop(None)?;
    let spread = |values: &[f64]| -> Result<String> {
        let (least, greatest) = range(values).context("no rounds")?;
        Ok(format!("{:.0} ns ({least:.0}–{greatest:.0})", median(values).context("no rounds")?))
    };
    println!("{} rounds; what an empty program takes at the same tracepoint is taken off", args.rounds);
    println!("{:>20}  {:>16}  {:>12}  {:>14}  tracepoint", "a run", "an empty one", "runs", "load");
    for ((load, tracepoint), Row { beyond_ns, floors_ns, runs }) in &table {
        let (beyond, floor) = (spread(beyond_ns)?, spread(floors_ns)?);
        println!("{beyond:>20}  {floor:>16}  {runs:>12}  {load:>14}  {tracepoint}");
    }
    Ok(())
}

/// Nanoseconds a run, statistics included; `None` without runs.
fn per_run(before: Runs, after: Runs) -> Option<f64> {
    let count = after.count.checked_sub(before.count).filter(|&count| count > 0)?;
    Some(after.time_ns.saturating_sub(before.time_ns) as f64 / count as f64)
}
