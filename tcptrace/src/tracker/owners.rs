//! Who a connection belongs to, learned where the kernel runs in the owner's own context.
//!
//! A TIME_WAIT mini has no uid, no inode and no process, so its owner has to be known before it is made:
//! connect(), listen(), close() and shutdown() all change the state in process context, and what they say is
//! kept for whatever follows.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::actor::Actor;
use crate::event::{Comm, Protocol, StateChange, Task};
use crate::net::{Addr, Flow, State};
use crate::outcome::{Evidence, Owner};

/// `sk_err` that `tcp_abort()` leaves (ECONNABORTED): it runs in the task of whoever asked for the socket's
/// end (`ss -K`), which is nobody's owner.
pub(super) const ECONNABORTED: u16 = 103;

/// Owners held before the unused ones are looked for the first time: more than the processes of most hosts.
const FIRST_SWEEP: usize = 1024;

/// A row's owner, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerRef {
    index: u32,
    evidence: Evidence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    pid: u32,
    kthread: bool,
    cgroup_id: u64,
    comm: Comm,
}

/// Every owner once.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    processes: Slab<Process>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    sweep_at: usize,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            processes: Slab::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            sweep_at: FIRST_SWEEP,
        }
    }
}

impl Owners {
    /// The owner in full.
    pub(super) fn get(&self, owner: OwnerRef) -> Option<Owner> {
        let process = self.processes.get(owner.index as usize)?;
        let Process { pid, comm, cgroup_id, .. } = *process;
        Some(Owner { pid, comm, evidence: owner.evidence, cgroup_id })
    }

    /// What a row's owner becomes when `task` has shown itself with `evidence`.
    ///
    /// Stronger evidence replaces weaker and the latest replaces its like: of several processes that share a
    /// socket, the one that closed it last is the one that ended it. A kernel thread never replaces an
    /// application: it may close on its behalf (`delayed_fput()`).
    pub(super) fn learn(
        &mut self,
        current: Option<OwnerRef>,
        task: &Task,
        evidence: Evidence,
    ) -> Option<OwnerRef> {
        let process =
            Process { pid: task.pid, kthread: task.kthread, cgroup_id: task.cgroup_id, comm: task.comm };
        self.replace(current, process, evidence)
    }

    /// The same for an owner that /proc knows.
    pub(super) fn learn_owner(&mut self, current: Option<OwnerRef>, owner: &Owner) -> Option<OwnerRef> {
        let Owner { pid, comm, evidence, cgroup_id } = *owner;
        self.replace(current, Process { pid, kthread: false, cgroup_id, comm }, evidence)
    }

    fn replace(
        &mut self,
        current: Option<OwnerRef>,
        process: Process,
        evidence: Evidence,
    ) -> Option<OwnerRef> {
        if let Some(current) = current {
            let known = self.processes.get(current.index as usize);
            let is_application = known.is_some_and(|known| !known.kthread);
            if evidence > current.evidence || (process.kthread && is_application) {
                return Some(current);
            }
            if known == Some(&process) {
                return Some(OwnerRef { evidence, ..current });
            }
        }
        Some(OwnerRef { index: self.intern(process), evidence })
    }

    /// What a connection inherits from the listener that accepted it.
    pub(super) fn inherited(listener: OwnerRef) -> OwnerRef {
        OwnerRef { evidence: Evidence::Listen, ..listener }
    }

    /// Whether two rows belong to the same process.
    pub(super) fn same_process(one: OwnerRef, other: OwnerRef) -> bool {
        one.index == other.index
    }

    fn intern(&mut self, process: Process) -> u32 {
        let Self { processes, index, hasher, .. } = self;
        let hash = hasher.hash_one(process);
        let at = |slot: &u32| processes[*slot as usize];
        if let Some(&found) = index.find(hash, |slot| at(slot) == process) {
            return found;
        }
        // Bounded by the rows that refer to owners, which are numbered by u32 themselves.
        let slot = processes.insert(process) as u32;
        index.insert_unique(hash, slot, |slot| hasher.hash_one(processes[*slot as usize]));
        slot
    }

