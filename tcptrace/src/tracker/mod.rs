//! Events → outcomes: puts the real TIME_WAIT and FIN_WAIT2 together.
//!
//! The kernel keeps a closing connection in two kinds of sockets. The *full* one (`struct tcp_sock`) is what
//! `inet_sock_set_state` reports. In TIME_WAIT, and in FIN_WAIT2 once the application has closed, a *mini*
//! (`struct inet_timewait_sock`) stands in for it, and the tracepoint has already said CLOSE: what is left of
//! the connection's life can only be seen in the mini's timer. `tcp_time_wait()` starts that timer and then
//! closes the full socket, always in this order, so
//!
//! ```text
//! a full socket in FIN_WAIT2  +  a mini on the same flow  =  FIN_WAIT2→TIME_WAIT
//! ```
//!
//! and the CLOSE adds nothing: while every socket is known, the programs leave it out.
//!
//! Full sockets and minis stand in two tables (`table`), found by flow, full sockets by kernel address as well.
//! An address identifies only what lives: both kinds of memory are reused at once. So everything that comes in is checked
//! against what is known, and where it does not fit, an event was lost: the old dwell is then dropped, never
//! ended with a wrong length.
//!
//! | file | holds |
//! |---|---|
//! | `full` | transitions of full sockets |
//! | `mini` | start, cancel and expiry of a mini's timer |
//! | `silent` | TIME_WAITs that begin without an event |
//! | `pending` | minis that have ended and whose reason is not known yet |
//! | `ends` | why a dwell ended |
//! | `actor`, `owners`, `listeners` | who did it, whose it is |
//! | `mptcp` | which socket of an MPTCP connection speaks for which state |
//! | `reconcile` | seeding from a dump, and repair after loss |
//! | `gaps` | what shows that an event did not come |
//!
//! Pure: no clock, no I/O. Time arrives with the event, and what is due without one is asked for with
//! [`Tracker::deadline`] and delivered by [`Tracker::expire`].

mod actor;
mod ends;
mod full;
mod gaps;
mod listeners;
mod mini;
mod mptcp;
mod owners;
mod pending;
mod reconcile;
mod row;
mod silent;
mod table;

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
#[cfg(test)]
mod tests;

use crate::event::{Event, MonoNs, Protocol};
use crate::net::State;
use crate::outcome::{ConnId, Open, Outcome, Owner};

use self::actor::Actors;
use self::gaps::Gaps;
use self::listeners::ListeningPorts;
use self::owners::{OwnerRef, Owners};
use self::pending::{Connects, Pending};
use self::reconcile::Resync;
use self::row::{Full, Mini, Successor};
use self::silent::Jiffies;
use self::table::{Slot, Table};

/// How much the tracker may hold. What does not fit is not tracked, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Full sockets, listeners included: about 130 MB for a million, which is the kernel's default
    /// `fs.nr_open`.
    pub full_sockets: usize,
    /// TIME_WAIT minis: about 170 MB for a million, which is four network namespaces at the highest
    /// `tcp_max_tw_buckets` that the kernel chooses by itself (262,144).
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
    /// Connections seen, those of the dumps included. An MPTCP connection counts as its subflows.
    pub connections: u64,
    /// Connections and minis that found no room.
    pub table_full: u64,
    /// Dwells dropped because their end, or what came before it, was not seen. They are in no figure.
    pub censored: u64,
    /// Open connections and listeners by state number.
    pub open: [u64; tcptrace_common::state::SLOTS],
}

/// The state machine. See the module.
#[derive(Clone, Debug)]
pub struct Tracker {
    fulls: Table<Full, true>,
    minis: Table<Mini, false>,
    owners: Owners,
    listening_ports: ListeningPorts,
    actors: Actors,
    connects: Connects,
    pending: Pending,
    jiffies: Jiffies,
    resync: Resync,
    /// The latest moment seen. Records of several CPUs may come in slightly out of order; deadlines must not.
    clock: MonoNs,
    last_conn: ConnId,
    connections: u64,
    table_full: u64,
    censored: u64,
    gaps: Gaps,
}

