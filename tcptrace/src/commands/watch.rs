//! `tcptrace watch`: a full screen, or a line per transition.

mod lines;
mod play;
mod screen;

use std::time::Duration;

use jiff::tz::TimeZone;

use super::source::{Source, Wanted};
use super::{Exit, trace};
use crate::cli::WatchArgs;
use crate::engine::Engine;
use crate::filter::{Detail, StateSet};
use crate::settings::{Environment, Format, Watch};
use crate::tui::look::Look;
use crate::tui::theme::Theme;

/// Runs the command.
pub fn run(args: &WatchArgs) -> anyhow::Result<Exit> {
    let environment = Environment::detect();
    // Lines for people name containers; the screen and JSON do not.
    let is_lines = !args.output.json && (args.plain || environment.obstacle_to_screen().is_some());
    let source = Source::open(&args.source, is_lines || !args.filter.container.is_empty())?;
    let settings = Watch::from_args(args, &environment, source.resolver())?;
    if settings.output.format == Format::Text {
        return match (environment.obstacle_to_screen(), &source) {
            (Some(why), _) => lines::run(&source, &settings, Some(why)),
            (None, Source::Live) => screen::run(&source, &settings),
            (None, Source::Recording(recording)) => play::run(&source, recording, &settings),
        };
    }
    lines::run(&source, &settings, None)
}

/// Every step of what the filter wants.
fn wanted(settings: &Watch, tick: Duration) -> Wanted<'_> {
    Wanted {
        filter: &settings.filter,
        by: None,
        states: StateSet::ALL,
        detail: Detail::Transitions,
        tracing: &settings.tracing,
        tick,
    }
}

/// How a screen looks on this terminal.
fn look(settings: &Watch) -> Look {
    Look {
        theme: Theme { palette: settings.palette, ascii: settings.output.ascii },
        zone: TimeZone::system(),
    }
}

/// What stays on the usual screen, and the exit status.
fn conclude(engine: &Engine, settings: &Watch) -> anyhow::Result<Exit> {
    trace::write_summary(&engine.snapshot(&|_| None), engine.notes())?;
    Ok(trace::exit(engine, &settings.tracing))
}
