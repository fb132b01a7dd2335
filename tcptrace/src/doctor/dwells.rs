//! How long states lasted in a trace or a recording, and whether that is what the kernel promises.

use super::{Check, Group, Patient, Verdict};
use crate::net::State;
use crate::outcome::Phase;
use crate::snapshot::{Snapshot, StateReport};
use crate::views::{human, transitions};
use crate::wheel::Expected;

/// From here on a CLOSE_WAIT is held rather than about to be closed.
const HELD_NS: u64 = 10_000_000_000;

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    let Some(snapshot) = &patient.measured else { return Vec::new() };
    let foreign = patient.foreign.iter().map(|why| check("measured_elsewhere", Verdict::Warn, why.clone()));
    let reports = snapshot.overall().filter(|report| report.has_dwells());
    let mut checks: Vec<Check> = foreign.chain(reports.map(|report| of_state(report, snapshot))).collect();
    if checks.is_empty() {
        let detail = format!(
            "No connection was seen in a closing state in {}.",
            human::duration(snapshot.meta.elapsed_ns())
        );
        checks.push(check("measured", Verdict::Note, detail));
    }
    checks.extend(loss(snapshot));
    checks
}

fn check(name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Check {
    Check::new(Group::Dwells, name, verdict, detail)
}

fn of_state(report: &StateReport, snapshot: &Snapshot) -> Check {
    let name = transitions::state(report.state, report.phase);
    let median = human::percentile(report, report.survival.p50_ns);
    let mut detail = format!("{} ended", human::count(report.finished.count + report.began_before.count));
    if let Some(longest) = report.finished.max_ns {
        detail += &format!(", the longest after {}", human::duration(longest));
    }
    detail += &format!("; {} open", human::count(report.open.count));
    if let Some(oldest) = report.open.oldest {
        detail += &format!(", the oldest for {}", human::age(oldest));
    }
    detail.push('.');
    let (verdict, why) = judge(report, snapshot);
    // What lasts as long as somebody likes is not described by its median.
    let value = match report.open.oldest {
        Some(oldest) if verdict == Verdict::Warn => {
            format!("{} open, the oldest for {}", human::count(report.open.count), human::age(oldest))
        }
        _ => median,
    };
    check(name, verdict, format!("{detail}{why}")).value(value)
}

/// Against the timer, where one ends the state.
fn judge(report: &StateReport, snapshot: &Snapshot) -> (Verdict, String) {
    let timed = (report.state, report.phase);
    match timed {
        (State::TimeWait, _) | (State::FinWait2, Some(Phase::Orphaned)) => {
            let expected = report
                .timeout
                .as_ref()
                .zip(snapshot.meta.hz)
                .and_then(|(timeout, hz)| Expected::of_most(timeout, hz));
            let (Some(expected), Some(median)) = (expected, report.ran_out.p50_ns) else {
                return (Verdict::Ok, String::new());
            };
            let range =
                format!("{} to {}", human::duration(expected.base_ns), human::duration(expected.latest_ns));
            let ran_out = human::count(report.ran_out.count);
            let median_shown = human::duration(median);
            if expected.covers(median) {
                let why = format!(
                    " The median of the {ran_out} that ran out is {median_shown}; {range} is expected."
                );
                (Verdict::Ok, why)
            } else {
                let why = format!(
                    " The median of the {ran_out} that ran out is {median_shown}, where {range} is expected: some were \
                     re-armed, or had a full socket before."
                );
                (Verdict::Note, why)
            }
        }
        (State::CloseWait, _) => match report.open.oldest.filter(|oldest| oldest.ns >= HELD_NS) {
            Some(_) => {
                let why =
                    " The peer has closed and the application has not. To do: `tcptrace leaks` names it.";
                (Verdict::Warn, why.to_owned())
            }
            None => (Verdict::Ok, String::new()),
        },
        _ => (Verdict::Ok, String::new()),
    }
}

fn loss(snapshot: &Snapshot) -> Option<Check> {
    snapshot.loss.any().then(|| {
        let detail = "Events were lost: counts are too low, and what lost its beginning or its end is left out. To do: \
                      a larger --ring-size, or a filter.";
        check("lost_events", Verdict::Warn, detail).value(human::count(snapshot.loss.total()))
    })
}
