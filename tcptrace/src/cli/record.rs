//! `tcptrace record`.

use std::path::PathBuf;

use clap::Args;

use super::{FilterArgs, TracingArgs};

/// Options of `record`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace record -o incident.jsonl.zst -d 5m     five minutes, compressed
  tcptrace report --from incident.jsonl.zst       the figures, on any machine, without root
  tcptrace watch --from incident.jsonl.zst --json the transitions

A recorder that is killed loses at most the last second; what is in the file can be read.")]
pub struct RecordArgs {
    /// The file: `NAME.jsonl`, or `NAME.jsonl.zst` for a compressed one.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: PathBuf,

    /// Replace the file if it exists.
    #[arg(long, help_heading = "Output")]
    pub overwrite: bool,

    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,
}
