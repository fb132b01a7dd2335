use std::net::IpAddr;

use super::*;
use crate::event::Comm;
use crate::filter::{CommPattern, Filter};
use crate::inventory::process::Fds;
use crate::net::{Addr, Flow};
use crate::snapshot::Age;

const S: u64 = 1_000_000_000;

fn flow(local_port: u16, remote: &str, remote_port: u16) -> Flow {
    let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    Flow { local: addr("10.0.0.1"), remote: addr(remote), netns: 1, local_port, remote_port }
}

fn age(seconds: u64) -> Option<Age> {
    Some(Age { ns: seconds * S, is_lower_bound: true })
}

fn held(remote_port: u16, seconds: u64, recv_queue: u32, keepers: &[(u32, u32)]) -> Candidate {
    Candidate {
        flow: flow(80, "10.0.0.7", remote_port),
        age: age(seconds),
        recv_queue: Some(recv_queue),
        uid: Some(0),
        accepted_on: None,
        custody: Custody::Held(keepers.iter().map(|&(pid, fd)| Keeper { pid, fd: Some(fd) }).collect()),
    }
}

fn without_holder(remote_port: u16, custody: Custody) -> Candidate {
    Candidate { custody, ..held(remote_port, 60, 1, &[(1, 1)]) }
}

fn culprit(pid: u32, comm: &str) -> (u32, Culprit) {
    let fds = Fds { open: Some(900), limit: Some(1024) };
    (pid, Culprit { pid, comm: Comm::from_bytes(comm.as_bytes()), fds, ..Culprit::default() })
}

fn evidence(candidates: Vec<Candidate>) -> Evidence {
    Evidence {
        at: 1000 * S,
        candidates,
        culprits: [culprit(10, "web"), culprit(11, "worker"), culprit(12, "db")].into(),
        ..Evidence::default()
    }
}

fn terms() -> Terms {
    Terms { filter: Filter::default(), min_age_ns: 10 * S }
}

#[test]
fn the_receive_queue_and_the_holders_decide_the_kind() {
    let in_queue = Custody::AcceptQueue(vec![10]);
    for (candidate, kind) in [
        (held(1, 60, 0, &[(10, 3)]), Kind::EofConsumed),
        (held(1, 60, 1, &[(10, 3)]), Kind::EofUnread),
        (held(1, 60, 2, &[(10, 3)]), Kind::DataUnread),
        (Candidate { recv_queue: None, ..held(1, 60, 0, &[(10, 3)]) }, Kind::Held),
        (without_holder(1, in_queue), Kind::NotAccepted),
        (without_holder(1, Custody::Nobody), Kind::InFlight),
        (without_holder(1, Custody::Unseen), Kind::Unseen),
        (without_holder(1, Custody::Detached), Kind::Detached),
    ] {
        let applying: Vec<_> = RULES.iter().filter(|rule| rule.applies(&candidate)).collect();
        assert_eq!(applying.first().map(|rule| rule.kind()), Some(kind), "{candidate:?}");
        assert_eq!(Kind::of(&candidate), kind);
        assert_eq!(kind.rule().kind(), kind);
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        assert!(!kind.rule().advice().is_empty());
    }
    assert_eq!(Kind::DataUnread.rule().verdict(Tally { sockets: 1, unread_bytes: 3200 }), "3.2 KB unread");
}

#[test]
fn what_is_younger_than_the_limit_is_no_leak() {
    let unknown = Candidate { age: None, ..held(3, 0, 0, &[(10, 5)]) };
    let evidence = evidence(vec![held(1, 9, 0, &[(10, 3)]), held(2, 10, 0, &[(10, 4)]), unknown]);
    let report = LeakReport::new(&evidence, &terms(), &History::default());
    assert_eq!((report.totals.sockets, report.totals.young, report.totals.ageless), (1, 2, 1));
    assert_eq!(report.leaks[0].sockets[0].fds, [4]);
    let all = LeakReport::new(&evidence, &Terms { min_age_ns: 0, ..terms() }, &History::default());
    assert_eq!((all.totals.sockets, all.totals.young), (3, 0));
    let longer = Filter { min_dwell_ns: Some(11 * S), ..Filter::default() };
    assert!(LeakReport::new(&evidence, &Terms { filter: longer, ..terms() }, &History::default()).is_clean());
}

