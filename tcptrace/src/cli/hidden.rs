//! Subcommands that this binary uses to start itself in another role.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::values;
use crate::workload::records::ReplayArgs;
use crate::workload::{Kind, RoleArgs};

/// The command line of such a start.
#[derive(Debug, Parser)]
#[command(name = "tcptrace")]
pub struct Cli {
    /// The role.
    #[command(subcommand)]
    pub command: Command,
}

/// The roles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A private network namespace with traffic.
    #[command(name = "__sandbox")]
    Sandbox(SandboxArgs),
    /// One process of that traffic.
    #[command(name = "__workload")]
    Workload(RoleArgs),
    /// Events of connections that never were, for benchmarks.
    #[command(name = "__replay")]
    Replay(ReplayArgs),
    /// Becomes a program that ends with its parent.
    #[command(name = "__exec")]
    Exec(ExecArgs),
    /// Stops, and becomes a program when it is continued.
    #[command(name = "__gate")]
    Gate(ExecArgs),
}

/// Options of `__sandbox`: a private network namespace with traffic, for as long as the parent lives.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct SandboxArgs {
    /// What kind of traffic.
    #[arg(long, value_enum)]
    pub workload: Kind,
    /// net.ipv4.tcp_fin_timeout inside, in seconds.
    #[arg(long)]
    pub fin_timeout: u16,
    /// Short connections per second.
    #[arg(long)]
    pub rate: u16,
    /// The process that must still be there: this one ends with it.
    #[arg(long)]
    pub parent: u32,
    /// End after this time, whatever happens.
    #[arg(long, value_parser = values::tracing_duration, default_value = "1d")]
    pub lifetime: Duration,
}

/// Options of `__exec`: becomes a program that ends with its parent.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ExecArgs {
    /// The process that must still be there.
    pub parent: u32,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    pub program: Vec<OsString>,
}
