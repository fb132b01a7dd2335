//! Transitions of full sockets: `inet_sock_set_state`.

use super::actor::{Actor, By};
use super::row::{Begin, Full, Mini, Successor};
use super::table::{Row, Slot};
use super::{Tracker, ends, mptcp, owners, silent};
use crate::event::{EofTold, Protocol, StateChange, Task};
use crate::net::{Flow, State};
use crate::outcome::{ConnId, End, Evidence, Outcome, Owner, Phase, Transition};

/// Both ports are known: the flow can be compared with others.
pub(super) fn is_complete(flow: &Flow) -> bool {
    flow.local_port != 0 && flow.remote_port != 0
}

/// An MPTCP connection and its first subflow carry the same flow.
pub(super) fn same_kind(one: Protocol, other: Protocol) -> bool {
    (one == Protocol::Mptcp) == (other == Protocol::Mptcp)
}

/// The phase of a FIN_WAIT2 that this transition begins.
fn phase_begun(change: &StateChange) -> Option<Phase> {
    (change.to == State::FinWait2).then_some(match change.orphan {
        true => Phase::Orphaned,
        false => Phase::HalfClosed,
    })
}

impl Tracker {
    pub(super) fn on_state(&mut self, change: &StateChange, out: &mut Vec<Outcome>) {
        let actor = self.actors.of(&change.context);
        match (change.from, change.to) {
            // close() of a socket whose connection is over: tcp_close_state() maps CLOSE to itself.
            (State::Close, State::Close) => {}
            (_, State::Close) => self.on_close(change, &actor, out),
            (from, to) if from == to => self.on_self_transition(change, &actor, out),
            // A listener's state is that of the socket whose copy the child is (inet_csk_clone_lock()).
            (State::Close | State::Listen, _) => self.on_begin(change, &actor, out),
            _ => self.on_step(change, &actor, out),
        }
    }

    /// A socket leaves CLOSE, or a listener's child appears.
    fn on_begin(&mut self, change: &StateChange, actor: &Actor<'_>, out: &mut Vec<Outcome>) {
        if let Some(slot) = self.fulls.by_addr(change.sk) {
            // Its memory has been reused, so it had ended before.
            self.forget_replaced_full(slot);
        }
        if change.to == State::SynSent
            && let Some(task) = actor.task()
        {
            self.connects.push(change.at, task, change.flow);
        }
        self.tuple_taken(&change.flow, out);
        let Some(slot) = self.insert_full(change, change.to, Begin::Exact) else {
            self.table_full += 1;
            return;
        };
        if change.from == State::Listen {
            self.inherit_from_listener(slot);
        }
        let full = &mut self.fulls[slot];
        full.is_provisional = change.from == State::Listen || change.to == State::SynSent;
        full.phase = phase_begun(change);
        self.learn(slot, change, actor);
        let full = &self.fulls[slot];
        // No dwell ends here, so it is told by the socket that speaks for what begins.
        if mptcp::speaks_for(full.protocol, change.to) {
            let mut begun = Transition::new(change.at, full.conn(), *full.flow(), change.from, change.to);
            begun.to_phase = full.phase;
            begun.owner = self.owner(full.owner);
            out.push(Outcome::Transition(begun));
        }
    }

    /// From one state of a connection to the next.
    fn on_step(&mut self, change: &StateChange, actor: &Actor<'_>, out: &mut Vec<Outcome>) {
        if matches!(change.from, State::SynSent | State::SynRecv) {
            self.tuple_taken(&change.flow, out);
        }
        let found = self.find_living(change).or_else(|| self.first_seen_at_step(change));
        // No room: counted when the connection began, or when a dump brought it.
        let Some(slot) = found else { return };
        self.compare(slot, change);
        self.complete_flow(slot, change);
        self.learn(slot, change, actor);
        let full = &mut self.fulls[slot];
        let mut step = Transition::new(change.at, full.conn(), *full.flow(), change.from, change.to);
        if full.state == change.from {
            step.dwell = full.dwell(change.at);
            step.phase = full.phase;
        }
        step.to_phase = phase_begun(change);
        if change.to == State::Listen {
            self.listening_ports.add(full.flow().local_port);
        }
        full.state = change.to;
        full.phase = step.to_phase;
        full.since = change.at;
        full.begin = Begin::Exact;
        full.changed = change.at;
        full.is_missed = false;
        full.unread = change.unread;
        full.began_in_backlog = change.to == State::FinWait2 && actor.task().is_some();
        step.owner = self.owner(self.fulls[slot].owner);
        if mptcp::speaks_for(change.protocol, change.from) {
            out.push(Outcome::Transition(step));
        }
    }

