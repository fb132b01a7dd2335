//! Makes the tracker agree with a `sock_diag` dump: seeding and repair after loss are the same operation.
//!
//! A dump takes time, and events go on meanwhile. What has changed since the dump was begun is newer than the
//! dump says and is left alone; what has closed since must not come back to life, so closes are remembered
//! from [`Tracker::begin_resync`] on. A row that nothing has happened to and that a complete dump does not
//! show is gone: its end was lost, and its dwell with it.
//!
//! A dump knows no kernel addresses. A row found in one stands without, until an event on its flow brings it.

use std::collections::{HashSet, VecDeque};

use super::Tracker;
use super::full::same_kind;
use super::row::{Begin, Full, Mini, Successor};
use super::silent::TIME_WAIT_NS;
use super::table::{Row, Slot};
use crate::event::{MonoNs, Protocol};
use crate::inventory::diag::{DiagSocket, Dump, JIFFY_NS};
use crate::net::{Flow, State};
use crate::outcome::{Outcome, Owner, Phase};

/// Closes remembered during a dump: what 60,000 connections a second close in one second, several times longer
/// than a dump of 100,000 sockets takes. Of more, the oldest are forgotten; what a dump then brings back is
/// removed by the next one.
const MAX_CLOSES: usize = 1 << 16;

/// What has closed while a dump was taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Resync {
    is_under_way: bool,
    /// No event was lost as far as is known: what the dump does not show was missed by the dump.
    is_lossless: bool,
    closes: VecDeque<(MonoNs, Flow)>,
    /// Dumps so far: marks the rows that the present one has shown.
    dumps: u32,
}

impl Resync {
    /// A connection has ended.
    pub(super) fn closed(&mut self, at: MonoNs, flow: &Flow) {
        if !self.is_under_way {
            return;
        }
        if self.closes.len() >= MAX_CLOSES {
            self.closes.pop_front();
        }
        self.closes.push_back((at, *flow));
    }
}

/// What one reconciliation knows.
struct Pass<'a> {
    dump: &'a Dump,
    number: u32,
    fd_owner: &'a dyn Fn(&DiagSocket) -> Option<Owner>,
    /// Closed since the dump was begun.
    closed: HashSet<Flow>,
    /// Dumped completely.
    namespaces: HashSet<u32>,
    /// Flows of MPTCP sockets: a TCP socket on one of them is its first subflow.
    mptcp: HashSet<Flow>,
}

impl Tracker {
    /// Call before the requests of a dump are sent: from here on closes are remembered, so that the dump
    /// cannot bring back what has closed meanwhile.
    pub fn begin_resync(&mut self, now: MonoNs) {
        self.clock = self.clock.max(now);
        self.resync.is_under_way = true;
        self.resync.closes.clear();
    }

    /// Says that no event was lost before this dump, as far as is known. A dump is no snapshot: while sockets come
    /// and go it may pass over one (`inet_diag` resumes a hash chain by counting), which must not cost a
    /// connection whose events all came. Two dumps that miss it, or one that misses a mini which has outlived its
    /// own timer, are proof of loss all the same.
    pub fn trust_events(&mut self, is_lossless: bool) {
        self.resync.is_lossless = is_lossless;
    }

