//! `report` as text: what a person reads at three in the morning.
//!
//! In this order: what was lost, what is wrong, all states in one table, then each state with its histogram,
//! percentiles and a few sentences about what limits it. The closing states come first, because they are what
//! people come for.

pub(in crate::views) mod overview;
mod section;
pub(in crate::views) mod words;

use std::io::{self, Write};

use jiff::tz::TimeZone;

use crate::net::State;
use crate::outcome::Phase;
use crate::snapshot::{Snapshot, StateReport};

use super::page::Page;
use super::paint::Paint;

/// How the report is to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// Columns to fill at most; below 40 is taken as 40.
    pub width: usize,
    /// Plain ASCII instead of bars, arrows and µ.
    pub ascii: bool,
    /// Colours or none.
    pub paint: Paint,
    /// The time zone to show times in.
    pub zone: TimeZone,
    /// Keys shown for each state at most.
    pub keys: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: 80, ascii: false, paint: Paint::default(), zone: TimeZone::UTC, keys: 10 }
    }
}

/// Said where there is nothing to show.
pub(super) const NOTHING: &str = "Nothing to report: no connection was seen in a state that was asked for.";

/// What is known of states whose length is, in the order of the report.
pub(super) fn with_dwells(snapshot: &Snapshot) -> Vec<&StateReport> {
    let known = ORDER.iter().filter_map(|&(state, phase)| snapshot.of(state, phase));
    known.filter(|report| report.has_dwells()).collect()
}

/// The states in the order of the report.
const ORDER: [(State, Option<Phase>); 13] = [
    (State::CloseWait, None),
    (State::TimeWait, None),
    (State::FinWait2, Some(Phase::Orphaned)),
    (State::FinWait2, Some(Phase::HalfClosed)),
    (State::FinWait2, None),
    (State::LastAck, None),
    (State::FinWait1, None),
    (State::Closing, None),
    (State::Established, None),
    (State::SynSent, None),
    (State::SynRecv, None),
    (State::NewSynRecv, None),
    (State::Listen, None),
];

/// Writes the report in one call of `write`.
///
/// # Errors
/// What the writer returns.
pub fn write(snapshot: &Snapshot, options: &Options, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(options.width, options.ascii, options.paint);
    overview::write(snapshot, options, &mut page);
    for (state, phase) in ORDER {
        if let Some(report) = snapshot.of(state, phase) {
            section::write(snapshot, report, options, &mut page);
        }
    }
    overview::write_end(snapshot, &mut page);
    out.write_all(page.finish().as_bytes())
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