    /// A connection whose beginning was not told: a command that is about its end does without.
    fn first_seen_at_step(&mut self, change: &StateChange) -> Option<Slot> {
        self.note_first_seen(change);
        let slot = self.insert_full(change, change.from, Begin::Unknown)?;
        if matches!(change.from, State::SynRecv | State::Established) {
            self.inherit_from_listener(slot);
        }
        Some(slot)
    }

    /// 4→4, 5→5, 9→9, 11→11: close() of a socket that shutdown() has closed one way. No state begins, but
    /// the task is the owner, and FIN_WAIT2 is an orphan from here on.
    fn on_self_transition(&mut self, change: &StateChange, actor: &Actor<'_>, out: &mut Vec<Outcome>) {
        let found =
            self.find_living(change).or_else(|| self.insert_full(change, change.from, Begin::AtLatest));
        let Some(slot) = found else { return };
        self.compare(slot, change);
        self.complete_flow(slot, change);
        self.learn(slot, change, actor);
        let full = &mut self.fulls[slot];
        full.is_missed = false;
        if full.state != change.from {
            full.state = change.from;
            full.phase = None;
            full.since = change.at;
            full.begin = Begin::AtLatest;
        }
        full.changed = change.at;
        if change.to != State::FinWait2 || full.phase == Some(Phase::Orphaned) {
            return;
        }
        let mut step =
            Transition::new(change.at, full.conn(), *full.flow(), State::FinWait2, State::FinWait2);
        step.phase = full.phase;
        step.to_phase = Some(Phase::Orphaned);
        step.dwell = full.phase.and_then(|_| full.dwell(change.at));
        full.phase = Some(Phase::Orphaned);
        full.since = change.at;
        full.begin = Begin::Exact;
        full.began_in_backlog = false;
        step.owner = self.owner(self.fulls[slot].owner);
        if mptcp::speaks_for(change.protocol, State::FinWait2) {
            out.push(Outcome::Transition(step));
        }
    }

    /// CLOSE: the end, or the step into a mini.
    fn on_close(&mut self, change: &StateChange, actor: &Actor<'_>, out: &mut Vec<Outcome>) {
        let found = self.find_full(change);
        if let Some(slot) = found {
            self.compare(slot, change);
            self.complete_flow(slot, change);
            self.learn(slot, change, actor);
        }
        let flow = found.map_or(change.flow, |slot| *self.fulls[slot].flow());
        if change.from == State::LastAck {
            self.fin_was_acknowledged(&flow, change, actor, out);
        }
        if let Some(slot) = found.filter(|&slot| self.fulls[slot].successor != Successor::None) {
            self.succeed(slot, change.from, change.at, out);
            return;
        }
        let mini = self.successor_by_flow(&flow, change);
        if found.is_none() {
            if self.has_succeeded(mini, change) {
                return;
            }
            self.note_first_seen(change);
        }
        match mini {
            Some(mini) if self.minis[mini].awaits_close => self.enter_mini(mini, change.from, found, out),
            // Its step has been reported.
            Some(_) => {}
            None => self.end_full(found, flow, change, actor, out),
        }
        if let Some(slot) = found {
            self.fulls.remove(slot);
        }
    }

    /// Whether a CLOSE is that of a socket which is known no more, because its mini's beginning has told its step: the mini
    /// is there, or found no room.
    fn has_succeeded(&self, mini: Option<Slot>, change: &StateChange) -> bool {
        match mini {
            Some(mini) => !self.minis[mini].awaits_close,
            None => change.from == State::FinWait2 && self.minis.is_full(),
        }
    }

