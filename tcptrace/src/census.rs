//! How many sockets are in which state, and whose: a count over a dump. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Protocol;
use crate::filter::Filter;
use crate::inventory::diag::{DiagSocket, Dump, Sink};
use crate::inventory::owners::Ownership;
use crate::inventory::process::Process;
use crate::net::State;
use crate::outcome::Owner;
use crate::snapshot::{Key, KeyKind, ProcessKey};
use crate::stats::service_port;

/// Sockets by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; tcptrace_common::state::SLOTS]);

impl Counts {
    /// Counts one socket.
    pub const fn add(&mut self, state: State) {
        self.add_many(state, 1);
    }

    /// Counts so many.
    pub const fn add_many(&mut self, state: State, sockets: u64) {
        self.0[state.number() as usize] += sockets;
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Sockets in `state`.
    #[must_use]
    pub const fn get(&self, state: State) -> u64 {
        self.0[state.number() as usize]
    }

    /// Sockets in any state.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The states that have any, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = (State, u64)> {
        State::ALL.into_iter().map(|state| (state, self.get(state))).filter(|&(_, count)| count > 0)
    }
}

/// The count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Network namespaces that were looked at.
    pub namespaces: Vec<u32>,
    /// TCP sockets, subflows of MPTCP included: what `ss -tan` lists.
    pub counts: Counts,
    /// MPTCP sockets, which `ss -tan` does not list. Each has subflows in `counts`.
    pub mptcp: Counts,
    /// FIN_WAIT2 whose application has closed; the others are half-closed.
    pub orphaned_fin_wait2: u64,
    /// Sockets whose connection no application has accepted yet.
    pub not_accepted: Counts,
    /// Every process could be looked at, so that a socket under no process is really held by none.
    pub owners_complete: bool,
    /// The same by key, most sockets first.
    pub groups: Vec<Group>,
}

/// Sockets of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Whose. A socket that several processes hold is counted under each of them.
    pub key: Key,
    /// More about it, when it is a process.
    pub process: Option<Process>,
    /// How many. MPTCP sockets are left out, as everywhere but in [`Census::mptcp`].
    pub counts: Counts,
}

impl Census {
    /// Counts what `filter` lets through. `ownership` may be empty when neither the filter nor `by` asks for
    /// owners. `container` names the container of a cgroup v2 id, for sockets that no process holds.
    #[must_use]
    pub fn take(
        dump: &Dump,
        filter: &Filter,
        by: Option<KeyKind>,
        ownership: &Ownership,
        container: &dyn Fn(u64) -> Option<String>,
    ) -> Self {
        let mut census = Self {
            namespaces: dump.namespaces.clone(),
            owners_complete: ownership.holders.is_complete(),
            ..Self::default()
        };
        let mut groups: BTreeMap<Key, Counts> = BTreeMap::new();
        for socket in dump.sockets.iter().filter(|socket| filter.matches_diag(socket)) {
            let Some(owners) = owners_wanted(socket, filter, ownership) else { continue };
            census.count(socket);
            if socket.protocol == Protocol::Mptcp {
                continue;
            }
            for key in by.map(|by| keys(by, socket, &owners, ownership, container)).into_iter().flatten() {
                groups.entry(key).or_default().add(socket.state);
            }
        }
        census.groups = groups
            .into_iter()
            .map(|(key, counts)| Group { process: process_of(&key, ownership).cloned(), key, counts })
            .collect();
        // Stable: equal totals stay in the order of their keys.
        census.groups.sort_by_key(|group| std::cmp::Reverse(group.counts.total()));
        census
    }

    fn count(&mut self, socket: &DiagSocket) {
        if socket.protocol == Protocol::Mptcp {
            self.mptcp.add(socket.state);
            return;
        }
        self.counts.add(socket.state);
        if socket.state == State::FinWait2 && (socket.is_mini || socket.inode.is_none()) {
            self.orphaned_fin_wait2 += 1;
        }
        // These two have no inode before accept() and nothing but an inode after it: close() leaves them.
        if matches!(socket.state, State::Established | State::CloseWait) && socket.inode.is_none() {
            self.not_accepted.add(socket.state);
        }
    }

    /// True when a socket is counted in more than one group.
    #[must_use]
    pub fn groups_overlap(&self) -> bool {
        self.groups.iter().map(|group| group.counts.total()).sum::<u64>() > self.counts.total()
    }
}

