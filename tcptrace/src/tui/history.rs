//! What each connection went through: for the timeline of one of them.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::event::MonoNs;
use crate::net::{Flow, State};
use crate::outcome::{ConnId, Dwell, End, Owner, Phase, Transition};

/// Connections remembered at most: 20 MB. At a thousand connections a second that reaches back a quarter of a minute
/// for those that are over (each has two ends), and as long as they last for the others.
const CONNECTIONS: usize = 32_768;
/// Steps kept of one connection: a longest life has eight.
const STEPS: usize = 10;

/// A state that a connection was in, as its end told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it went from one to the other.
    pub at: MonoNs,
    /// The state that ended.
    pub from: State,
    /// Its phase.
    pub phase: Option<Phase>,
    /// How long it had lasted.
    pub dwell: Option<Dwell>,
    /// Why it ended.
    pub end: Option<End>,
    /// Times its timer was seen to be set anew.
    pub rearmed: u32,
    /// The state that began.
    pub to: State,
    /// Its phase.
    pub to_phase: Option<Phase>,
}

/// The life of a connection, as far as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Which.
    pub conn: ConnId,
    /// Where, as last seen.
    pub flow: Flow,
    /// Who, as last known.
    pub owner: Option<Owner>,
    /// Its steps, oldest first.
    steps: [Option<Step>; STEPS],
    /// Steps that found no room, the oldest.
    pub dropped: u32,
}

impl Past {
    fn new(transition: &Transition) -> Self {
        Self { conn: transition.conn, flow: transition.flow, owner: None, steps: [None; STEPS], dropped: 0 }
    }

    /// The steps, oldest first.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    fn add(&mut self, transition: &Transition) {
        // Ports may become known later, owners change to the one who closes.
        self.flow = transition.flow;
        self.owner = transition.owner.or(self.owner);
        let step = Step {
            at: transition.at,
            from: transition.from,
            phase: transition.phase,
            dwell: transition.dwell,
            end: transition.end,
            rearmed: transition.rearmed,
            to: transition.to,
            to_phase: transition.to_phase,
        };
        match self.steps.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(step),
            None => {
                self.steps.rotate_left(1);
                self.steps[STEPS - 1] = Some(step);
                self.dropped += 1;
            }
        }
    }
}

/// Remembers connections. Those that are over, or rest in TIME_WAIT, are forgotten first, oldest first; what is
/// open and may matter (a CLOSE_WAIT of yesterday) stays.
#[derive(Clone, Debug)]
pub struct History {
    rows: Slab<Past>,
    /// Where a connection's row stands. Rows are large: a map of them would be up to half empty.
    index: FxHashMap<ConnId, u32>,
    /// Connections that came to TIME_WAIT or their end, in that order.
    resting: VecDeque<ConnId>,
    capacity: usize,
}

impl Default for History {
    fn default() -> Self {
        Self::with_capacity(CONNECTIONS)
    }
}

impl History {
    fn with_capacity(capacity: usize) -> Self {
        Self { rows: Slab::new(), index: FxHashMap::default(), resting: VecDeque::new(), capacity }
    }

    /// What is known of a connection.
    #[must_use]
    pub fn of(&self, conn: ConnId) -> Option<&Past> {
        self.rows.get(*self.index.get(&conn)? as usize)
    }

    /// Adds a transition. Where everything that is remembered is still in progress, a new connection is not.
    pub fn record(&mut self, transition: &Transition) {
        let conn = transition.conn;
        let slot = match self.index.get(&conn).copied() {
            Some(slot) => slot as usize,
            // The end of a connection that was forgotten tells nothing that its event does not.
            None if transition.to == State::Close || !self.make_room() => return,
            None => {
                let slot = self.rows.insert(Past::new(transition));
                // Fits: there are at most `capacity` rows.
                self.index.insert(conn, slot as u32);
                slot
            }
        };
        self.rows[slot].add(transition);
        let rests = matches!(transition.to, State::TimeWait | State::Close);
        if rests && transition.from != State::TimeWait {
            self.resting.push_back(conn);
        }
    }

    fn make_room(&mut self) -> bool {
        while self.rows.len() >= self.capacity {
            let Some(conn) = self.resting.pop_front() else { return false };
            if let Some(slot) = self.index.remove(&conn) {
                self.rows.remove(slot as usize);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Addr;

    fn step(conn: ConnId, at: MonoNs, from: State, to: State) -> Transition {
        let flow =
            Flow { local: Addr([0; 16]), remote: Addr([0; 16]), netns: 1, local_port: 1, remote_port: 2 };
        Transition::new(at, conn, flow, from, to)
    }

    #[test]
    fn a_life_is_kept_in_order() {
        let mut history = History::with_capacity(4);
        history.record(&step(1, 10, State::Close, State::SynSent));
        history.record(&step(1, 11, State::SynSent, State::Established));
        history.record(&step(1, 99, State::Established, State::CloseWait));
        let past = history.of(1).unwrap();
        assert_eq!(past.steps().map(|step| step.at).collect::<Vec<_>>(), [10, 11, 99]);
        assert_eq!(past.dropped, 0);
    }

    #[test]
    fn what_rests_is_forgotten_first_and_open_ones_stay() {
        let mut history = History::with_capacity(3);
        history.record(&step(1, 1, State::Established, State::CloseWait));
        for conn in 2..100 {
            history.record(&step(conn, conn, State::FinWait2, State::TimeWait));
            history.record(&step(conn, conn, State::TimeWait, State::Close));
        }
        assert!(history.of(1).is_some() && history.of(99).is_some() && history.of(50).is_none());
        assert!(history.rows.len() <= 3 && history.resting.len() <= 3);
    }

    #[test]
    fn memory_is_what_it_is_said_to_be() {
        assert!(size_of::<Past>() * CONNECTIONS <= 20 << 20, "{} bytes a row", size_of::<Past>());
    }

    #[test]
    fn when_all_are_open_new_ones_are_not_taken() {
        let mut history = History::with_capacity(2);
        for conn in 1..5 {
            history.record(&step(conn, 1, State::Established, State::CloseWait));
        }
        assert!(history.of(2).is_some() && history.of(3).is_none());
    }

    #[test]
    fn too_many_steps_lose_the_oldest() {
        let mut history = History::default();
        for at in 0..STEPS as u64 + 3 {
            history.record(&step(1, at, State::Closing, State::Closing));
        }
        let past = history.of(1).unwrap();
        assert_eq!(past.dropped, 3);
        assert_eq!(past.steps().next().unwrap().at, 3);
    }
}
