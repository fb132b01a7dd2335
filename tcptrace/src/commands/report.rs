//! `tcptrace report`: traces for a while, then says how long each state lasted.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use jiff::tz::TimeZone;

use super::progress::Progress;
use super::promise::Promise;
use super::source::{Source, Wanted};
use super::{Advice as _, Exit, LineSink, trace};
use crate::cli::{ReportArgs, SourceArgs};
use crate::filter::{Detail, StateSet};
use crate::live;
use crate::merge::merge;
use crate::settings::{Environment, Format, Report};
use crate::snapshot::{KeyKind, Snapshot};
use crate::views::paint::Paint;
use crate::views::{hlog, html, json, report};

/// Runs the command.
pub fn run(args: &ReportArgs) -> anyhow::Result<Exit> {
    let opened = open(args)?;
    let html = args.html.as_deref().map(Promise::file).transpose()?;
    let hlog = args.hlog.as_deref().map(|dir| Promise::directory(dir, "hlog")).transpose()?;
    // The first one decides about output; what a filter's names mean is asked of each.
    let settings = opened[0].settings.clone();
    let mut snapshots = opened.into_iter().map(Opened::measure).collect::<anyhow::Result<Vec<_>>>()?;
    let snapshot = match snapshots.pop() {
        Some(only) if snapshots.is_empty() => only,
        last => merge(snapshots.into_iter().chain(last).collect())
            .advise("give recordings of different hosts, or of one host one after the other")?,
    };
    // Files first: whoever reads standard output may leave, and a full disk must not cost the text.
    let filed = write_files(&snapshot, html.as_ref(), hlog.as_ref());
    write(&settings, &snapshot)?;
    filed?;
    Ok(trace::exit_after(&snapshot.loss, &settings.tracing))
}

/// The running kernel or a recording, and what is wanted of it.
struct Opened {
    source: Source,
    settings: Report,
}

fn open(args: &ReportArgs) -> anyhow::Result<Vec<Opened>> {
    let needs_containers = !args.filter.container.is_empty() || args.by == Some(KeyKind::Container);
    let environment = Environment::detect();
    let one = |from: Option<PathBuf>| -> anyhow::Result<Opened> {
        let source = Source::open(&SourceArgs { from }, needs_containers)?;
        let mut settings = Report::from_args(args, &environment, source.resolver())?;
        if settings.filter.states == StateSet::ALL {
            settings.filter.states = trace::CLOSING_STATES.into_iter().collect();
        }
        Ok(Opened { source, settings })
    };
    if args.source.from.is_empty() {
        return Ok(vec![one(None)?]);
    }
    args.source.from.iter().cloned().map(Some).map(one).collect()
}

impl Opened {
    /// Traces, or replays, to the end.
    fn measure(self) -> anyhow::Result<Snapshot> {
        let Self { source, settings } = self;
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
        Ok(engine.snapshot(&*containers))
    }
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

fn write(settings: &Report, snapshot: &Snapshot) -> anyhow::Result<()> {
    if settings.output.format == Format::Json {
        trace::write_notes(&snapshot.notes)?;
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