    /// Makes the tracker agree with a dump. Every event up to `dump.finished` must have been applied before,
    /// and [`Self::begin_resync`] called before `dump.started`.
    ///
    /// `fd_owner` says who holds a socket's descriptor. Ages of what was not known before are lower bounds.
    pub fn reconcile(
        &mut self,
        dump: &Dump,
        fd_owner: &dyn Fn(&DiagSocket) -> Option<Owner>,
        out: &mut Vec<Outcome>,
    ) {
        self.resync.dumps = self.resync.dumps.wrapping_add(1).max(1);
        self.resync.is_under_way = false;
        let closes = std::mem::take(&mut self.resync.closes);
        let is_mptcp = |socket: &&DiagSocket| socket.protocol == Protocol::Mptcp;
        let pass = Pass {
            dump,
            number: self.resync.dumps,
            fd_owner,
            closed: closes.into_iter().filter(|&(at, _)| at >= dump.started).map(|(_, flow)| flow).collect(),
            namespaces: dump.namespaces.iter().copied().collect(),
            mptcp: dump.sockets.iter().filter(is_mptcp).map(|socket| socket.flow).collect(),
        };
        // Listeners first: connections that nobody has accepted belong to them.
        let listens = |socket: &&DiagSocket| socket.state == State::Listen;
        let listeners = dump.sockets.iter().filter(listens);
        for socket in listeners.chain(dump.sockets.iter().filter(|socket| !listens(socket))) {
            match socket.state {
                // A request socket makes no events, and is no connection yet.
                State::NewSynRecv | State::Close => {}
                _ if socket.is_mini => self.reconcile_mini(socket, &pass, out),
                _ => self.reconcile_full(socket, &pass),
            }
        }
        self.drop_absent(&pass);
        self.gaps.seeded.get_or_insert(dump.finished);
    }

    fn reconcile_full(&mut self, socket: &DiagSocket, pass: &Pass<'_>) {
        let protocol = pass.protocol(socket);
        if socket.state == State::Listen {
            self.listening_ports.add(socket.flow.local_port);
        }
        if let Some(mini) = self.minis.by_flow(&socket.flow, |mini| mini.is_live())
            && protocol != Protocol::Mptcp
        {
            if self.minis[mini].armed_at >= pass.dump.started {
                return;
            }
            // A new connection has taken its place.
            self.forget_replaced_mini(mini);
        }
        let Some(slot) = self.full_in_dump(socket, protocol, pass) else {
            if !pass.closed.contains(&socket.flow) {
                self.seed_full(socket, protocol, pass);
            }
            return;
        };
        let full = &mut self.fulls[slot];
        full.dump = pass.number;
        full.is_missed = false;
        if full.changed < pass.dump.started {
            let seeded = seed(socket, protocol, pass.number);
            if (full.state, full.phase) != (seeded.state, seeded.phase) {
                self.gaps.note_change(full, &seeded);
                **full = Full { owner: full.owner, protocol: full.protocol, ..seeded };
                self.censored += 1;
            } else if seeded.unread.is_some() {
                full.unread = seeded.unread;
            }
        }
        self.learn_from_dump(slot, socket, pass);
    }

    /// The row that this socket of the dump is. Several listeners may share a flow (SO_REUSEPORT): each is
    /// one row.
    fn full_in_dump(&mut self, socket: &DiagSocket, protocol: Protocol, pass: &Pass<'_>) -> Option<Slot> {
        let is_it = |full: &Row<Full>| {
            full.dump != pass.number && same_kind(full.protocol, protocol) && !full.is_gone()
        };
        if let Some(slot) = self.fulls.by_flow(&socket.flow, is_it) {
            return Some(slot);
        }
        if socket.state != State::SynSent {
            return None;
        }
        // connect() had not chosen its port when it was seen last.
        let without_port = Flow { local_port: 0, ..socket.flow };
        let slot = self.fulls.by_flow(&without_port, |full| is_it(full) && full.state == State::SynSent)?;
        self.fulls.set_flow(slot, socket.flow);
        Some(slot)
    }

    fn seed_full(&mut self, socket: &DiagSocket, protocol: Protocol, pass: &Pass<'_>) {
        if self.fulls.is_full() {
            self.table_full += 1;
            return;
        }
        let conn = self.number_connection(protocol, socket.state);
        let row = Row::new(0, socket.flow, conn, seed(socket, protocol, pass.number));
        if let Some(slot) = self.fulls.insert(row) {
            self.learn_from_dump(slot, socket, pass);
        }
    }

