//! What the tracker keeps of a full socket and of a mini.

use super::actor::By;
use super::ends::FinWait2;
use super::owners::OwnerRef;
use super::table::Slot;
use crate::event::{MonoNs, Protocol};
use crate::net::State;
use crate::outcome::{Dwell, Phase};

/// How well it is known when a state began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Its beginning was seen.
    Exact,
    /// It was already there.
    AtLatest,
    /// Nothing is known.
    Unknown,
}

impl Begin {
    /// How long a state that began at `since` had lasted at `at`. Records of several CPUs may overtake each
    /// other by microseconds: never negative.
    pub(super) fn dwell(self, since: MonoNs, at: MonoNs) -> Option<Dwell> {
        let is_lower_bound = match self {
            Self::Exact => false,
            Self::AtLatest => true,
            Self::Unknown => return None,
        };
        Some(Dwell { ns: at.saturating_sub(since), is_lower_bound })
    }
}

/// What became of a full socket whose mini has been started. The kernel starts the mini's timer first and
/// sets the full socket to CLOSE afterwards (`tcp_time_wait()`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor {
    /// No mini yet.
    None,
    /// This mini; CLOSE of the full socket will be the step into it.
    Mini(Slot),
    /// A mini that has moved on already: its step has been reported.
    Settled,
    /// A mini with this substate that found no room.
    Untracked(State),
}

/// A full socket: `struct tcp_sock`, or `struct mptcp_sock`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    /// When the state (in FIN_WAIT2, the phase) began.
    pub since: MonoNs,
    /// The last event, or the dump that brought it.
    pub changed: MonoNs,
    pub owner: Option<OwnerRef>,
    pub successor: Successor,
    /// Bytes not read when last seen; `None` where not known.
    pub unread: Option<u32>,
    /// The last dump that showed it.
    pub dump: u32,
    pub state: State,
    pub phase: Option<Phase>,
    pub begin: Begin,
    pub protocol: Protocol,
    /// The flow may still change: at SYN_SENT the local port may be 0, and a listener's child may still carry
    /// the listener's addresses.
    pub is_provisional: bool,
    /// FIN_WAIT2 began in process context; see [`FinWait2::began_in_backlog`].
    pub began_in_backlog: bool,
    /// The last dump should have shown it and did not.
    pub is_missed: bool,
}

impl Full {
    /// Length of the present state at `at`.
    pub(super) fn dwell(&self, at: MonoNs) -> Option<Dwell> {
        self.begin.dwell(self.since, at)
    }

    /// What [`super::ends::of_full`] wants to know.
    pub(super) fn fin_wait2(&self, at: MonoNs) -> FinWait2 {
        FinWait2 {
            phase: self.phase,
            lasted_ns: self.dwell(at).filter(|dwell| !dwell.is_lower_bound).map(|dwell| dwell.ns),
            began_in_backlog: self.began_in_backlog,
        }
    }
}

/// A TIME_WAIT mini: `struct inet_timewait_sock`. There may be a million of these.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mini {
    /// When its present state began. An orphaned FIN_WAIT2 began in the full socket.
    pub since: MonoNs,
    /// When its timer was last seen to be set, or the dump that brought it was read.
    pub armed_at: MonoNs,
    /// For an orphaned FIN_WAIT2: how long it was a full socket, nanoseconds.
    pub as_full_socket_ns: u64,
    pub cancel: Option<Cancel>,
    pub owner: Option<OwnerRef>,
    /// Jiffies that the timer was set to when the present state began; 0 where not seen.
    pub timeout_jiffies: u32,
    /// Times the timer was set again in the present state.
    pub rearmed: u32,
    /// The last dump that showed it.
    pub dump: u32,
    /// FIN_WAIT2 (orphaned, always) or TIME_WAIT.
    pub state: State,
    pub begin: Begin,
    /// The full socket's CLOSE, and with it the state that it came from, has not been seen yet.
    pub awaits_close: bool,
    /// The last dump should have shown it and did not.
    pub is_missed: bool,
}

impl Mini {
    /// Length of the present state at `at`.
    pub(super) fn dwell(&self, at: MonoNs) -> Option<Dwell> {
        self.begin.dwell(self.since, at)
    }

    /// Its timer stands on the wheel, as far as is known.
    pub(super) fn is_live(&self) -> bool {
        self.cancel.is_none()
    }
}

/// A mini's timer was taken off the wheel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cancel {
    pub at: MonoNs,
    /// Jiffies that were left; 0 and less when it had run out.
    pub left: i32,
    /// The thread, for an application or a kernel thread.
    pub tid: u32,
    pub by: By,
    /// The substate at that time, which may have changed in silence.
    pub substate: State,
}