impl Tracker {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            fulls: Table::new(limits.full_sockets),
            minis: Table::new(limits.minis),
            owners: Owners::default(),
            listening_ports: ListeningPorts::default(),
            actors: Actors::default(),
            connects: Connects::default(),
            pending: Pending::default(),
            jiffies: Jiffies::default(),
            resync: Resync::default(),
            clock: 0,
            last_conn: 0,
            connections: 0,
            table_full: 0,
            censored: 0,
            gaps: Gaps::default(),
        }
    }

    /// Tells HZ of the traced kernel. Without it a TIME_WAIT that begins in silence (see `silent`) has no
    /// length.
    pub fn set_hz(&mut self, hz: Option<u32>) {
        self.jiffies.set_hz(hz);
    }

    /// Takes the next event and appends what follows from it. What is due before it is expired first, so that
    /// results never depend on when [`Self::expire`] is called.
    pub fn apply(&mut self, event: &Event, out: &mut Vec<Outcome>) {
        self.expire(event.at(), out);
        match event {
            Event::State(change) => self.on_state(change, out),
            Event::MiniStarted(timer) => self.on_start(timer, out),
            Event::MiniCancelled(timer) => self.on_cancel(timer, out),
            Event::MiniExpired(expired) => self.on_expired(expired, out),
            Event::EofTold(told) => self.on_eof_told(told),
        }
    }

    /// Says which events come next. Their minis have been left alone for a minute, and with a million of them no cache
    /// holds one: looked up one after the other as the events are applied, each would be waited for; here all are on
    /// their way together.
    pub fn fetch(&self, events: &[Event]) {
        let flows = events.iter().filter_map(|event| match event {
            Event::MiniStarted(timer) | Event::MiniCancelled(timer) => Some(&timer.flow),
            _ => None,
        });
        flows.clone().for_each(|flow| self.minis.fetch_index(flow));
        flows.for_each(|flow| self.minis.fetch_rows(flow));
    }

    /// When [`Self::expire`] may have something to say without a further event.
    #[must_use]
    pub fn deadline(&self) -> Option<MonoNs> {
        self.pending.deadline()
    }

    /// Concludes what time alone decides. `now` must not be later than the moment up to which every event has
    /// been applied: read the clock, drain the ring, then expire.
    pub fn expire(&mut self, now: MonoNs, out: &mut Vec<Outcome>) {
        self.clock = self.clock.max(now);
        while let Some(waiting) = self.pending.pop_due(self.clock) {
            self.give_up_waiting(&waiting, out);
        }
    }

    /// Gives back the memory of a burst of connections once most of them are gone. Costs nothing when there is
    /// none to give back, else a pass over the tables.
    pub fn shrink(&mut self) {
        if self.fulls.is_sparse() {
            // Nobody keeps the slot of a full socket beyond an event.
            self.fulls.compact();
        }
        if self.minis.is_sparse() {
            self.compact_minis();
        }
    }

    fn compact_minis(&mut self) {
        let moved = self.minis.compact();
        let new_slot = |old: Slot| {
            let position = moved.binary_search_by_key(&old, |&(old, _)| old).ok()?;
            Some(moved[position].1)
        };
        self.pending.renumber(new_slot);
        self.fulls.for_each_mut(|full| {
            if let Successor::Mini(mini) = full.successor {
                // The step into a mini that is gone has been reported.
                full.successor = new_slot(mini).map_or(Successor::Settled, Successor::Mini);
            }
        });
    }

    /// Every connection and listener with the state that it is in now.
    ///
    /// A mini that was last seen in FIN_WAIT2 is given as such, though it may have gone into TIME_WAIT in
    /// silence (see `silent`): reconcile with a dump first where that matters.
    pub fn open(&self) -> impl Iterator<Item = Open> {
        let minis = self.minis.iter().filter(|(_, mini)| mini.is_live()).map(|(_, mini)| Open {
            conn: mini.conn(),
            flow: *mini.flow(),
            state: mini.state,
            phase: mini.phase(),
            since: mini.since,
            since_is_lower_bound: mini.begin != row::Begin::Exact,
            owner: self.owner(mini.owner),
            unread: None,
        });
        self.open_full_sockets().chain(minis)
    }

    /// Those of them that no mini stands for: none in TIME_WAIT, which are most of a busy host's.
    pub fn open_full_sockets(&self) -> impl Iterator<Item = Open> {
        let fulls = self.fulls.iter().filter(|(_, full)| {
            full.successor == Successor::None && mptcp::speaks_for(full.protocol, full.state)
        });
        fulls.map(|(_, full)| Open {
            conn: full.conn(),
            flow: *full.flow(),
            state: full.state,
            phase: full.phase,
            since: full.since,
            since_is_lower_bound: full.begin != row::Begin::Exact,
            owner: self.owner(full.owner),
            unread: full.unread.filter(|_| full.state == State::CloseWait),
        })
    }

    /// Totals, and open connections by state: counted when asked for.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            connections: self.connections,
            table_full: self.table_full,
            censored: self.censored,
            open: Default::default(),
        };
        for open in self.open() {
            counts.open[usize::from(open.state.number())] += 1;
        }
        counts
    }

    /// Connections seen, those of the dumps included.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Connections and minis that found no room.
    #[must_use]
    pub fn table_full(&self) -> u64 {
        self.table_full
    }

    /// Times that something showed that an event had not come. Whether the kernel side has counted its loss, this
    /// does not know.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.gaps.found
    }

    /// Says whether every step of a plain TCP connection that has begun to end is told: then one that does not fit
    /// what is known shows a gap.
    pub fn expect_every_end(&mut self, is_told: bool) {
        self.gaps.is_every_end_told = is_told;
    }

    fn number_connection(&mut self, protocol: Protocol, state: State) -> ConnId {
        self.last_conn += 1;
        if protocol != Protocol::Mptcp && state != State::Listen {
            self.connections += 1;
        }
        self.last_conn
    }

    fn owner(&self, owner: Option<OwnerRef>) -> Option<Owner> {
        owner.and_then(|owner| self.owners.get(owner))
    }

    /// Before an owner is learned: makes room for it.
    fn sweep_owners(&mut self) {
        if self.owners.wants_sweep() {
            let fulls = self.fulls.iter().filter_map(|(_, full)| full.owner);
            let minis = self.minis.iter().filter_map(|(_, mini)| mini.owner);
            self.owners.sweep(fulls.chain(minis));
        }
    }
}
