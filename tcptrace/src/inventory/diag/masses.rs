//! Where sockets come in masses, nearly all are ESTABLISHED or in TIME_WAIT, and the kernel has counted those itself:
//! whoever wants nothing but their number need not have each of them told, which takes the kernel four times as long
//! as passing it over.
//!
//! No count is taken on the word of one counter. `CurrEstab` (`tcp_set_state`) is ESTABLISHED and CLOSE_WAIT
//! together; `sockstat`'s `inuse` (`sock_prot_inuse_add`) is every full socket that is hashed. Both have to lead to
//! the same number by way of the sockets of all other states, which are listed one by one: before 6.10 `CurrEstab` did
//! not count what went from SYN_RECV to CLOSE_WAIT. `tw` (`tcp_death_row.tw_refcount`) is every mini.

use super::{DiagSocket, Sink, StateSet};
use crate::event::Protocol;
use crate::inventory::counters::Counters;
use crate::net::State;

/// Fewer sockets than this are listed by one thread, one by one: another walk through the kernel's hash table, or a
/// look at its counters, would cost more than it saves.
const MANY: i64 = 10_000;
/// The states that are not listed.
const COUNTED: StateSet = StateSet::EMPTY.with(State::Established).with(State::TimeWait);
/// How far two ways to count may differ while sockets come and go: this part of the count, and that many.
const MOVING_PART: i64 = 200;
const MOVING_LEAST: i64 = 10;

/// What the kernel's counters say of the network namespace of the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Full sockets that are hashed: listeners and connections.
    in_use: i64,
    /// ESTABLISHED and CLOSE_WAIT.
    current_established: i64,
    /// TIME_WAIT, and FIN_WAIT2 without a full socket.
    minis: i64,
}

impl Counted {
    /// `None` where the kernel does not tell.
    pub fn read_here() -> Option<Self> {
        Self::of(&Counters::read_tcp_here())
    }

    fn of(counters: &Counters) -> Option<Self> {
        let v6 = counters.get("sockstat.TCP6.inuse").unwrap_or(0);
        Some(Self {
            in_use: counters.get("sockstat.TCP.inuse")? + v6,
            current_established: counters.get("TcpCurrEstab")?,
            minis: counters.get("sockstat.TCP.tw")?,
        })
    }

    /// There is no TCP socket that could be listed.
    pub fn is_empty(&self) -> bool {
        self.in_use == 0 && self.minis == 0
    }

    /// There are many of those that come in masses.
    pub fn is_many(&self, states: StateSet) -> bool {
        let established = if states.contains(State::Established) { self.in_use } else { 0 };
        let minis = if states.contains(State::TimeWait) { self.minis } else { 0 };
        established + minis >= MANY
    }
}

/// A sink before another, which takes note of what the counters are to be compared with.
pub(super) struct Listed<S> {
    sink: S,
    seen: Seen,
}

/// Of what was listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Full sockets, but for SYN_RECV.
    full: i64,
    /// SYN_RECV: request sockets, which are not in `inuse`, and full ones, which are. The answer is the same.
    syn_received: i64,
    close_wait: i64,
    /// Of those the ones that no application has accepted.
    close_wait_not_accepted: i64,
    /// FIN_WAIT2 without a full socket.
    minis: i64,
    /// Connections in the accept queues of all listeners.
    queued: i64,
}

/// How many there are of the states that were not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Masses {
    pub established: u64,
    pub time_wait: u64,
}

impl<S: Sink> Listed<S> {
    pub fn new(sink: S) -> Self {
        Self { sink, seen: Seen::default() }
    }

    /// Which states it has to be given.
    pub const fn states() -> StateSet {
        StateSet::ALL.without(COUNTED)
    }

    /// The sink behind, once the counters before and after the listing agree with it and with each other.
    pub fn completed(mut self, before: &Counted, after: &Counted) -> Option<S> {
        let masses = self.seen.conclude(before, after)?;
        self.sink.take_counted(State::Established, masses.established);
        self.sink.take_counted(State::TimeWait, masses.time_wait);
        Some(self.sink)
    }
}

impl<S: Sink> Sink for Listed<S> {
    type Mark = (S::Mark, Seen);

    fn take(&mut self, socket: DiagSocket) {
        self.seen.add(&socket);
        self.sink.take(socket);
    }

    fn mark(&self) -> Self::Mark {
        (self.sink.mark(), self.seen)
    }

    fn rewind(&mut self, (mark, seen): Self::Mark) {
        self.sink.rewind(mark);
        self.seen = seen;
    }

