//! `tcptrace states`.

use clap::Args;

use super::{FilterArgs, OutputArgs};
use crate::snapshot::KeyKind;

/// Options of `states`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace states                            what ss -tan | awk counts, in every network namespace
  tcptrace states --by process               who holds the sockets
  tcptrace states --netns $$ --by peer       of this shell's network namespace, by remote address
  tcptrace states --state CLOSE_WAIT --json  one JSON object

Needs no BPF and no tracing: the kernel is asked once. Other network namespaces and other users' processes are
seen as root only.")]
pub struct StatesArgs {
    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Break the counts down by this.
    #[arg(long, value_name = "KEY", value_enum, help_heading = "Output")]
    pub by: Option<KeyKind>,

    /// Rows of the breakdown; JSON has all.
    #[arg(long, value_name = "ROWS", default_value_t = 20, help_heading = "Output",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,

    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
}
