//! `tcptrace demo`.

use std::ffi::OsString;

use clap::Args;

/// Options of `demo`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace demo                        a report after 75 s: TIME_WAITs take 60
  tcptrace demo watch                  every transition, until Ctrl-C
  tcptrace demo leaks                  30 s of a leaking server, with its lines of code
  tcptrace demo report --by process    any command with any of its options

Everything happens in a private network namespace and ends with the command: nothing of the host is touched.")]
pub struct DemoArgs {
    /// net.ipv4.tcp_fin_timeout of the namespace, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub fin_timeout: u16,

    /// Short connections per second; each of the other kinds comes at a tenth of it.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub rate: u16,

    /// The command to run on the traffic, with its options [default: report --duration 75s].
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
