use std::collections::BTreeMap;

use super::patient::{Hash, Left};
use super::*;
use crate::event::Comm;
use crate::experiment::journal::{Changed, Journal};
use crate::facts::FACTS;
use crate::filter::Filter;
use crate::inventory::counters::Counters;
use crate::inventory::diag::{DiagSocket, Dump};
use crate::inventory::holders::{Holder, Holders};
use crate::inventory::owners::Ownership;
use crate::inventory::process::{Fds, Process};
use crate::inventory::slab::{Cache, SlabError};
use crate::inventory::sysctl::{Reading, Sysctls};
use crate::kernel::privileges::{Host, Lockdown};
use crate::kernel::probe::{Hook, Outcome, Probe};
use crate::net::{Flow, State};
use crate::snapshot::Snapshot;

const NETNS: u32 = 4_026_532_000;

/// A host on which everything is as the kernel makes it, and a namespace without a socket.
fn healthy() -> Patient {
    let hook = |program: &'static str, is_optional| Hook {
        program,
        tracepoint: program,
        is_optional,
        in_btf: Some(true),
        outcome: Outcome::Works,
    };
    Patient {
        host: Host {
            release: "6.12.1".into(),
            effective: caps::all(),
            initial_user_namespace: Some(true),
            lockdown: Some(Lockdown::None),
            has_btf: true,
            kptr_restrict: Some(1),
            perf_event_paranoid: Some(2),
            unprivileged_bpf_disabled: Some(2),
        },
        machine: "x86_64".into(),
        hz: Some(250),
        probe: Probe {
            hooks: vec![hook("inet_sock_set_state", false), hook("sock_recv_length", true)],
            typed: Outcome::Works,
            obstacle: None,
            ring_bytes: Some(8 << 20),
            symbol: None,
            layout: None,
            mini_bytes: Some(240),
        },
        can_filter: true,
        netns: NETNS,
        sysctls: sysctls(&[]),
        hash: Hash { of_namespace: Some(262_144), of_host: Some(262_144) },
        counters: Ok(counters(0, 0)),
        sockets: Ok(Dump { namespaces: vec![NETNS], ..Dump::default() }),
        ownership: Ownership::default(),
        minis: vec![Ok(Cache {
            name: "tw_sock_TCP".into(),
            active: 10,
            total: 16,
            object_bytes: 256,
            memory_bytes: 4096,
        })],
        conntrack: None,
        open_files: Some(1000),
        left: Ok(Vec::new()),
        measured: None,
        foreign: None,
        filter: Filter::default(),
        notes: Vec::new(),
    }
}

