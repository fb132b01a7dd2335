//! Who owns the sockets of a dump: holders from /proc, and the listener of what is not accepted yet.

use rustc_hash::{FxHashMap, FxHashSet};

use super::cgroup;
use super::diag::{DiagSocket, Dump};
use super::holders::{self, Holders};
use super::process::{self, Process};
use crate::net::{Addr, Flow, State};
use crate::outcome::{Evidence, Owner};

/// Finds the first holder of every socket of `dump` that has an inode: the one with the lowest pid, after
/// fork() usually the parent. What could not be seen is added to the dump's notes.
pub fn of_dump(dump: &mut Dump) -> FxHashMap<u64, Owner> {
    let wanted: FxHashSet<u64> = dump.sockets.iter().filter_map(|socket| socket.inode).collect();
    let holders = holders::find(&wanted);
    dump.notes.extend(holders.notes());
    first_owners(&holders)
}

/// The first holder of every inode, as an owner with evidence `fd`. A process that has gone meanwhile owns
/// nothing.
#[must_use]
pub fn first_owners(holders: &Holders) -> FxHashMap<u64, Owner> {
    let root = cgroup::unified_root();
    let mut known: FxHashMap<u32, Option<Owner>> = FxHashMap::default();
    let mut owner = |pid: u32| {
        *known.entry(pid).or_insert_with(|| {
            let (comm, _) = process::identity(pid)?;
            let cgroup_id = root.as_deref().and_then(|root| process::cgroup_id(pid, root)).unwrap_or(0);
            Some(Owner { pid, comm, evidence: Evidence::Fd, cgroup_id })
        })
    };
    holders.inodes().filter_map(|inode| Some((inode, owner(holders.of(inode).first()?.pid)?))).collect()
}

/// Every holder of some sockets, and the processes behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Inode → process and descriptor.
    pub holders: Holders,
    /// The holders, by pid, with their cgroup v2 id (0 where unknown). A process that has gone meanwhile is
    /// missing and owns nothing.
    by_pid: FxHashMap<u32, (Process, u64)>,
}

impl Ownership {
    /// Finds the holders of these sockets and reads what /proc says about each: about 0.1 ms for a process.
    #[must_use]
    pub fn find<'a>(sockets: impl IntoIterator<Item = &'a DiagSocket>) -> Self {
        let wanted: FxHashSet<u64> = sockets.into_iter().filter_map(|socket| socket.inode).collect();
        let holders = holders::find(&wanted);
        let root = cgroup::unified_root();
        let pids: FxHashSet<u32> = holders.all().map(|holder| holder.pid).collect();
        let by_pid = pids.into_iter().filter_map(|pid| {
            let process = Process::read(pid)?;
            let cgroup_id = root.as_deref().zip(process.cgroup.unified.as_deref());
            let cgroup_id = cgroup_id.and_then(|(root, path)| cgroup::id_of(root, path)).unwrap_or(0);
            Some((pid, (process, cgroup_id)))
        });
        let by_pid = by_pid.collect();
        Self { holders, by_pid }
    }

    /// From what is known already.
    #[must_use]
    pub fn from_parts(holders: Holders, processes: impl IntoIterator<Item = (Process, u64)>) -> Self {
        let by_pid = processes.into_iter().map(|(process, cgroup_id)| (process.pid, (process, cgroup_id)));
        Self { holders, by_pid: by_pid.collect() }
    }

    /// A holder.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid).map(|(process, _)| process)
    }

    /// The processes that hold a socket, each once, by pid.
    pub fn owners_of(&self, socket: &DiagSocket) -> impl Iterator<Item = Owner> {
        let holders = socket.inode.map_or(&[][..], |inode| self.holders.of(inode));
        // They are sorted by pid: the descriptors of one process follow each other.
        holders.chunk_by(|a, b| a.pid == b.pid).filter_map(|same| {
            let pid = same.first()?.pid;
            let (process, cgroup_id) = self.by_pid.get(&pid)?;
            Some(Owner { pid, comm: process.comm, evidence: Evidence::Fd, cgroup_id: *cgroup_id })
        })
    }
}

