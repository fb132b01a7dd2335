//! `tcptrace compare`.

use std::path::PathBuf;

use clap::Args;

use super::{FilterArgs, OutputArgs};
use crate::snapshot::KeyKind;

/// Options of `compare`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace record -o before.jsonl.zst -d 5m; tcptrace record -o after.jsonl.zst -d 5m
  tcptrace compare before.jsonl.zst after.jsonl.zst
  tcptrace compare before.jsonl.zst after.jsonl.zst --state FIN_WAIT2 --by port --json

\"Changed\" means that chance alone makes such a difference in fewer than 5 of 100 comparisons, over all states
together. \"Did not change\" and \"not enough data to tell\" are different answers.")]
pub struct CompareArgs {
    /// The first recording.
    #[arg(value_name = "A")]
    pub a: PathBuf,

    /// The second recording.
    #[arg(value_name = "B")]
    pub b: PathBuf,

    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Compare each port, peer, namespace or container too.
    #[arg(long, value_name = "KEY", value_enum, help_heading = "Output")]
    pub by: Option<KeyKind>,

    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Write a page too, with histograms and curves: one file, for a browser or for paper.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,

    /// Seed of the random numbers behind intervals and permutations: the same seed gives the same answer.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Output")]
    pub seed: u64,
}