/// Counts as sockets come, where nobody asks whose they are: none of them is kept.
#[derive(Clone, Debug)]
pub struct Tally<'a> {
    filter: &'a Filter,
    census: Census,
}

impl<'a> Tally<'a> {
    /// Counts what `filter` lets through, which must not ask for owners.
    #[must_use]
    pub fn new(filter: &'a Filter) -> Self {
        // Nobody looked for owners, so none is missing.
        Self { filter, census: Census { owners_complete: true, ..Census::default() } }
    }

    /// The count, of these network namespaces.
    #[must_use]
    pub fn census(self, namespaces: Vec<u32>) -> Census {
        Census { namespaces, ..self.census }
    }
}

impl Sink for Tally<'_> {
    type Mark = Census;

    fn take(&mut self, socket: DiagSocket) {
        if self.filter.matches_diag(&socket) {
            self.census.count(&socket);
        }
    }

    /// The listing itself is of states and namespaces.
    fn only_counts(&self) -> bool {
        let Filter { states, ref namespaces, .. } = *self.filter;
        *self.filter == Filter { states, namespaces: namespaces.clone(), ..Filter::default() }
    }

    fn take_counted(&mut self, state: State, sockets: u64) {
        if self.filter.states.contains(state) {
            self.census.counts.add_many(state, sockets);
        }
    }

    /// A few counters: nothing here has groups.
    fn mark(&self) -> Census {
        self.census.clone()
    }

    fn rewind(&mut self, mark: Census) {
        self.census = mark;
    }

    fn fresh(&self) -> Self {
        Self::new(self.filter)
    }

    fn absorb(&mut self, other: Self) {
        let Census { counts, mptcp, orphaned_fin_wait2, not_accepted, .. } = other.census;
        self.census.counts.merge(&counts);
        self.census.mptcp.merge(&mptcp);
        self.census.not_accepted.merge(&not_accepted);
        self.census.orphaned_fin_wait2 += orphaned_fin_wait2;
    }
}

/// The holders of a socket that the filter wants; `None` when it does not want the socket.
fn owners_wanted(socket: &DiagSocket, filter: &Filter, ownership: &Ownership) -> Option<Vec<Owner>> {
    let mut owners: Vec<Owner> = ownership.owners_of(socket).collect();
    if !filter.needs_owner() {
        return Some(owners);
    }
    if owners.is_empty() {
        // Of a socket that nobody holds the creator's cgroup may still be known.
        let only_containers = filter.pids.is_empty() && filter.comms.is_empty();
        let id = socket.cgroup_id.filter(|_| only_containers)?;
        let wanted = filter.containers.iter().any(|container| container.cgroup_ids.contains(&id));
        return wanted.then_some(owners);
    }
    owners.retain(|owner| filter.matches_owner(Some(owner)));
    (!owners.is_empty()).then_some(owners)
}

/// What a socket is counted under: one key, or one for each process or container that holds it.
fn keys(
    by: KeyKind,
    socket: &DiagSocket,
    owners: &[Owner],
    ownership: &Ownership,
    container: &dyn Fn(u64) -> Option<String>,
) -> Vec<Key> {
    let or_unknown = |keys: BTreeSet<Key>, unknown: Key| -> Vec<Key> {
        if keys.is_empty() { vec![unknown] } else { keys.into_iter().collect() }
    };
    match by {
        KeyKind::Process => {
            let process = |owner: &Owner| {
                Key::Process(Some(ProcessKey { pid: owner.pid, comm: owner.comm, host: None }))
            };
            or_unknown(owners.iter().map(process).collect(), Key::Process(None))
        }
        KeyKind::Container => {
            let of_process = |owner: &Owner| {
                let container = ownership.process(owner.pid)?.workload().container.as_ref()?;
                Some(Key::Container(Some(container.id.clone())))
            };
            let of_creator = || Key::Container(socket.cgroup_id.and_then(container));
            or_unknown(owners.iter().filter_map(of_process).collect(), of_creator())
        }
        KeyKind::Port => vec![Key::Port(service_port(&socket.flow))],
        KeyKind::Peer => vec![Key::Peer(socket.flow.remote.ip())],
        KeyKind::Netns => vec![Key::Netns(socket.flow.netns)],
    }
}

fn process_of<'a>(key: &Key, ownership: &'a Ownership) -> Option<&'a Process> {
    match key {
        Key::Process(Some(process)) => ownership.process(process.pid),
        _ => None,
    }
}

#[cfg(test)]
#[path = "census_tests.rs"]
pub(crate) mod tests;
