//! Asks the running system: which sockets are in CLOSE_WAIT, who holds them, and who that is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use super::evidence::{Candidate, Culprit, Custody, Evidence, Keeper, Listening, Looked};
use crate::event::{MonoNs, Protocol};
use crate::filter::{Filter, StateSet};
use crate::inventory::diag::{DiagSocket, Dump, JIFFY_NS};
use crate::inventory::holders::{self, Holders};
use crate::inventory::namespaces::{self, Namespace};
use crate::inventory::owners::Listeners;
use crate::inventory::process::{self, Process};
use crate::inventory::{DumpError, cgroup, dump_these};
use crate::net::{Flow, State};
use crate::snapshot::Age;

/// The sockets in question, and the listeners that may have accepted them.
const STATES: StateSet = StateSet::EMPTY.with(State::CloseWait).with(State::Listen);
const MS_NS: u64 = 1_000_000;

/// Looks at every network namespace that the filter wants. Sockets that it does not want cost nothing more than
/// being listed.
///
/// 5,000 sockets among 100,000 descriptors of 2,000 processes take about 0.4 s on two cores, nearly all of it
/// for reading /proc.
///
/// # Errors
/// When no namespace at all can be looked at. Everything less becomes a note.
pub fn take(filter: &Filter) -> Result<Evidence, DumpError> {
    let wanted: Vec<u32> = filter.namespaces.iter().map(|netns| netns.inode).collect();
    let found = namespaces::all()?.only(&wanted);
    let mut dump = dump_these(&found.list, STATES)?;
    dump.notes.extend(found.notes);
    let close_wait = count(&dump);
    leave_unique(&mut dump.sockets, filter);

    let inodes: FxHashSet<u64> = dump.sockets.iter().filter_map(|socket| socket.inode).collect();
    let is_empty = !dump.sockets.iter().any(|socket| socket.state == State::CloseWait);
    // Nothing to look for: the answer is there already.
    let holders = if is_empty { Holders::default() } else { holders::find(&inodes) };
    if !is_empty {
        dump.notes.extend(holders.notes());
    }
    let vanished = vanished(&dump, &holders, &found.list);
    dump.sockets.retain(|socket| !vanished.contains(&socket.flow) || socket.state != State::CloseWait);

    let listeners = Listeners::of(&dump);
    let mut evidence = Evidence {
        at: dump.finished,
        candidates: candidates(&dump, &holders, &listeners),
        listening: listening(&dump, &holders),
        namespaces: names(&found.list),
        own_netns: found.list.iter().find(|namespace| namespace.is_own).map(|namespace| namespace.inode),
        looked: Looked {
            namespaces: dump.namespaces.len() as u64,
            close_wait,
            processes: (!is_empty).then_some(holders.processes as u64),
            fds: (!is_empty).then_some(holders.fds as u64),
        },
        notes: dump.notes.clone(),
        ..Evidence::default()
    };
    read_culprits(&mut evidence, filter);
    Ok(evidence)
}

fn count(dump: &Dump) -> u64 {
    dump.sockets.iter().filter(|socket| socket.state == State::CloseWait).count() as u64
}

/// Leaves listeners and the sockets in CLOSE_WAIT that the filter wants. A connection of MPTCP stays once: the
/// socket that the application holds, not its subflows.
fn leave_unique(sockets: &mut Vec<DiagSocket>, filter: &Filter) {
    // Without CAP_NET_ADMIN subflows look like plain TCP. Those of the first path have the addresses of their
    // connection, and all of them its inode (`mptcp_subflow_create_socket`).
    let whole = |socket: &&DiagSocket| socket.protocol == Protocol::Mptcp;
    let flows: FxHashSet<Flow> = sockets.iter().filter(whole).map(|socket| socket.flow).collect();
    let inodes: FxHashSet<u64> = sockets.iter().filter(whole).filter_map(|socket| socket.inode).collect();
    sockets.retain(|socket| match (socket.state, socket.protocol) {
        (_, Protocol::MptcpSubflow) => false,
        (State::Listen, _) => true,
        (_, Protocol::Tcp)
            if flows.contains(&socket.flow) || socket.inode.is_some_and(|inode| inodes.contains(&inode)) =>
        {
            false
        }
        _ => filter.matches_flow(&socket.flow),
    });
}