/// The listening sockets of a dump, found by where they listen.
#[derive(Clone, Debug, Default)]
pub struct Listeners<'a> {
    by_port: FxHashMap<(u32, u16), Vec<&'a DiagSocket>>,
}

impl<'a> Listeners<'a> {
    /// Takes the listeners out of a dump: it must have been asked for [`State::Listen`].
    #[must_use]
    pub fn of(dump: &'a Dump) -> Self {
        let mut listeners = Self::default();
        for socket in dump.sockets.iter().filter(|socket| socket.state == State::Listen) {
            let key = (socket.flow.netns, socket.flow.local_port);
            listeners.by_port.entry(key).or_default().push(socket);
        }
        listeners
    }

    /// The listeners that may have made a connection: those of its address, else those of its family's
    /// wildcard, else those of `::`, which takes IPv4 too. Several where they share the port (SO_REUSEPORT).
    #[must_use]
    pub fn of_flow(&self, flow: &Flow) -> Vec<&'a DiagSocket> {
        let Some(candidates) = self.by_port.get(&(flow.netns, flow.local_port)) else { return Vec::new() };
        let at = |wanted: &dyn Fn(Addr) -> bool| -> Vec<&'a DiagSocket> {
            candidates.iter().copied().filter(|socket| wanted(socket.flow.local)).collect()
        };
        let is_ipv4 = flow.local.is_ipv4();
        [
            at(&|addr| addr == flow.local),
            at(&|addr| addr.is_unspecified() && addr.is_ipv4() == is_ipv4),
            at(&|addr| addr.is_unspecified()),
        ]
        .into_iter()
        .find(|found| !found.is_empty())
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener};

    use super::*;
    use crate::event::Protocol;
    use crate::inventory::diag::StateSet;
    use crate::inventory::dump_one;
    use crate::inventory::namespaces::Namespace;

    #[test]
    fn our_own_socket_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("address");
        let own = Namespace::own().expect("own namespace");
        let mut dump = dump_one(&own, StateSet::ALL).expect("dump");
        let owners = of_dump(&mut dump);
        let socket = dump.sockets.iter().find(|socket| socket.flow.local_addr() == addr).expect("listed");
        let owner = owners[&socket.inode.expect("held")];
        assert_eq!((owner.pid, owner.evidence), (std::process::id(), Evidence::Fd));
    }

    fn socket(netns: u32, addr: &str, port: u16, inode: u64) -> DiagSocket {
        let local = Addr::from(addr.parse::<IpAddr>().expect("address"));
        let remote = Addr([0; 16]);
        DiagSocket {
            at: 0,
            flow: Flow { local, remote, netns, local_port: port, remote_port: 0 },
            state: State::Listen,
            is_mini: false,
            protocol: Protocol::Tcp,
            expires_ms: 0,
            timer: 0,
            inode: Some(inode),
            uid: None,
            recv_queue: 0,
            send_queue: 128,
            cookie: None,
            cgroup_id: None,
            last_ack_recv_ms: None,
        }
    }

    #[test]
    fn the_closest_listener_is_blamed() {
        let dump = Dump {
            sockets: vec![
                socket(1, "0.0.0.0", 80, 1),
                socket(1, "10.0.0.1", 80, 2),
                socket(1, "::", 80, 3),
                socket(1, "::", 81, 4),
                socket(1, "::", 81, 5),
                socket(2, "0.0.0.0", 80, 6),
            ],
            ..Dump::default()
        };
        let listeners = Listeners::of(&dump);
        let of = |netns, addr: &str, port| -> Vec<u64> {
            let child = socket(netns, addr, port, 0);
            listeners.of_flow(&child.flow).iter().filter_map(|socket| socket.inode).collect()
        };
        assert_eq!(of(1, "10.0.0.1", 80), [2]);
        assert_eq!(of(1, "10.0.0.2", 80), [1]);
        assert_eq!(of(1, "fd00::1", 80), [3]);
        assert_eq!(of(1, "10.0.0.1", 81), [4, 5]);
        assert_eq!(of(2, "10.0.0.1", 80), [6]);
        assert!(of(2, "fd00::1", 81).is_empty());
    }
}
