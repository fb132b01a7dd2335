//! The full screen.

use std::io::Write as _;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::commands::source::{Source, Wanted};
use crate::commands::{Exit, block_on, trace};
use crate::filter::{Detail, StateSet};
use crate::live;
use crate::settings::Watch;
use crate::tui::collector::Collector;
use crate::tui::look::Look;
use crate::tui::theme::Theme;

/// Shows the screen until the end.
pub fn run(source: &Source, settings: &Watch) -> anyhow::Result<Exit> {
    let look = look(settings);
    let wanted = Wanted {
        filter: &settings.filter,
        by: None,
        states: StateSet::ALL,
        detail: Detail::Transitions,
        tracing: &settings.tracing,
        tick: live::LAZY_TICK,
    };
    let mut engine = source.engine(&wanted);
    let mut options = trace::options(&settings.filter, StateSet::ALL, Detail::Transitions, &settings.tracing);
    options.tick = live::LAZY_TICK;
    let mut collector = Collector::new(look, Arc::clone(&options.wake), settings.filter.clone());
    let ended = block_on(async { live::run(&options, &mut engine, &mut collector).await.map(|_| ()) });
    // Before anything is said: on the usual screen.
    let recorded = collector.end(&engine);
    ended?;
    trace::note_gone(&mut engine, &settings.filter);
    let snapshot = engine.snapshot(&|_| None);
    trace::write_summary(&snapshot, engine.notes())?;
    if let Some(recorded) = recorded? {
        writeln!(anstream::stderr().lock(), "{recorded}")?;
    }
    Ok(trace::exit(&engine, &settings.tracing))
}

/// How things look on this terminal.
pub(super) fn look(settings: &Watch) -> Look {
    Look {
        theme: Theme { palette: settings.palette, ascii: settings.output.ascii },
        zone: TimeZone::system(),
    }
}
