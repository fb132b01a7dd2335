use super::samples::{MS, NOW, S, busy_snapshot, flow, meta, owner, step};
use super::*;
use crate::loss::Loss;
use crate::outcome::{End, Outcome, Transition};
use crate::snapshot::{KeyKind, Meta, SkippedHook};
use crate::stats::Stats;

fn shown(snapshot: &Snapshot, options: &Options) -> String {
    let mut out = Vec::new();
    write(snapshot, options, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains("\x1b[2J"), "a task name drives no terminal");
    for line in text.lines() {
        assert!(line.chars().count() <= options.width, "wider than {}: {line:?}", options.width);
        assert_eq!(line, line.trim_end());
    }
    text
}

#[test]
fn at_80_columns() {
    insta::assert_snapshot!(shown(&busy_snapshot(None), &Options::default()));
}

#[test]
fn by_process_at_120_columns() {
    insta::assert_snapshot!(shown(
        &busy_snapshot(Some(KeyKind::Process)),
        &Options { width: 120, ..Options::default() }
    ));
}

#[test]
fn in_ascii_at_60_columns() {
    let text = shown(&busy_snapshot(None), &Options { width: 60, ascii: true, ..Options::default() });
    assert!(text.is_ascii());
    insta::assert_snapshot!(text);
}

#[test]
fn loss_and_trouble_come_first() {
    let mut stats = Stats::default();
    for _ in 0..3 {
        stats.record_transition(&Transition {
            end: Some(End::Overflow),
            ..step(State::FinWait2, State::Close, 2_000)
        });
        stats.record(&Outcome::ConnectFailed {
            at: NOW,
            flow: flow(0, "10.0.0.5", 3306),
            owner: owner(812, "nginx"),
        });
    }
    stats.record_transition(&Transition {
        phase: Some(Phase::Orphaned),
        end: Some(End::TimedOut),
        as_full_socket_ns: Some(30 * S),
        timeout_jiffies: Some(7_500),
        ..step(State::FinWait2, State::Close, 61_600 * MS)
    });
    stats.record_transition(&Transition {
        dwell: None,
        end: Some(End::Destroyed),
        ..step(State::TimeWait, State::Close, 0)
    });
    let mut snapshot = stats.snapshot(meta(), std::iter::empty(), &|_| None);
    snapshot.loss = Loss { ring_full: 1_200, skipped_runs: 34, table_full: 0, vanished: 0, resyncs: 2 };
    snapshot.skipped = vec![SkippedHook {
        name: "sock_recv_length".into(),
        why: "not in this kernel; who was told EOF is not known".into(),
    }];
    snapshot.notes = vec!["network namespace 4026532001 vanished while it was listed".into()];
    insta::assert_snapshot!(shown(&snapshot, &Options::default()));
}

#[test]
fn nothing_seen_on_an_unknown_kernel() {
    let snapshot =
        Snapshot { meta: Meta { started: 0, now: 10 * S, ..Meta::default() }, ..Snapshot::default() };
    insta::assert_snapshot!(shown(&snapshot, &Options { width: 40, ..Options::default() }));
}

#[test]
fn colours_take_no_room() {
    let snapshot = busy_snapshot(Some(KeyKind::Peer));
    let plain = shown(&snapshot, &Options::default());
    let mut out = Vec::new();
    write(&snapshot, &Options { paint: Paint { color: true }, ..Options::default() }, &mut out).unwrap();
    let colored = String::from_utf8(out).unwrap();
    assert_ne!(colored, plain);
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
}
