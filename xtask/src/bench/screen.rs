//! What the full screen costs beside tracing: CPU by thread, bytes for the terminal, and memory, while a steady load of
//! connections is traced.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::contender::{Contender, peak_rss, rss};
use super::figures::{median, megabytes};
use super::load::{self, Load};
use super::pty::OnTerminal;

/// Sizes of the terminal that are measured, columns and rows.
const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];
/// The same tracing and the same statistics without a screen.
const WITHOUT: &str = "report --json";
/// What starting and ending a contender takes at most; the load lasts so much longer.
const AROUND: Duration = Duration::from_secs(3);
/// Memory is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// TIME_WAIT and the timer wheel's lateness, and time to see it.
const TIME_WAIT_IS_OVER: Duration = Duration::from_secs(70);

/// Options of `bench screen`.
#[derive(clap::Args)]
pub struct Args {
    /// Connections a second; repeatable [default: 1000 and 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Vec<u32>,
    /// Rounds; in each, every contender runs once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that are measured of each run
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Seconds of load before the first run: after a minute there are as many TIME_WAITs as there will ever be
    #[arg(long, default_value_t = 62)]
    warm_up: u32,
    /// Seconds from the start of a run until it is measured: those of attaching and of the first dump do not count
    #[arg(long, default_value_t = 5)]
    settle: u32,
    /// Keys to press before measuring, such as 4 for the pane of connections
    #[arg(long, default_value = "")]
    keys: String,
    /// A tcptrace that was built before, in place of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Instead: the screen's memory while so many connections are made as fast as they can be
    #[arg(long, value_name = "CONNECTIONS")]
    memory: Option<u64>,
}

/// One run of one contender.
struct Sample {
    /// Share of a core by the name of the thread.
    threads: BTreeMap<String, f64>,
    bytes_per_s: f64,
    frames_per_s: f64,
    rss: Option<u64>,
}

impl Sample {
    fn cpu(&self) -> f64 {
        self.threads.values().sum()
    }
}

/// Runs the benchmark and prints the table.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing and network namespaces need root");
    if let Some(connections) = args.memory {
        return memory(binary, connections);
    }
    let defaults = [1_000, 20_000];
    let rates = if args.rate.is_empty() { &defaults[..] } else { &args.rate };
    rates.iter().try_for_each(|&rate| at_rate(args, binary, rate))
}

fn at_rate(args: &Args, binary: &Path, rate: u32) -> Result<()> {
    let contenders = 1 + SIZES.len();
    let turns = args.rounds * contenders as u32;
    let lasts =
        Duration::from_secs((args.warm_up + turns * (args.settle + args.seconds)).into()) + AROUND * turns;
    let mut load = Load::steady(binary, load::cores()?, rate, lasts)?;
    load.go()?;
    sleep(Duration::from_secs(args.warm_up.into()));
    let mut samples: Vec<Vec<Sample>> = (0..contenders).map(|_| Vec::new()).collect();
    for round in 0..args.rounds as usize {
        // Another one begins each round, so that no contender always follows the same one.
        for turn in 0..contenders {
            let index = (round + turn) % contenders;
            let sample = match index.checked_sub(1) {
                None => without_screen(args, binary)?,
                Some(size) => on_screen(args, binary, SIZES[size])?,
            };
            samples[index].push(sample);
        }
    }
    let made = load.result()?;
    load.end()?;
    println!(
        "\n{rate} connections/s asked for, {:.0}/s made; {} rounds of {} s, {} cores",
        made.connections * 1e9 / made.elapsed_ns,
        args.rounds,
        args.seconds,
        load::cores()?
    );
    print_table(&samples);
    Ok(())
}

fn without_screen(args: &Args, binary: &Path) -> Result<Sample> {
    let tracer = Contender::tcptrace(binary, WITHOUT).start()?;
    let pid = tracer.pid().context("no process")?;
    let sample = measured(args, pid, || (0, 0))?;
    tracer.stop(None)?;
    Ok(sample)
}

fn on_screen(args: &Args, binary: &Path, size: (u16, u16)) -> Result<Sample> {
    let mut screen = OnTerminal::start(binary, &["watch"], size)?;
    sleep(Duration::from_secs(1));
    screen.keys(&args.keys)?;
    let sample = measured(args, screen.pid(), || screen.written().so_far())?;
    screen.quit()?;
    Ok(sample)
}

