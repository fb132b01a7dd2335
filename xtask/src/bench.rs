//! `cargo xtask bench`: what tracing costs, measured in alternation on the machine at hand.

mod churn;
mod contender;
mod figures;

use anyhow::Result;

/// Benchmarks.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Connections per second with and without tracers while every core makes connections
    Churn(churn::Args),
}

/// Runs one.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Churn(args) => churn::run(args),
    }
}