/// Sockets without a holder that are no longer there: they were closed between the list and the search.
fn vanished(dump: &Dump, holders: &Holders, list: &[Namespace]) -> FxHashSet<Flow> {
    let lost = |socket: &&DiagSocket| {
        socket.state == State::CloseWait && socket.inode.is_some_and(|inode| holders.of(inode).is_empty())
    };
    let mut lost: FxHashMap<Flow, Option<u64>> =
        dump.sockets.iter().filter(lost).map(|socket| (socket.flow, socket.inode)).collect();
    if lost.is_empty() {
        return FxHashSet::default();
    }
    // A namespace that does not answer a second time: nothing can be concluded of its sockets.
    if let Ok(again) = dump_these(list, State::CloseWait) {
        for socket in &again.sockets {
            if lost.get(&socket.flow).is_some_and(|&inode| inode == socket.inode) {
                lost.remove(&socket.flow);
            }
        }
        lost.retain(|flow, _| again.namespaces.contains(&flow.netns));
        return lost.into_keys().collect();
    }
    FxHashSet::default()
}

fn candidates(dump: &Dump, holders: &Holders, listeners: &Listeners<'_>) -> Vec<Candidate> {
    let in_question = dump.sockets.iter().filter(|socket| socket.state == State::CloseWait);
    in_question
        .map(|socket| {
            let behind = listeners.of_flow(&socket.flow);
            Candidate {
                flow: socket.flow,
                age: age_of(socket, dump.finished),
                // An MPTCP socket's counts memory instead of bytes, and no end (`mptcp_diag_get_info`).
                recv_queue: (socket.protocol != Protocol::Mptcp).then_some(socket.recv_queue),
                uid: socket.uid,
                accepted_on: behind.first().map(|listener| listener.flow.local_addr()),
                custody: custody(socket, holders, &behind),
            }
        })
        .collect()
}

/// The last ACK came with the peer's FIN, or later: a lower bound.
fn age_of(socket: &DiagSocket, now: MonoNs) -> Option<Age> {
    let at_dump_ns = (u64::from(socket.last_ack_recv_ms?) * MS_NS).saturating_sub(JIFFY_NS);
    Some(Age { ns: at_dump_ns + now.saturating_sub(socket.at), is_lower_bound: true })
}

fn custody(socket: &DiagSocket, holders: &Holders, listeners: &[&DiagSocket]) -> Custody {
    let Some(inode) = socket.inode else {
        return if listeners.is_empty() {
            Custody::Detached
        } else {
            Custody::AcceptQueue(pids_of(&with_a_queue(listeners), holders))
        };
    };
    let keepers: Vec<Keeper> =
        holders.of(inode).iter().map(|holder| Keeper { pid: holder.pid, fd: Some(holder.fd) }).collect();
    match (keepers.is_empty(), holders.is_complete()) {
        (false, _) => Custody::Held(keepers),
        (true, true) => Custody::Nobody,
        (true, false) => Custody::Unseen,
    }
}

/// Of several listeners on one port (SO_REUSEPORT) those where something waits.
fn with_a_queue<'a>(listeners: &[&'a DiagSocket]) -> Vec<&'a DiagSocket> {
    let waiting: Vec<_> = listeners.iter().copied().filter(|listener| listener.recv_queue > 0).collect();
    if waiting.is_empty() { listeners.to_vec() } else { waiting }
}

fn pids_of(sockets: &[&DiagSocket], holders: &Holders) -> Vec<u32> {
    let inodes = sockets.iter().filter_map(|socket| socket.inode);
    let pids: BTreeSet<u32> = inodes.flat_map(|inode| holders.of(inode)).map(|holder| holder.pid).collect();
    pids.into_iter().collect()
}

/// Where each process listens.
fn listening(dump: &Dump, holders: &Holders) -> BTreeMap<u32, Vec<Listening>> {
    let mut listening: BTreeMap<u32, Vec<Listening>> = BTreeMap::new();
    for socket in dump.sockets.iter().filter(|socket| socket.state == State::Listen) {
        let place = Listening {
            addr: SocketAddr::new(socket.flow.local.ip(), socket.flow.local_port),
            netns: socket.flow.netns,
            queued: socket.recv_queue,
            backlog: socket.send_queue,
        };
        for pid in pids_of(&[socket], holders) {
            listening.entry(pid).or_default().push(place);
        }
    }
    listening.values_mut().for_each(|places| places.sort_unstable());
    listening
}

fn names(list: &[Namespace]) -> BTreeMap<u32, String> {
    let named = list.iter().filter(|namespace| !namespace.is_own);
    named.filter_map(|namespace| Some((namespace.inode, namespace.name.clone()?))).collect()
}

