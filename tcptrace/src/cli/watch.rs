//! `tcptrace watch`.

use clap::Args;

use super::{FilterArgs, OutputArgs, SourceArgs, TracingArgs};

/// Options of `watch`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace watch                                  every transition of every TCP connection
  tcptrace watch --state TIME_WAIT --port 5432    TIME_WAITs of the database, and why each ended
  tcptrace watch --state CLOSE_WAIT --min-dwell 10s
                                                  CLOSE_WAITs that took longer than 10 s to be closed
  tcptrace watch --comm 'nginx*' --json | jq .    one JSON object a line

A dwell marked with ≥ is a lower bound: its beginning was not seen.")]
pub struct WatchArgs {
    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// A line per transition, also on a terminal.
    #[arg(long, help_heading = "Output", conflicts_with = "json")]
    pub plain: bool,

    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Input.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,
}