fn measured(args: &Args, pid: u32, written: impl Fn() -> (u64, u64)) -> Result<Sample> {
    sleep(Duration::from_secs(args.settle.into()));
    let (begun, before, (bytes, frames)) = (Instant::now(), cpu_ns(pid)?, written());
    sleep(Duration::from_secs(args.seconds.into()));
    let (seconds, after, (all_bytes, all_frames)) = (begun.elapsed().as_secs_f64(), cpu_ns(pid)?, written());
    let mut threads = BTreeMap::new();
    for ((tid, name), ns) in after {
        let used_ns = ns - before.get(&(tid, name.clone())).copied().unwrap_or(0);
        *threads.entry(name).or_default() += used_ns as f64 / 1e9 / seconds;
    }
    Ok(Sample {
        threads,
        bytes_per_s: (all_bytes - bytes) as f64 / seconds,
        frames_per_s: (all_frames - frames) as f64 / seconds,
        rss: rss(pid),
    })
}

/// CPU time of each thread so far, nanoseconds, by its id and name: the scheduler's own sum, not one of ticks.
fn cpu_ns(pid: u32) -> Result<BTreeMap<(u32, String), u64>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        // Threads may end meanwhile.
        let (Ok(name), Ok(times)) =
            (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
        else {
            continue;
        };
        let tid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).context("thread id")?;
        let ns = times.split(' ').next().and_then(|ns| ns.parse().ok());
        let ns = ns.context("the kernel keeps no CPU time of threads (CONFIG_SCHED_INFO)")?;
        threads.insert((tid, name.trim_end().to_owned()), ns);
    }
    Ok(threads)
}

fn print_table(samples: &[Vec<Sample>]) {
    println!(
        "{:>9}  {:>9}  {:>7}  {:>8}  {:>8}  contender",
        "CPU", "of screen", "frames", "terminal", "resident"
    );
    let base = &samples[0];
    for (index, samples) in samples.iter().enumerate() {
        let middle = |figure: &dyn Fn(usize, &Sample) -> f64| {
            let all: Vec<f64> = samples.iter().enumerate().map(|(at, sample)| figure(at, sample)).collect();
            median(&all).unwrap_or(f64::NAN)
        };
        let name = match index.checked_sub(1) {
            None => WITHOUT.to_owned(),
            Some(size) => format!("watch on {}x{}", SIZES[size].0, SIZES[size].1),
        };
        // Of the same round: what the machine did meanwhile touched both.
        println!(
            "{:>7.2} %  {:>7.2} %  {:>5.1}/s  {:>5.1}KB/s  {:>8}  {name}",
            100.0 * middle(&|_, sample| sample.cpu()),
            100.0 * middle(&|round, sample| sample.cpu() - base[round].cpu()),
            middle(&|_, sample| sample.frames_per_s),
            middle(&|_, sample| sample.bytes_per_s) / 1e3,
            megabytes(samples.iter().filter_map(|sample| sample.rss).max()),
        );
        let mut threads: Vec<&String> = samples.iter().flat_map(|sample| sample.threads.keys()).collect();
        threads.sort_unstable();
        threads.dedup();
        let shares = threads.into_iter().map(|thread| {
            let share = middle(&|_, sample: &Sample| sample.threads.get(thread).copied().unwrap_or(0.0));
            format!("{thread} {:.2} %", 100.0 * share)
        });
        println!("           {}", shares.collect::<Vec<_>>().join("  "));
    }
}

/// Resident memory of the screen during churn, and after the last TIME_WAIT.
fn memory(binary: &Path, connections: u64) -> Result<()> {
    let threads = load::cores()?;
    let count = connections.div_ceil(threads.into()).to_string();
    // An hour, by which the count is reached.
    let mut load = Load::start(binary, threads, &["--count", &count, "--hold-ms", "3600000"])?;
    let screen = OnTerminal::start(binary, &["watch"], SIZES[1])?;
    sleep(AROUND);
    println!("{:>8}  {:>10}", "time", "resident");
    let begun = Instant::now();
    let show = || println!("{:>6.0} s  {:>10}", begun.elapsed().as_secs_f64(), megabytes(rss(screen.pid())));
    show();
    load.go()?;
    let result = load.result_while(LOOK_EVERY, show)?;
    println!("{:.0} connections, {:.0}/s", result.connections, result.connections * 1e9 / result.elapsed_ns);
    let made = Instant::now();
    while made.elapsed() < TIME_WAIT_IS_OVER {
        sleep(LOOK_EVERY);
        show();
    }
    println!("  at most  {:>9}", megabytes(peak_rss(screen.pid())));
    screen.quit()?;
    load.end()
}
