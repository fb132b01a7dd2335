//! `tcptrace leaks`.

use std::time::Duration;

use clap::Args;

use super::{FilterArgs, OutputArgs, SourceArgs, TracingArgs, values};

/// Options of `leaks`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(
    mut_arg("duration", |arg| {
        arg.help("Trace for this time, 100ms to 365d: growth and exact ages [default: answer at once]")
    }),
    // Taken, so that it can be refused with a reason.
    mut_arg("state", |arg| arg.hide(true)),
    after_help = "\
Examples:
  tcptrace leaks                          who leaks sockets now, at once and without tracing
  tcptrace leaks --duration 1m            growth, exact ages, time until descriptors run out
  tcptrace leaks --stacks --comm 'java*'  and the line of code that was told EOF
  tcptrace leaks --port 8080 --fail-on-leak --json
                                          for a script: status 3 when something leaks

A leak is a socket that stays in CLOSE_WAIT: the peer has closed, the application has not.
Every process that holds it is named, after fork() too. Without root this sees the caller's own
processes, and says so."
)]
pub struct LeaksArgs {
    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// A socket leaks once it has been in CLOSE_WAIT for this long; 0s counts all.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::min_age, help_heading = "Filters")]
    pub min_age: Duration,

    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Input.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,

    /// Trace until Ctrl-C, or for --duration, and report again and again.
    #[arg(long, help_heading = "Tracing", conflicts_with = "from")]
    pub follow: bool,

    /// Time between two reports of --follow, 1s to 1d.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::interval, requires = "follow", help_heading = "Tracing")]
    pub interval: Duration,

    /// Name the code that was told EOF and did not close, by its stack. Traces, for 30 s unless --duration or
    /// --follow say otherwise.
    #[arg(long, help_heading = "Tracing", conflicts_with = "from")]
    pub stacks: bool,

    /// Exit with status 3 when there is a leak.
    #[arg(long, help_heading = "Output")]
    pub fail_on_leak: bool,
}
