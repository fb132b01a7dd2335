//! `tcptrace report`: traces for a while, then says how long each state lasted.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::tz::TimeZone;

use super::source::{Source, Wanted};
use super::{Exit, LineSink, trace};
use crate::cli::ReportArgs;
use crate::engine::Engine;
use crate::filter::StateSet;
use crate::live::{self, Handler};
use crate::net::State;
use crate::settings::{Environment, Format, Report};
use crate::snapshot::KeyKind;
use crate::views::paint::Paint;
use crate::views::{human, json, report};

/// Runs the command.
pub fn run(args: &ReportArgs) -> anyhow::Result<Exit> {
    let needs_containers = !args.filter.container.is_empty() || args.by == Some(KeyKind::Container);
    let source = Source::open(&args.source, needs_containers)?;
    let mut settings = Report::from_args(args, &Environment::detect(), source.resolver())?;
    if settings.filter.states == StateSet::ALL {
        settings.filter.states = trace::CLOSING_STATES.into_iter().collect();
    }
    let wanted = Wanted {
        filter: &settings.filter,
        by: settings.by,
        states: settings.filter.states,
        tracing: &settings.tracing,
        tick: live::LAZY_TICK,
    };
    let mut engine = source.engine(&wanted);
    let mut progress = Progress::new(settings.tracing.duration);
    source.run(&mut engine, &wanted, &mut progress)?;
    progress.bar.finish_and_clear();
    write(&settings, &engine, &source)?;
    Ok(trace::exit(&engine, &settings.tracing))
}

fn write(settings: &Report, engine: &Engine, source: &Source) -> anyhow::Result<()> {
    let snapshot = engine.snapshot(&*source.containers());
    if settings.output.format == Format::Json {
        trace::write_notes(engine.notes())?;
    }
    let mut out = LineSink::stdout();
    let written = match settings.output.format {
        Format::Json => json::write_report(&snapshot, &mut out),
        Format::Text | Format::Plain => {
            let options = report::Options {
                width: settings.output.width.into(),
                paint: Paint { color: settings.output.color },
                zone: TimeZone::system(),
                ..report::Options::default()
            };
            report::write(&snapshot, &options, &mut out)
        }
    };
    written.and_then(|()| out.flush()).context("cannot write to standard output")
}

/// A line on standard error, when that is a terminal, so that nobody stares at nothing for a minute.
struct Progress {
    bar: ProgressBar,
    duration: Option<Duration>,
}

impl Progress {
    fn new(duration: Option<Duration>) -> Self {
        // At most four redraws a second: this may be at the other end of a slow line.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, duration }
    }
}

impl Handler for Progress {
    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        if self.bar.is_hidden() {
            return Ok(ControlFlow::Continue(()));
        }
        let elapsed = Duration::from_nanos(engine.meta().elapsed_ns()).as_secs();
        let length = match self.duration {
            Some(duration) => format!("{elapsed} s of {} s", duration.as_secs()),
            None => format!("{elapsed} s"),
        };
        let open = |state| human::count(engine.open_in(state));
        self.bar.set_message(format!(
            "{length}   {} events   TIME_WAIT {}   FIN_WAIT2 {}   CLOSE_WAIT {}   Ctrl-C ends and reports",
            human::count(engine.events()),
            open(State::TimeWait),
            open(State::FinWait2),
            open(State::CloseWait),
        ));
        self.bar.tick();
        Ok(ControlFlow::Continue(()))
    }
}
