//! What a host pays for timers that are not ours: CPU time of setting and removing one, untraced and traced in turn.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::contender::Contender;
use super::figures::{median, range};
use super::foreign::Foreign;
use super::process::counted;

/// Options of `bench timers`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds; in each, both are measured once
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Timers set and removed in each measurement
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(1000..))]
    times: u32,
    /// Timer events a second that the result is for
    #[arg(long, default_value_t = 200_000.0)]
    rate: f64,
    /// Arguments of the tcptrace
    #[arg(long, value_name = "ARGS", default_value = "report --json")]
    tcptrace: String,
}

/// Runs the benchmark and prints what it found.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing needs root");
    let contender = Contender::tcptrace(binary, &args.tcptrace);
    let timer = Foreign::new()?;
    let (mut untraced, mut traced, mut added, mut collector) = (vec![], vec![], vec![], vec![]);
    for round in 0..args.rounds {
        let (mut without, mut with) = (0.0, 0.0);
        // Each goes first in turn.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                without = timer.set_and_remove(args.times)?;
                continue;
            }
            let tracer = contender.start()?;
            // The first look at all sockets is over by then.
            sleep(Duration::from_millis(500));
            let pid = tracer.pid().context("not started")?;
            let before = counted(pid)?;
            with = timer.set_and_remove(args.times)?;
            let after = counted(pid)?;
            collector.push(after.since(&before).cpu_ns as f64 / f64::from(args.times) / 2.0);
            tracer.stop(None)?;
        }
        untraced.push(without);
        traced.push(with);
        added.push(with - without);
    }
    let line = |what: &str, values: &[f64]| -> Result<()> {
        let (least, greatest) = range(values).context("no rounds")?;
        let middle = median(values).context("no rounds")?;
        println!("{what:>28}: {middle:.1} ns ({least:.1}–{greatest:.1})");
        Ok(())
    };
    println!("{} rounds, {} timer events each, CPU time an event", args.rounds, u64::from(args.times) * 2);
    line("untraced", &untraced)?;
    line(&format!("with tcptrace {}", args.tcptrace), &traced)?;
    line("added, of the same round", &added)?;
    line("the collector meanwhile", &collector)?;
    let sum_ns = median(&added).context("no rounds")? + median(&collector).context("no rounds")?;
    println!("at {:.0} timer events a second: {:.2} % of a core", args.rate, sum_ns * args.rate / 1e7);
    Ok(())
}
