//! Leaks while tracing: exact ages, growth, and the code; or from a recording.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Context as _;

use super::print::Printer;
use super::{Source, exit};
use crate::cli::TracingArgs;
use crate::commands::progress::Progress;
use crate::commands::source::Wanted;
use crate::commands::{Exit, block_on, trace};
use crate::decode::StackSample;
use crate::engine::{Engine, Input};
use crate::event::{Event, MonoNs};
use crate::filter::{Detail, Filter, StateSet};
use crate::inventory::DumpError;
use crate::inventory::worker::{Answer, Worker};
use crate::leaks::code::Codes;
use crate::leaks::{Evidence, History, LeakReport, replayed, survey};
use crate::live::{self, Handler};
use crate::net::State;
use crate::settings::{Leaks, Tracing, Watching};
use crate::snapshot::Snapshot;

/// What tracing is told to look at: whose the sockets are is found out afterwards, because it may change.
fn traced_filter(filter: &Filter) -> Filter {
    Filter {
        pids: Vec::new(),
        comms: Vec::new(),
        containers: Vec::new(),
        min_dwell_ns: None,
        ..filter.clone()
    }
}

/// Traces, and surveys at the beginning, the end and between.
pub(super) fn live(settings: &Leaks, watching: &Watching) -> anyhow::Result<Exit> {
    let filter = traced_filter(&settings.terms.filter);
    let mut engine = trace::engine(&filter, None);
    let mut options =
        trace::options(&filter, StateSet::from(State::CloseWait), Detail::Dwells, &watching.tracing);
    options.tracer.stacks = watching.stacks;
    if watching.interval.is_none() {
        options.tick = live::LAZY_TICK;
    }
    let mut watcher = Watcher::new(settings, watching, Printer::new(settings, engine.meta().wall, true));
    block_on(async { live::run(&options, &mut engine, &mut watcher).await.map(drop) })?;
    let report = watcher.finish(&engine)?;
    Ok(exit(settings, &report).unwrap_or_else(|| trace::exit(&engine, &watching.tracing)))
}

struct Watcher<'a> {
    settings: &'a Leaks,
    interval: Option<Duration>,
    wants_stacks: bool,
    printer: Printer,
    progress: Progress,
    /// From the start of tracing on.
    worker: Option<Worker>,
    survey: Option<Answer<Result<Evidence, DumpError>>>,
    history: History,
    codes: Option<Codes>,
    /// When the next survey is due; `None` while one is under way or none is wanted.
    next: Option<MonoNs>,
    is_first: bool,
    failed: Option<anyhow::Error>,
}

impl<'a> Watcher<'a> {
    fn new(settings: &'a Leaks, watching: &Watching, printer: Printer) -> Self {
        Self {
            settings,
            interval: watching.interval,
            wants_stacks: watching.stacks,
            printer,
            progress: Progress::new(watching.tracing.duration),
            worker: None,
            survey: None,
            history: History::default(),
            codes: None,
            next: None,
            is_first: true,
            failed: None,
        }
    }

    fn ask(&self) -> Option<Answer<Result<Evidence, DumpError>>> {
        let filter = self.settings.terms.filter.clone();
        Some(self.worker.as_ref()?.ask(move || survey::take(&filter)))
    }

    /// A report of now, with everything that tracing adds.
    fn report(&mut self, mut evidence: Evidence, engine: &Engine) -> LeakReport {
        replayed::add_ages(&mut evidence, engine);
        let notes = evidence.notes.iter_mut();
        let gone = trace::gone(&self.settings.terms.filter);
        evidence.notes = unique(notes.map(std::mem::take).chain(engine.notes().iter().cloned()).chain(gone));
        let mut report = LeakReport::new(&evidence, &self.settings.terms, &self.history);
        self.history.keep(&evidence, &self.settings.terms);
        report.watched_ns = Some(engine.meta().elapsed_ns());
        if let Some(codes) = &self.codes {
            codes.add_to(&mut report);
        }
        report
    }

    fn finish(mut self, engine: &Engine) -> anyhow::Result<LeakReport> {
        self.progress.clear();
        let answer = self.ask().context("tracing ended before it began")?;
        let evidence = answer.wait()?.context("cannot list sockets")?;
        if let Some(codes) = &mut self.codes {
            codes.finish();
        }
        let mut report = self.report(evidence, engine);
        let snapshot = engine.snapshot(&|_| None);
        report.notes.extend(not_traced(&snapshot));
        self.printer.page(&report)?;
        self.printer.summary(&snapshot)?;
        Ok(report)
    }
}

