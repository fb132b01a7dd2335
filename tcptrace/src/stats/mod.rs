//! Dwells → histograms, open ones, survival. Pure: reads no clock, does no I/O.
//!
//! [`Stats::record`] runs for every transition: a few array look-ups and increments, no allocation once every
//! state has been seen. [`Stats::snapshot`] is where the work is done.

pub mod cells;
mod collection;
pub mod compare;
mod keyed;
mod keys;
pub mod survival;
pub(crate) mod tally;
mod time_wait;

use std::net::SocketAddr;

use crate::event::MonoNs;
use crate::net::{Addr, Flow, State};
use crate::outcome::{Open, Outcome, Owner, Phase, Transition};
use crate::snapshot::{
    ConnectFailures, Destination, Key, KeyKind, Meta, ProcessKey, Snapshot, StateReport, TimeWaitTally,
    TransitionCount,
};

use self::cells::Cells;
use self::collection::{Collection, OpenAges};
pub(crate) use self::collection::{SLOTS, merged, slot, slots};
use self::keyed::Keyed;
pub(crate) use self::keys::service_port;
use self::tally::Tally;
use self::time_wait::TimeWaits;

/// Entries of each list of the most frequent in a snapshot.
pub(crate) const RANKED: usize = 100;
/// Counters kept for such a list: ten times as many as are shown, so that the shown ones are nearly exact.
const COUNTERS: usize = 10 * RANKED;
/// Keys kept apart at most by default: enough for the processes and ports of a busy host, small enough that
/// their histograms stay within some tens of megabytes. Peers may be more and are then folded.
pub const DEFAULT_KEYS: usize = 1000;

/// Everything that is counted about transitions.
#[derive(Clone, Debug)]
pub struct Stats {
    total: Collections,
    keyed: Option<Keyed>,
    transitions: [[u64; tcptrace_common::state::SLOTS]; tcptrace_common::state::SLOTS],
    time_waits: TimeWaits,
    connect_failures: u64,
    connect_failures_by: Tally<(Option<ProcessKey>, Addr, u16)>,
}

impl Default for Stats {
    fn default() -> Self {
        Self::new(None, DEFAULT_KEYS)
    }
}

impl Stats {
    /// Counts over all connections and, with a kind of key, for each of the first `max_keys` keys.
    #[must_use]
    pub fn new(by: Option<KeyKind>, max_keys: usize) -> Self {
        Self {
            total: Collections::default(),
            keyed: by.map(|kind| Keyed::new(kind, max_keys)),
            transitions: Default::default(),
            time_waits: TimeWaits::default(),
            connect_failures: 0,
            connect_failures_by: Tally::new(COUNTERS),
        }
    }

    /// Counts an outcome of the tracker.
    pub fn record(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Transition(transition) => self.record_transition(transition),
            Outcome::ConnectFailed { flow, owner, .. } => self.record_connect_failure(flow, owner.as_ref()),
        }
    }

    /// Counts a transition: the dwell that it ended and the one that it began.
    pub fn record_transition(&mut self, transition: &Transition) {
        let Transition { from, to, .. } = *transition;
        self.transitions[usize::from(from.number())][usize::from(to.number())] += 1;
        self.total.record(transition, Cells::dense);
        if let Some(keyed) = &mut self.keyed {
            keyed.record(transition);
        }
        if to == State::TimeWait && from != State::TimeWait {
            self.time_waits.record(&transition.flow, transition.owner.as_ref());
        }
    }

    fn record_connect_failure(&mut self, flow: &Flow, owner: Option<&Owner>) {
        self.connect_failures += 1;
        self.connect_failures_by.add((keys::process(owner), flow.remote, flow.remote_port));
    }

    /// The view of this moment (`meta.now`) for the renderers.
    ///
    /// `open` is what has not ended, from the tracker; `container` names the container of a cgroup v2 id, and
    /// is asked only with [`KeyKind::Container`]. Loss, programs and skipped hooks are for the caller to fill
    /// in.
    pub fn snapshot(
        &self,
        meta: Meta,
        open: impl Iterator<Item = Open>,
        container: &dyn Fn(u64) -> Option<String>,
    ) -> Snapshot {
        let now = meta.now;
        let mut totals = OpenBySlot::default();
        let mut by_key = self.keyed.as_ref().map(|keyed| keyed.open_by_key(container));
        let mut close_wait_holders = Tally::new(COUNTERS);
        let mut open_to = Tally::new(COUNTERS);
        for open in open {
            totals.add(&open, now);
            match open.state {
                State::CloseWait => close_wait_holders.add(keys::process(open.owner.as_ref())),
                State::TimeWait => open_to.add(Destination::of(&open.flow)),
                _ => {}
            }
            if let Some(by_key) = &mut by_key {
                by_key.add(&open, now);
            }
        }
        let mut states = self.total.reports(None, &totals);
        states.extend(by_key.into_iter().flat_map(|by_key| by_key.reports()));
        Snapshot {
            meta,
            states,
            keyed_by: self.keyed.as_ref().map(Keyed::keying),
            transitions: self.transition_counts(),
            close_wait_holders: close_wait_holders.ranking(RANKED),
            time_wait: TimeWaitTally { open_to: open_to.ranking(RANKED), ..self.time_waits.report(RANKED) },
            connect_failures: self.connect_failure_report(),
            ..Snapshot::default()
        }
    }

    fn transition_counts(&self) -> Vec<TransitionCount> {
        let pairs = State::ALL.into_iter().flat_map(|from| State::ALL.into_iter().map(move |to| (from, to)));
        pairs
            .map(|(from, to)| TransitionCount {
                from,
                to,
                count: self.transitions[usize::from(from.number())][usize::from(to.number())],
            })
            .filter(|counted| counted.count > 0)
            .collect()
    }

    fn connect_failure_report(&self) -> ConnectFailures {
        let by = self.connect_failures_by.ranking(RANKED);
        ConnectFailures {
            count: self.connect_failures,
            by: by.map(|(process, addr, port)| (process, SocketAddr::new(addr.ip(), port))),
        }
    }
}

