//! `tcptrace watch`.

use clap::Args;

use super::values::{self, Speed};
use super::{FilterArgs, OutputArgs, SourceArgs, TracingArgs};

/// Options of `watch`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace watch                                  every transition of every TCP connection
  tcptrace watch --state TIME_WAIT --port 5432    TIME_WAITs of the database, and why each ended
  tcptrace watch --state CLOSE_WAIT --min-dwell 10s
                                                  CLOSE_WAITs that took longer than 10 s to be closed
  tcptrace watch --from F.jsonl.zst --speed 10    a recording on the screen, ten times as fast as it happened
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

    /// How many times faster than it happened a recording is played on the screen, 0.125 to 1024; keys change it
    #[arg(
        long,
        value_name = "TIMES",
        help_heading = "Input",
        default_value = "1",
        requires = "from",
        conflicts_with_all = ["plain", "json"],
        value_parser = values::speed,
    )]
    pub speed: Speed,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,
}
