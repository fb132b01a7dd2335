use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::event::Comm;
use crate::outcome::{Dwell, End, Evidence, Phase};
use crate::snapshot::{Age, ProcessKey};

const SECOND: u64 = 1_000_000_000;

fn flow(local_port: u16, remote: &str, remote_port: u16) -> Flow {
    let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    Flow { local: addr("10.0.0.1"), remote: addr(remote), netns: 1, local_port, remote_port }
}

fn owner(pid: u32, comm: &str, cgroup_id: u64) -> Owner {
    Owner { pid, comm: Comm::from_bytes(comm.as_bytes()), evidence: Evidence::Close, cgroup_id }
}

fn transition(from: State, to: State, dwell_ns: u64) -> Transition {
    Transition {
        at: 100 * SECOND,
        conn: 1,
        flow: flow(40_000, "10.0.0.5", 3306),
        from,
        to,
        phase: None,
        to_phase: None,
        dwell: Some(Dwell { ns: dwell_ns, is_lower_bound: false }),
        as_full_socket_ns: None,
        end: None,
        rearmed: 0,
        timeout_jiffies: None,
        owner: None,
    }
}

fn open(state: State, since: MonoNs, since_is_lower_bound: bool) -> Open {
    let flow = flow(8080, "10.0.0.9", 50_000);
    Open { conn: 9, flow, state, phase: None, since, since_is_lower_bound, owner: None, unread: None }
}

fn snapshot_of(stats: &Stats, open: &[Open]) -> Snapshot {
    let meta = Meta { now: 100 * SECOND, ..Meta::default() };
    stats.snapshot(meta, open.iter().copied(), &|cgroup| (cgroup < 100).then(|| format!("c{}", cgroup / 10)))
}

#[test]
fn a_dwell_without_a_beginning_is_counted_apart_and_never_as_0() {
    let mut stats = Stats::default();
    let seen = transition(State::CloseWait, State::LastAck, 5 * SECOND);
    let at_least = Some(Dwell { ns: 7 * SECOND, is_lower_bound: true });
    for dwell in [seen.dwell, at_least, None] {
        stats.record_transition(&Transition { dwell, ..seen });
    }
    let snapshot = snapshot_of(&stats, &[]);
    let report = snapshot.of(State::CloseWait, None).unwrap();
    assert_eq!((report.finished.count, report.finished.min_ns), (1, Some(5 * SECOND)));
    assert_eq!((report.began_before.count, report.began_before.longest_at_least_ns), (2, Some(7 * SECOND)));
    assert_eq!((report.ends.total(), report.survival.left_out), (3, 2));
}

#[test]
fn exact_where_it_matters_and_percentiles_within_the_extremes() {
    let mut stats = Stats::default();
    for dwell_ns in [60_004_123_457, 61_020_000_001, 62_044_000_009] {
        stats.record_transition(&Transition {
            end: Some(End::Expired),
            timeout_jiffies: Some(15_000),
            ..transition(State::TimeWait, State::Close, dwell_ns)
        });
    }
    let snapshot = snapshot_of(&stats, &[]);
    let finished = &snapshot.of(State::TimeWait, None).unwrap().finished;
    assert_eq!((finished.min_ns, finished.max_ns), (Some(60_004_123_457), Some(62_044_000_009)));
    assert_eq!(finished.sum_ns, 60_004_123_457 + 61_020_000_001 + 62_044_000_009);
    let p50 = finished.p50_ns.unwrap();
    assert!(p50.abs_diff(61_020_000_001) < 61_000_000, "three digits: {p50}");
    assert_eq!(finished.p99_ns, finished.max_ns, "not beyond the longest");
    assert_eq!(snapshot.of(State::TimeWait, None).unwrap().timeout.unwrap().most_common_jiffies, 15_000);
    assert!(snapshot.of(State::Close, None).is_none(), "nothing dwells in CLOSE");
}

#[test]
fn open_dwells_hold_the_survival_curve_up_unless_they_are_older_than_tracing() {
    let mut stats = Stats::default();
    stats.record_transition(&transition(State::CloseWait, State::LastAck, SECOND));
    let leaks = [
        open(State::CloseWait, 90 * SECOND, false),
        open(State::CloseWait, 80 * SECOND, false),
        open(State::CloseWait, 10 * SECOND, true),
    ];
    let snapshot = snapshot_of(&stats, &leaks);
    let report = snapshot.of(State::CloseWait, None).unwrap();
    assert_eq!((report.open.count, report.open.began_before), (3, 1));
    assert_eq!(report.open.oldest, Some(Age { ns: 90 * SECOND, is_lower_bound: true }));
    assert_eq!(report.open.ages.len(), 3);
    let survival = &report.survival;
    assert_eq!((survival.events, survival.censored, survival.left_out), (1, 2, 1));
    assert_eq!((survival.p50_ns, survival.p99_ns), (None, None), "two of three have not ended");
}

