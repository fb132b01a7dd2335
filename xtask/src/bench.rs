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

use anyhow::Result;

/// Benchmarks.
#[derive(clap::Subcommand)]
pub enum Bench {
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
    match bench {
        Bench::Churn(args) => churn::run(args),
        Bench::Inventory(args) => inventory::run(args),
        Bench::Record(args) => record::run(args),
        Bench::Bpf(args) => bpf::run(args),
        Bench::Export(args) => export::run(args),
        Bench::Growth(args) => growth::run(args),
        Bench::Idle(args) => idle::run(args),
        Bench::Start(args) => start::run(args),
        Bench::Timers(args) => timers::run(args),
        Bench::Scrape(args) => scrape::run(args),
        Bench::Screen(args) => screen::run(args),
    }
}
