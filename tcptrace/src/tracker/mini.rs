//! TIME_WAIT minis: start, cancel and expiry of their timers.

use super::Tracker;
use super::actor::By;
use super::ends::{self, EarlyEnd};
use super::pending::{GRACE_NS, Waiting};
use super::row::{Begin, Cancel, Full, Mini, Successor};
use super::table::{Row, Slot, Table};
use crate::event::{MiniExpired, MiniTimer, MonoNs, Protocol};
use crate::net::{Flow, State};
use crate::outcome::{ConnId, End, Outcome, Phase, Transition};

/// An orphaned FIN_WAIT2 that was a full socket for less than this went from one to the other in one call, as
/// all do while `tcp_fin_timeout` is 60 s or less. Beyond, the full socket lasts for whole seconds.
const AS_FULL_SOCKET_NS: u64 = 1_000_000;

impl Mini {
    /// A mini in FIN_WAIT2 is always an orphan: nobody holds it.
    pub(super) fn phase(&self) -> Option<Phase> {
        (self.state == State::FinWait2).then_some(Phase::Orphaned)
    }
}

/// How a mini came to its end.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Its timer ran out.
    Expired,
    /// It was removed before.
    Early(Option<End>),
}

impl Tracker {
    /// `timer_start`: a mini is made, becomes TIME_WAIT, or rests anew.
    pub(super) fn on_start(&mut self, timer: &MiniTimer, out: &mut Vec<Outcome>) {
        match self.find_mini(timer) {
            Some(slot) if self.is_rearm(slot, timer) => self.rearm(slot, timer, out),
            found => {
                if let Some(slot) = found {
                    self.minis.set_addr(slot, 0);
                }
                self.make_mini(timer, out);
            }
        }
    }

    /// `timer_cancel`: the timer ran out, is about to be set anew, or the mini is being removed.
    pub(super) fn on_cancel(&mut self, timer: &MiniTimer, out: &mut Vec<Outcome>) {
        let actor = self.actors.of(&timer.context);
        let found = self.find_mini(timer).or_else(|| {
            // Older than the tool and in no dump, or its start was lost.
            self.drop_older(&timer.flow);
            let full = self.take_replaced_full(&timer.flow);
            let mut mini = new_mini(timer);
            mini.begin = Begin::Unknown;
            mini.timeout_jiffies = 0;
            mini.owner = full.as_ref().and_then(|full| full.owner);
            self.insert_mini(timer, mini, full.map(|full| full.conn()))
        });
        let Some(slot) = found else { return };
        let cancel = Cancel {
            at: timer.at,
            left: clamp(timer.left_jiffies),
            tid: actor.task().map_or(0, |task| task.tid),
            by: By::from(&actor),
            substate: timer.substate,
        };
        self.minis[slot].cancel = Some(cancel);
        if let Some(task) = actor.task()
            && self.connects.may_take(timer.at, task, &timer.flow)
        {
            self.finish(slot, timer.at, How::Early(Some(End::Reused)), out);
            return;
        }
        self.pending.push(Waiting {
            deadline: self.clock.saturating_add(GRACE_NS),
            cancelled_at: timer.at,
            mini: timer.mini,
            conn: self.minis[slot].conn(),
            slot,
        });
    }

    /// `timer_expire_entry`, which carries no more than the address. Without the cancel that comes before
    /// nothing is concluded: it was lost, and a dump will show that the mini is gone.
    pub(super) fn on_expired(&mut self, expired: &MiniExpired, out: &mut Vec<Outcome>) {
        let is_settled = |waiting: &Waiting| is_settled(&self.minis, waiting);
        if let Some(waiting) = self.pending.just_cancelled(expired.mini, expired.at, is_settled) {
            self.finish(waiting.slot, expired.at, How::Expired, out);
        }
    }

    /// A connection with this flow exists: what it has replaced was removed for its sake.
    pub(super) fn tuple_taken(&mut self, flow: &Flow, out: &mut Vec<Outcome>) {
        if self.pending.is_empty() {
            return;
        }
        while let Some(slot) = self.minis.by_flow(flow, |mini| !mini.is_live()) {
            self.finish_early(slot, true, out);
        }
    }

    /// Nobody has taken the four-tuple in time.
    pub(super) fn give_up_waiting(&mut self, waiting: &Waiting, out: &mut Vec<Outcome>) {
        if !is_settled(&self.minis, waiting) {
            self.finish_early(waiting.slot, false, out);
        }
    }

