//! `tcptrace doctor`.

use clap::Args;

use super::{FilterArgs, OutputArgs, SourceArgs, TracingArgs};

/// Options of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(
    mut_arg("duration", |arg| {
        arg.help("Trace for this time, 100ms to 365d, and say what was measured [default: do not trace]")
    }),
    // Taken, so that they can be refused with a reason.
    mut_arg("state", |arg| arg.hide(true)),
    mut_arg("min_dwell", |arg| arg.hide(true)),
    after_help = "\
Examples:
  tcptrace doctor                         can it run here, how much room is left, what do the sysctls do
  tcptrace doctor --duration 75s          with what was measured: TIME_WAITs take 60 s to end
  tcptrace doctor --netns web --rport 5432
                                          ports left towards the databases, in one network namespace
  tcptrace doctor --json | jq -r 'select(.verdict == \"fail\") | .detail'

Looks at one network namespace, the present one unless --netns names another. Filters choose the destinations
and processes that are listed; all ports of a destination are counted.

Verdicts:
  ok    as it should be
  note  worth knowing
  warn  likely to cause trouble
  FAIL  does not work: the status is 1"
)]
pub struct DoctorArgs {
    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Input.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,
}