#[test]
fn the_phases_of_fin_wait2_are_apart() {
    let mut stats = Stats::default();
    stats.record_transition(&Transition {
        to_phase: Some(Phase::HalfClosed),
        ..transition(State::FinWait1, State::FinWait2, 1)
    });
    stats.record_transition(&Transition {
        phase: Some(Phase::HalfClosed),
        to_phase: Some(Phase::Orphaned),
        ..transition(State::FinWait2, State::FinWait2, 10 * SECOND)
    });
    stats.record_transition(&Transition {
        phase: Some(Phase::Orphaned),
        end: Some(End::TimedOut),
        as_full_socket_ns: Some(30 * SECOND),
        ..transition(State::FinWait2, State::Close, 60 * SECOND)
    });
    let snapshot = snapshot_of(&stats, &[]);
    let half_closed = snapshot.of(State::FinWait2, Some(Phase::HalfClosed)).unwrap();
    let orphaned = snapshot.of(State::FinWait2, Some(Phase::Orphaned)).unwrap();
    assert_eq!((half_closed.began, half_closed.finished.max_ns), (1, Some(10 * SECOND)));
    assert_eq!((orphaned.began, orphaned.finished.max_ns), (1, Some(60 * SECOND)));
    assert_eq!(orphaned.as_full_socket.unwrap().max_ns, 30 * SECOND);
    assert_eq!(orphaned.ends.get(Some(End::TimedOut)), 1);
    assert!(snapshot.of(State::FinWait2, None).is_none());
}

#[test]
fn what_passes_through_fin_wait2_in_one_segment_is_no_orphan() {
    let mut stats = Stats::new(Some(KeyKind::Netns), 10);
    let orphaned = Some(Phase::Orphaned);
    let begin = Transition { to_phase: orphaned, ..transition(State::FinWait1, State::FinWait2, 1) };
    let end = |dwell_ns, timeout_jiffies| Transition {
        phase: orphaned,
        timeout_jiffies,
        ..transition(State::FinWait2, State::TimeWait, dwell_ns)
    };
    // In one segment; as a mini that got the FIN soon; as a full socket (tcp_fin_timeout > 60) that got it late.
    for end in [end(3_000, None), end(40_000, Some(15_000)), end(SECOND, None)] {
        stats.record_transition(&begin);
        stats.record_transition(&end);
    }
    let snapshot = snapshot_of(&stats, &[]);
    let counts = |phase| {
        let report = snapshot.of(State::FinWait2, phase).unwrap();
        (report.began, report.finished.count)
    };
    assert_eq!((counts(None), counts(orphaned)), ((1, 1), (2, 2)));
}

#[test]
fn dwells_that_ran_out_are_kept_apart() {
    let mut stats = Stats::new(Some(KeyKind::Netns), 10);
    for (end, dwell_ns) in [(End::Expired, 61 * SECOND), (End::Reused, SECOND), (End::Reset, 2 * SECOND)] {
        let end = Some(end);
        stats.record_transition(&Transition { end, ..transition(State::TimeWait, State::Close, dwell_ns) });
    }
    for report in &snapshot_of(&stats, &[]).states {
        assert_eq!((report.finished.count, report.ran_out.count), (3, 1), "{:?}", report.key);
        assert_eq!(report.ran_out.min_ns, Some(61 * SECOND));
    }
}

#[test]
fn keys_beyond_the_limit_are_counted_together() {
    let mut stats = Stats::new(Some(KeyKind::Process), 2);
    for (pid, times) in [(1, 1), (2, 3), (3, 2), (4, 2)] {
        for _ in 0..times {
            stats.record_transition(&Transition {
                owner: Some(owner(pid, "worker", 0)),
                ..transition(State::TimeWait, State::Close, 60 * SECOND)
            });
        }
    }
    let snapshot = snapshot_of(&stats, &[open(State::CloseWait, 0, false)]);
    let dwells: Vec<_> = snapshot
        .keyed()
        .map(|report| (report.state, report.key.clone().unwrap(), report.finished.count))
        .collect();
    let worker = |pid| Key::Process(Some(ProcessKey { pid, comm: Comm::from_bytes(b"worker"), host: None }));
    let other = Key::Other(KeyKind::Process);
    assert_eq!(
        dwells,
        [
            (State::TimeWait, other.clone(), 4),
            (State::TimeWait, worker(2), 3),
            (State::TimeWait, worker(1), 1),
            (State::CloseWait, other, 0),
        ]
    );
    assert_eq!(snapshot.keyed_by.unwrap().folded, 4);
    assert_eq!(snapshot.of(State::TimeWait, None).unwrap().finished.count, 8, "the total is not affected");
}

#[test]
fn the_cgroups_of_a_container_are_one_key() {
    let mut stats = Stats::new(Some(KeyKind::Container), 10);
    for cgroup in [11, 12, 21, 500, 0] {
        stats.record_transition(&Transition {
            owner: Some(owner(1, "x", cgroup)),
            ..transition(State::CloseWait, State::LastAck, SECOND)
        });
    }
    let snapshot = snapshot_of(&stats, &[]);
    let dwells: Vec<_> = snapshot
        .keyed()
        .filter(|report| report.state == State::CloseWait)
        .map(|report| (report.key.clone().unwrap(), report.finished.count))
        .collect();
    let container = |name: Option<&str>| Key::Container(name.map(str::to_owned));
    assert_eq!(dwells, [(container(None), 2), (container(Some("c1")), 2), (container(Some("c2")), 1)]);
}