/// A segment of the peer is worked through in less than this.
const ONE_SEGMENT_NS: u64 = 1_000_000;

/// Whether an orphan was in FIN_WAIT2 only while the kernel worked through one segment of the peer: its FIN
/// came with the ACK of ours, so that `tcp_rcv_state_process()` went through FIN_WAIT2 straight on to TIME_WAIT
/// and no `tcp_fin_timeout` ran. That is how most connections end; counted as orphaned they would hide those
/// that were.
pub(crate) fn passes_through(transition: &Transition) -> bool {
    transition.phase == Some(Phase::Orphaned)
        && transition.to == State::TimeWait
        && transition.timeout_jiffies.is_none()
        && transition.dwell.is_some_and(|dwell| !dwell.is_lower_bound && dwell.ns < ONE_SEGMENT_NS)
}

/// A collection per state and phase, made when first needed.
#[derive(Clone, Debug, Default)]
struct Collections {
    by_slot: [Option<Box<Collection>>; SLOTS],
}

impl Collections {
    fn record(&mut self, transition: &Transition, cells: fn() -> Cells) {
        let began = slot(transition.to, transition.to_phase);
        let mut ended = slot(transition.from, transition.phase);
        if passes_through(transition) {
            self.at(ended, cells).unbegin();
            ended = slot(State::FinWait2, None);
            self.at(ended, cells).begin();
        }
        if ended == began {
            return;
        }
        // CLOSE is no state that a connection is in: nothing dwells there.
        if transition.from != State::Close {
            self.at(ended, cells).end(transition);
        }
        if transition.to != State::Close {
            self.at(began, cells).begin();
        }
    }

    fn at(&mut self, slot: usize, cells: fn() -> Cells) -> &mut Collection {
        self.by_slot[slot].get_or_insert_with(|| Box::new(Collection::new(cells)))
    }

    fn merge(&mut self, other: &Self) {
        for (slot, theirs) in other.by_slot.iter().enumerate() {
            if let Some(theirs) = theirs {
                self.at(slot, Cells::sparse).merge(theirs);
            }
        }
    }

    fn reports(&self, key: Option<&Key>, open: &OpenBySlot) -> Vec<StateReport> {
        let (nothing_ended, none_open) = (Collection::new(Cells::sparse), OpenAges::default());
        slots()
            .filter_map(|(state, phase)| {
                let slot = slot(state, phase);
                let (ended, open) = (self.by_slot[slot].as_deref(), open.by_slot[slot].as_deref());
                if ended.is_none() && open.is_none() {
                    return None;
                }
                let (ended, open) = (ended.unwrap_or(&nothing_ended), open.unwrap_or(&none_open));
                Some(ended.report((state, phase), key.cloned(), open))
            })
            .filter(|report| report.began > 0 || report.has_dwells())
            .collect()
    }
}

/// The open dwells of one moment by state and phase.
#[derive(Clone, Debug, Default)]
struct OpenBySlot {
    by_slot: [Option<Box<OpenAges>>; SLOTS],
}

impl OpenBySlot {
    fn add(&mut self, open: &Open, now: MonoNs) {
        if open.state != State::Close {
            self.by_slot[slot(open.state, open.phase)].get_or_insert_default().add(open, now);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.by_slot.iter_mut().zip(&other.by_slot) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().merge(theirs);
            }
        }
    }
}

#[cfg(test)]
mod tests;
