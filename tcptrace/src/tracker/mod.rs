//! Events → outcomes: puts the real TIME_WAIT and FIN_WAIT2 together.
//!
//! Pure: no clock, no I/O. Time arrives with the event, and what is due is asked for with
//! [`Tracker::deadline`] and delivered by [`Tracker::expire`].

use rustc_hash::FxHashMap;

use crate::event::{Event, MonoNs};
use crate::inventory::diag::{DiagSocket, Dump};
use crate::net::{Flow, State};
use crate::outcome::{ConnId, Dwell, Open, Outcome, Owner, Phase, Transition};

/// How much the tracker may hold. What does not fit is not tracked, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Full sockets, listeners included. A million is the kernel's default `fs.nr_open`.
    pub full_sockets: usize,
    /// TIME_WAIT minis. A million is four namespaces at the kernel's largest default `tcp_max_tw_buckets`.
    pub minis: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { full_sockets: 1 << 20, minis: 1 << 20 }
    }
}

/// Totals since the start, and what is open now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were given a number.
    pub connections: u64,
    /// Connections and minis that found no room.
    pub table_full: u64,
    /// Dwells dropped because an event was lost: their end is not known, so they end in no figure.
    pub censored: u64,
    /// Open connections by state number.
    pub open: [u64; tcptrace_common::state::SLOTS],
}

#[derive(Clone, Copy, Debug)]
struct Full {
    conn: ConnId,
    flow: Flow,
    state: State,
    phase: Option<Phase>,
    since: MonoNs,
    unread: u32,
}

/// The state machine.
#[derive(Debug)]
pub struct Tracker {
    limits: Limits,
    counts: Counts,
    fulls: FxHashMap<u64, Full>,
}

impl Tracker {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, counts: Counts::default(), fulls: FxHashMap::default() }
    }

    /// Takes the next event and appends what follows from it. What is due before it is expired first, so that
    /// results never depend on when [`Self::expire`] is called.
    pub fn apply(&mut self, event: &Event, out: &mut Vec<Outcome>) {
        self.expire(event.at(), out);
        let Event::State(change) = event else { return };
        if change.from == change.to {
            return;
        }
        let known = self.fulls.remove(&change.sk);
        let conn = known.map_or_else(
            || {
                self.counts.connections += 1;
                self.counts.connections
            },
            |full| full.conn,
        );
        let phase = (change.to == State::FinWait2).then_some(if change.orphan {
            Phase::Orphaned
        } else {
            Phase::HalfClosed
        });
        out.push(Outcome::Transition(Transition {
            at: change.at,
            conn,
            flow: change.flow,
            from: change.from,
            to: change.to,
            phase: known.and_then(|full| full.phase),
            to_phase: phase,
            dwell: known
                .filter(|full| full.state == change.from)
                .map(|full| Dwell { ns: change.at.saturating_sub(full.since), is_lower_bound: false }),
            as_full_socket_ns: None,
            end: None,
            rearmed: 0,
            timeout_jiffies: None,
            owner: None,
        }));
        if change.to == State::Close {
            return;
        }
        if self.fulls.len() >= self.limits.full_sockets {
            self.counts.table_full += 1;
            return;
        }
        self.fulls.insert(
            change.sk,
            Full {
                conn,
                flow: change.flow,
                state: change.to,
                phase,
                since: change.at,
                unread: change.unread,
            },
        );
    }

    /// When [`Self::expire`] has something to say without a further event.
    #[must_use]
    pub fn deadline(&self) -> Option<MonoNs> {
        None
    }

    /// Concludes what time alone decides. `now` must not be later than the moment up to which every event has
    /// been applied: read the clock, drain the ring, then expire.
    pub fn expire(&mut self, _now: MonoNs, _out: &mut Vec<Outcome>) {}

    /// Call before the requests of a dump are sent: from here on closes are remembered, so that the dump
    /// cannot bring back what has closed meanwhile.
    pub fn begin_resync(&mut self, _now: MonoNs) {}

    /// Makes the tracker agree with a dump: seeding and repair after loss are the same operation. Every event up
    /// to `dump.finished` must have been applied before.
    pub fn reconcile(
        &mut self,
        _dump: &Dump,
        _fd_owner: &dyn Fn(&DiagSocket) -> Option<Owner>,
        _out: &mut Vec<Outcome>,
    ) {
    }

    /// Every connection with the state it is in now.
    pub fn open(&self) -> impl Iterator<Item = Open> {
        self.fulls.values().map(|full| Open {
            conn: full.conn,
            flow: full.flow,
            state: full.state,
            phase: full.phase,
            since: full.since,
            since_is_lower_bound: false,
            owner: None,
            unread: (full.state == State::CloseWait).then_some(full.unread),
        })
    }

    /// Totals, and open connections by state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        for open in self.open() {
            counts.open[usize::from(open.state.number())] += 1;
        }
        counts
    }
}
