//! The exporter under load: a storm of scrapes while every core makes connections, and what memory it takes for a
//! million connections and gives back after them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::contender::{Contender, Running};
use super::figures::{median, megabytes, percentile, shown};
use super::load::{self, Load};
use super::scraper::{self, Storm};

/// TIME_WAIT and the timer wheel's lateness at any HZ, and time to see it.
const TIME_WAIT_IS_OVER: Duration = Duration::from_secs(80);
/// What the host itself may have in TIME_WAIT when those of the load are gone: our own scrapes, mostly.
const OF_OTHERS: f64 = 3000.0;
/// Longer than any load of these.
const AN_HOUR_MS: &str = "3600000";

/// Options of `bench scrape`.
#[derive(clap::Args)]
pub struct Args {
    /// Scrapes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    scrapes: u32,
    /// Scrapes a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Connections made in all
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    connections: u64,
    /// Threads that make connections [default: one per core]
    #[arg(long)]
    threads: Option<u16>,
    /// Further arguments of `tcptrace serve`
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    serve: String,
}

/// Memory at a moment, with what the exporter held then.
struct Memory {
    when: &'static str,
    rss: Option<u64>,
    time_wait: Option<f64>,
}

/// Runs the benchmark and prints what it found.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing and network namespaces need root");
    let threads = args.threads.unwrap_or(load::cores()?);
    let addr = free_address()?;
    let exporter = Contender::tcptrace(binary, &format!("serve --listen {addr} {}", args.serve)).start()?;
    let look = |when| -> Result<Memory> {
        let time_wait = scraper::value(addr, "tcptrace_sockets{state=\"TIME_WAIT\"}")?;
        Ok(Memory { when, rss: exporter.rss(), time_wait })
    };
    let mut memory = vec![look("before")?];

    let count = args.connections.div_ceil(u64::from(threads)).to_string();
    let mut load = Load::start(binary, threads, &["--count", &count, "--hold-ms", AN_HOUR_MS])?;
    let cpu_before_s = exporter.cpu_s();
    load.go()?;
    let storm = scraper::storm(addr, args.scrapes, args.rate);
    memory.push(look("after the storm of scrapes, during churn")?);
    let churned = load.result()?;
    let cpu_s = exporter.cpu_s().zip(cpu_before_s).map(|(after, before)| after - before);
    memory.push(look("after the last connection")?);
    // The load's namespace is kept for that: these TIME_WAITs end by their timers, as those of a host do.
    wait_for_the_end_of_time_wait(addr)?;
    memory.push(look("after the last TIME_WAIT")?);
    load.end()?;

    println!(
        "{:.0} connections in {:.1} s ({:.0}/s), {threads} threads, {} cores",
        churned.connections,
        churned.elapsed_ns / 1e9,
        churned.connections * 1e9 / churned.elapsed_ns,
        load::cores()?
    );
    print_storm(&storm, args);
    print_memory(&memory, &exporter);
    print_loss(addr, cpu_s)?;
    exporter.stop(None)?;
    ensure!(storm.failures.is_empty(), "scrapes failed");
    Ok(())
}

/// On loopback. Another program may take the port before the exporter does; then that says so.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn wait_for_the_end_of_time_wait(addr: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    while scraper::value(addr, "tcptrace_sockets{state=\"TIME_WAIT\"}")?.is_some_and(|left| left > OF_OTHERS)
    {
        if begun.elapsed() > TIME_WAIT_IS_OVER {
            bail!("TIME_WAITs have not ended after {TIME_WAIT_IS_OVER:?}");
        }
        sleep(Duration::from_secs(1));
    }
    // The exporter looks after its tables when it ticks.
    sleep(Duration::from_secs(3));
    Ok(())
}

fn print_storm(storm: &Storm, args: &Args) {
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    println!(
        "{} scrapes at {}/s in {:.1} s, {} failed: median {}, p99 {}, longest {}; largest answer {} KB",
        args.scrapes,
        args.rate,
        storm.elapsed.as_secs_f64(),
        storm.failures.len(),
        ms(median(&storm.took_ms)),
        ms(percentile(&storm.took_ms, 0.99)),
        ms(percentile(&storm.took_ms, 1.0)),
        storm.largest >> 10
    );
    for failure in storm.failures.iter().take(5) {
        println!("    {failure}");
    }
}

fn print_memory(memory: &[Memory], exporter: &Running) {
    println!("{:>10}  {:>10}  when", "resident", "TIME_WAIT");
    for Memory { when, rss, time_wait } in memory {
        println!("{:>10}  {:>10}  {when}", megabytes(*rss), shown(time_wait.map(|count| count as u64)));
    }
    println!("{:>10}  {:>10}  at its peak", megabytes(exporter.peak_rss()), "");
}

fn print_loss(addr: SocketAddr, cpu_s: Option<f64>) -> Result<()> {
    let events = scraper::value(addr, "tcptrace_events_total")?.context("no tcptrace_events_total")?;
    let lost = |cause: &str| -> Result<String> {
        let series = format!("tcptrace_lost_events_total{{cause=\"{cause}\"}}");
        Ok(format!("{} {cause}", shown(scraper::value(addr, &series)?)))
    };
    let lost = [lost("ring_full")?, lost("skipped_runs")?, lost("table_full")?, lost("vanished")?];
    println!("{events:.0} events, lost: {}", lost.join(", "));
    println!(
        "CPU of the exporter while connections were made: {} s",
        shown(cpu_s.map(|s| format!("{s:.1}")))
    );
    Ok(())
}
