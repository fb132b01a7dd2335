//! What the screen remembers of the stream beside the engine, and how a view is made of both. Pure: time comes
//! with the input, so that a recording gives the same view every time.

use std::collections::VecDeque;

use crate::engine::Engine;
use crate::event::MonoNs;
use crate::filter::Filter;
use crate::outcome::{End, Open, Outcome};
use crate::snapshot::{Snapshot, Sysctls};
use crate::stats::{DEFAULT_KEYS, Stats};

use super::history::History;
use super::lanes::{self, LANES};
use super::ports::Memory;
use super::query::{First, Pane, Query, ROWS, Searchable};
use super::trends::{Sample, Trends};
use super::view::{Focus, Listed, Seen, Timeline, View};

/// Outcomes kept for the events pane: 200 bytes each, and some seconds of a busy host.
const EVENTS: usize = 10_000;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Model {
    history: History,
    events: VecDeque<Seen>,
    next_seq: u64,
    trends: Trends,
    /// Totals for the next sample; its `open` and `at` are not used.
    totals: Sample,
    ports: Memory,
    focus: Option<Focused>,
    /// Newer than those of the engine.
    sysctls: Option<Vec<Sysctls>>,
}

/// A filter that was typed in, with statistics of its own: those of the engine go on over everything.
#[derive(Clone, Debug)]
struct Focused {
    focus: Focus,
    filter: Filter,
    stats: Stats,
}

impl Model {
    /// Takes note of an outcome.
    pub fn outcome(&mut self, outcome: &Outcome) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Seen { seq: self.next_seq, outcome: *outcome });
        self.next_seq += 1;
        if let Outcome::Transition(transition) = outcome {
            self.history.record(transition);
        }
        if let Some(focused) = &mut self.focus {
            if !wants(&focused.filter, outcome) {
                return;
            }
            focused.stats.record(outcome);
        }
        self.count(outcome);
    }

    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Transition(transition) => {
                let began = lanes::lane(transition.to, transition.to_phase);
                if let Some(lane) = began
                    && lanes::lane(transition.from, transition.phase) != began
                {
                    self.totals.began[lane] += 1;
                }
                self.totals.overflows += u64::from(transition.end == Some(End::Overflow));
            }
            Outcome::ConnectFailed { .. } => self.totals.connect_failures += 1,
        }
    }

    /// To be called whenever time has passed: takes a sample once a second.
    pub fn turn(&mut self, engine: &Engine) {
        if self.trends.is_due(engine.now()) {
            self.sample(engine);
        }
    }

    fn sample(&mut self, engine: &Engine) {
        let now = engine.now();
        let loss = engine.loss();
        let mut sample = Sample {
            at: now,
            open: [0; LANES.len()],
            events: engine.events(),
            lost: loss.total(),
            ..self.totals
        };
        for open in engine.open().filter(|open| self.wants_open(open, now)) {
            if let Some(lane) = lanes::lane(open.state, open.phase) {
                sample.open[lane] += 1;
            }
        }
        self.trends.push(sample);
    }

    fn wants_open(&self, open: &Open, now: MonoNs) -> bool {
        self.focus.as_ref().is_none_or(|focused| focused.filter.matches_open(open, now))
    }

    /// Sets, or takes away, the filter that was typed in. Trends and figures begin anew.
    pub fn set_focus(&mut self, filter: Option<Filter>, now: MonoNs) {
        self.focus = filter.map(|filter| Focused {
            focus: Focus { line: filter.to_string(), since: now },
            filter,
            stats: Stats::new(None, DEFAULT_KEYS),
        });
        self.trends = Trends::default();
        self.totals = Sample::default();
        self.ports = Memory::default();
    }

    /// The filter that was typed in.
    #[must_use]
    pub fn focus(&self) -> Option<&Filter> {
        self.focus.as_ref().map(|focused| &focused.filter)
    }

    /// Takes note of what rates are reckoned from: to be called every few seconds where no view is made.
    pub fn look(&mut self, engine: &Engine) {
        let snapshot = self.snapshot(engine);
        let _ = self.ports.look(&snapshot);
    }

    /// The view of this moment. What belongs to the collector (leaks, recording, playback) is for it to fill in.
    #[must_use]
    pub fn view(&mut self, engine: &Engine, query: &Query) -> View {
        let snapshot = self.snapshot(engine);
        View {
            time_waits: self.ports.look(&snapshot),
            snapshot,
            trends: self.trends.clone(),
            connections: match query.pane {
                Pane::Connections => self.connections(engine, query),
                _ => Listed::default(),
            },
            events: if query.pane == Pane::Events { self.events(query) } else { Listed::default() },
            pane: query.pane,
            timeline: query.timeline.map(|conn| self.timeline(engine, conn)),
            focus: self.focus.as_ref().map(|focused| focused.focus.clone()),
            ..View::default()
        }
    }

    /// Replaces the values of sysctls that the engine was told.
    pub fn set_sysctls(&mut self, values: Vec<Sysctls>) {
        self.sysctls = Some(values);
    }

    fn snapshot(&self, engine: &Engine) -> Snapshot {
        let mut snapshot = match &self.focus {
            Some(focused) => engine.snapshot_of(&focused.stats, &focused.filter, &|_| None),
            None => engine.snapshot(&|_| None),
        };
        if let Some(values) = &self.sysctls {
            snapshot.meta.sysctls.clone_from(values);
        }
        snapshot
    }

    fn connections(&self, engine: &Engine, query: &Query) -> Listed<Open> {
        let mut first = First::new(|a: &Open, b: &Open| {
            let ordering = query.order.compare(a, b);
            if query.reverse { ordering.reverse() } else { ordering }
        });
        let now = engine.now();
        engine
            .open()
            .filter(|open| self.wants_open(open, now) && open.contains(&query.search))
            .for_each(|open| first.push(open));
        let (rows, total) = first.finish();
        Listed { rows, total }
    }

    /// The last of them: searched from the end, so that a search that finds much costs little.
    fn events(&self, query: &Query) -> Listed<Seen> {
        let wanted = |seen: &&Seen| {
            self.focus.as_ref().is_none_or(|focused| wants(&focused.filter, &seen.outcome))
                && seen.contains(&query.search)
        };
        let mut rows: Vec<_> = self.events.iter().rev().filter(wanted).take(ROWS).copied().collect();
        rows.reverse();
        Listed { total: rows.len() as u64, rows }
    }

    fn timeline(&self, engine: &Engine, conn: u64) -> Timeline {
        let past = self.history.of(conn).cloned();
        let open = engine.open().find(|open| open.conn == conn);
        let flow = past.as_ref().map(|past| past.flow).or(open.map(|open| open.flow));
        Timeline { conn, flow, past, open }
    }
}

fn wants(filter: &Filter, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Transition(transition) => filter.matches_transition(transition),
        Outcome::ConnectFailed { flow, owner, .. } => {
            filter.matches_flow(flow) && filter.matches_owner(owner.as_ref())
        }
    }
}
