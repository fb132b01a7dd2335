use std::net::IpAddr;

use serde_json::{Value, json};

use super::*;
use crate::event::Comm;
use crate::net::{Addr, Flow, State};
use crate::outcome::{self, Dwell, End, Evidence, Outcome, Owner, Phase};
use crate::snapshot::{Meta, Snapshot, WallClock};
use crate::stats::Stats;

fn transition() -> outcome::Transition {
    let loopback = Addr::from("127.0.0.1".parse::<IpAddr>().unwrap());
    outcome::Transition {
        at: 5_000_000_042,
        conn: 17,
        flow: Flow {
            local: loopback,
            remote: loopback,
            netns: 4_026_531_840,
            local_port: 80,
            remote_port: 44_312,
        },
        from: State::FinWait2,
        to: State::TimeWait,
        phase: Some(Phase::Orphaned),
        to_phase: None,
        dwell: Some(Dwell { ns: 2424, is_lower_bound: false }),
        as_full_socket_ns: None,
        end: None,
        rearmed: 0,
        timeout_jiffies: None,
        owner: Some(Owner {
            pid: 123,
            comm: Comm::from_bytes(b"ng\x1b[31m\nx"),
            evidence: Evidence::Close,
            cgroup_id: 1,
        }),
    }
}

/// 2026-01-02T03:04:05Z minus 5 s of uptime.
const WALL: WallClock = WallClock { offset_ns: 1_767_323_040_000_000_000 };

fn written(line: &Line) -> Value {
    let mut out = Vec::new();
    write_line(&mut out, line).unwrap();
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
    assert!(out.ends_with(b"\n"));
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn a_transition_as_promised() {
    let line = Line::of_outcome(&Outcome::Transition(transition()), WALL);
    assert_eq!(
        written(&line),
        json!({
            "type": "transition", "time": "2026-01-02T03:04:05.000000042Z", "mono_ns": 5_000_000_042_u64,
            "conn": 17, "netns": 4_026_531_840_u32, "family": "ipv4",
            "local": "127.0.0.1:80", "remote": "127.0.0.1:44312",
            "from": "FIN_WAIT2", "to": "TIME_WAIT", "dwell_ns": 2424, "dwell_is_lower_bound": false,
            "phase": "orphaned", "to_phase": null, "end": null, "rearmed": 0,
            "as_full_socket_ns": null, "timeout_jiffies": null,
            "owner": {"pid": 123, "comm": "ng\\x1b[31m\\x0ax", "evidence": "close"},
        })
    );
}

#[test]
fn lines_are_read_back_as_they_were() {
    let line = Line::of_outcome(&Outcome::Transition(transition()), WALL);
    assert_eq!(serde_json::from_value::<Line>(written(&line)).unwrap(), line);
}

fn snapshot() -> Snapshot {
    let mut stats = Stats::default();
    stats.record_transition(&transition());
    stats.record_transition(&outcome::Transition {
        from: State::TimeWait,
        to: State::Close,
        phase: None,
        dwell: Some(Dwell { ns: 61_020_000_000, is_lower_bound: false }),
        end: Some(End::Expired),
        timeout_jiffies: Some(15_000),
        ..transition()
    });
    let meta =
        Meta { started: 0, now: 70_000_000_000, hz: Some(250), events: 9, connections: 1, ..Meta::default() };
    stats.snapshot(meta, std::iter::empty(), &|_| None)
}

#[test]
fn a_report_as_promised() {
    let mut out = Vec::new();
    write_report(&snapshot(), &mut out).unwrap();
    let lines: Vec<Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["state_report", "state_report", "summary"]);
    let time_wait = &lines[1];
    assert_eq!((&time_wait["state"], &time_wait["key"]), (&json!("TIME_WAIT"), &Value::Null));
    assert_eq!(time_wait["finished"]["p50_ns"], json!(61_020_000_000_u64));
    assert_eq!(time_wait["open"]["oldest_ns"], Value::Null);
    assert_eq!(time_wait["ends"], json!({"expired": 1}));
    assert_eq!(time_wait["expected"]["latest_ns"], json!(62_048_000_000_u64));
    assert_eq!(time_wait["buckets"].as_array().unwrap().len(), 1);
    assert_eq!(lines[0]["ends"], json!({"moved_on": 1}));
    let summary = &lines[2];
    assert_eq!(
        (&summary["seconds"], &summary["events"], &summary["connections"]),
        (&json!(70.0), &json!(9), &json!(1))
    );
    assert_eq!(summary["loss"], json!({"ring_full": 0, "skipped_runs": 0, "table_full": 0, "resyncs": 0}));
    assert_eq!(summary["bpf"], json!({"programs": []}));
    assert_eq!(summary["time_wait_makers"][0]["count"], json!(1));
}

#[test]
fn states_are_keyed_by_the_kernels_names() {
    let counts = [(State::CloseWait, 3), (State::FinWait1, 1)].into();
    let by = [Whose::Process(None), Whose::Port(443), Whose::Container(Some("c".into()))];
    let by = by.map(|whose| StatesBy { whose, counts: [(State::TimeWait, 1)].into() }).into();
    let line = Line::States(States { netns: None, counts, by, ..States::default() });
    assert_eq!(
        written(&line),
        json!({"type": "states", "netns": null, "counts": {"FIN_WAIT1": 1, "CLOSE_WAIT": 3}, "by": [
            {"process": null, "counts": {"TIME_WAIT": 1}},
            {"port": 443, "counts": {"TIME_WAIT": 1}},
            {"container": "c", "counts": {"TIME_WAIT": 1}},
        ]})
    );
    assert_eq!(serde_json::from_value::<Line>(written(&line)).unwrap(), line);
}

#[test]
fn a_key_names_its_kind() {
    use crate::snapshot::{Key, KeyKind, ProcessKey};
    let keys = [
        Key::Process(Some(ProcessKey { pid: 1, comm: Comm::from_bytes(b"init"), host: None })),
        Key::Process(None),
        Key::Port(443),
        Key::Peer("::1".parse().unwrap()),
        Key::Container(Some("c".into())),
        Key::Other(KeyKind::Peer),
    ];
    assert_eq!(
        serde_json::to_value(keys).unwrap(),
        json!([
            {"process": {"pid": 1, "comm": "init"}}, {"process": null}, {"port": 443}, {"peer": "::1"},
            {"container": "c"}, {"other": "peer"}
        ])
    );
}

/// Takes a number of bytes, then breaks.
struct Pipe {
    takes: usize,
    taken: Vec<u8>,
    writes: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.taken.len() + bytes.len() > self.takes {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.writes += 1;
        self.taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_pipe_is_passed_up_and_holds_whole_lines() {
    let mut pipe = Pipe { takes: 1000, taken: Vec::new(), writes: 0 };
    let error = write_report(&snapshot(), &mut pipe).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    let lines = String::from_utf8(pipe.taken).unwrap();
    assert!(lines.ends_with('\n'));
    assert_eq!(lines.lines().count(), pipe.writes, "one write a line");
    lines.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
}

#[test]
fn the_schema_names_every_kind_of_line() {
    let schema = schema().to_string();
    for kind in
        ["transition", "connect_failed", "leak", "state_report", "states", "effect", "check", "summary"]
    {
        assert!(schema.contains(&format!("\"const\":\"{kind}\"")), "{kind}");
    }
    for key in ["dwell_is_lower_bound", "growth_per_min", "difference_ci95_ns", "skipped_runs"] {
        assert!(schema.contains(key), "{key}");
    }
}