impl Handler for Watcher<'_> {
    fn inventory(&mut self, worker: &Worker) -> anyhow::Result<()> {
        self.worker = Some(worker.clone());
        self.survey = self.ask();
        if self.wants_stacks {
            match Codes::start() {
                Ok(codes) => self.codes = Some(codes),
                Err(error) => {
                    self.failed = Some(anyhow::Error::new(error).context("cannot start a thread for stacks"));
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) {
        if let Some(codes) = &mut self.codes {
            codes.event(event);
        }
    }

    fn stack(&mut self, stack: &StackSample<'_>) {
        if let Some(codes) = &mut self.codes {
            codes.stack(stack);
        }
    }

    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(codes) = &mut self.codes {
            codes.collect();
        }
        if self.interval.is_none() {
            self.progress.show(engine);
        }
        if self.next.is_some_and(|next| engine.now() >= next) {
            self.next = None;
            self.survey = self.ask();
        }
        if let Some(answer) = self.survey.as_mut().and_then(Answer::take) {
            self.survey = None;
            let evidence = answer?.context("cannot list sockets")?;
            let report = self.report(evidence, engine);
            if let Some(interval) = self.interval {
                if std::mem::take(&mut self.is_first) {
                    self.printer.page(&report)?;
                } else {
                    self.printer.update(&report)?;
                }
                self.next = Some(engine.now() + u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / 2));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Loss and hooks that this kernel lacks.
fn not_traced(snapshot: &Snapshot) -> Vec<String> {
    let mut notes: Vec<_> =
        snapshot.skipped.iter().map(|hook| format!("not traced: {}: {}", hook.name, hook.why)).collect();
    let loss = &snapshot.loss;
    if loss.any() {
        notes.push(format!(
            "events were lost ({} without room in the ring, {} skipped runs, {} without room in the tables): \
             some ages are lower bounds because of it, and growth may be too small",
            loss.ring_full, loss.skipped_runs, loss.table_full
        ));
    }
    notes
}

fn unique(notes: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for note in notes {
        if !kept.contains(&note) {
            kept.push(note);
        }
    }
    kept
}

/// The leaks at the end of a recording.
pub(super) fn replay(source: &Source, settings: &Leaks, tracing: &TracingArgs) -> anyhow::Result<Exit> {
    let filter = traced_filter(&settings.terms.filter);
    let tracing = Tracing::from(tracing);
    let wanted = Wanted {
        filter: &filter,
        by: None,
        states: StateSet::from(State::CloseWait),
        detail: Detail::Dwells,
        tracing: &tracing,
        tick: live::LAZY_TICK,
    };
    let mut engine = source.engine(&wanted);
    let mut replayed = Replayed { settings, namespaces: 0, history: None };
    source.run(&mut engine, &wanted, &mut replayed)?;
    let Replayed { namespaces, history, .. } = replayed;
    let evidence = replayed::evidence(&engine, &*source.containers(), namespaces);
    let mut report = LeakReport::new(&evidence, &settings.terms, &history.unwrap_or_default());
    report.watched_ns = Some(engine.meta().elapsed_ns());
    let snapshot = engine.snapshot(&|_| None);
    report.notes.extend(not_traced(&snapshot));
    if namespaces == 0 {
        report.notes.push(
            "the recording has no list of the sockets that were there when it began: older ones are not seen"
                .to_owned(),
        );
    }
    let mut printer = Printer::new(settings, engine.meta().wall, false);
    printer.page(&report)?;
    printer.summary(&snapshot)?;
    Ok(exit(settings, &report).unwrap_or_else(|| trace::exit(&engine, &tracing)))
}

struct Replayed<'a> {
    settings: &'a Leaks,
    /// In the last dump.
    namespaces: u64,
    /// From the first dump on.
    history: Option<History>,
}

impl Handler for Replayed<'_> {
    fn input(&mut self, input: &Input) -> anyhow::Result<()> {
        if let Input::Inventory(inventory) = input {
            self.namespaces = inventory.dump.namespaces.len() as u64;
        }
        Ok(())
    }

    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        if self.namespaces > 0 && self.history.is_none() {
            let mut history = History::default();
            history.keep(&replayed::evidence(engine, &|_| None, self.namespaces), &self.settings.terms);
            self.history = Some(history);
        }
        Ok(ControlFlow::Continue(()))
    }
}
