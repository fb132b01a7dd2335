//! JSON for machines: one object a line, every kind with its `type`.
//!
//! Times are RFC 3339 with nanoseconds, durations integer nanoseconds, unknown is `null`. Keys may be added,
//! never renamed. [`schema`] describes all of it.

mod connection;
mod entry;
mod leak;
mod line;
mod outcomes;
mod report;

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::doctor::{Check, Verdict};
pub use connection::Connection;
pub use entry::{write_report, write_summary};
pub use leak::{
    AcceptQueue, EofVerdicts, Fds, Leak, LeakConnection, LeakPeer, LeakProcess, LeakSite, LeakTotal,
    write_leaks,
};
pub use line::{
    Bpf, ConnectFailed, Effect, OwnerRef, Part, ProcessRef, Run, RunLeak, States, StatesBy, Summary, Time,
    TimeWaitMaker, Transition, Whose,
};
pub use outcomes::Outcomes;
pub use report::{Ages, BeganBefore, Expected, Finished, FullSocketPart, StateReport, SurvivalPercentiles};

/// Any line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// A connection went from one state to another.
    Transition(Transition),
    /// connect() found no local port or no route.
    ConnectFailed(ConnectFailed),
    /// A connection that is open.
    Connection(Connection),
    /// A process that keeps sockets in CLOSE_WAIT.
    Leak(Leak),
    /// All leaks together.
    LeakTotal(LeakTotal),
    /// How long a state lasts.
    StateReport(StateReport),
    /// Sockets by state.
    States(States),
    /// What a changed sysctl did.
    Effect(Effect),
    /// A finding of `doctor`.
    Check(Check),
    /// A command that was traced.
    Run(Run),
    /// The end of a trace.
    Summary(Summary),
}

/// Writes one line in one call of `write`, so that a pipe that is closed in between is left with whole lines.
///
/// # Errors
/// What the writer returns. A broken pipe is an end, not a failure: that is for the caller to tell.
pub fn write_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    out.write_all(&bytes)
}

/// The JSON Schema of every kind of line.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Line).to_value()
}

#[cfg(test)]
mod tests;