#[test]
fn a_shared_socket_stands_under_every_holder_and_counts_once() {
    let report = LeakReport::new(
        &evidence(vec![held(1, 60, 0, &[(10, 3), (10, 9), (11, 0)]), held(2, 50, 1, &[(10, 4)])]),
        &terms(),
        &History::default(),
    );
    assert_eq!(report.totals.sockets, 2);
    assert_eq!(report.totals.kinds[&Kind::EofConsumed].sockets, 1);
    let [web, worker] = &report.leaks[..] else { panic!("{report:#?}") };
    assert_eq!((web.pid(), web.count(), worker.pid(), worker.count()), (Some(10), 2, Some(11), 1));
    assert_eq!(web.sockets[0].fds, [3, 9], "both descriptors of one process, once");
    assert_eq!(web.shared_with.iter().collect::<Vec<_>>(), [&11]);
    assert_eq!(worker.shared_with.iter().collect::<Vec<_>>(), [&10]);
    assert_eq!(report.processes(), 2);
}

#[test]
fn leaks_are_in_order_of_sockets_then_age() {
    let report = LeakReport::new(
        &evidence(vec![
            held(1, 30, 0, &[(10, 3)]),
            held(2, 40, 0, &[(12, 3)]),
            held(3, 20, 0, &[(11, 3)]),
            held(4, 25, 0, &[(11, 4)]),
        ]),
        &terms(),
        &History::default(),
    );
    assert_eq!(report.leaks.iter().map(Leak::pid).collect::<Vec<_>>(), [Some(11), Some(12), Some(10)]);
    assert_eq!(report.leaks[0].oldest(), age(25));
    assert_eq!(report.leaks[0].sockets[0].flow.remote_port, 4, "the oldest first");
    assert_eq!(report.totals.oldest, age(40));
}

#[test]
fn what_nobody_holds_is_told_apart_by_kind() {
    let report = LeakReport::new(
        &evidence(vec![
            without_holder(1, Custody::Nobody),
            without_holder(2, Custody::Detached),
            without_holder(3, Custody::AcceptQueue(Vec::new())),
            without_holder(4, Custody::AcceptQueue(vec![12])),
        ]),
        &terms(),
        &History::default(),
    );
    assert_eq!(report.totals.sockets, 4);
    assert_eq!(report.processes(), 1);
    let listener = report.leaks.iter().find(|leak| leak.pid() == Some(12)).unwrap();
    assert_eq!(listener.count_of(Kind::NotAccepted), 1);
    assert!(listener.sockets[0].fds.is_empty());
    let mut rest: Vec<_> =
        report.leaks.iter().filter(|leak| leak.culprit.is_none()).map(|leak| leak.sockets[0].kind).collect();
    rest.sort_unstable();
    assert_eq!(rest, [Kind::NotAccepted, Kind::InFlight, Kind::Detached]);
}

#[test]
fn filters_by_owner_choose_processes_not_sockets() {
    let evidence = evidence(vec![
        held(1, 60, 0, &[(10, 3), (11, 0)]),
        held(2, 60, 0, &[(12, 3)]),
        without_holder(3, Custody::Nobody),
    ]);
    let of = |filter: Filter| LeakReport::new(&evidence, &Terms { filter, ..terms() }, &History::default());
    let worker = of(Filter { comms: vec![CommPattern::new("work*").unwrap()], ..Filter::default() });
    assert_eq!(worker.leaks.iter().map(Leak::pid).collect::<Vec<_>>(), [Some(11)]);
    assert_eq!(worker.leaks[0].shared_with.iter().collect::<Vec<_>>(), [&10], "whom it shares with is said");
    assert_eq!(worker.totals.sockets, 1);
    assert!(of(Filter { pids: vec![99], ..Filter::default() }).is_clean());
    assert!(of(Filter { ports: vec![443], ..Filter::default() }).is_clean());
}

