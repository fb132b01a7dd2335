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
    /// Arguments of the tcptrace
    #[arg(long, value_name = "ARGS", default_value = "report --json")]
    tcptrace: String,
}

/// Milliseconds of connections in a round.
const CHURN_MS: &str = "1500";
/// Timers set and removed in a round.
const TIMERS: u32 = 300_000;

/// Runs the benchmark and prints the table.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing and network namespaces need root");
    let _stats = syscall::enable_stats()?;
    let tracer = Contender::tcptrace(binary, &args.tcptrace).start()?;
    sleep(Duration::from_millis(500));
    let pid = tracer.pid().context("not started")?;
    let timer = Foreign::new()?;
    // By load and tracepoint: nanoseconds a run beyond the floor, and how many runs of all rounds.
    let mut table: BTreeMap<(&str, String), (Vec<f64>, u64)> = BTreeMap::new();
    let mut floors: BTreeMap<(&str, String), Vec<f64>> = BTreeMap::new();
    for _ in 0..args.rounds {
        let mut measure = |load: &'static str, make: &dyn Fn() -> Result<()>| -> Result<()> {
            let before = syscall::attached(pid)?;
            let empty: Vec<Empty> =
                before.iter().map(|(tracepoint, _)| Empty::attach(tracepoint)).collect::<Result<_>>()?;
            make()?;
            let after = syscall::attached(pid)?;
            for ((tracepoint, after), empty) in after.into_iter().zip(&empty) {
                let Some(floor_ns) = per_run(Runs::default(), empty.runs()?) else { continue };
                floors.entry((load, tracepoint.clone())).or_default().push(floor_ns);
                let before = before
                    .iter()
                    .find(|(_, runs)| runs.id == after.id)
                    .map_or(Runs::default(), |&(_, runs)| runs);
                let Some(ns) = per_run(before, after) else { continue };
                let (values, runs) = table.entry((load, tracepoint)).or_default();
                values.push(ns - floor_ns);
                *runs += after.count - before.count;
            }
            Ok(())
        };
        measure("connections", &|| {
            let mut load = Load::start(binary, 1, &["--hold-ms", CHURN_MS])?;
            load.go()?;
            load.result()?;
            load.end()
        })?;
        measure("foreign timers", &|| timer.set_and_remove(TIMERS).map(drop))?;
    }
    tracer.stop(None)?;
    let spread = |values: &[f64]| -> Result<String> {
        let (least, greatest) = range(values).context("no rounds")?;
        Ok(format!("{:.0} ns ({least:.0}–{greatest:.0})", median(values).context("no rounds")?))
    };
    println!("{} rounds; what an empty program takes at the same tracepoint is taken off", args.rounds);
    println!("{:>20}  {:>16}  {:>12}  {:>14}  tracepoint", "a run", "an empty one", "runs", "load");
    for (at, (values, runs)) in &table {
        let (load, tracepoint) = at;
        let floor = floors.get(at).map_or_else(|| Ok(String::new()), |floors| spread(floors))?;
        println!("{:>20}  {floor:>16}  {runs:>12}  {load:>14}  {tracepoint}", spread(values)?);
    }
    Ok(())
}

/// Nanoseconds a run, statistics included; `None` without runs.
fn per_run(before: Runs, after: Runs) -> Option<f64> {
    let count = after.count.checked_sub(before.count).filter(|&count| count > 0)?;
    Some(after.time_ns.saturating_sub(before.time_ns) as f64 / count as f64)
}
