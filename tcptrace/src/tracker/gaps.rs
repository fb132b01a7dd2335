//! Events that did not come, told by what came after them.
//!
//! The kernel side counts what it could not deliver: records without room, runs of a program that it skipped because
//! the program would have interrupted itself. That is not all. A kernel may run no BPF program at all on the time of
//! certain tasks and count nothing. Whatever softirqs do while they borrow such a task is then silent: seen on a
//! vendor's 6.18, where ftrace told the transitions, the minis' starts and whole buckets of the timer wheel that
//! expired in a tick which had interrupted the host's agent, and every BPF program of the host missed them.
//!
//! So what is known is compared with what comes. Each of these shows that an event was not delivered:
//! - a connection that has begun to end goes on from a state that it was not in, or is seen for the first time;
//! - memory or four-tuple of something whose end was not told is in use by something else;
//! - a mini ends whose beginning was not told, though its full socket was known; or one whose full socket was not
//!   known to be in FIN_WAIT2, and has not closed;
//! - a mini's timer has run out long ago, and a dump does not show it any more;
//! - a socket, full or mini, is missing from two dumps one after the other (one may pass over a socket).
//!
//! Not everything shows: a connection of whose life nothing came, for one.

use super::Tracker;
use super::full::same_kind;
use super::row::{Begin, Full, Mini, Successor};
use super::silent::TIME_WAIT_NS;
use super::table::{Row, Slot};
use crate::event::{MonoNs, Protocol, StateChange};
use crate::net::{Flow, State};
use crate::wheel::Expected;

/// What shows gaps, and how many there were.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    pub found: u64,
    /// No filter of the kernel side hides a step of a connection that has begun to end.
    pub is_every_end_told: bool,
    /// When the first dump was complete. What had begun before and was not in it may have been passed over.
    pub seeded: Option<MonoNs>,
}

impl Gaps {
    /// A dump shows a full socket in a state into which it has not been seen to go.
    pub(super) fn note_change(&mut self, known: &Full, shown: &Full) {
        let is_ending = is_ending(known.state) || is_ending(shown.state);
        let is_plain =
            known.protocol == Protocol::Tcp && known.begin == Begin::Exact && !known.is_provisional;
        self.found += u64::from(self.is_every_end_told && is_ending && is_plain);
    }
}

/// How much later than the timer wheel allows a softirq may run, nanoseconds.
const LATE_NS: u64 = 1_000_000_000;

/// For minis whose timeout is not known: TIME_WAIT's 60 s, the most that the timer wheel adds at HZ=100, and what
/// a softirq may be late by.
const OVERDUE_NS: u64 = TIME_WAIT_NS + 6_000_000_000 + LATE_NS;

impl Tracker {
    /// An event about a state that the full socket was not known to be in.
    pub(super) fn compare(&mut self, full: Slot, change: &StateChange) {
        let known = &self.fulls[full];
        if known.state != change.from {
            self.gaps.note_change(known, &Full { state: change.from, ..**known });
        }
    }

    /// A connection that has begun to end is seen for the first time.
    pub(super) fn note_first_seen(&mut self, change: &StateChange) {
        // What has found no room before may find some now.
        if self.gaps.is_every_end_told
            && self.gaps.seeded.is_some_and(|seeded| change.at > seeded)
            && self.table_full == 0
            && change.protocol == Protocol::Tcp
            && is_ending(change.from)
        {
            self.gaps.found += 1;
        }
    }

    /// Its place has been taken, and its end was not told.
    pub(super) fn forget_replaced_full(&mut self, slot: Slot) {
        self.gaps.found += u64::from(self.fulls[slot].begin == Begin::Exact);
        self.drop_full(slot);
    }

    /// The same of a mini.
    pub(super) fn forget_replaced_mini(&mut self, slot: Slot) {
        self.gaps.found += u64::from(self.minis[slot].begin == Begin::Exact);
        self.drop_mini(slot);
    }

    /// A mini ends that was never seen, and here is the full socket that it has replaced: its start was not told.
    pub(super) fn take_replaced_full(&mut self, flow: &Flow) -> Option<Row<Full>> {
        let could_make_one = |full: &Row<Full>| {
            full.successor == Successor::None
                && same_kind(full.protocol, Protocol::Tcp)
                && matches!(full.state, State::FinWait1 | State::FinWait2 | State::Closing)
        };
        let slot = self.fulls.by_flow(flow, could_make_one)?;
        self.gaps.found += 1;
        self.censored += 1;
        Some(self.fulls.remove(slot))
    }

    /// Whether a mini should have ended long ago.
    pub(super) fn is_overdue(&self, mini: &Mini, now: MonoNs) -> bool {
        let timeout = Some(mini.timeout_jiffies).filter(|&jiffies| jiffies > 0).zip(self.jiffies.hz());
        let expected = timeout.and_then(|(jiffies, hz)| Expected::of(jiffies, hz));
        now.saturating_sub(mini.armed_at) > expected.map_or(OVERDUE_NS, |it| it.latest_ns + LATE_NS)
    }

    /// Something looks as if its end had not been told: a dump would show it.
    #[must_use]
    pub fn has_doubts(&self, now: MonoNs) -> bool {
        let is_doubtful = |mini: &Row<Mini>| mini.is_live() && (mini.is_missed || self.is_overdue(mini, now));
        self.fulls.iter().any(|(_, full)| full.is_missed)
            || self.minis.iter().any(|(_, mini)| is_doubtful(mini))
    }
}

/// One side at least has closed, as far as a full socket shows it.
fn is_ending(state: State) -> bool {
    matches!(state, State::FinWait1 | State::FinWait2 | State::Closing | State::CloseWait | State::LastAck)
}
