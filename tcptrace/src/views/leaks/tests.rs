use std::net::IpAddr;

use super::*;
use crate::event::Comm;
use crate::filter::Filter;
use crate::inventory::process::Fds;
use crate::leaks::{
    Candidate, Culprit, Custody, Evidence, History, Keeper, LeakReport, Listening, Looked, Rate, Terms,
};
use crate::net::{Addr, Flow};
use crate::snapshot::Age;
use crate::stacks::{Note, Site};

const S: u64 = 1_000_000_000;

fn socket(netns: u32, remote: &str, port: u16, seconds: u64, recv_queue: u32, custody: Custody) -> Candidate {
    let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    Candidate {
        flow: Flow {
            local: addr("10.0.0.1"),
            remote: addr(remote),
            netns,
            local_port: 8080,
            remote_port: port,
        },
        age: Some(Age { ns: seconds * S, is_lower_bound: true }),
        recv_queue: Some(recv_queue),
        uid: Some(33),
        accepted_on: (netns == 1).then(|| "0.0.0.0:8080".parse().unwrap()),
        custody,
    }
}

fn held(keepers: &[(u32, u32)]) -> Custody {
    Custody::Held(keepers.iter().map(|&(pid, fd)| Keeper { pid, fd: Some(fd) }).collect())
}

fn culprit(pid: u32, comm: &[u8], cmdline: &str) -> (u32, Culprit) {
    let culprit = Culprit {
        pid,
        comm: Comm::from_bytes(comm),
        exe: Some("/usr/bin/python3".to_owned()),
        cmdline: Some(cmdline.to_owned()),
        uid: Some(33),
        unit: Some("shop.service".to_owned()),
        container_shown: Some("docker 0123456789ab".to_owned()),
        fds: Fds { open: Some(990), limit: Some(1024) },
        ..Culprit::default()
    };
    (pid, culprit)
}

fn evidence() -> Evidence {
    let mut candidates = Vec::new();
    for n in 0..20_u16 {
        candidates.push(socket(
            1,
            "10.0.0.7",
            40_000 + n,
            12 + 7 * u64::from(n),
            0,
            held(&[(812, 9 + u32::from(n))]),
        ));
    }
    for n in 0..4 {
        candidates.push(socket(1, "10.0.0.9", 50_000 + n, 3_600, 1, held(&[(812, 40 + u32::from(n))])));
    }
    candidates.push(socket(1, "10.0.0.9", 50_100, 7_300, 3_201, held(&[(812, 60)])));
    candidates.push(socket(2, "10.0.0.5", 3_306, 60, 0, held(&[(900, 3), (901, 3)])));
    candidates.push(socket(1, "10.0.0.8", 50_200, 30, 1, Custody::AcceptQueue(vec![812])));
    candidates.push(socket(1, "10.0.0.8", 50_201, 30, 1, Custody::Nobody));
    candidates.push(socket(1, "10.0.0.8", 50_202, 3, 1, held(&[(812, 61)])));
    let place = Listening { addr: "0.0.0.0:8080".parse().unwrap(), netns: 1, queued: 1, backlog: 128 };
    Evidence {
        at: 100_000 * S,
        candidates,
        culprits: [
            culprit(812, b"py\x1b[31mthon", "python3 shop.py --port 8080"),
            culprit(900, b"pool", "pool"),
            culprit(901, b"pool", "pool"),
        ]
        .into(),
        listening: [(812, vec![place])].into(),
        namespaces: [(2, "blue".to_owned())].into(),
        own_netns: Some(1),
        looked: Looked { namespaces: 2, close_wait: 29, processes: Some(412), fds: Some(31_207) },
        notes: Vec::new(),
    }
}

fn report(evidence: &Evidence) -> LeakReport {
    LeakReport::new(evidence, &Terms { filter: Filter::default(), min_age_ns: 10 * S }, &History::default())
}

fn text(report: &LeakReport, options: &Options) -> String {
    let mut out = Vec::new();
    write(report, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_leak_at_once() {
    insta::assert_snapshot!(text(&report(&evidence()), &Options::default()));
}

#[test]
fn a_leak_that_was_watched_with_stacks() {
    let mut report = report(&evidence());
    report.watched_ns = Some(60 * S);
    let site = |frames: &[&str], count, note| Site {
        frames: frames.iter().map(|&frame| frame.to_owned()).collect(),
        note,
        truncated: false,
        count,
    };
    let leak = &mut report.leaks[0];
    leak.rate = Some(Rate { per_min: 12.0, held_per_min: 11.0 });
    leak.sites = vec![
        site(&["handle at shop/app.py:41", "serve at shop/app.py:88"], 7, None),
        site(&["_PyEval_EvalFrameDefault in python3.11"], 1, Some(Note::Python)),
    ];
    report.leaks[1].rate = Some(Rate::default());
    let options = Options { stacks: true, width: 100, ..Options::default() };
    insta::assert_snapshot!(text(&report, &options));
}

#[test]
fn no_leak_is_a_clear_answer() {
    let mut evidence = evidence();
    evidence.candidates.retain(|candidate| candidate.age.is_some_and(|age| age.ns < 10 * S));
    evidence.looked.close_wait = 1;
    insta::assert_snapshot!(text(&report(&evidence), &Options::default()));
    evidence.candidates.clear();
    evidence.looked = Looked { namespaces: 1, ..Looked::default() };
    evidence.notes = vec!["network namespace 7 was not seen: \x1b[2Jno".to_owned()];
    let options = Options { filters: "--port 80".to_owned(), ..Options::default() };
    insta::assert_snapshot!(text(&report(&evidence), &options));
}

#[test]
fn narrow_and_plain() {
    let options = Options { width: 40, ascii: true, ..Options::default() };
    let text = text(&report(&evidence()), &options);
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn nothing_in_it_drives_the_terminal() {
    let text = text(&report(&evidence()), &Options::default());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn a_thousand_processes_are_cut() {
    let mut evidence = evidence();
    evidence.candidates = (0..1000)
        .map(|n| socket(1, "10.0.0.7", 1000 + n, 60, 0, held(&[(1000 + u32::from(n), 3)])))
        .collect();
    let text = text(&report(&evidence), &Options::default());
    assert!(text.contains("… and 960 more.") && text.contains("995 processes more"), "{text}");
    assert!(text.lines().count() < 200);
}
