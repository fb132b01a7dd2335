//! `tcptrace report`.

use std::path::PathBuf;

use clap::Args;

use super::{FilterArgs, OutputArgs, SourcesArgs, TracingArgs};
use crate::snapshot::KeyKind;

/// Options of `report`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace report --duration 2m                   how long each closing state lasted, over 2 minutes
  tcptrace report --by process --state TIME_WAIT  who makes the TIME_WAITs; Ctrl-C ends and prints
  tcptrace report -d 5m --port 443 --json         one JSON object a state
  tcptrace report -d 5m --html report.html        a page with histograms and survival curves
  tcptrace report --from a.jsonl.zst --from b.jsonl.zst   two hosts together, and each by itself

Without --state it reports FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE_WAIT, LAST_ACK and CLOSING.

TIME_WAIT lasts 60 s and a little: let it run for longer than that to see any of them end.")]
pub struct ReportArgs {
    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Break the figures down by this.
    #[arg(long, value_name = "KEY", value_enum, help_heading = "Output")]
    pub by: Option<KeyKind>,

    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Write a page too, with histograms and curves: one file, for a browser or for paper.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,

    /// Write the histograms too, for the tools of HdrHistogram: a .hlog file per state, in microseconds.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub hlog: Option<PathBuf>,

    /// Input.
    #[command(flatten)]
    pub source: SourcesArgs,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,
}
