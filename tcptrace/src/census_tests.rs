use super::*;
use crate::event::Comm;
use crate::filter::{CommPattern, Container};
use crate::inventory::cgroup::ProcessCgroup;
use crate::inventory::holders::{Holder, Holders};
use crate::inventory::process::Fds;
use crate::net::Flow;

/// The container that [`process`] number 3 and cgroup 33 are in.
pub(crate) const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(crate) fn socket(state: State, port: u16, inode: Option<u64>) -> DiagSocket {
    let remote = if state == State::Listen { "0.0.0.0:0" } else { "10.0.0.2:40000" };
    let flow = Flow::between(([10, 0, 0, 1], port).into(), remote.parse().unwrap(), 7);
    DiagSocket { at: 1, inode, ..DiagSocket::bare(flow, state) }
}

pub(crate) fn process(pid: u32, comm: &[u8], cgroup: &str) -> Process {
    Process {
        pid,
        start_ticks: 1,
        comm: Comm::from_bytes(comm),
        exe: None,
        cmdline: None,
        uid: Some(33),
        fds: Fds::default(),
        cgroup: ProcessCgroup::parse(format!("0::{cgroup}\n").as_bytes()),
        netns: Some(7),
    }
}

/// A server that was forked, a client in a container, TIME_WAITs, and what nobody holds.
pub(crate) fn dump() -> Dump {
    let orphan = DiagSocket { is_mini: true, ..socket(State::FinWait2, 80, None) };
    let waiting = DiagSocket { cgroup_id: Some(33), ..socket(State::CloseWait, 80, None) };
    let mptcp = DiagSocket { protocol: Protocol::Mptcp, ..socket(State::CloseWait, 80, Some(104)) };
    let sockets = vec![
        socket(State::Listen, 80, Some(100)),
        socket(State::Established, 80, Some(101)),
        socket(State::CloseWait, 80, Some(102)),
        socket(State::FinWait2, 81, Some(103)),
        socket(State::TimeWait, 80, None),
        socket(State::TimeWait, 80, None),
        orphan,
        waiting,
        mptcp,
    ];
    Dump { namespaces: vec![7], sockets, ..Dump::default() }
}

pub(crate) fn ownership() -> Ownership {
    let held = |inode, pid, fd| (inode, Holder { pid, fd });
    let holders: Holders = [
        held(100, 1, 3),
        held(100, 2, 3),
        held(101, 2, 5),
        held(101, 2, 6),
        held(102, 2, 7),
        held(103, 3, 4),
        held(104, 2, 9),
        // Gone before it could be read.
        held(103, 99, 4),
    ]
    .into_iter()
    .collect();
    let scope = format!("/system.slice/docker-{CONTAINER}.scope");
    Ownership::from_parts(
        holders,
        [
            (process(1, b"nginx", "/system.slice/nginx.service"), 11),
            (process(2, b"nginx", "/system.slice/nginx.service"), 11),
            (process(3, b"cur\x1bl", &scope), 33),
        ],
    )
}

pub(crate) fn census(filter: &Filter, by: Option<KeyKind>) -> Census {
    let container = |id| (id == 33).then(|| CONTAINER.to_owned());
    Census::take(&dump(), filter, by, &ownership(), &container)
}

fn groups(census: &Census) -> Vec<(Key, u64)> {
    census.groups.iter().map(|group| (group.key.clone(), group.counts.total())).collect()
}

fn nginx(pid: u32) -> Key {
    Key::Process(Some(ProcessKey { pid, comm: Comm::from_bytes(b"nginx"), host: None }))
}

#[test]
fn every_socket_counts_once_and_mptcp_apart() {
    let census = census(&Filter::default(), None);
    let counts: Vec<_> = census.counts.iter().collect();
    assert_eq!(
        counts,
        [
            (State::Established, 1),
            (State::FinWait2, 2),
            (State::TimeWait, 2),
            (State::CloseWait, 2),
            (State::Listen, 1)
        ]
    );
    assert_eq!((census.counts.total(), census.mptcp.total()), (8, 1));
    assert_eq!(census.orphaned_fin_wait2, 1);
    assert_eq!(census.not_accepted.iter().collect::<Vec<_>>(), [(State::CloseWait, 1)]);
    assert!(census.groups.is_empty() && census.owners_complete);
}

#[test]
fn a_socket_counts_under_each_process_that_holds_it_and_once_for_its_descriptors() {
    let census = census(&Filter::default(), Some(KeyKind::Process));
    let curl = Key::Process(Some(ProcessKey { pid: 3, comm: Comm::from_bytes(b"cur\x1bl"), host: None }));
    assert_eq!(groups(&census), [(Key::Process(None), 4), (nginx(2), 3), (nginx(1), 1), (curl, 1)]);
    assert!(census.groups_overlap());
    assert_eq!(census.groups[1].process.as_ref().map(|process| process.pid), Some(2));
}

#[test]
fn containers_are_those_of_holders_else_of_the_creator() {
    let census = census(&Filter::default(), Some(KeyKind::Container));
    let inside = Key::Container(Some(CONTAINER.to_owned()));
    assert_eq!(groups(&census), [(Key::Container(None), 6), (inside, 2)]);
}

#[test]
fn other_keys_come_from_the_flow() {
    let by = |by| groups(&census(&Filter::default(), Some(by)));
    assert_eq!(by(KeyKind::Port), [(Key::Port(80), 7), (Key::Port(81), 1)]);
    assert_eq!(by(KeyKind::Netns), [(Key::Netns(7), 8)]);
    let peer = |text: &str| Key::Peer(text.parse().unwrap());
    assert_eq!(by(KeyKind::Peer), [(peer("10.0.0.2"), 7), (peer("0.0.0.0"), 1)]);
}

#[test]
fn filters_by_owner_take_what_one_of_the_holders_matches() {
    let total = |filter: &Filter| census(filter, None).counts.total();
    assert_eq!(total(&Filter { pids: vec![1], ..Filter::default() }), 1);
    assert_eq!(total(&Filter { pids: vec![2, 3], ..Filter::default() }), 4);
    let comms = vec![CommPattern::new("*").unwrap()];
    // An owner that is not known matches no name.
    assert_eq!(total(&Filter { comms, ..Filter::default() }), 4);
    let containers = vec![Container { wanted: "01".to_owned(), cgroup_ids: vec![33] }];
    assert_eq!(total(&Filter { containers: containers.clone(), ..Filter::default() }), 2);
    assert_eq!(total(&Filter { containers, pids: vec![3], ..Filter::default() }), 1);
    assert_eq!(total(&Filter { states: State::TimeWait.into(), ..Filter::default() }), 2);
}

#[test]
fn grouped_holders_are_the_wanted_ones_only() {
    let census = census(&Filter { pids: vec![1], ..Filter::default() }, Some(KeyKind::Process));
    assert_eq!(groups(&census), [(nginx(1), 1)]);
}

#[test]
fn a_tally_counts_as_a_census_does() {
    let filter = Filter::default();
    let mut tally = Tally::new(&filter);
    let sockets = dump().sockets;
    let (first, second) = sockets.split_at(3);
    first.iter().for_each(|&socket| tally.take(socket));
    let mut beside = tally.fresh();
    second.iter().for_each(|&socket| beside.take(socket));
    let mark = beside.mark();
    // A dump that was interrupted.
    beside.take(sockets[0]);
    beside.rewind(mark);
    tally.absorb(beside);
    let census = Census::take(&dump(), &filter, None, &Ownership::default(), &|_| None);
    assert_eq!(tally.census(vec![7]), Census { owners_complete: true, ..census });
}
