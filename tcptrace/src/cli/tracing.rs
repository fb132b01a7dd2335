//! Options of every command that traces.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values;

/// How, and for how long, to trace.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Tracing")]
pub struct TracingArgs {
    /// Stop after this time, 100ms to 365d [default: run until Ctrl-C].
    #[arg(long, short = 'd', value_name = "TIME", value_parser = values::tracing_duration)]
    pub duration: Option<Duration>,

    /// Size of the ring buffer between the kernel and tcptrace: a power of two from 64K to 1G. More of it
    /// rides out longer bursts; nothing else changes.
    #[arg(long, value_name = "SIZE", value_parser = values::ring_size, default_value = "8M")]
    pub ring_size: u32,

    /// Exit with status 4 when events were lost.
    #[arg(long)]
    pub fail_on_loss: bool,
}

/// Where the events come from, where recordings of several hosts can be put together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Input")]
pub struct SourcesArgs {
    /// Read a recording (`tcptrace record`) instead of tracing; needs no privileges. Given several times, the
    /// recordings of several hosts, or of one host one after the other, are put together.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["duration", "ring_size"])]
    pub from: Vec<PathBuf>,
}

/// Where the events come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Input")]
pub struct SourceArgs {
    /// Read a recording (`tcptrace record`) instead of tracing; needs no privileges.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["duration", "ring_size"])]
    pub from: Option<PathBuf>,
}