    fn learn_from_dump(&mut self, slot: Slot, socket: &DiagSocket, pass: &Pass<'_>) {
        match (pass.fd_owner)(socket) {
            Some(owner) => {
                self.sweep_owners();
                let full = &mut self.fulls[slot];
                full.owner = self.owners.learn_owner(full.owner, &owner);
            }
            // Not accepted yet.
            None if socket.inode.is_none()
                && matches!(socket.state, State::Established | State::CloseWait | State::SynRecv) =>
            {
                self.inherit_from_listener(slot);
            }
            None => {}
        }
    }

    fn reconcile_mini(&mut self, socket: &DiagSocket, pass: &Pass<'_>, out: &mut Vec<Outcome>) {
        if let Some(slot) = self.minis.by_flow(&socket.flow, |mini| mini.is_live()) {
            let mini = &mut self.minis[slot];
            mini.dump = pass.number;
            mini.is_missed = false;
            if !self.resync.is_lossless && mini.armed_at < pass.dump.started {
                // What it still waits for was lost, or is left out because the reader is taken to know more than it does.
                self.settle(slot, out);
            }
            let mini = &self.minis[slot];
            if mini.armed_at < pass.dump.started && mini.state != socket.state {
                self.correct_mini(slot, socket, out);
            }
            return;
        }
        let just_ended = |mini: &Row<Mini>| mini.cancel.is_some_and(|cancel| cancel.at >= pass.dump.started);
        if self.minis.by_flow(&socket.flow, just_ended).is_some() {
            return;
        }
        let full = self.fulls.by_flow(&socket.flow, |full| full.protocol != Protocol::Mptcp);
        if full.is_some_and(|full| self.fulls[full].changed >= pass.dump.started)
            || pass.closed.contains(&socket.flow)
        {
            return;
        }
        if self.minis.is_full() {
            self.table_full += 1;
            return;
        }
        // The start of the mini and the full socket's CLOSE were lost, or both are older than the tool.
        let full = full.map(|full| {
            self.gaps.found += u64::from(self.fulls[full].begin == Begin::Exact);
            self.censored += 1;
            self.fulls.remove(full)
        });
        let conn = match &full {
            Some(full) => full.conn(),
            None => self.number_connection(Protocol::Tcp, socket.state),
        };
        let mut mini = seed_mini(socket, pass.number);
        mini.owner = full.and_then(|full| full.owner);
        self.minis.insert(Row::new(0, socket.flow, conn, mini));
    }

    /// A mini that the dump shows in another substate than it was seen in.
    fn correct_mini(&mut self, slot: Slot, socket: &DiagSocket, out: &mut Vec<Outcome>) {
        let seeded = seed_mini(socket, self.minis[slot].dump);
        self.settle(slot, out);
        if self.minis[slot].state == State::FinWait2 && socket.state == State::TimeWait {
            // The peer's FIN came in silence; the time left on the timer says when.
            self.become_time_wait(slot, socket.at.saturating_sub(ran_ns(socket)), out);
            return;
        }
        // Other memory on the same flow: what was known has ended unseen.
        let mini = &mut self.minis[slot];
        self.gaps.found += u64::from(mini.begin == Begin::Exact);
        **mini = Mini { owner: mini.owner, ..seeded };
        self.minis.set_addr(slot, 0);
        self.censored += 1;
    }

    /// Rows that a complete dump should have shown and did not.
    fn drop_absent(&mut self, pass: &Pass<'_>) {
        self.drop_absent_fulls(pass);
        let absent = |row: (Slot, &Row<Mini>)| {
            let (slot, mini) = row;
            (mini.is_live() && pass.misses(mini.dump, mini.armed_at, mini.flow())).then_some(slot)
        };
        for slot in self.minis.iter().filter_map(absent).collect::<Vec<_>>() {
            let is_overdue = self.is_overdue(&self.minis[slot], pass.dump.finished);
            let mini = &mut self.minis[slot];
            if self.resync.is_lossless && !mini.is_missed && !is_overdue {
                mini.is_missed = true;
                continue;
            }
            self.gaps.found += 1;
            self.drop_mini(slot);
        }
    }

