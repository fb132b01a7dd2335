//! Leak reports on standard output.

use std::io::{self, StdoutLock, Write as _};

use anyhow::Context as _;
use jiff::tz::TimeZone;

use crate::commands::LineSink;
use crate::leaks::LeakReport;
use crate::settings::{Format, Leaks};
use crate::snapshot::{Snapshot, WallClock};
use crate::views::paint::Paint;
use crate::views::{json, leaks};

/// Writes reports, in the form that was asked for.
pub(super) struct Printer {
    is_json: bool,
    options: leaks::Options,
    wall: WallClock,
    is_begun: bool,
    out: LineSink<StdoutLock<'static>>,
}

impl Printer {
    /// `from_system` where the running system is looked at, so that another look could tell more.
    pub(super) fn new(settings: &Leaks, wall: WallClock, from_system: bool) -> Self {
        let output = &settings.output;
        let options = leaks::Options {
            width: output.width.into(),
            paint: Paint { color: output.color },
            filters: settings.terms.filter.to_string(),
            stacks: settings.watching.is_some_and(|watching| watching.stacks),
            hints: from_system,
            wall,
            zone: TimeZone::system(),
            ..leaks::Options::default()
        };
        Self {
            is_json: output.format == Format::Json,
            options,
            wall,
            is_begun: false,
            out: LineSink::stdout(),
        }
    }

    /// Everything.
    pub(super) fn page(&mut self, report: &LeakReport) -> anyhow::Result<()> {
        let written = if self.is_json {
            json::write_leaks(report, self.wall, &mut self.out)
        } else {
            // Set off from what came before.
            let gap = if self.is_begun { "\n" } else { "" };
            write!(self.out, "{gap}").and_then(|()| leaks::write(report, &self.options, &mut self.out))
        };
        self.is_begun = true;
        self.check(written)
    }

    /// What is new, between two pages.
    pub(super) fn update(&mut self, report: &LeakReport) -> anyhow::Result<()> {
        let written = if self.is_json {
            json::write_leaks(report, self.wall, &mut self.out)
        } else {
            leaks::write_update(report, &self.options, &mut self.out)
        };
        self.check(written)
    }

    /// The end of a trace.
    pub(super) fn summary(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let written = if self.is_json { json::write_summary(snapshot, &mut self.out) } else { Ok(()) };
        self.check(written)
    }

    fn check(&mut self, written: io::Result<()>) -> anyhow::Result<()> {
        written.and_then(|()| self.out.flush()).context("cannot write to standard output")
    }
}
