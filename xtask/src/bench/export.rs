//! What a scrape takes of the exporter as more and more sockets are open: those that churn has left in TIME_WAIT.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::contender::Contender;
use super::figures::{median, megabytes, range};
use super::load::Load;
use super::process::counted;
use super::scraper;

/// Options of `bench export`.
#[derive(clap::Args)]
pub struct Args {
    /// Sockets in TIME_WAIT; repeatable
    #[arg(long, value_name = "COUNT", default_values_t = [1_000, 10_000, 100_000, 200_000])]
    sockets: Vec<u64>,
    /// Scrapes of each size
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    scrapes: u32,
}

/// Scrapes a second.
const RATE: u32 = 10;

/// Runs the benchmark and prints the table.
pub fn run(args: &Args, binary: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "tracing and network namespaces need root");
    println!("{:>10}  {:>24}  {:>14}  {:>10}", "sockets", "time of a scrape", "CPU a scrape", "resident");
    for &sockets in &args.sockets {
        let addr = super::scrape::free_address()?;
        let exporter = Contender::tcptrace(binary, &format!("serve --listen {addr}")).start()?;
        let pid = exporter.pid().context("not started")?;
        let mut load = Load::start(binary, 1, &["--count", &sockets.to_string(), "--hold-ms", "3600000"])?;
        load.go()?;
        load.result()?;
        // What was read of the ring by then is not the scrapes' doing.
        sleep(Duration::from_secs(2));
        let before = counted(pid)?;
        let storm = scraper::storm(addr, args.scrapes, RATE);
        let cpu_ns = counted(pid)?.since(&before).cpu_ns;
        ensure!(storm.failures.is_empty(), "scrapes failed: {:?}", storm.failures);
        let middle = median(&storm.took_ms).context("no scrapes")?;
        let (least, greatest) = range(&storm.took_ms).context("no scrapes")?;
        println!(
            "{sockets:>10}  {:>24}  {:>14}  {:>10}",
            format!("{middle:.2} ms ({least:.2}–{greatest:.2})"),
            format!("{:.2} ms", cpu_ns as f64 / 1e6 / f64::from(args.scrapes)),
            megabytes(exporter.rss())
        );
        exporter.stop(None)?;
        load.end()?;
    }
    Ok(())
}