    /// The step from the full socket into its mini, as of the mini's start. `from` is the full socket's state
    /// at its CLOSE.
    pub(super) fn enter_mini(&mut self, slot: Slot, from: State, full: Option<Slot>, out: &mut Vec<Outcome>) {
        let full = full.map(|full| &self.fulls[full]);
        let mini = &mut self.minis[slot];
        mini.awaits_close = false;
        // The CLOSE itself may have told it.
        mini.owner = full.and_then(|full| full.owner).or(mini.owner);
        let full = full.filter(|full| full.state == from);
        let (at, conn, flow, owner) = (mini.since, mini.conn(), *mini.flow(), mini.owner);
        let phase = full.and_then(|full| full.phase);
        let mut step = Transition::new(at, conn, flow, from, mini.state);
        step.phase = phase;
        if mini.state == State::TimeWait {
            step.dwell = full.and_then(|full| full.dwell(at));
        } else if let Some(full) = full.filter(|_| phase == Some(Phase::Orphaned)) {
            // The same FIN_WAIT2 in another socket.
            let as_full_socket_ns = at.saturating_sub(full.since);
            mini.since = full.since;
            mini.begin = full.begin;
            mini.as_full_socket_ns =
                if as_full_socket_ns < AS_FULL_SOCKET_NS { 0 } else { as_full_socket_ns };
            return;
        } else {
            // It has been an orphan since the mini's start at the latest. If it was seen half-closed, the
            // close() between was lost, and with it the length of that.
            mini.begin = Begin::AtLatest;
            if phase.is_none() {
                return;
            }
            step.to_phase = Some(Phase::Orphaned);
        }
        step.owner = self.owner(owner);
        out.push(Outcome::Transition(step));
    }

    /// Before a mini moves on: if its full socket's CLOSE has not been seen, what was known of that must do.
    pub(super) fn settle(&mut self, slot: Slot, out: &mut Vec<Outcome>) {
        if !self.minis[slot].awaits_close {
            return;
        }
        // Slots are used again: what another full socket was succeeded by may have stood in this one.
        let conn = self.minis[slot].conn();
        let is_its_full = |full: &Row<Full>| full.successor == Successor::Mini(slot) && full.conn() == conn;
        let full = self.fulls.by_flow(self.minis[slot].flow(), is_its_full);
        if let Some(full) = full {
            self.fulls[full].successor = Successor::Settled;
            let from = self.fulls[full].state;
            if matches!(from, State::FinWait2 | State::Closing) {
                self.enter_mini(slot, from, Some(full), out);
                return;
            }
        }
        let mini = &mut self.minis[slot];
        mini.awaits_close = false;
        if mini.state == State::FinWait2 {
            mini.begin = Begin::AtLatest;
        }
    }

    /// The peer's FIN has reached a mini in FIN_WAIT2. The mini is settled.
    pub(super) fn become_time_wait(&mut self, slot: Slot, at: MonoNs, out: &mut Vec<Outcome>) {
        let mini = &mut self.minis[slot];
        let at = at.max(mini.since);
        let mut step = Transition::new(at, mini.conn(), *mini.flow(), State::FinWait2, State::TimeWait);
        describe(mini, at, &mut step);
        mini.state = State::TimeWait;
        mini.since = at;
        mini.begin = Begin::Exact;
        mini.armed_at = at;
        mini.as_full_socket_ns = 0;
        mini.rearmed = 0;
        mini.timeout_jiffies = self.jiffies.time_wait().unwrap_or(0);
        step.owner = self.owner(self.minis[slot].owner);
        out.push(Outcome::Transition(step));
    }

    /// Forgets a mini whose end was not seen.
    pub(super) fn drop_mini(&mut self, slot: Slot) {
        self.remove_mini(slot);
        self.censored += 1;
    }

    /// A mini at its start, with the full socket that it stands in for.
    fn make_mini(&mut self, timer: &MiniTimer, out: &mut Vec<Outcome>) {
        self.tuple_taken(&timer.flow, out);
        self.drop_older(&timer.flow);
        let full = self.fulls.by_flow(&timer.flow, has_no_successor);
        let mut mini = new_mini(timer);
        mini.awaits_close = true;
        mini.owner = full.and_then(|full| self.fulls[full].owner);
        if timer.substate == State::TimeWait {
            self.jiffies.saw_time_wait(mini.timeout_jiffies);
        }
        let made = self.insert_mini(timer, mini, full.map(|full| self.fulls[full].conn()));
        if made.is_none() {
            self.table_full += 1;
        }
        let Some(full) = full else { return };
        self.fulls[full].successor = made.map_or(Successor::Untracked(timer.substate), Successor::Mini);
        let known = &self.fulls[full];
        let is_orphan = known.phase == Some(Phase::Orphaned);
        if known.state == State::FinWait2 && (timer.substate == State::TimeWait || is_orphan) {
            // Its CLOSE would say no more, and need not be told. That from CLOSING is.
            self.succeed(full, State::FinWait2, timer.at, out);
        }
    }

