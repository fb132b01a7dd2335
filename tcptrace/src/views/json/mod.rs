//! JSON for machines: one object a line, every kind with its `type`.
//!
//! Times are RFC 3339 with nanoseconds, durations integer nanoseconds, unknown is `null`. Keys may be added,
//! never renamed. [`schema`] describes all of it.

mod entry;
mod line;
mod report;

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use entry::{write_report, write_summary};
pub use line::{
    Bpf, Check, ConnectFailed, Effect, EofVerdicts, Fds, Leak, LeakConnection, LeakPeer, LeakProcess,
    LeakSite, OwnerRef, ProcessRef, States, StatesBy, Summary, Time, TimeWaitMaker, Transition, Verdict,
};
pub use report::{Ages, BeganBefore, Expected, Finished, FullSocketPart, StateReport, SurvivalPercentiles};

/// Any line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// A connection went from one state to another.
    Transition(Transition),
    /// connect() found no local port or no route.
    ConnectFailed(ConnectFailed),
    /// A process that keeps sockets in CLOSE_WAIT.
    Leak(Leak),
    /// How long a state lasts.
    StateReport(StateReport),
    /// Sockets by state.
    States(States),
    /// What a changed sysctl did.
    Effect(Effect),
    /// A finding of `doctor`.
    Check(Check),
    /// The end of a trace.
    Summary(Summary),
}

/// Writes one line in one call of `write`, so that a pipe that is closed in between is left with whole lines.
///
/// # Errors
/// What the writer returns. A broken pipe is an end, not a failure: that is for the caller to tell.
pub fn write_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let mut lines = Lines::default();
    lines.push(line)?;
    lines.write_to(out)
}

/// Complete lines waiting to be written together: one call of `write` a line is too much at a hundred thousand
/// lines a second.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    /// Bytes after which waiting longer gains nothing: the size of a Linux pipe.
    const ENOUGH: usize = 64 * 1024;

    /// Adds a line.
    ///
    /// # Errors
    /// When the line cannot be serialised; what was added before stays intact.
    pub fn push(&mut self, line: &Line) -> io::Result<()> {
        let before = self.bytes.len();
        if let Err(error) = serde_json::to_writer(&mut self.bytes, line) {
            self.bytes.truncate(before);
            return Err(error.into());
        }
        self.bytes.push(b'\n');
        Ok(())
    }

    /// True when enough waits to be worth a `write`.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= Self::ENOUGH
    }

    /// Writes what waits, whole lines only, and keeps the memory for the next ones.
    ///
    /// # Errors
    /// What the writer returns; the lines are dropped then.
    pub fn write_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        let written = out.write_all(&self.bytes).and_then(|()| out.flush());
        self.bytes.clear();
        written
    }
}

/// The JSON Schema of every kind of line.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Line).to_value()
}

#[cfg(test)]
mod tests;
