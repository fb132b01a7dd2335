//! What is folded as outcomes come: constant cost for each, memory that does not grow with connections.

use std::sync::Arc;

use super::closers::Closers;
use super::histogram::Histogram;
use crate::net::State;
use crate::outcome::{End, Outcome, Phase, Transition};
use crate::snapshot::Ends;
use crate::stats::{SLOTS, passes_through, slot, slots};

const STATES: usize = tcptrace_common::state::SLOTS;

/// Totals since the start.
#[derive(Debug)]
pub struct Aggregate {
    transitions: [[u64; STATES]; STATES],
    dwells: [Option<Arc<Histogram>>; SLOTS],
    time_wait_ends: Ends,
    connect_failures: u64,
    /// Who made the TIME_WAITs.
    pub closers: Closers,
}

/// The totals of one moment.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How often one state followed another.
    pub transitions: Vec<(State, State, u64)>,
    /// Dwells by state and phase.
    pub dwells: Vec<(State, Option<Phase>, Arc<Histogram>)>,
    /// Why TIME_WAITs ended, or were not made.
    pub time_wait_ends: Ends,
    /// connect() without a free port, or without a route.
    pub connect_failures: u64,
}

impl Aggregate {
    /// Nothing yet. `max_series` label sets are kept apart.
    #[must_use]
    pub fn new(max_series: usize) -> Self {
        Self {
            transitions: Default::default(),
            dwells: Default::default(),
            time_wait_ends: Ends::default(),
            connect_failures: 0,
            closers: Closers::new(max_series),
        }
    }

    /// Folds an outcome in.
    pub fn record(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Transition(transition) => self.record_transition(transition),
            Outcome::ConnectFailed { .. } => self.connect_failures += 1,
        }
    }

    fn record_transition(&mut self, transition: &Transition) {
        let Transition { from, to, end, .. } = *transition;
        self.transitions[usize::from(from.number())][usize::from(to.number())] += 1;
        if from != to {
            if from == State::TimeWait || end == Some(End::Overflow) {
                self.time_wait_ends.add(end);
            }
            if to == State::TimeWait {
                self.closers.add(transition.owner.as_ref(), transition.at);
            }
        }
        let phase = if passes_through(transition) { None } else { transition.phase };
        let ended = slot(from, phase);
        if ended == slot(to, transition.to_phase) || from == State::Close {
            return;
        }
        // A dwell whose beginning was not seen is of unknown length.
        if let Some(dwell) = transition.dwell.filter(|dwell| !dwell.is_lower_bound) {
            // Copied only while a scrape still reads the last one.
            Arc::make_mut(self.dwells[ended].get_or_insert_default()).record(dwell.ns);
        }
    }

    /// The totals of this moment.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let pairs = State::ALL.into_iter().flat_map(|from| State::ALL.into_iter().map(move |to| (from, to)));
        let count =
            |from: State, to: State| self.transitions[usize::from(from.number())][usize::from(to.number())];
        let dwells = slots().filter_map(|(state, phase)| {
            Some((state, phase, Arc::clone(self.dwells[slot(state, phase)].as_ref()?)))
        });
        Totals {
            transitions: pairs
                .map(|(from, to)| (from, to, count(from, to)))
                .filter(|&(_, _, count)| count > 0)
                .collect(),
            dwells: dwells.collect(),
            time_wait_ends: self.time_wait_ends,
            connect_failures: self.connect_failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Addr, Flow};
    use crate::outcome::Dwell;

    fn transition(from: State, to: State, dwell: Option<Dwell>, end: Option<End>) -> Outcome {
        let addr = Addr([0; 16]);
        Outcome::Transition(Transition {
            at: 0,
            conn: 1,
            flow: Flow { local: addr, remote: addr, netns: 1, local_port: 1, remote_port: 2 },
            from,
            to,
            phase: None,
            to_phase: None,
            dwell,
            as_full_socket_ns: None,
            end,
            rearmed: 0,
            timeout_jiffies: None,
            owner: None,
        })
    }

    #[test]
    fn only_dwells_of_known_length_are_in_histograms() {
        let mut aggregate = Aggregate::new(10);
        for is_lower_bound in [false, true] {
            let dwell = Some(Dwell { ns: 60_000_000_000, is_lower_bound });
            aggregate.record(&transition(State::TimeWait, State::Close, dwell, Some(End::Expired)));
        }
        aggregate.record(&transition(State::FinWait2, State::Close, None, Some(End::Overflow)));
        aggregate.record(&transition(State::FinWait2, State::TimeWait, None, None));
        let totals = aggregate.totals();
        assert_eq!(totals.transitions.len(), 3);
        let [(State::TimeWait, None, dwells)] = totals.dwells.as_slice() else { panic!("{totals:?}") };
        assert_eq!(dwells.count(), 1);
        assert_eq!(totals.time_wait_ends.get(Some(End::Expired)), 2);
        assert_eq!(totals.time_wait_ends.get(Some(End::Overflow)), 1);
        assert_eq!(aggregate.closers.series().1, 1);
    }
}