#[test]
fn ports_are_the_services_whichever_side_is_local() {
    let mut stats = Stats::new(Some(KeyKind::Port), 10);
    for flow in [flow(40_000, "10.0.0.5", 443), flow(443, "10.0.0.5", 40_000), flow(0, "10.0.0.5", 443)] {
        stats.record_transition(&Transition { flow, ..transition(State::Established, State::FinWait1, 1) });
    }
    let snapshot = snapshot_of(&stats, &[]);
    let report = snapshot.keyed().find(|report| report.state == State::Established).unwrap();
    assert_eq!((report.key.clone(), report.finished.count), (Some(Key::Port(443)), 3));
}

#[test]
fn time_waits_are_blamed_on_who_began_them() {
    let mut stats = Stats::default();
    let begin = |stats: &mut Stats, owner, flow| {
        stats.record_transition(&Transition {
            owner,
            flow,
            ..transition(State::FinWait2, State::TimeWait, 1)
        });
    };
    for port in 0..5000 {
        begin(&mut stats, Some(owner(812, "nginx", 7)), flow(40_000 + port, "10.0.0.5", 3306));
    }
    begin(&mut stats, None, flow(80, "10.0.0.6", 50_000));
    let tally = snapshot_of(&stats, &[]).time_wait;
    let nginx = Some(ProcessKey { pid: 812, comm: Comm::from_bytes(b"nginx"), host: None });
    assert_eq!((tally.total, tally.owners.undercount), (5001, 0));
    assert_eq!(tally.owners.top, [(nginx, 5000), (None, 1)]);
    assert_eq!(tally.remotes.top[0], ((nginx, "10.0.0.5:3306".parse().unwrap()), 5000));
    assert_eq!((tally.by_comm.len(), tally.by_comm[0].count, tally.by_comm_other), (1, 5000, 1));
    assert!(tally.local_ports.top.len() <= RANKED && tally.local_ports.undercount > 0, "bounded, and said");
}

#[test]
fn failed_connects_are_counted_by_destination() {
    let mut stats = Stats::default();
    for port in [0, 1] {
        let flow = flow(port, "10.0.0.5", 3306);
        stats.record(&Outcome::ConnectFailed { at: 1, flow, owner: Some(owner(812, "nginx", 7)) });
    }
    let failures = snapshot_of(&stats, &[]).connect_failures;
    assert_eq!((failures.count, failures.by.top.len()), (2, 1));
    assert_eq!(failures.by.top[0].0.1, "10.0.0.5:3306".parse().unwrap());
}

fn any_transition() -> impl Strategy<Value = Transition> {
    let state = prop::sample::select(State::ALL.to_vec());
    let phase = prop::option::of(prop::sample::select(vec![Phase::HalfClosed, Phase::Orphaned]));
    let dwell = prop::option::of((any::<u64>(), any::<bool>()));
    let end =
        prop::option::of(prop::sample::select(vec![End::Expired, End::Reused, End::Reset, End::Overflow]));
    (state.clone(), state, phase, dwell, end, 0u32..5).prop_map(|(from, to, phase, dwell, end, pid)| {
        Transition {
            phase,
            dwell: dwell.map(|(ns, is_lower_bound)| Dwell { ns, is_lower_bound }),
            end,
            owner: (pid > 0).then(|| owner(pid, "p", 0)),
            timeout_jiffies: dwell.map(|(ns, _)| ns as u32),
            ..transition(from, to, 0)
        }
    })
}

proptest! {
    #[test]
    fn nothing_is_lost_or_counted_twice(transitions in prop::collection::vec(any_transition(), 0..200)) {
        let mut stats = Stats::new(Some(KeyKind::Process), 3);
        transitions.iter().for_each(|transition| stats.record_transition(transition));
        let snapshot = snapshot_of(&stats, &[]);
        for report in snapshot.overall() {
            let of_keys: u64 = snapshot
                .keyed()
                .filter(|keyed| keyed.state == report.state && keyed.phase == report.phase)
                .map(|keyed| keyed.finished.count)
                .sum();
            prop_assert_eq!(of_keys, report.finished.count);
            prop_assert_eq!(report.ends.total(), report.finished.count + report.began_before.count);
            let of_buckets: u64 = report.finished.buckets.iter().map(|bucket| bucket.count).sum();
            prop_assert_eq!(of_buckets, report.finished.count);
            let finished = &report.finished;
            let in_order = [finished.min_ns, finished.p50_ns, finished.p90_ns, finished.p99_ns, finished.max_ns];
            prop_assert!(in_order.is_sorted(), "{:?}", in_order);
        }
        let counted: u64 = snapshot.transitions.iter().map(|counted| counted.count).sum();
        prop_assert_eq!(counted, transitions.len() as u64);
    }
}
