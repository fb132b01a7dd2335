//! From domain values to lines.

use std::io::{self, Write};

use crate::outcome::{self, Outcome, Owner};
use crate::snapshot::{self, ProcessKey, Snapshot, WallClock};

use super::{
    Bpf, ConnectFailed, Line, OwnerRef, Part, ProcessRef, StateReport, Summary, Time, TimeWaitMaker,
    Transition, write_line,
};

/// Makers of TIME_WAITs in a summary at most.
const MAKERS: usize = 10;

impl Line {
    /// The line of an outcome.
    #[must_use]
    pub fn of_outcome(outcome: &Outcome, wall: WallClock) -> Self {
        match outcome {
            Outcome::Transition(transition) => Self::Transition(Transition::new(transition, wall)),
            Outcome::ConnectFailed { at, flow, owner } => Self::ConnectFailed(ConnectFailed {
                time: Time(wall.time(*at)),
                mono_ns: *at,
                netns: flow.netns,
                family: flow.family(),
                remote: flow.remote_addr(),
                owner: owner.as_ref().map(OwnerRef::from),
            }),
        }
    }
}

impl Transition {
    /// The line of a transition.
    #[must_use]
    pub fn new(transition: &outcome::Transition, wall: WallClock) -> Self {
        let flow = &transition.flow;
        Self {
            time: Time(wall.time(transition.at)),
            mono_ns: transition.at,
            conn: transition.conn,
            netns: flow.netns,
            family: flow.family(),
            local: flow.local_addr(),
            remote: flow.remote_addr(),
            from: transition.from,
            to: transition.to,
            dwell_ns: transition.dwell.map(|dwell| dwell.ns),
            dwell_is_lower_bound: transition.dwell.is_some_and(|dwell| dwell.is_lower_bound),
            phase: transition.phase,
            to_phase: transition.to_phase,
            end: transition.end,
            rearmed: transition.rearmed,
            as_full_socket_ns: transition.as_full_socket_ns,
            timeout_jiffies: transition.timeout_jiffies,
            owner: transition.owner.as_ref().map(OwnerRef::from),
        }
    }
}

impl From<&Owner> for OwnerRef {
    fn from(owner: &Owner) -> Self {
        Self { pid: owner.pid, comm: owner.comm, evidence: owner.evidence }
    }
}

impl From<ProcessKey> for ProcessRef {
    fn from(process: ProcessKey) -> Self {
        Self { pid: process.pid, comm: process.comm }
    }
}

impl Summary {
    /// The last line of every command that traced.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let makers = &snapshot.time_wait.owners;
        let (seen, told) = (snapshot.meta.events, snapshot.loss.told(snapshot.meta.events));
        Self {
            seconds: snapshot.meta.seconds(),
            events: snapshot.meta.events,
            connections: snapshot.meta.connections,
            loss: snapshot.loss,
            seen_share: (told > 0).then(|| seen as f64 / told as f64),
            lost_transitions: snapshot.lost_transitions.clone(),
            bpf: Bpf { programs: snapshot.programs.clone() },
            skipped: snapshot.skipped.clone(),
            connect_failures: snapshot.connect_failures.count,
            time_waits: snapshot.time_wait.total,
            time_wait_makers: makers
                .top
                .iter()
                .take(MAKERS)
                .map(|&(process, count)| TimeWaitMaker {
                    process: process.map(ProcessRef::from),
                    host: process.and_then(|process| process.host).map(|host| host.as_str().to_owned()),
                    count,
                    undercount: makers.undercount,
                })
                .collect(),
            parts: snapshot.meta.parts.iter().map(Part::from).collect(),
        }
    }
}

impl From<&snapshot::Part> for Part {
    fn from(part: &snapshot::Part) -> Self {
        Self {
            host: part.host.as_str().to_owned(),
            recording: part.recording.clone(),
            began: Time(WallClock::default().time(part.began_ns)),
            seconds: part.ended_ns.saturating_sub(part.began_ns) as f64 / 1e9,
            events: part.events,
            connections: part.connections,
            loss: part.loss,
        }
    }
}

/// Writes a `state_report` line for every state, phase and key, then the `summary`.
///
/// # Errors
/// What the writer returns.
pub fn write_report(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    for report in &snapshot.states {
        write_line(out, &Line::StateReport(StateReport::new(report, snapshot.meta.hz)))?;
    }
    write_summary(snapshot, out)
}

/// Writes the `summary` line.
///
/// # Errors
/// What the writer returns.
pub fn write_summary(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    write_line(out, &Line::Summary(Summary::new(snapshot)))
}