#[test]
fn descriptors_run_out_at_the_growth_of_those_that_have_one() {
    let mut report =
        LeakReport::new(&evidence(vec![held(1, 60, 0, &[(10, 3)])]), &terms(), &History::default());
    let leak = &mut report.leaks[0];
    assert_eq!(leak.exhausted_in_s(), None, "no growth from one look");
    leak.rate = Some(Rate { per_min: 90.0, held_per_min: 62.0 });
    assert_eq!(leak.exhausted_in_s(), Some(120));
    leak.rate = Some(Rate { per_min: 5.0, held_per_min: 0.0 });
    assert_eq!(leak.exhausted_in_s(), None, "what is not accepted takes no descriptor");
}

/// Looks at 1000 s and 1060 s: what came and stayed, what was a leak and went.
#[test]
fn growth_counts_what_came_and_stayed_and_what_went() {
    let exact = |seconds| Some(Age { ns: seconds * S, is_lower_bound: false });
    let first =
        evidence(vec![held(1, 60, 0, &[(10, 3)]), held(2, 60, 0, &[(10, 4)]), held(3, 2, 0, &[(10, 5)])]);
    let mut history = History::default();
    history.keep(&first, &terms());
    let mut later = evidence(vec![
        held(1, 120, 0, &[(10, 3)]),
        Candidate { age: exact(40), ..held(4, 0, 0, &[(10, 6), (11, 0)]) },
        Candidate { age: exact(11), ..held(5, 0, 0, &[(10, 7)]) },
        Candidate { age: exact(9), ..held(6, 0, 0, &[(10, 8)]) },
        Candidate { age: exact(30), ..without_holder(7, Custody::AcceptQueue(vec![12])) },
    ]);
    later.at = 1060 * S;
    let report = LeakReport::new(&later, &terms(), &history);
    let rate = |pid| report.leaks.iter().find(|leak| leak.pid() == Some(pid)).and_then(|leak| leak.rate);
    // Two came in the first 50 s, one that was a leak went in 60 s; the young one that went is none.
    let expected = 2.0 * 60.0 / 50.0 - 1.0;
    assert!((rate(10).unwrap().per_min - expected).abs() < 1e-9, "{:?}", rate(10));
    assert!((rate(11).unwrap().held_per_min - 1.2).abs() < 1e-9);
    let listener = rate(12).unwrap();
    assert!((listener.per_min - 1.2).abs() < 1e-9 && listener.held_per_min == 0.0);
    assert!((report.growth.unwrap().per_min - (3.0 * 1.2 - 1.0)).abs() < 1e-9, "each socket once");
}

#[test]
fn a_four_tuple_that_leaks_again_went_and_came() {
    let mut history = History::default();
    history.keep(&evidence(vec![held(1, 60, 0, &[(10, 3)])]), &terms());
    let again =
        Candidate { age: Some(Age { ns: 20 * S, is_lower_bound: false }), ..held(1, 0, 0, &[(10, 3)]) };
    let mut later = evidence(vec![again]);
    later.at = 1060 * S;
    let rate = LeakReport::new(&later, &terms(), &history).growth.unwrap();
    assert!((rate.per_min - (60.0 / 50.0 - 1.0)).abs() < 1e-9, "{rate:?}");
}

#[test]
fn growth_is_not_claimed_from_a_moment() {
    let leaking = || evidence(vec![held(1, 60, 0, &[(10, 3)])]);
    let none = LeakReport::new(&leaking(), &terms(), &History::default());
    assert_eq!((none.growth, none.leaks[0].rate), (None, None));
    let mut history = History::default();
    history.keep(&leaking(), &terms());
    let mut soon = leaking();
    soon.at += 2 * S;
    assert_eq!(LeakReport::new(&soon, &terms(), &history).growth, None);
    soon.at += 8 * S;
    assert_eq!(LeakReport::new(&soon, &terms(), &history).growth, Some(Rate::default()));
}