/// Reads every process that is to blame. One that has gone holds nothing any more.
fn read_culprits(evidence: &mut Evidence, filter: &Filter) {
    let pids: BTreeSet<u32> = evidence
        .candidates
        .iter()
        .flat_map(|candidate| match &candidate.custody {
            Custody::Held(keepers) => keepers.iter().map(|keeper| keeper.pid).collect(),
            Custody::AcceptQueue(listeners) => listeners.clone(),
            Custody::Nobody | Custody::Unseen | Custody::Detached => Vec::new(),
        })
        .collect();
    // Only a filter by container needs it.
    let root = if filter.containers.is_empty() { None } else { cgroup::unified_root() };
    for &pid in &pids {
        if let Some(process) = Process::read(pid) {
            let cgroup_id = root.as_deref().and_then(|root| process::cgroup_id(pid, root)).unwrap_or(0);
            evidence.culprits.insert(pid, Culprit::new(&process, cgroup_id));
        }
    }
    let Evidence { candidates, culprits, .. } = evidence;
    candidates.retain_mut(|candidate| match &mut candidate.custody {
        Custody::Held(keepers) => {
            keepers.retain(|keeper| culprits.contains_key(&keeper.pid));
            !keepers.is_empty()
        }
        Custody::AcceptQueue(listeners) => {
            listeners.retain(|pid| culprits.contains_key(pid));
            true
        }
        Custody::Nobody | Custody::Unseen | Custody::Detached => true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(state: State, local_port: u16, remote_port: u16, inode: u64) -> DiagSocket {
        let remote = if state == State::Listen { [0, 0, 0, 0] } else { [127, 0, 0, 1] };
        let flow = Flow::between(([127, 0, 0, 1], local_port).into(), (remote, remote_port).into(), 1);
        DiagSocket {
            at: 900 * MS_NS,
            inode: Some(inode).filter(|&inode| inode != 0),
            uid: Some(0),
            recv_queue: 1,
            send_queue: 128,
            last_ack_recv_ms: Some(100),
            ..DiagSocket::bare(flow, state)
        }
    }

    fn of_protocol(protocol: Protocol, socket: DiagSocket) -> DiagSocket {
        DiagSocket { protocol, ..socket }
    }

    #[test]
    fn an_mptcp_connection_is_one_socket() {
        let whole = socket(State::CloseWait, 80, 1000, 7);
        let mut sockets = vec![
            of_protocol(Protocol::Mptcp, whole),
            of_protocol(Protocol::MptcpSubflow, whole),
            // Without CAP_NET_ADMIN subflows pass for TCP: the first by its addresses, the second by its inode.
            DiagSocket { inode: None, ..whole },
            socket(State::CloseWait, 81, 2000, 7),
            socket(State::CloseWait, 80, 3000, 8),
            socket(State::Listen, 80, 0, 9),
        ];
        leave_unique(&mut sockets, &Filter::default());
        let left: Vec<_> = sockets.iter().map(|socket| (socket.protocol, socket.flow.remote_port)).collect();
        assert_eq!(left, [(Protocol::Mptcp, 1000), (Protocol::Tcp, 3000), (Protocol::Tcp, 0)]);
        leave_unique(&mut sockets, &Filter { ports: vec![443], ..Filter::default() });
        assert_eq!(sockets.len(), 1, "listeners stay: they are asked about, not for");
    }

    #[test]
    fn a_socket_without_inode_is_its_listeners() {
        let dump = Dump {
            finished: 1000 * MS_NS,
            sockets: vec![
                socket(State::CloseWait, 80, 1000, 0),
                socket(State::CloseWait, 81, 1001, 0),
                socket(State::CloseWait, 80, 1002, 5),
                socket(State::Listen, 80, 0, 6),
            ],
            ..Dump::default()
        };
        let found = candidates(&dump, &Holders::default(), &Listeners::of(&dump));
        let custody: Vec<_> = found.iter().map(|candidate| candidate.custody.clone()).collect();
        // A search that has not been made is not complete.
        assert_eq!(custody, [Custody::AcceptQueue(Vec::new()), Custody::Detached, Custody::Unseen]);
        assert_eq!(found[0].accepted_on.map(|addr| addr.port()), Some(80));
        assert_eq!(found[1].accepted_on, None);
        // 100 ms before the answer less a jiffy, and 100 ms after it.
        assert_eq!(found[0].age, Some(Age { ns: 190 * MS_NS, is_lower_bound: true }));
    }

    #[test]
    fn of_several_listeners_the_one_with_a_queue_is_blamed() {
        let idle = DiagSocket { recv_queue: 0, ..socket(State::Listen, 80, 0, 1) };
        let busy = socket(State::Listen, 80, 0, 2);
        let inodes = |sockets: Vec<&DiagSocket>| -> Vec<_> {
            sockets.into_iter().filter_map(|socket| socket.inode).collect()
        };
        assert_eq!(inodes(with_a_queue(&[&idle, &busy])), [2]);
        assert_eq!(inodes(with_a_queue(&[&idle])), [1]);
    }

    #[test]
    fn the_running_system_can_be_asked() {
        let evidence = take(&Filter::default()).expect("own namespace at least");
        assert!(evidence.looked.namespaces >= 1 && evidence.own_netns.is_some());
    }
}