    fn fresh(&self) -> Self {
        Self::new(self.sink.fresh())
    }

    fn absorb(&mut self, other: Self) {
        self.sink.absorb(other.sink);
        self.seen.absorb(other.seen);
    }
}

impl Seen {
    fn add(&mut self, socket: &DiagSocket) {
        if socket.protocol == Protocol::Mptcp {
            return;
        }
        match (socket.state, socket.is_mini) {
            (_, true) => self.minis += 1,
            (State::SynRecv, false) => self.syn_received += 1,
            (state, false) => {
                self.full += 1;
                if state == State::CloseWait {
                    self.close_wait += 1;
                    self.close_wait_not_accepted += i64::from(socket.inode.is_none());
                }
                if state == State::Listen {
                    self.queued += i64::from(socket.recv_queue);
                }
            }
        }
    }

    fn absorb(&mut self, other: Self) {
        self.full += other.full;
        self.syn_received += other.syn_received;
        self.close_wait += other.close_wait;
        self.close_wait_not_accepted += other.close_wait_not_accepted;
        self.minis += other.minis;
        self.queued += other.queued;
    }

    /// `None` where the counters contradict each other, and where connections that are ESTABLISHED may wait to be
    /// accepted: which do is told of each socket alone.
    fn conclude(&self, before: &Counted, after: &Counted) -> Option<Masses> {
        if self.queued != self.close_wait_not_accepted {
            return None;
        }
        let established = after.current_established - self.close_wait;
        let at_most = after.in_use - self.full;
        let at_least = at_most - self.syn_received;
        let slack = if before == after { 0 } else { MOVING_LEAST.max(established / MOVING_PART) };
        if !(at_least - slack..=at_most + slack).contains(&established) {
            return None;
        }
        Some(Masses {
            established: u64::try_from(established).ok()?,
            time_wait: u64::try_from(after.minis - self.minis).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTED: Counted = Counted { in_use: 10_007, current_established: 10_002, minis: 503 };
    /// A listener with one connection in its queue, two in FIN_WAIT2 and FIN_WAIT1, and two in CLOSE_WAIT.
    const SEEN: Seen =
        Seen { full: 5, syn_received: 0, close_wait: 2, close_wait_not_accepted: 1, minis: 3, queued: 1 };

    #[test]
    fn what_is_not_listed_is_the_rest() {
        // 10,007 full sockets less five.
        let counted = Counted { current_established: 10_004, ..COUNTED };
        let masses = Masses { established: 10_002, time_wait: 500 };
        assert_eq!(SEEN.conclude(&counted, &counted), Some(masses));
    }

    #[test]
    fn counters_that_contradict_each_other_are_not_believed() {
        assert_eq!(SEEN.conclude(&COUNTED, &COUNTED), None, "10,000 by one, 10,002 by the other");
        let minis = Counted { minis: 2, current_established: 10_004, ..COUNTED };
        assert_eq!(SEEN.conclude(&minis, &minis), None, "more minis were listed than there are");
    }

    #[test]
    fn a_request_may_or_may_not_be_a_full_socket() {
        let seen = Seen { syn_received: 3, ..SEEN };
        for established in 9_999..=10_002 {
            let counted = Counted { current_established: established + 2, ..COUNTED };
            assert!(seen.conclude(&counted, &counted).is_some(), "{established}");
        }
        let counted = Counted { current_established: 10_005, ..COUNTED };
        assert_eq!(seen.conclude(&counted, &counted), None);
    }

    #[test]
    fn while_connections_come_and_go_the_counters_may_differ_a_little() {
        let before = Counted { minis: 400, ..COUNTED };
        assert!(SEEN.conclude(&before, &COUNTED).is_some());
        let after = Counted { current_established: 10_100, ..COUNTED };
        assert_eq!(SEEN.conclude(&before, &after), None);
    }

    #[test]
    fn connections_that_wait_to_be_accepted_have_to_be_listed() {
        let counted = Counted { current_established: 10_004, ..COUNTED };
        assert_eq!(Seen { queued: 2, ..SEEN }.conclude(&counted, &counted), None);
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_not_believed() {
        assert_eq!(Counted::of(&Counters::parse("", "TCP: inuse 3 orphan 0 tw 0 alloc 3 mem 0\n")), None);
        let counters =
            Counters::parse("Tcp: CurrEstab\nTcp: 2\n", "TCP: inuse 3 orphan 0 tw 4 alloc 3 mem 0\n");
        let expected = Counted { in_use: 3, current_established: 2, minis: 4 };
        assert_eq!(Counted::of(&counters), Some(expected));
    }
}
