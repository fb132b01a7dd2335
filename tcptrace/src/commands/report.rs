//! `tcptrace report`: traces for a while, then says how long each state lasted.

use std::io::Write as _;

use anyhow::Context as _;
use jiff::tz::TimeZone;

use super::progress::Progress;
use super::promise::Promise;
use super::source::{Source, Wanted};
use super::{Exit, LineSink, trace};
use crate::cli::ReportArgs;
use crate::engine::Engine;
use crate::filter::{Detail, StateSet};
use crate::live;
use crate::settings::{Environment, Format, Report};
use crate::snapshot::{KeyKind, Snapshot};
use crate::views::paint::Paint;
use crate::views::{hlog, html, json, report};

/// Runs the command.
pub fn run(args: &ReportArgs) -> anyhow::Result<Exit> {
    let needs_containers = !args.filter.container.is_empty() || args.by == Some(KeyKind::Container);
    let source = Source::open(&args.source, needs_containers)?;
    let mut settings = Report::from_args(args, &Environment::detect(), source.resolver())?;
    if settings.filter.states == StateSet::ALL {
        settings.filter.states = trace::CLOSING_STATES.into_iter().collect();
    }
    let html = args.html.as_deref().map(Promise::file).transpose()?;
    let hlog = args.hlog.as_deref().map(|dir| Promise::directory(dir, "hlog")).transpose()?;
    let wanted = Wanted {
        filter: &settings.filter,
        by: settings.by,
        states: settings.filter.states,
        detail: Detail::Dwells,
        tracing: &settings.tracing,
        tick: live::LAZY_TICK,
    };
    let mut engine = source.engine(&wanted);
    let mut progress = Progress::new(settings.tracing.duration);
    // Before tracing as well: a container that ends meanwhile is then known by name.
    let containers = source.containers();
    source.run(&mut engine, &wanted, &mut progress)?;
    progress.clear();
    let snapshot = engine.snapshot(&*containers);
    // Files first: whoever reads standard output may leave, and a full disk must not cost the text.
    let filed = write_files(&snapshot, html.as_ref(), hlog.as_ref());
    write(&settings, &engine, &snapshot)?;
    filed?;
    Ok(trace::exit(&engine, &settings.tracing))
}

fn write_files(snapshot: &Snapshot, html: Option<&Promise>, hlog: Option<&Promise>) -> anyhow::Result<()> {
    if let Some(promise) = html {
        promise.write(html::write_report(snapshot, &TimeZone::system()).into_bytes())?;
    }
    if let Some(promise) = hlog {
        promise.write_all(hlog::files(snapshot).context("cannot encode the histograms")?)?;
    }
    Ok(())
}

fn write(settings: &Report, engine: &Engine, snapshot: &Snapshot) -> anyhow::Result<()> {
    if settings.output.format == Format::Json {
        trace::write_notes(engine.notes())?;
    }
    let mut out = LineSink::stdout();
    let written = match settings.output.format {
        Format::Json => json::write_report(snapshot, &mut out),
        Format::Text | Format::Plain => {
            let options = report::Options {
                width: settings.output.width.into(),
                paint: Paint { color: settings.output.color },
                zone: TimeZone::system(),
                ..report::Options::default()
            };
            report::write(snapshot, &options, &mut out)
        }
    };
    written.and_then(|()| out.flush()).context("cannot write to standard output")
}