    /// The mini of a full socket that was not known when the mini was started.
    fn successor_by_flow(&self, flow: &Flow, change: &StateChange) -> Option<Slot> {
        let makes_minis = matches!(change.from, State::FinWait2 | State::Closing);
        if !makes_minis || change.protocol == Protocol::Mptcp {
            return None;
        }
        self.minis.by_flow(flow, |_| true)
    }

    /// A connection that ends without a mini.
    fn end_full(
        &mut self,
        found: Option<Slot>,
        flow: Flow,
        change: &StateChange,
        actor: &Actor<'_>,
        out: &mut Vec<Outcome>,
    ) {
        self.resync.closed(change.at, &flow);
        let Some(conn) = self.conn_of_close(found, change) else { return };
        let full = found.map(|slot| &self.fulls[slot]);
        let same = full.filter(|full| full.state == change.from);
        let owner = self.owner(full.and_then(|full| full.owner));
        if change.from == State::SynSent
            && change.sk_err == 0
            && flow.local_port == 0
            && matches!(actor, Actor::Application(_) | Actor::KernelThread(_))
        {
            // inet_hash_connect() found no port, and tcp_v4_connect() took SYN_SENT back.
            let tried = |task: &Task| Owner {
                pid: task.pid,
                comm: task.comm,
                evidence: Evidence::Connect,
                cgroup_id: task.cgroup_id,
            };
            let owner = owner.or_else(|| actor.task().map(tried));
            out.push(Outcome::ConnectFailed { at: change.at, flow, owner });
            return;
        }
        if !mptcp::speaks_for(change.protocol, change.from) {
            return;
        }
        let mut end = Transition::new(change.at, conn, flow, change.from, State::Close);
        end.dwell = same.and_then(|full| full.dwell(change.at));
        end.phase = same.and_then(|full| full.phase);
        let fin_wait2 = same.map_or_else(Default::default, |full| full.fin_wait2(change.at));
        // A mini that was not tracked for want of room is not a mini that was not made.
        let has_room = !self.minis.is_full();
        end.end =
            ends::of_full(change, By::from(actor), fin_wait2).filter(|&end| has_room || end != End::Overflow);
        end.owner = owner;
        out.push(Outcome::Transition(end));
    }

    /// The number under which a close is reported; `None` for a connection that found no room.
    fn conn_of_close(&mut self, found: Option<Slot>, change: &StateChange) -> Option<ConnId> {
        match found {
            Some(slot) => Some(self.fulls[slot].conn()),
            None if self.fulls.is_full() => None,
            None => Some(self.number_connection(change.protocol, change.from)),
        }
    }

    /// LAST_ACK→CLOSE means that our FIN has been acknowledged. When the other end is on this host and is a
    /// mini, that mini has acknowledged it and is in TIME_WAIT now.
    fn fin_was_acknowledged(
        &mut self,
        flow: &Flow,
        change: &StateChange,
        actor: &Actor<'_>,
        out: &mut Vec<Outcome>,
    ) {
        let is_disconnect = matches!(actor, Actor::Application(_)) && !change.orphan;
        if change.sk_err != 0 || is_disconnect {
            return;
        }
        let other_end = silent::other_end(flow);
        let in_fin_wait2 = |mini: &Row<Mini>| mini.state == State::FinWait2 && mini.is_live();
        if let Some(mini) = self.minis.by_flow(&other_end, in_fin_wait2) {
            self.settle(mini, out);
            self.become_time_wait(mini, change.at, out);
        }
    }

    pub(super) fn on_eof_told(&mut self, told: &EofTold) {
        let same_flow = |full: &Row<Full>| full.addr() == 0;
        let found = self.fulls.by_addr(told.sk).or_else(|| self.fulls.by_flow(&told.flow, same_flow));
        let Some(slot) = found.filter(|&slot| self.fulls[slot].state == State::CloseWait) else { return };
        self.sweep_owners();
        let full = &mut self.fulls[slot];
        // Who reads from a socket holds its descriptor.
        full.owner = self.owners.learn(full.owner, &told.task, Evidence::Fd);
        full.unread = Some(0);
    }

