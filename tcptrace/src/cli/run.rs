//! `tcptrace run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values;

/// Options of `run`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace run -- curl -s https://example.org      how long its sockets stayed in which state
  tcptrace run --fail-on-leak -- pytest            status 3 when it left sockets in CLOSE_WAIT
  tcptrace run --report run.json --json -- make test
  tcptrace run --private-net -- ./server-test      in a network namespace of its own

The command's input and output pass through, and so do SIGINT, SIGTERM, SIGHUP and its exit status
(128 + the signal that killed it). A socket counts as leaked when it was still in CLOSE_WAIT at the
end, or was closed only as its process ended (within 50 ms).")]
pub struct RunArgs {
    /// Exit with status 3 when a socket was leaked.
    #[arg(long)]
    pub fail_on_leak: bool,

    /// Leave out sockets that were in CLOSE_WAIT for less than this. Programs that close their sockets as the
    /// last thing they do would count as leaking with 0s.
    #[arg(long, value_name = "TIME", value_parser = values::min_age, default_value = "250ms")]
    pub min_age: Duration,

    /// Give the command a network namespace of its own, with loopback only.
    #[arg(long)]
    pub private_net: bool,

    /// Write the report to this file instead of standard error.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// The report as JSON, one object a line; `tcptrace --schema` describes them.
    #[arg(long)]
    pub json: bool,

    /// Exit with status 4 when events were lost.
    #[arg(long)]
    pub fail_on_loss: bool,

    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
