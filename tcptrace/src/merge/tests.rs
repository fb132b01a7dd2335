use super::*;
use crate::snapshot::{KeyKind, Timeout};
use crate::views::report::samples::{NOW, S, busy_snapshot};

fn of_host(name: &str, by: Option<KeyKind>) -> Snapshot {
    let mut snapshot = busy_snapshot(by);
    snapshot.meta.host = Some(name.to_owned());
    snapshot.meta.recording = Some(format!("{name}.jsonl"));
    snapshot
}

/// The same host a while later: another boot's clock, the wall clock's time.
fn later(mut snapshot: Snapshot, seconds: u64) -> Snapshot {
    snapshot.meta.wall.offset_ns += i64::try_from(seconds * S).expect("small");
    snapshot.meta.recording = Some("later.jsonl".to_owned());
    snapshot
}

#[test]
fn sums_of_two_hosts_are_those_of_each() {
    let (a, b) = (of_host("a", None), of_host("b", None));
    let all = merge(vec![a.clone(), b]).expect("merged");
    assert_eq!(all.meta.events, 2 * a.meta.events);
    assert_eq!((all.meta.host.as_deref(), all.meta.parts.len()), (None, 2));
    assert_eq!(all.meta.elapsed_ns(), a.meta.elapsed_ns(), "they ran at the same time");
    for single in a.overall() {
        let both = all.of(single.state, single.phase).expect("there");
        assert_eq!(both.finished.count, 2 * single.finished.count);
        assert_eq!(both.finished.sum_ns, 2 * single.finished.sum_ns);
        assert_eq!(both.open.count, 2 * single.open.count);
        assert_eq!(both.ends.total(), 2 * single.ends.total());
        // Twice the same sample has the same distribution.
        assert_eq!(both.finished.p99_ns, single.finished.p99_ns);
        assert_eq!(both.survival.p90_ns, single.survival.p90_ns);
        assert_eq!(both.survival.curve.len(), single.survival.curve.len());
        let hosts: Vec<_> = all
            .keyed()
            .filter(|report| (report.state, report.phase) == (single.state, single.phase))
            .collect();
        assert_eq!(hosts.len(), 2);
        for host in hosts {
            assert_eq!(StateReport { host: None, ..host.clone() }, *single);
        }
    }
    assert_eq!(all.keyed_title(), Some("host"));
}

#[test]
fn processes_of_two_hosts_with_one_pid_stay_two() {
    let (a, b) = (of_host("a", Some(KeyKind::Process)), of_host("b", Some(KeyKind::Process)));
    let all = merge(vec![a.clone(), b]).expect("merged");
    let nginx: Vec<_> = all
        .keyed()
        .filter(|report| report.state == State::TimeWait)
        .map(|report| (crate::views::human::whose(report), report.finished.count))
        .filter(|(name, _)| name.starts_with("nginx[812]"))
        .collect();
    let alone = a.keyed().find(|report| report.state == State::TimeWait).expect("nginx").finished.count;
    assert_eq!(nginx, [("nginx[812] on a".to_owned(), alone), ("nginx[812] on b".to_owned(), alone)]);
    let makers: Vec<_> = all.time_wait.owners.top.iter().map(|(process, count)| (*process, *count)).collect();
    assert_eq!(makers.len(), 2 * a.time_wait.owners.top.len());
    assert_eq!(makers.iter().map(|(_, count)| count).sum::<u64>(), all.time_wait.total);
    let peers = [of_host("a", Some(KeyKind::Peer)), of_host("b", Some(KeyKind::Peer))];
    let by_peer = merge(peers.to_vec()).expect("merged");
    assert!(by_peer.keyed().all(|report| report.host.is_none()), "an address is the same everywhere");
}

#[test]
fn one_host_one_recording_after_the_other_is_one_history() {
    let first = of_host("a", None);
    let second = later(first.clone(), 3600);
    let all = merge(vec![second, first.clone()]).expect("merged");
    assert_eq!(all.meta.elapsed_ns(), 2 * first.meta.elapsed_ns(), "the hour between them is not covered");
    assert_eq!(all.meta.host.as_deref(), Some("a"));
    let (single, both) =
        [&first, &all].map(|snapshot| snapshot.of(State::CloseWait, None).expect("CLOSE_WAIT")).into();
    assert_eq!(both.finished.count, 2 * single.finished.count);
    assert_eq!(both.open.count, single.open.count, "what was open in the first is not open now");
    assert_eq!(both.survival.censored, 2 * single.survival.censored, "but lasted until then");
    assert_eq!(all.keyed().count(), 0, "one host needs no breaking down");
    assert_eq!(all.close_wait_holders, first.close_wait_holders);
}

#[test]
fn one_host_twice_at_the_same_time_is_refused() {
    let first = of_host("a", None);
    let error = merge(vec![first.clone(), later(first, 60)]).expect_err("they overlap");
    assert_eq!(
        error.to_string(),
        "a.jsonl and later.jsonl are both of host a and overlap in time: what both have would count twice"
    );
}

#[test]
fn jiffies_of_different_kernels_are_not_compared() {
    let (a, mut b) = (of_host("a", None), of_host("b", None));
    b.meta.hz = Some(1000);
    for report in b.states.iter_mut().filter(|report| report.state == State::TimeWait) {
        report.timeout =
            Some(Timeout { min_jiffies: 60_000, most_common_jiffies: 60_000, max_jiffies: 60_000 });
    }
    let all = merge(vec![a, b]).expect("merged");
    assert_eq!(all.meta.hz, None);
    assert_eq!(all.of(State::TimeWait, None).expect("TIME_WAIT").timeout, None);
    let of_b = all.keyed().find(|report| {
        report.state == State::TimeWait && report.host.is_some_and(|host| host.as_str() == "b")
    });
    let (c, mut d) = (of_host("c", None), of_host("d", None));
    for report in
        d.states.iter_mut().filter(|report| report.timeout.is_some_and(|one| one.max_jiffies < 2_000))
    {
        report.timeout = Some(Timeout { min_jiffies: 2_000, most_common_jiffies: 2_000, max_jiffies: 2_000 });
    }
    let other_lengths = merge(vec![c, d]).expect("merged");
    let of = |state, phase| other_lengths.of(state, phase).and_then(|report| report.timeout);
    assert_eq!(of(State::FinWait2, Some(Phase::Orphaned)), None, "tcp_fin_timeout differs");
    assert_eq!(of(State::TimeWait, None).map(|timeout| timeout.max_jiffies), Some(15_000));
    assert_eq!(of_b.and_then(|report| report.timeout).map(|timeout| timeout.max_jiffies), Some(60_000));
    assert!(all.meta.now > NOW, "in the time of the Unix epoch");
}
