//! Connection churn on every core, with each tracer in turn, round after round.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::contender::{Contender, Usage};
use super::figures::{median, megabytes, range, shown};
use super::load::{self, Churned, Load};

/// Options of `bench churn`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds; in each, every contender runs once
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of load per run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Threads that make connections [default: one per core]
    #[arg(long)]
    threads: Option<u16>,
    /// Connections that carry a request and an answer between two threads, instead of bare ones
    #[arg(long)]
    served: bool,
    /// Arguments of a tcptrace to compare; repeatable [default: `report --json` and `watch --json`]
    #[arg(long, value_name = "ARGS")]
    tcptrace: Vec<String>,
    /// Another tracer to compare, as a shell command; repeatable
    #[arg(long, value_name = "CMD")]
    peer: Vec<String>,
    /// Seconds that a peer needs to attach
    #[arg(long, default_value_t = 5)]
    peer_settle: u64,
}

/// One run of one contender.
struct Sample {
    connections: f64,
    elapsed_ns: f64,
    usage: Usage,
}

impl Sample {
    fn per_second(&self) -> f64 {
        self.connections * 1e9 / self.elapsed_ns
    }
}

/// Runs the benchmark and prints the table.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing and network namespaces need root");
    let threads = args.threads.unwrap_or(load::cores()?);
    let mut contenders = vec![Contender::none()];
    let defaults = ["report --json".to_owned(), "watch --json".to_owned()];
    let own = if args.tcptrace.is_empty() { &defaults[..] } else { &args.tcptrace };
    contenders.extend(own.iter().map(|line| Contender::tcptrace(binary, line)));
    let settle = Duration::from_secs(args.peer_settle);
    contenders.extend(args.peer.iter().map(|command| Contender::peer(command, settle)));

    let mut samples: Vec<Vec<Sample>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..args.rounds as usize {
        // Another one begins each round, so that no contender always follows the same one.
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let sample = sample(&contenders[index], binary, threads, args)?;
            eprintln!(
                "round {:>2}  {:>9.0} connections/s  {}",
                round + 1,
                sample.per_second(),
                contenders[index].name
            );
            samples[index].push(sample);
        }
    }
    println!("\n{} rounds of {} s, {threads} threads, {} cores", args.rounds, args.seconds, load::cores()?);
    print_table(&contenders, &samples)
}

fn sample(contender: &Contender, binary: &Path, threads: u16, args: &Args) -> Result<Sample> {
    let tracer = contender.start()?;
    let hold_ms = (args.seconds * 1000).to_string();
    let mut arguments = vec!["--hold-ms", &hold_ms];
    if args.served {
        arguments.push("--served");
    }
    let mut load = Load::start(binary, threads, &arguments)?;
    let cpu_before_s = tracer.cpu_s();
    load.go()?;
    let result = load.result()?;
    let usage = tracer.stop(cpu_before_s)?;
    load.end()?;
    // The namespace's TIME_WAITs are purged in the background: not during the next run.
    sleep(Duration::from_millis(700));
    let Churned { connections, elapsed_ns } = result;
    Ok(Sample { connections, elapsed_ns, usage })
}

fn print_table(contenders: &[Contender], samples: &[Vec<Sample>]) -> Result<()> {
    let untraced: Vec<f64> = samples[0].iter().map(Sample::per_second).collect();
    println!(
        "{:>10}  {:>8}  {:>22}  {:>12}  {:>10}  {:>9}  {:>8}  contender",
        "conn/s", "ns/conn", "of untraced", "events", "lost", "CPU/event", "peak RSS"
    );
    for (contender, samples) in contenders.iter().zip(samples) {
        let rates: Vec<f64> = samples.iter().map(Sample::per_second).collect();
        // Of the same round: what the machine did meanwhile touched both.
        let shares: Vec<f64> = rates.iter().zip(&untraced).map(|(rate, base)| 100.0 * rate / base).collect();
        let rate = median(&rates).context("no samples")?;
        let ns_per_connection = 1e9 / rate;
        let share = median(&shares)
            .zip(range(&shares))
            .map_or_else(String::new, |(middle, (low, high))| format!("{middle:.1} % ({low:.1}–{high:.1})"));
        let sum = |pick: fn(&Usage) -> Option<u64>| {
            samples.iter().map(|sample| pick(&sample.usage)).sum::<Option<u64>>()
        };
        let events = sum(|usage| usage.events);
        let cpu_s: Option<f64> = samples.iter().map(|sample| sample.usage.cpu_s).sum();
        let ns_per_event =
            cpu_s.zip(events).filter(|&(_, events)| events > 0).map(|(s, n)| s * 1e9 / n as f64);
        let peak = samples.iter().filter_map(|sample| sample.usage.peak_rss).max();
        println!(
            "{rate:>10.0}  {ns_per_connection:>8.0}  {share:>22}  {:>12}  {:>10}  {:>9}  {:>8}  {}",
            shown(events),
            shown(sum(|usage| usage.lost)),
            shown(ns_per_event.map(|ns| format!("{ns:.0} ns"))),
            megabytes(peak),
            contender.name
        );
    }
    Ok(())
}
