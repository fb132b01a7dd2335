//! Snapshots for the tests of every view.

use std::net::IpAddr;

use crate::event::Comm;
use crate::net::{Addr, Flow, State};
use crate::outcome::{Dwell, End, Evidence, Open, Owner, Phase, Transition};
use crate::snapshot::{KeyKind, Meta, Snapshot, Sysctls, WallClock};
use crate::stats::Stats;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000 * MS;
pub(crate) const NOW: u64 = 1_000 * S;

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

pub(crate) fn owner(pid: u32, comm: &str) -> Option<Owner> {
    Some(Owner { pid, comm: Comm::from_bytes(comm.as_bytes()), evidence: Evidence::Close, cgroup_id: 0 })
}

pub(crate) fn flow(local_port: u16, remote: &str, remote_port: u16) -> Flow {
    let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    Flow { local: addr("10.0.0.1"), remote: addr(remote), netns: 1, local_port, remote_port }
}

pub(crate) fn step(from: State, to: State, ns: u64) -> Transition {
    Transition {
        at: NOW,
        conn: 1,
        flow: flow(40_000, "10.0.0.5", 3306),
        from,
        to,
        phase: None,
        to_phase: None,
        dwell: Some(Dwell { ns, is_lower_bound: false }),
        as_full_socket_ns: None,
        end: None,
        rearmed: 0,
        timeout_jiffies: None,
        owner: owner(812, "nginx"),
    }
}

pub(crate) fn meta() -> Meta {
    Meta {
        started: NOW - 125 * S,
        now: NOW,
        wall: WallClock { offset_ns: 1_767_323_040_000_000_000 },
        events: 71_234,
        connections: 6_312,
        tool_version: "0.1.0".into(),
        host: Some("web-1".into()),
        kernel: Some("6.18.44".into()),
        hz: Some(250),
        sysctls: vec![Sysctls {
            netns: Some(1),
            tcp_fin_timeout: Some(5),
            tcp_tw_reuse: Some(2),
            tcp_max_tw_buckets: Some(65_536),
            ..Sysctls::default()
        }],
        ..Meta::default()
    }
}

/// A host with everything: churn, orphans, a leak.
fn busy(stats: &mut Stats) -> Vec<Open> {
    let mut dice = Dice(7);
    for n in 0..3000_u16 {
        let flow = flow(30_000 + n, "10.0.0.5", if n % 25 == 0 { 6379 } else { 3306 });
        let owner = if n % 20 == 0 { owner(901, "cron\x1b[2J") } else { owner(812, "nginx") };
        let go = |stats: &mut Stats, transition: Transition| {
            stats.record_transition(&Transition { flow, owner, ..transition });
        };
        go(stats, Transition { dwell: None, ..step(State::Close, State::SynSent, 0) });
        go(stats, step(State::SynSent, State::Established, 80_000 + dice.below(400_000)));
        let short = dice.below(1000) * MS / 50;
        go(stats, step(State::Established, State::FinWait1, short * short / MS / 3 + 300_000));
        go(stats, step(State::FinWait1, State::FinWait2, 20_000 + dice.below(60_000)));
        go(stats, step(State::FinWait2, State::TimeWait, 2_000 + dice.below(9_000)));
        if n % 50 == 3 {
            let end = Some(End::Reused);
            go(stats, Transition { end, ..step(State::TimeWait, State::Close, S + dice.below(2000) * MS) });
        } else if n < 2600 {
            go(
                stats,
                Transition {
                    end: Some(End::Expired),
                    timeout_jiffies: Some(15_000),
                    rearmed: u32::from(n % 700 == 1),
                    ..step(State::TimeWait, State::Close, 60_004 * MS + dice.below(2040) * MS)
                },
            );
        }
    }
    for _ in 0..40 {
        stats.record_transition(&Transition {
            phase: Some(Phase::Orphaned),
            end: Some(End::TimedOut),
            timeout_jiffies: Some(1250),
            ..step(State::FinWait2, State::Close, 5_001 * MS + dice.below(254) * MS)
        });
    }
    for _ in 0..120 {
        stats.record_transition(&step(State::CloseWait, State::LastAck, 30_000 + dice.below(90_000) * 1000));
    }
    stats.record_transition(&Transition {
        dwell: Some(Dwell { ns: 7_200 * S, is_lower_bound: true }),
        ..step(State::CloseWait, State::LastAck, 0)
    });
    let open = |state, age_ns, since_is_lower_bound, owner| Open {
        conn: 1,
        flow: flow(8080, "10.0.0.9", 51_000),
        state,
        phase: None,
        since: NOW - age_ns,
        since_is_lower_bound,
        owner,
        unread: None,
    };
    let mut all = Vec::new();
    for n in 0..30 {
        all.push(open(State::CloseWait, (n + 1) * 4 * S, false, owner(77, "java")));
    }
    all.push(open(State::CloseWait, 900 * S, true, owner(77, "java")));
    for n in 0..386 {
        all.push(open(State::TimeWait, n * 150 * MS, false, owner(812, "nginx")));
    }
    all.push(open(State::Established, 12 * S, false, owner(812, "nginx")));
    all
}

pub(crate) fn busy_snapshot(by: Option<KeyKind>) -> Snapshot {
    let mut stats = Stats::new(by, 100);
    let open = busy(&mut stats);
    stats.snapshot(meta(), open.into_iter(), &|_| None)
}

/// The same host by a key.
pub(crate) fn busy_by(kind: KeyKind) -> Snapshot {
    busy_snapshot(Some(kind))
}
