//! `cargo xtask bench`: what tracing costs, measured in alternation on the machine at hand.

mod churn;
mod contender;
mod figures;
mod inventory;
mod load;
mod program;
mod record;
mod scrape;
mod scraper;

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
    /// A storm of scrapes during churn, and what memory the exporter takes for a million connections
    Scrape(scrape::Args),
}

/// Runs one.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Churn(args) => churn::run(args),
        Bench::Inventory(args) => inventory::run(args),
        Bench::Record(args) => record::run(args),
        Bench::Scrape(args) => scrape::run(args),
    }
}