    fn drop_absent_fulls(&mut self, pass: &Pass<'_>) {
        let absent = |row: (Slot, &Row<Full>)| {
            let (slot, full) = row;
            pass.misses(full.dump, full.changed, full.flow()).then_some(slot)
        };
        for slot in self.fulls.iter().filter_map(absent).collect::<Vec<_>>() {
            let full = &mut self.fulls[slot];
            if self.resync.is_lossless && !full.is_missed {
                // What answers for MPTCP is a module that may not be there.
                full.is_missed = full.protocol == Protocol::Tcp;
                continue;
            }
            self.gaps.found += 1;
            if self.fulls[slot].is_gone() {
                // Only its CLOSE was lost; its mini has gone on.
                self.fulls.remove(slot);
            } else {
                self.drop_full(slot);
            }
        }
    }
}

impl Pass<'_> {
    fn protocol(&self, socket: &DiagSocket) -> Protocol {
        match socket.protocol {
            Protocol::Tcp if self.mptcp.contains(&socket.flow) => Protocol::MptcpSubflow,
            protocol => protocol,
        }
    }

    /// Whether the dump should have shown a row that was in dump number `shown` last and has not changed since
    /// `changed`.
    fn misses(&self, shown: u32, changed: MonoNs, flow: &Flow) -> bool {
        shown != self.number && changed < self.dump.started && self.namespaces.contains(&flow.netns)
    }
}

impl Full {
    /// Its mini has taken its place.
    fn is_gone(&self) -> bool {
        self.successor != Successor::None
    }
}

/// A full socket as a dump shows it. Its age is what is known at least.
fn seed(socket: &DiagSocket, protocol: Protocol, dump: u32) -> Full {
    let since = match socket.state {
        // The peer's FIN, or its acknowledgement of ours, was the last thing it sent, or not even that: the
        // state is as old as the last acknowledgement (`tcp_sock.rcv_tstamp`) at least.
        State::CloseWait | State::FinWait2 => {
            let age_ms = socket.last_ack_recv_ms.unwrap_or(0);
            socket.at.saturating_sub((u64::from(age_ms) * 1_000_000).saturating_sub(JIFFY_NS))
        }
        _ => socket.at,
    };
    Full {
        since,
        changed: socket.at,
        owner: None,
        successor: Successor::None,
        unread: (protocol != Protocol::Mptcp).then_some(socket.recv_queue),
        dump,
        state: socket.state,
        phase: (socket.state == State::FinWait2).then_some(match socket.inode {
            Some(_) => Phase::HalfClosed,
            None => Phase::Orphaned,
        }),
        begin: Begin::AtLatest,
        protocol,
        is_provisional: false,
        began_in_backlog: false,
        is_missed: false,
    }
}

/// What has run of a TIME_WAIT's timer, nanoseconds; a difference of two jiffies.
fn ran_ns(socket: &DiagSocket) -> u64 {
    TIME_WAIT_NS.saturating_sub(u64::from(socket.expires_ms) * 1_000_000)
}

/// A mini as a dump shows it.
fn seed_mini(socket: &DiagSocket, dump: u32) -> Mini {
    let since = match socket.state {
        // Set to 60 s when TIME_WAIT began, or later: what has run of that is its age at least.
        State::TimeWait => socket.at.saturating_sub(ran_ns(socket).saturating_sub(JIFFY_NS)),
        _ => socket.at,
    };
    Mini {
        since,
        armed_at: socket.at,
        as_full_socket_ns: 0,
        cancel: None,
        owner: None,
        timeout_jiffies: 0,
        rearmed: 0,
        dump,
        state: socket.state,
        begin: Begin::AtLatest,
        awaits_close: false,
        is_missed: false,
    }
}
