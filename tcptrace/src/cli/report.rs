//! `tcptrace report`.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{FilterArgs, OutputArgs, TracingArgs};

/// What `report` breaks its figures down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The process that owns the connection.
    Process,
    /// The service's port: the listening side's, as far as it is known, else the lower one.
    Port,
    /// The remote address.
    Peer,
    /// The network namespace.
    Netns,
    /// The container of the owning process.
    Container,
}

/// Options of `report`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace report --duration 2m                   dwell of every state over two minutes
  tcptrace report --by process --state TIME_WAIT  who makes the TIME_WAITs; Ctrl-C ends and prints
  tcptrace report -d 5m --port 443 --json         one JSON object a state

TIME_WAIT lasts 60 s and a little: let it run for longer than that to see any of them end.")]
pub struct ReportArgs {
    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Break the figures down by this.
    #[arg(long, value_name = "KEY", value_enum, help_heading = "Output")]
    pub by: Option<By>,

    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,
}