/// What a new namespace has, and other values for some.
fn sysctls(other: &[(&str, &str)]) -> Sysctls {
    let mut values: BTreeMap<String, String> = [
        ("net.ipv4.tcp_fin_timeout", "60"),
        ("net.ipv4.tcp_tw_reuse", "2"),
        ("net.ipv4.tcp_max_tw_buckets", "131072"),
        ("net.ipv4.ip_local_port_range", "32768\t60999"),
        ("net.ipv4.ip_local_reserved_ports", ""),
        ("net.ipv4.tcp_timestamps", "1"),
        ("net.ipv4.tcp_max_orphans", "131072"),
        ("net.ipv4.tcp_mem", "100 200 300"),
        ("net.core.somaxconn", "4096"),
        ("fs.file-max", "100000"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    values.extend(other.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Sysctls::from_values(NETNS, &values)
}

fn counters(overflows: u64, orphans: u64) -> Counters {
    Counters::parse(
        &format!("TcpExt: TCPTimeWaitOverflow TCPAbortOnMemory ListenOverflows\nTcpExt: {overflows} 0 0\n"),
        &format!("TCP: inuse 1 orphan {orphans} tw 12 alloc 1 mem 3\n"),
    )
}

fn socket(local: &str, remote: &str, state: State, inode: Option<u64>) -> DiagSocket {
    let addr = |text: &str| text.parse().expect("an address");
    let bare = DiagSocket::bare(Flow::between(addr(local), addr(remote), NETNS), state);
    DiagSocket { expires_ms: 30_000, inode, ..bare }
}

fn named<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn nothing_is_wrong_with_a_healthy_host() {
    let checks = examine(&healthy());
    let wrong: Vec<_> = checks.iter().filter(|check| check.verdict > Verdict::Note).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checks.is_sorted_by_key(|check| check.group));
    for fact in FACTS {
        let check = named(&checks, fact.short_name());
        assert_eq!(check.netns.is_none(), fact.is_host_wide(), "{}", fact.name);
    }
    assert_eq!(named(&checks, "tcp_tw_recycle").value, None);
    let buckets = named(&checks, "tcp_max_tw_buckets");
    assert_eq!((buckets.verdict, buckets.default.as_deref()), (Verdict::Ok, Some("131072")));
    // What was not measured is not known, and nothing is claimed.
    assert_eq!(named(&checks, "connect_failures").verdict, Verdict::Note);
    assert_eq!(named(&checks, "connect_failures").value, None);
}

#[test]
fn without_privileges_it_says_what_is_missing_and_goes_on() {
    let mut patient = healthy();
    patient.host.effective.clear();
    patient.probe.symbol = Some("hidden".into());
    patient.probe.ring_bytes = None;
    patient.minis = vec![Err(SlabError::Unreadable("denied".into()))];
    for hook in &mut patient.probe.hooks {
        hook.outcome = Outcome::NotTried;
    }
    patient.probe.typed = Outcome::NotTried;
    let checks = examine(&patient);
    let trace = named(&checks, "can_trace");
    assert_eq!(trace.verdict, Verdict::Fail);
    assert!(trace.detail.contains("CAP_BPF") && trace.detail.contains("sudo"), "{}", trace.detail);
    assert_eq!(named(&checks, "hook_inet_sock_set_state").verdict, Verdict::Note);
    assert_eq!(named(&checks, "bpf_memory").verdict, Verdict::Note);
    assert_eq!(named(&checks, "bpf_programs").value, None);
    let memory = named(&checks, "mini_memory");
    assert_eq!((memory.verdict, &memory.value), (Verdict::Note, &None));
    assert!(memory.detail.contains("240 B") && memory.detail.contains("denied"), "{}", memory.detail);
    assert_eq!(named(&checks, "local_ports").verdict, Verdict::Ok);
}

#[test]
fn a_host_without_filters_of_system_calls_is_traced_and_told() {
    let filter = |can_filter| {
        let checks = examine(&Patient { can_filter, ..healthy() });
        let check = named(&checks, "system_call_filter");
        (check.verdict, check.value.clone(), worst(&checks))
    };
    assert_eq!(filter(true), (Verdict::Ok, Some("yes".to_owned()), worst(&examine(&healthy()))));
    assert_eq!(filter(false), (Verdict::Note, Some("no".to_owned()), Verdict::Note));
}

#[test]
fn an_optional_hook_may_be_absent_and_a_needed_one_may_not() {
    let mut patient = healthy();
    for hook in &mut patient.probe.hooks {
        hook.outcome = Outcome::Refused("no tracepoint".into());
    }
    patient.probe.typed = Outcome::Refused("unknown func".into());
    let checks = examine(&patient);
    assert_eq!(named(&checks, "hook_inet_sock_set_state").verdict, Verdict::Fail);
    assert_eq!(named(&checks, "hook_sock_recv_length").verdict, Verdict::Note);
    let programs = named(&checks, "bpf_programs");
    assert_eq!((programs.verdict, programs.value.as_deref()), (Verdict::Ok, Some("plain")));
    assert!(programs.detail.contains("unknown func"), "{}", programs.detail);
}

/// A namespace with ten ports, all towards one destination in TIME_WAIT or in use.
fn exhausted(tcp_tw_reuse: &'static str) -> Patient {
    let ports = ("net.ipv4.ip_local_port_range", "40000 40009");
    let state = |port| if port == 40_000 { State::Established } else { State::TimeWait };
    let to = |port: u16| socket(&format!("10.0.0.1:{port}"), "10.0.0.2:80", state(port), None);
    let mut sockets: Vec<_> = (40_000..40_010).map(to).collect();
    sockets.push(socket("10.0.0.1:40000", "10.0.0.3:80", State::Established, None));
    Patient {
        sysctls: sysctls(&[ports, ("net.ipv4.tcp_tw_reuse", tcp_tw_reuse)]),
        sockets: Ok(Dump { namespaces: vec![NETNS], sockets, ..Dump::default() }),
        ..healthy()
    }
}

#[test]
fn a_destination_without_a_port_left_fails_and_others_do_not() {
    let checks = examine(&exhausted("2"));
    let full = named(&checks, "ports from 10.0.0.1 to 10.0.0.2:80");
    let ports = full.ports.expect("figures");
    assert_eq!((ports.in_use, ports.usable, ports.free, ports.time_wait), (10, 10, 0, 9));
    assert_eq!(full.verdict, Verdict::Fail);
    assert!(full.detail.contains("EADDRNOTAVAIL"), "{}", full.detail);
    // Ten ports for 60 s each.
    assert!((ports.sustainable_per_s - 1.0 / 6.0).abs() < 1e-9 && ports.dwell_is_nominal);
    assert_eq!(named(&checks, "ports from 10.0.0.1 to 10.0.0.3:80").verdict, Verdict::Ok);
    assert_eq!(worst(&checks), Verdict::Fail);
}

#[test]
fn a_full_destination_whose_time_waits_are_taken_over_only_warns() {
    let checks = examine(&exhausted("1"));
    let full = named(&checks, "ports from 10.0.0.1 to 10.0.0.2:80");
    assert_eq!((full.verdict, full.ports.expect("figures").reusable), (Verdict::Warn, 9));
    assert!(!full.detail.contains("EADDRNOTAVAIL"), "{}", full.detail);
}

#[test]
fn a_filter_chooses_destinations_and_leaves_their_counts_alone() {
    let mut patient = exhausted("2");
    patient.filter.local_ports = vec![40_003];
    let checks = examine(&patient);
    let rooms: Vec<_> = checks.iter().filter_map(|check| check.ports).collect();
    assert_eq!(
        rooms.iter().map(|room| (room.remote.to_string(), room.in_use)).collect::<Vec<_>>(),
        [("10.0.0.2:80".to_owned(), 10)]
    );
}

#[test]
fn failures_of_connect_are_told_where_a_trace_saw_them() {
    let mut snapshot = Snapshot::default();
    snapshot.connect_failures.count = 7;
    snapshot.connect_failures.by.top = vec![((None, "10.0.0.2:80".parse().expect("an address")), 7)];
    let patient = Patient { measured: Some(snapshot), ..healthy() };
    let checks = examine(&patient);
    let failures = named(&checks, "connect_failures");
    assert_eq!((failures.verdict, failures.value.as_deref()), (Verdict::Warn, Some("7")));
    assert!(failures.detail.contains("10.0.0.2:80 (7)"), "{}", failures.detail);
    let none = Patient { measured: Some(Snapshot::default()), ..healthy() };
    assert_eq!(named(&examine(&none), "connect_failures").value.as_deref(), Some("0"));
}

#[test]
fn a_recording_of_another_host_is_said_to_be_one() {
    let mut snapshot = Snapshot::default();
    snapshot.meta.recording = Some("r.jsonl".into());
    snapshot.meta.host = Some("elsewhere".into());
    let checks = examine(&healthy().with(snapshot.clone()));
    let foreign = named(&checks, "measured_elsewhere");
    assert_eq!((foreign.verdict, foreign.group), (Verdict::Warn, Group::Dwells));
    assert!(foreign.detail.contains("elsewhere"), "{}", foreign.detail);
    snapshot.meta.recording = None;
    let live = examine(&healthy().with(snapshot));
    assert!(live.iter().all(|check| check.name != "measured_elsewhere"));
}

#[test]
fn limits_that_were_reached_are_told() {
    let patient = Patient { counters: Ok(counters(3, 110_000)), conntrack: Some(10), ..healthy() };
    let checks = examine(&patient);
    let waits = named(&checks, "time_waits");
    assert_eq!((waits.verdict, waits.value.as_deref()), (Verdict::Warn, Some("12 of 131,072")));
    assert!(waits.detail.contains("3 connections got no TIME_WAIT"), "{}", waits.detail);
    assert_eq!(named(&checks, "orphans").verdict, Verdict::Warn);
    assert!(!checks.iter().any(|check| check.name == "conntrack"), "a limit that is not known is no limit");
    let firewall = sysctls(&[("net.netfilter.nf_conntrack_max", "10")]);
    let full = Patient { sysctls: firewall, conntrack: Some(10), ..healthy() };
    assert_eq!(named(&examine(&full), "conntrack").verdict, Verdict::Fail);
}

fn process(pid: u32, open: u64) -> Process {
    let fds = Fds { open: Some(open), limit: Some(100) };
    Process {
        fds,
        pid,
        comm: Comm::from_bytes(b"leaky"),
        ..Process::read(std::process::id()).expect("it runs")
    }
}

#[test]
fn processes_near_their_descriptor_limit_are_told() {
    let sockets =
        (0..3).map(|n| socket("10.0.0.1:80", "10.0.0.2:5000", State::CloseWait, Some(n + 1))).collect();
    let holders: Holders =
        [(1, Holder { pid: 7, fd: 3 }), (2, Holder { pid: 7, fd: 4 }), (3, Holder { pid: 8, fd: 3 })]
            .into_iter()
            .collect();
    let patient = Patient {
        sockets: Ok(Dump { namespaces: vec![NETNS], sockets, ..Dump::default() }),
        ownership: Ownership::from_parts(holders, [(process(7, 100), 0), (process(8, 81), 0)]),
        ..healthy()
    };
    let checks = examine(&patient);
    let seven = named(&checks, "fds of leaky[7]");
    assert_eq!(
        (seven.verdict, seven.value.as_deref(), seven.pid),
        (Verdict::Fail, Some("100 of 100"), Some(7))
    );
    assert!(seven.detail.starts_with("2 TCP sockets."), "{}", seven.detail);
    assert_eq!(named(&checks, "fds of leaky[8]").verdict, Verdict::Warn);
}

#[test]
fn what_a_killed_experiment_left_is_named_with_the_way_back() {
    let changed = Changed {
        name: "net.ipv4.tcp_fin_timeout".into(),
        original: "60".into(),
        given: vec!["60".into(), "10".into()],
    };
    let journal = Journal { pid: 99, started: 1, netns: NETNS, changed: vec![changed] };
    let with = |now| {
        let left = Left { journal: journal.clone(), now };
        examine(&Patient { left: Ok(vec![left]), ..healthy() })
    };
    let checks = with(Some(vec![Reading::Value("10".into())]));
    assert_eq!(checks[0].group, Group::Left);
    let left = named(&checks, "experiment_left");
    assert_eq!(left.verdict, Verdict::Warn);
    assert_eq!(left.value.as_deref(), Some("net.ipv4.tcp_fin_timeout = 10"));
    assert!(left.detail.contains("experiment --restore") && left.detail.contains("60"), "{}", left.detail);
    assert_eq!(
        named(&with(Some(vec![Reading::Value("60".into())])), "experiment_left").verdict,
        Verdict::Note
    );
    assert_eq!(named(&with(None), "experiment_left").verdict, Verdict::Note);
}

#[test]
fn values_that_do_not_do_what_they_say_are_told() {
    for (name, value, verdict) in [
        ("net.ipv4.tcp_fin_timeout", "30", Verdict::Note),
        ("net.ipv4.tcp_fin_timeout", "61", Verdict::Warn),
        ("net.ipv4.tcp_timestamps", "0", Verdict::Warn),
        ("net.ipv4.tcp_tw_recycle", "1", Verdict::Warn),
        ("net.ipv4.tcp_max_tw_buckets", "50", Verdict::Warn),
        ("net.ipv4.tcp_max_tw_buckets", "200000", Verdict::Note),
        ("net.ipv4.tcp_rfc1337", "1", Verdict::Note),
        ("net.ipv4.tcp_keepalive_time", "7200", Verdict::Ok),
    ] {
        let patient = Patient { sysctls: sysctls(&[(name, value)]), ..healthy() };
        let checks = examine(&patient);
        let check = named(&checks, name.rsplit('.').next().expect("a name"));
        assert_eq!(
            (check.verdict, check.value.as_deref()),
            (verdict, Some(value)),
            "{name}: {}",
            check.detail
        );
    }
    let quirk = Patient { sysctls: sysctls(&[("net.ipv4.tcp_fin_timeout", "90")]), ..healthy() };
    assert!(named(&examine(&quirk), "tcp_fin_timeout").detail.contains("60 s here"));
    let unknown = Patient { hash: Hash::default(), ..healthy() };
    assert_eq!(
        named(&examine(&unknown), "tcp_max_tw_buckets").verdict,
        Verdict::Ok,
        "no default to differ from"
    );
}
