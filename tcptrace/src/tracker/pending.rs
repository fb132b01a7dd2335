//! Minis whose timer was taken off the wheel, until it is known why.
//!
//! `timer_cancel` says the same for a timer that has run out, is about to be set again, or whose mini is being
//! removed. The next event of the same timer decides between the first two, within a microsecond. For the
//! third the reason may come later: when an incoming SYN takes over the four-tuple (`tcp_v4_rcv()`, case
//! TCP_TW_SYN), the new connection shows only when its handshake is complete.

use std::collections::VecDeque;

use super::table::Slot;
use crate::event::{MonoNs, Task};
use crate::net::Flow;
use crate::outcome::ConnId;

/// How long the new connection's handshake may take: one retransmission of SYN+ACK, which comes after one
/// second (`TCP_TIMEOUT_INIT`), and half a second for the way.
pub(super) const GRACE_NS: u64 = 1_500_000_000;

/// A mini that waits for its reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub deadline: MonoNs,
    /// When its timer was taken off.
    pub cancelled_at: MonoNs,
    /// Its address.
    pub mini: u64,
    pub conn: ConnId,
    pub slot: Slot,
}

/// How far back the cancel of a timer that runs out can lie, in cancels: the two are a microsecond apart, and
/// every CPU may have some in between.
const EXPIRY_REACH: usize = 1024;

/// How far back it can lie in time: a virtual CPU may be taken away between the two. A cancel before that was of
/// another mini in the same memory.
const EXPIRY_NS: u64 = 100_000_000;

/// First in, first out: all wait equally long. An entry whose mini has found its reason stays until it reaches
/// the front.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Waiting>,
}

impl Pending {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.queue.push_back(waiting);
    }

    /// When the first is due.
    pub(super) fn deadline(&self) -> Option<MonoNs> {
        self.queue.front().map(|waiting| waiting.deadline)
    }

    /// Takes the first, if it is due.
    pub(super) fn pop_due(&mut self, now: MonoNs) -> Option<Waiting> {
        self.queue.pop_front_if(|waiting| waiting.deadline <= now)
    }

    /// The mini at an address, if its timer was taken off a moment ago and its reason is not known yet. What
    /// `is_settled` is passed over, not taken for the answer: how long it stays in the queue depends on what stands
    /// around it.
    pub(super) fn just_cancelled(
        &self,
        mini: u64,
        at: MonoNs,
        is_settled: impl Fn(&Waiting) -> bool,
    ) -> Option<Waiting> {
        let mut recent = self.queue.iter().rev().take(EXPIRY_REACH).copied();
        let found = recent.find(|waiting| waiting.mini == mini && !is_settled(waiting))?;
        (at.saturating_sub(found.cancelled_at) <= EXPIRY_NS).then_some(found)
    }

    /// Drops what `is_settled` at both ends. The common case is a timer that has run out: its entry is the
    /// last one, pushed a microsecond ago.
    pub(super) fn trim(&mut self, is_settled: impl Fn(&Waiting) -> bool) {
        while self.queue.pop_back_if(|waiting| is_settled(waiting)).is_some() {}
        while self.queue.pop_front_if(|waiting| is_settled(waiting)).is_some() {}
    }

    /// Minis have moved to other slots: `moved` gives the new one, `None` for those that are gone. Memory of a burst
    /// is given back.
    pub(super) fn renumber(&mut self, moved: impl Fn(Slot) -> Option<Slot>) {
        self.queue.retain_mut(|waiting| match moved(waiting.slot) {
            Some(slot) => {
                waiting.slot = slot;
                true
            }
            None => false,
        });
        self.queue.shrink_to_fit();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// How long connect() may take from SYN_SENT to the mini that it takes over. About 5 µs without being
/// preempted; the search over all local ports comes in between.
const CONNECT_NS: u64 = 1_000_000;

/// connect() calls remembered: as many as can be between those two points at once, one for each CPU, and those
/// that came to nothing in the same millisecond.
const CONNECTS: usize = 256;

/// Recent connect() calls, which may be about to take over a mini.
#[derive(Clone, Debug, Default)]
pub(super) struct Connects {
    recent: VecDeque<Connect>,
}

#[derive(Clone, Copy, Debug)]
struct Connect {
    at: MonoNs,
    tid: u32,
    flow: Flow,
}

impl Connects {
    /// A task has entered SYN_SENT; the flow's local port is 0 unless it was bound.
    pub(super) fn push(&mut self, at: MonoNs, task: &Task, flow: Flow) {
        if self.recent.len() >= CONNECTS {
            self.recent.pop_front();
        }
        self.recent.push_back(Connect { at, tid: task.tid, flow });
    }

    /// Whether this task is inside a connect() that may take over this mini: `__inet_check_established()`
    /// has found it in the way and `tcp_twsk_unique()` allowed it.
    pub(super) fn may_take(&self, at: MonoNs, task: &Task, mini: &Flow) -> bool {
        let recent = self.recent.iter().rev();
        recent.take_while(|connect| at.saturating_sub(connect.at) <= CONNECT_NS).any(|connect| {
            connect.tid == task.tid
                && connect.flow.netns == mini.netns
                && connect.flow.remote == mini.remote
                && connect.flow.remote_port == mini.remote_port
                && (connect.flow.local_port == 0 || connect.flow.local_port == mini.local_port)
        })
    }
}
