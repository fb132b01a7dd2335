//! `tcptrace compare`: what differs between two recordings.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use jiff::tz::TimeZone;

use super::promise::Promise;
use super::source::{Source, Wanted};
use super::{Exit, LineSink, trace};
use crate::cli::{CompareArgs, SourceArgs};
use crate::effects::{StateEffect, effects};
use crate::filter::{Detail, Filter, StateSet};
use crate::live::{self, Handler};
use crate::settings::{Environment, Format, Output, Tracing, UsageError};
use crate::snapshot::{KeyKind, Snapshot};
use crate::views::html::{self, Compared, Side};
use crate::views::paint::Paint;
use crate::views::{effects as view, human};

/// Runs the command.
pub fn run(args: &CompareArgs) -> anyhow::Result<Exit> {
    if args.by == Some(KeyKind::Process) {
        return Err(UsageError::new("--by process: a pid of one recording means nothing in another")
            .hint("compare one program with --comm NAME, or use --by port")
            .into());
    }
    let output = Output::from_args(&args.output, &Environment::detect());
    let html = args.html.as_deref().map(Promise::file).transpose()?;
    let (a, b) = (replay(&args.a, args)?, replay(&args.b, args)?);
    let found = effects(&a, &b, args.seed);
    // The file first: whoever reads standard output may leave.
    let filed = html.map_or(Ok(()), |promise| promise.write(page(&a, &b, &found).into_bytes()));
    let paint = Paint { color: output.color };
    let mut out = LineSink::stdout();
    let written = match output.format {
        Format::Json => view::write_json(&found, None, &mut out),
        Format::Text | Format::Plain => write_head(&a, &b, &mut out)
            .and_then(|()| view::write_text(&found, paint, output.width, &mut out)),
    };
    written.and_then(|()| out.flush()).context("cannot write to standard output")?;
    filed?;
    Ok(Exit::Done)
}

fn page(a: &Snapshot, b: &Snapshot, effects: &[StateEffect]) -> String {
    let name = |snapshot: &Snapshot| snapshot.meta.recording.clone().unwrap_or_default();
    let (before, after) = (name(a), name(b));
    let compared = Compared {
        title: "What differs between two recordings",
        lead: &[format!("Before: {before}. After: {after}.")],
        truths: &[],
        sides: [Side { label: "before", snapshot: a }, Side { label: "after", snapshot: b }],
        traces: &[Side { label: "before", snapshot: a }, Side { label: "after", snapshot: b }],
        effects,
    };
    html::write_effects(&compared, &TimeZone::system())
}

fn replay(path: &Path, args: &CompareArgs) -> anyhow::Result<Snapshot> {
    let needs_containers = !args.filter.container.is_empty() || args.by == Some(KeyKind::Container);
    let source = Source::open(&SourceArgs { from: Some(path.to_owned()) }, needs_containers)?;
    let mut filter = Filter::from_args(&args.filter, source.resolver())?;
    if filter.states == StateSet::ALL {
        filter.states = trace::CLOSING_STATES.into_iter().collect();
    }
    let wanted = Wanted {
        filter: &filter,
        by: args.by,
        states: filter.states,
        detail: Detail::Dwells,
        tracing: &Tracing::default(),
        tick: live::LAZY_TICK,
    };
    let mut engine = source.engine(&wanted);
    source.run(&mut engine, &wanted, &mut Quiet)?;
    trace::write_notes(engine.notes())?;
    Ok(engine.snapshot(&*source.containers()))
}

/// Nothing is of interest before the end.
struct Quiet;

impl Handler for Quiet {}

fn write_head(a: &Snapshot, b: &Snapshot, out: &mut impl std::io::Write) -> std::io::Result<()> {
    for (label, snapshot) in [("before", a), ("after", b)] {
        let meta = &snapshot.meta;
        writeln!(
            out,
            "{label:<7}{}: {}, {}, {} long, kernel {}, {} lost",
            meta.recording.as_deref().unwrap_or("?"),
            meta.host.as_deref().unwrap_or("unknown host"),
            meta.wall.time(meta.started),
            human::duration(meta.elapsed_ns()),
            meta.kernel.as_deref().unwrap_or("?"),
            human::counted(snapshot.loss.ring_full + snapshot.loss.skipped_runs, "event"),
        )?;
    }
    writeln!(out)
}