    /// Whether it is time to [`Owners::sweep`].
    pub(super) fn wants_sweep(&self) -> bool {
        self.processes.len() >= self.sweep_at
    }

    /// Forgets every owner that no row refers to. Called when their number has doubled since the last time, so
    /// that its cost is spread over as many new owners.
    pub(super) fn sweep(&mut self, in_use: impl Iterator<Item = OwnerRef>) {
        let Self { processes, index, hasher, sweep_at } = self;
        let mut used = vec![false; processes.capacity()];
        for owner in in_use {
            if let Some(used) = used.get_mut(owner.index as usize) {
                *used = true;
            }
        }
        processes.retain(|slot, _| used[slot]);
        index.clear();
        for (slot, process) in processes.iter() {
            index.insert_unique(hasher.hash_one(process), slot as u32, |slot| {
                hasher.hash_one(processes[*slot as usize])
            });
        }
        *sweep_at = (2 * processes.len()).max(FIRST_SWEEP);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }
}

/// What a transition tells about the task that it ran in; `None` where it tells nothing.
///
/// Only transitions that a system call makes are listed. A packet's work may run in process context too, when
/// it waited in the backlog of a socket that was locked (`release_sock()`), so the context alone is not enough.
pub(super) fn evidence(change: &StateChange, actor: &Actor<'_>) -> Option<Evidence> {
    let task = actor.task()?;
    if task.kthread && change.protocol == Protocol::MptcpSubflow {
        // Subflows are opened and closed by mptcp_worker on behalf of the connection's owner.
        return None;
    }
    match (change.from, change.to) {
        // tcp_v4_connect()
        (State::Close, State::SynSent) => Some(Evidence::Connect),
        // inet_csk_listen_start()
        (State::Close, State::Listen) => Some(Evidence::Listen),
        // tcp_shutdown() and __tcp_close(), by way of tcp_close_state()
        (_, State::FinWait1 | State::LastAck) => Some(Evidence::Close),
        // close() after shutdown(): new_state[] maps these states to themselves
        (State::FinWait2, State::FinWait2) | (State::Closing, State::Closing) => Some(Evidence::Close),
        // tcp_abort() sets no error on a listener, and listen() has told its owner already
        (State::Listen, State::Close) => None,
        // connect() that fails or is given up: connect() has told its owner already
        (State::SynSent, State::Close) => None,
        // close() with data unread or with SO_LINGER 0
        (State::SynRecv | State::Established | State::FinWait1 | State::CloseWait, State::Close)
            if change.sk_err == 0 =>
        {
            Some(Evidence::Close)
        }
        // These come from the backlog as well, so it takes a socket that has just lost its file: close() itself.
        (_, State::Close) if change.sk_err == 0 && change.orphan => Some(Evidence::Close),
        _ => None,
    }
}

/// The flows that a listener which accepted this connection may have, the most specific first: bound to the
/// address, or to any; an IPv6 socket without IPV6_V6ONLY accepts IPv4 as well (`inet_lhash2_lookup()`).
pub(super) fn listening_flows(child: &Flow) -> impl Iterator<Item = Flow> {
    let any_v4 = Addr::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
    let any_v6 = Addr::from(IpAddr::from(Ipv6Addr::UNSPECIFIED));
    let pairs = [(child.local, any_v4), (child.local, any_v6), (any_v4, any_v4), (any_v6, any_v6)];
    let flow = *child;
    let is_v4 = child.local.is_ipv4();
    pairs.into_iter().filter(move |&(_, remote)| is_v4 || remote == any_v6).map(move |(local, remote)| Flow {
        local,
        remote,
        remote_port: 0,
        ..flow
    })
}