    /// A full socket goes from a state into its mini, and is no more.
    pub(super) fn succeed(&mut self, full: Slot, from: State, at: MonoNs, out: &mut Vec<Outcome>) {
        match self.fulls[full].successor {
            Successor::Mini(mini) if self.is_waiting(mini, full) => {
                self.enter_mini(mini, from, Some(full), out);
            }
            Successor::Untracked(substate) => self.report_untracked_mini(full, from, at, substate, out),
            Successor::None | Successor::Mini(_) | Successor::Settled => {}
        }
        self.fulls.remove(full);
    }

    /// Whether a full socket's mini is still there, and waits for the full socket's CLOSE.
    fn is_waiting(&self, mini: Slot, full: Slot) -> bool {
        let conn = self.fulls[full].conn();
        self.minis.get(mini).is_some_and(|mini| mini.awaits_close && mini.conn() == conn)
    }

    /// A mini that found no room: its beginning is told, its life is not followed.
    fn report_untracked_mini(
        &mut self,
        full: Slot,
        from: State,
        at: MonoNs,
        substate: State,
        out: &mut Vec<Outcome>,
    ) {
        if substate != State::TimeWait {
            return;
        }
        let full = &self.fulls[full];
        let mut step = Transition::new(at, full.conn(), *full.flow(), from, State::TimeWait);
        if full.state == from {
            step.dwell = full.dwell(at);
            step.phase = full.phase;
        }
        step.owner = self.owner(full.owner);
        out.push(Outcome::Transition(step));
    }

    /// The same mini, its timer set anew.
    fn rearm(&mut self, slot: Slot, timer: &MiniTimer, out: &mut Vec<Outcome>) {
        let mini = &mut self.minis[slot];
        mini.cancel = None;
        mini.is_missed = false;
        self.settle(slot, out);
        let timeout = new_mini(timer).timeout_jiffies;
        if timer.substate == State::TimeWait {
            self.jiffies.saw_time_wait(timeout);
        }
        match (self.minis[slot].state, timer.substate) {
            (State::FinWait2, State::TimeWait) => {
                self.become_time_wait(slot, timer.at, out);
                self.minis[slot].timeout_jiffies = timeout;
            }
            (State::TimeWait, State::TimeWait) => {
                let mini = &mut self.minis[slot];
                mini.rearmed = mini.rearmed.saturating_add(1);
            }
            _ => {}
        }
        self.minis[slot].armed_at = timer.at;
    }

    /// Whether a start is the known mini's, and not that of another one in the same memory.
    fn is_rearm(&self, slot: Slot, timer: &MiniTimer) -> bool {
        let mini = &self.minis[slot];
        // TIME_WAIT never becomes FIN_WAIT2, and a full socket on the flow means a new connection.
        !(mini.state == State::TimeWait && timer.substate == State::FinWait2)
            && self.fulls.by_flow(&timer.flow, has_no_successor).is_none()
    }

    /// The row of the mini that an event is about. A row found in a dump learns its address.
    fn find_mini(&mut self, timer: &MiniTimer) -> Option<Slot> {
        let is_it = |mini: &Row<Mini>| mini.addr() == timer.mini || (mini.addr() == 0 && mini.is_live());
        let slot = self.minis.by_flow(&timer.flow, is_it)?;
        self.minis.set_addr(slot, timer.mini);
        Some(slot)
    }

    /// A flow has one mini at a time: another one's end was lost.
    fn drop_older(&mut self, flow: &Flow) {
        if let Some(older) = self.minis.by_flow(flow, |mini| mini.is_live()) {
            self.forget_replaced_mini(older);
        }
    }

    /// Removed before its time.
    fn finish_early(&mut self, slot: Slot, tuple_taken: bool, out: &mut Vec<Outcome>) {
        let Some(cancel) = self.minis[slot].cancel else { return };
        let served_softirqs = cancel.by == By::KernelThread && self.actors.serves_softirqs(cancel.tid);
        let early = EarlyEnd {
            substate: cancel.substate,
            by: if served_softirqs { By::Softirq } else { cancel.by },
            ran_out: cancel.left <= 0,
            tuple_taken,
        };
        self.finish(slot, cancel.at, How::Early(ends::of_mini(&early)), out);
    }

