//! `cargo xtask bench`: what tracing costs, measured in alternation on the machine at hand.

mod bpf;
mod churn;
mod contender;
mod export;
mod figures;
mod foreign;
mod growth;
mod growth_svg;
mod idle;
mod inventory;
mod load;
mod process;
mod program;
mod pty;
mod record;
mod scrape;
mod scraper;
mod screen;
mod start;
mod syscall;
mod timers;

use std::path::PathBuf;

use anyhow::Result;

use crate::cargo::build_tcptrace;

/// Options of `bench`.
#[derive(clap::Args)]
pub struct Bench {
    /// A tcptrace that is there already, instead of building this one
    #[arg(long, global = true, value_name = "PATH")]
    binary: Option<PathBuf>,
    #[command(subcommand)]
    benchmark: Benchmark,
}

/// Benchmarks.
#[derive(clap::Subcommand)]
enum Benchmark {
    /// Connections per second with and without tracers while every core makes connections
    Churn(churn::Args),
    /// `states` and `leaks` on 100,000 sockets, or on thousands of processes, beside `ss` and `lsof`
    Inventory(inventory::Args),
    /// A recording of 200,000 events a second
    Record(record::Args),
    /// What each BPF program takes for a run, by the kernel's statistics
    Bpf(bpf::Args),
    /// What a scrape takes of the exporter as more sockets are open
    Export(export::Args),
    /// What an event costs as connections, processes and namespaces grow in number: a table and a picture
    Growth(growth::Args),
    /// Time, wake-ups and memory on a host on which nothing happens
    Idle(idle::Args),
    /// From the start to the first event
    Start(start::Args),
    /// What tracing adds to timers that are not ours
    Timers(timers::Args),
    /// A storm of scrapes during churn, and what memory the exporter takes for a million connections
    Scrape(scrape::Args),
    /// What the full screen costs beside tracing, at steady loads, and whether its memory grows
    Screen(screen::Args),
}

/// Runs one.
pub fn run(bench: &Bench) -> Result<()> {
    let binary = &bench.binary.clone().map_or_else(|| build_tcptrace(true), Ok)?;
    match &bench.benchmark {
        Benchmark::Churn(args) => churn::run(args, binary),
        Benchmark::Inventory(args) => inventory::run(args, binary),
        Benchmark::Record(args) => record::run(args, binary),
        Benchmark::Bpf(args) => bpf::run(args, binary),
        Benchmark::Export(args) => export::run(args, binary),
        Benchmark::Growth(args) => growth::run(args, binary),
        Benchmark::Idle(args) => idle::run(args, binary),
        Benchmark::Start(args) => start::run(args, binary),
        Benchmark::Timers(args) => timers::run(args, binary),
        Benchmark::Scrape(args) => scrape::run(args, binary),
        Benchmark::Screen(args) => screen::run(args, binary),
    }
}
