//! `cargo xtask bench`: what tracing costs, measured in alternation on the machine at hand.

mod churn;
mod contender;
mod figures;
mod load;
mod scrape;
mod scraper;

use anyhow::Result;

/// Benchmarks.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Connections per second with and without tracers while every core makes connections
    Churn(churn::Args),
    /// A storm of scrapes during churn, and what memory the exporter takes for a million connections
    Scrape(scrape::Args),
}

/// Runs one.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Churn(args) => churn::run(args),
        Bench::Scrape(args) => scrape::run(args),
    }
}