    /// The row of the socket that an event is about. A row found in a dump learns its address.
    fn find_full(&mut self, change: &StateChange) -> Option<Slot> {
        if let Some(slot) = self.fulls.by_addr(change.sk) {
            let full = &self.fulls[slot];
            let fits = full.is_provisional
                || !is_complete(full.flow())
                || !is_complete(&change.flow)
                || *full.flow() == change.flow;
            if fits && same_kind(full.protocol, change.protocol) {
                return Some(slot);
            }
            // Its memory has been reused, so it had ended before.
            self.forget_replaced_full(slot);
        }
        let without_address =
            |full: &Row<Full>| full.addr() == 0 && same_kind(full.protocol, change.protocol);
        let slot = self.fulls.by_flow(&change.flow, without_address)?;
        self.fulls.set_addr(slot, change.sk);
        // A dump does not tell a subflow from plain TCP.
        self.fulls[slot].protocol = change.protocol;
        Some(slot)
    }

    /// The same for an event that is not CLOSE. A socket whose mini has been made has no other life ahead: this
    /// is another one in its memory, on the same four-tuple.
    fn find_living(&mut self, change: &StateChange) -> Option<Slot> {
        let slot = self.find_full(change)?;
        if self.fulls[slot].successor == Successor::None {
            return Some(slot);
        }
        self.gaps.found += 1;
        self.fulls.remove(slot);
        None
    }

    fn insert_full(&mut self, change: &StateChange, state: State, begin: Begin) -> Option<Slot> {
        if self.fulls.is_full() {
            return None;
        }
        let full = Full {
            since: change.at,
            changed: change.at,
            owner: None,
            successor: Successor::None,
            unread: change.unread,
            dump: 0,
            state,
            phase: None,
            begin,
            protocol: change.protocol,
            is_provisional: false,
            began_in_backlog: false,
            is_missed: false,
        };
        if state == State::Listen {
            self.listening_ports.add(change.flow.local_port);
        }
        let conn = self.number_connection(change.protocol, state);
        self.fulls.insert(Row::new(change.sk, change.flow, conn, full))
    }

    /// Takes over the event's flow where the row's was not final.
    fn complete_flow(&mut self, slot: Slot, change: &StateChange) {
        let full = &self.fulls[slot];
        if !is_complete(&change.flow) || (is_complete(full.flow()) && !full.is_provisional) {
            return;
        }
        if *full.flow() != change.flow {
            self.fulls.set_flow(slot, change.flow);
        }
        self.fulls[slot].is_provisional = false;
    }

    fn learn(&mut self, slot: Slot, change: &StateChange, actor: &Actor<'_>) {
        if let (Some(evidence), Some(task)) = (owners::evidence(change, actor), actor.task()) {
            self.sweep_owners();
            let full = &mut self.fulls[slot];
            full.owner = self.owners.learn(full.owner, task, evidence);
        }
    }

    /// A connection that a listener accepted belongs to whoever listens, until somebody closes it. Where
    /// several processes listen on one port (SO_REUSEPORT) the kernel does not say which of them it was.
    pub(super) fn inherit_from_listener(&mut self, slot: Slot) {
        let child = &self.fulls[slot];
        if !self.listening_ports.may_include(child.flow().local_port) {
            return;
        }
        let (flow, protocol) = (*child.flow(), child.protocol);
        let Some(owner) = self.listening_owner(&flow, protocol) else { return };
        let full = &mut self.fulls[slot];
        full.owner = full.owner.or(Some(owners::Owners::inherited(owner)));
    }

    fn listening_owner(&self, child: &Flow, protocol: Protocol) -> Option<owners::OwnerRef> {
        let is_listener =
            |full: &Row<Full>| full.state == State::Listen && same_kind(full.protocol, protocol);
        for flow in owners::listening_flows(child) {
            let mut listeners = self.fulls.with_flow(&flow, is_listener).map(|slot| self.fulls[slot].owner);
            if let Some(first) = listeners.next() {
                let first = first?;
                let is_only =
                    listeners.all(|other| other.is_some_and(|it| owners::Owners::same_process(it, first)));
                return is_only.then_some(first);
            }
        }
        None
    }

    /// Forgets a full socket whose end was not seen.
    pub(super) fn drop_full(&mut self, slot: Slot) {
        self.fulls.remove(slot);
        self.censored += 1;
    }
}