    /// The end of a mini.
    fn finish(&mut self, slot: Slot, at: MonoNs, how: How, out: &mut Vec<Outcome>) {
        // What found no room is no gap.
        self.gaps.found += u64::from(self.minis[slot].awaits_close && self.table_full == 0);
        self.settle(slot, out);
        if let Some(cancel) = self.minis[slot].cancel {
            self.hear_the_silent(slot, &cancel, out);
        }
        let mini = &self.minis[slot];
        let mut end = Transition::new(at, mini.conn(), *mini.flow(), mini.state, State::Close);
        describe(mini, at, &mut end);
        end.end = match (how, mini.state) {
            (How::Early(reason), _) => reason,
            (How::Expired, State::FinWait2) => Some(End::TimedOut),
            (How::Expired, _) => Some(End::Expired),
        };
        end.owner = self.owner(mini.owner);
        self.resync.closed(at, &end.flow);
        self.remove_mini(slot);
        out.push(Outcome::Transition(end));
    }

    /// What the timer's last event tells about the time before; see [`super::silent`].
    fn hear_the_silent(&mut self, slot: Slot, cancel: &Cancel, out: &mut Vec<Outcome>) {
        let set_at = self.jiffies.set_at(cancel.at, cancel.left).map(|set_at| set_at.min(cancel.at));
        let mini = &mut self.minis[slot];
        match (mini.state, cancel.substate, set_at) {
            (State::FinWait2, State::TimeWait, Some(set_at)) => self.become_time_wait(slot, set_at, out),
            (State::FinWait2, State::TimeWait, None) => {
                // Without HZ it happened at some time.
                mini.begin = Begin::Unknown;
                self.become_time_wait(slot, cancel.at, out);
                self.minis[slot].begin = Begin::Unknown;
            }
            (State::TimeWait, _, Some(set_at))
                if mini.timeout_jiffies != 0 && self.jiffies.differ(mini.armed_at, set_at) =>
            {
                mini.rearmed = mini.rearmed.saturating_add(1);
            }
            _ => {}
        }
    }

    /// Adds a mini, as part of its full socket's connection or as one of its own.
    fn insert_mini(&mut self, timer: &MiniTimer, mini: Mini, full: Option<ConnId>) -> Option<Slot> {
        if self.minis.is_full() {
            return None;
        }
        let conn = full.unwrap_or_else(|| self.number_connection(Protocol::Tcp, mini.state));
        self.minis.insert(Row::new(timer.mini, timer.flow, conn, mini))
    }

    fn remove_mini(&mut self, slot: Slot) {
        self.minis.remove(slot);
        let Self { pending, minis, .. } = self;
        pending.trim(|waiting| is_settled(minis, waiting));
    }
}

/// Whether a mini no longer waits as it did when it was queued.
fn is_settled(minis: &Table<Mini, false>, waiting: &Waiting) -> bool {
    !minis.get(waiting.slot).is_some_and(|mini| {
        mini.conn() == waiting.conn && mini.cancel.is_some_and(|cancel| cancel.at == waiting.cancelled_at)
    })
}

fn has_no_successor(full: &Row<Full>) -> bool {
    full.successor == Successor::None && full.protocol != Protocol::Mptcp
}

fn clamp(jiffies: i64) -> i32 {
    i32::try_from(jiffies).unwrap_or(if jiffies < 0 { i32::MIN } else { i32::MAX })
}

/// A mini as its timer's event shows it.
fn new_mini(timer: &MiniTimer) -> Mini {
    Mini {
        since: timer.at,
        armed_at: timer.at,
        as_full_socket_ns: 0,
        cancel: None,
        owner: None,
        timeout_jiffies: u32::try_from(timer.left_jiffies).unwrap_or(0),
        rearmed: 0,
        dump: 0,
        state: timer.substate,
        begin: Begin::Exact,
        awaits_close: false,
        is_missed: false,
    }
}

/// What a mini tells about the state that it leaves.
fn describe(mini: &Mini, at: MonoNs, step: &mut Transition) {
    step.phase = mini.phase();
    step.dwell = mini.dwell(at);
    step.as_full_socket_ns = Some(mini.as_full_socket_ns).filter(|&ns| ns > 0);
    step.rearmed = mini.rearmed;
    step.timeout_jiffies = Some(mini.timeout_jiffies).filter(|&jiffies| jiffies > 0);
}
