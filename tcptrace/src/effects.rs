//! What differs between two snapshots, state by state, as figures and as sentences.

use crate::net::State;
use crate::outcome::Phase;
use crate::snapshot::{Ends, Key, Snapshot, StateReport};
use crate::stats::compare::{Comparison, Difference, Distance, MIN_EVENTS, Verdict, compare_all};
use crate::stats::survival::Survival;
use crate::views::human;

/// One state, phase and key in two samples.
#[derive(Clone, Debug)]
pub struct StateEffect {
    /// State.
    pub state: State,
    /// For FIN_WAIT2.
    pub phase: Option<Phase>,
    /// Whose; `None` for all connections together.
    pub key: Option<Key>,
    /// The first sample.
    pub a: Side,
    /// The second sample.
    pub b: Side,
    /// The test and the intervals.
    pub comparison: Comparison,
}

/// One sample of one state.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Times the state was entered.
    pub began: u64,
    /// Sockets in it at the end.
    pub open: u64,
    /// Why it ended.
    pub ends: Ends,
    /// The distribution of its dwells.
    pub survival: Survival,
}

impl Side {
    fn of(report: Option<&StateReport>) -> Self {
        report.map_or_else(Self::default, |report| Self {
            began: report.began,
            open: report.open.count,
            ends: report.ends,
            survival: report.survival.clone(),
        })
    }
}

/// Compares every state, phase and key that occurs in either, as one family of tests.
#[must_use]
pub fn effects(a: &Snapshot, b: &Snapshot, seed: u64) -> Vec<StateEffect> {
    let same = |left: &StateReport, right: &StateReport| {
        left.state == right.state && left.phase == right.phase && left.key == right.key
    };
    let mut pairs: Vec<(&StateReport, Side, Side)> = Vec::new();
    for report in &a.states {
        let other = b.states.iter().find(|other| same(report, other));
        pairs.push((report, Side::of(Some(report)), Side::of(other)));
    }
    for report in b.states.iter().filter(|report| !a.states.iter().any(|other| same(report, other))) {
        pairs.push((report, Side::default(), Side::of(Some(report))));
    }
    let samples: Vec<_> = pairs.iter().map(|(_, a, b)| (&a.survival, &b.survival)).collect();
    let comparisons = compare_all(&samples, seed);
    pairs
        .into_iter()
        .zip(comparisons)
        .map(|((report, a, b), comparison)| StateEffect {
            state: report.state,
            phase: report.phase,
            key: report.key.clone(),
            a,
            b,
            comparison,
        })
        .collect()
}

impl StateEffect {
    /// The state with its phase and key, for people.
    #[must_use]
    pub fn name(&self) -> String {
        let phase = match self.phase {
            None => "",
            Some(Phase::HalfClosed) => " half-closed",
            Some(Phase::Orphaned) => " orphaned",
        };
        match &self.key {
            None => format!("{}{phase}", self.state),
            Some(key) => format!("{}{phase} of {}", self.state, human::key(key)),
        }
    }

    /// The conclusion in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let name = self.name();
        let median = self.comparison.differences.first();
        if self.comparison.verdict == Verdict::Changed {
            return self.change(&name);
        }
        let medians = median.map_or_else(String::new, |median| {
            format!("median {} before, {} after", reached(median.a), reached(median.b))
        });
        let difference = median.and_then(|median| median.ci95).map(interval);
        match self.comparison.verdict {
            // Said above.
            Verdict::Changed => String::new(),
            Verdict::Unchanged => format!(
                "{name} did not change: {medians}; the difference lies within {} (95 % interval).",
                difference.unwrap_or_default()
            ),
            Verdict::NotEnoughData => format!("{name}: not enough data to tell{}.", self.lack()),
        }
    }

    /// Tells a change by the first percentile that certainly moved, because the median may stay where it was while the
    /// long dwells change; by the share of the dwells that is concerned where none of those that are compared moved.
    fn change(&self, name: &str) -> String {
        let differences = &self.comparison.differences;
        let told = differences.iter().position(Difference::matters);
        let mut sentence = match told {
            Some(index) => format!("{name} changed: {}", moved(&differences[index])),
            None => format!("{name} changed in its rarer dwells: {}", self.farthest()),
        };
        if let Some(median) = differences.first().filter(|_| told != Some(0)) {
            let did_not =
                if median.is_negligible() { "did not change" } else { "is not certain to have changed" };
            let (a, b) = (reached(median.a), reached(median.b));
            sentence.push_str(&format!("; the median {did_not}: {a} before, {b} after"));
        }
        if told.is_some() && self.comparison.distance.at_ns.is_some() {
            sentence.push_str(&format!("; most of all, {}", self.farthest()));
        }
        sentence.push('.');
        sentence
    }

    /// Where the curves are farthest apart.
    fn farthest(&self) -> String {
        let Distance { share, at_ns, is_b_longer } = self.comparison.distance;
        at_ns.map_or_else(String::new, |ns| {
            // Small shares are what this is about: two digits of them.
            let percent = share * 100.0;
            let digits = if percent < 10.0 { 1 } else { 0 };
            let (longer, other) = if is_b_longer { ("after", "before") } else { ("before", "after") };
            format!(
                "{percent:.digits$} % more last longer than {} {longer} than {other}",
                human::duration(ns)
            )
        })
    }

    fn lack(&self) -> String {
        let Comparison { events_a, events_b, .. } = self.comparison;
        if (self.a.began == 0) != (self.b.began == 0) {
            let (before, after) = (human::count(self.a.began), human::count(self.b.began));
            return format!(" how long it lasts: {before} began before, {after} after");
        }
        if events_a < MIN_EVENTS || events_b < MIN_EVENTS {
            return format!(
                " ({} and {} seen from beginning to end; {MIN_EVENTS} on each side are needed)",
                human::counted(events_a, "dwell"),
                human::count(events_b)
            );
        }
        let difference = self.comparison.differences.first().and_then(|median| median.ci95);
        difference.map_or_else(String::new, |ci95| {
            format!(
                ": the difference of the medians may be anything within {} (95 % interval)",
                interval(ci95)
            )
        })
    }
}

/// A percentile on both sides, with how far it moved.
fn moved(difference: &Difference) -> String {
    let what = match difference.metric {
        "p50_ns" => "median",
        "p90_ns" => "90th percentile",
        _ => "99th percentile",
    };
    let by = difference
        .ci95
        .map_or_else(String::new, |ci95| format!(", a difference of {} (95 % interval)", interval(ci95)));
    format!("{what} {} before, {} after{by}", reached(difference.a), reached(difference.b))
}

fn reached(ns: Option<u64>) -> String {
    ns.map_or_else(|| "not reached".to_owned(), human::duration)
}

/// `−2.1 s … −1.9 s`.
pub fn interval((low, high): (i64, i64)) -> String {
    format!("{} … {}", human::signed_duration(low), human::signed_duration(high))
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
