//! Sorts what one trace says into the arms of an experiment.

use super::knobs::Acts;
use crate::engine::Engine;
use crate::event::MonoNs;
use crate::outcome::{Open, Outcome, Transition};
use crate::snapshot::Snapshot;
use crate::stats::Stats;

/// Which arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The old value.
    Baseline,
    /// The new value.
    Changed,
}

/// Dwells cut off at the end of an arm that are kept at most, each 100 bytes; more would change no percentile.
const MAX_CUT: usize = 1 << 20;

/// A stretch of time under one value, `from` included, `to` not.
#[derive(Clone, Copy, Debug)]
struct Window {
    arm: Arm,
    from: MonoNs,
    /// `None` while it lasts.
    to: Option<MonoNs>,
}

impl Window {
    fn contains(&self, at: MonoNs) -> bool {
        at >= self.from && self.to.is_none_or(|to| at < to)
    }
}

/// Both arms.
#[derive(Debug)]
pub struct Arms {
    acts: Acts,
    windows: Vec<Window>,
    stats: [Stats; 2],
    /// Dwells that went on after their arm, with the length they had at its end.
    cut: [Vec<(Transition, u64)>; 2],
}

impl Arms {
    /// No arm has begun. `acts` decides about dwells that end after theirs.
    #[must_use]
    pub fn new(acts: Acts) -> Self {
        Self {
            acts,
            windows: Vec::new(),
            stats: [Stats::default(), Stats::default()],
            cut: Default::default(),
        }
    }

    /// From here on the arm's value is in force.
    pub fn begin(&mut self, arm: Arm, at: MonoNs) {
        self.end(at);
        self.windows.push(Window { arm, from: at, to: None });
    }

    /// Up to here it was.
    pub fn end(&mut self, at: MonoNs) {
        if let Some(last) = self.windows.last_mut() {
            last.to.get_or_insert(at);
        }
    }

    /// How long an arm lasted, over all its repetitions, nanoseconds; up to `now` if it still does.
    #[must_use]
    pub fn length_ns(&self, arm: Arm, now: MonoNs) -> u64 {
        let lengths = self.windows.iter().filter(|window| window.arm == arm);
        lengths.map(|window| window.to.unwrap_or(now).saturating_sub(window.from)).sum()
    }

    fn window_of(&self, began: MonoNs) -> Option<&Window> {
        self.windows.iter().find(|window| window.contains(began))
    }

    /// True for a moment that lies in one of the arms.
    #[must_use]
    pub fn contains(&self, at: MonoNs) -> bool {
        self.window_of(at).is_some()
    }

    /// Takes an outcome. Dwells that began in no arm, or at an unknown time, belong to none.
    pub fn outcome(&mut self, outcome: &Outcome) {
        let (at, dwell) = match outcome {
            Outcome::ConnectFailed { at, .. } => (*at, None),
            Outcome::Transition(transition) => match transition.dwell {
                Some(dwell) if dwell.is_lower_bound => return,
                Some(dwell) => (transition.at, Some(dwell.ns)),
                None => return,
            },
        };
        let began = at.saturating_sub(dwell.unwrap_or(0));
        let Some(window) = self.window_of(began) else { return };
        let (arm, to) = (window.arm, window.to);
        match (outcome, to) {
            (Outcome::Transition(transition), Some(to)) if self.acts == Acts::AnyTime && at >= to => {
                let cut = &mut self.cut[arm as usize];
                if cut.len() < MAX_CUT {
                    cut.push((*transition, to - began));
                }
            }
            _ => self.stats[arm as usize].record(outcome),
        }
    }

    /// The two samples as they stand now. What is open is as old as it is now, or was at the end of its arm.
    #[must_use]
    pub fn snapshots(&self, engine: &Engine) -> [Snapshot; 2] {
        let now = engine.now();
        let mut open: [Vec<Open>; 2] = Default::default();
        for one in engine.open().filter(|open| !open.since_is_lower_bound) {
            if let Some(window) = self.window_of(one.since) {
                let until = match self.acts {
                    Acts::AtBegin => now,
                    Acts::AnyTime => window.to.unwrap_or(now),
                };
                let age = until.saturating_sub(one.since);
                open[window.arm as usize].push(Open { since: now.saturating_sub(age), ..one });
            }
        }
        for (open, cut) in open.iter_mut().zip(&self.cut) {
            open.extend(cut.iter().map(|(transition, age)| Open {
                conn: transition.conn,
                flow: transition.flow,
                state: transition.from,
                phase: transition.phase,
                since: now.saturating_sub(*age),
                since_is_lower_bound: false,
                owner: transition.owner,
                unread: None,
            }));
        }
        let states = engine.filter().states;
        let snapshot = |arm: Arm, open: Vec<Open>| {
            let mut snapshot =
                self.stats[arm as usize].snapshot(engine.meta().clone(), open.into_iter(), &|_| None);
            snapshot.states.retain(|report| states.contains(report.state));
            snapshot
        };
        let [baseline, changed] = open;
        [snapshot(Arm::Baseline, baseline), snapshot(Arm::Changed, changed)]
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::filter::Filter;
    use crate::net::{Flow, State};
    use crate::outcome::{Dwell, End};
    use crate::snapshot::Meta;
    use crate::tracker::Limits;

    const S: u64 = 1_000_000_000;

    fn ended(at: u64, dwell_ns: u64) -> Outcome {
        let any = IpAddr::from([127, 0, 0, 1]).into();
        Outcome::Transition(Transition {
            at,
            conn: at,
            flow: Flow { local: any, remote: any, netns: 1, local_port: 1, remote_port: 2 },
            from: State::TimeWait,
            to: State::Close,
            phase: None,
            to_phase: None,
            dwell: Some(Dwell { ns: dwell_ns, is_lower_bound: false }),
            as_full_socket_ns: None,
            end: Some(End::Expired),
            rearmed: 0,
            timeout_jiffies: Some(15_000),
            owner: None,
        })
    }

    fn run(acts: Acts) -> [Snapshot; 2] {
        let mut arms = Arms::new(acts);
        arms.begin(Arm::Baseline, 10 * S);
        arms.end(20 * S);
        arms.begin(Arm::Changed, 21 * S);
        arms.end(31 * S);
        // Began before any arm; in the baseline, ended there; in the baseline, ended later; in between; changed.
        for (at, dwell) in [(12, 5), (15, 2), (80, 61), (25, 5), (28, 3)] {
            arms.outcome(&ended(at * S, dwell * S));
        }
        let mut engine = Engine::new(Meta::default(), Filter::default(), None, Limits::default());
        engine.tick(90 * S, |_| {});
        arms.snapshots(&engine)
    }

    #[test]
    fn a_dwell_belongs_to_the_arm_in_which_it_began() {
        let [baseline, changed] = run(Acts::AtBegin);
        let of = |snapshot: &Snapshot| {
            let report = snapshot.of(State::TimeWait, None).expect("TIME_WAIT");
            (report.finished.count, report.open.count, report.finished.max_ns)
        };
        assert_eq!(of(&baseline), (2, 0, Some(61 * S)));
        assert_eq!(of(&changed), (1, 0, Some(3 * S)));
    }

    #[test]
    fn what_may_change_while_it_lasts_is_censored_at_the_end_of_its_arm() {
        let [baseline, _] = run(Acts::AnyTime);
        let report = baseline.of(State::TimeWait, None).expect("TIME_WAIT");
        assert_eq!((report.finished.count, report.finished.max_ns), (1, Some(2 * S)));
        assert_eq!(report.open.count, 1);
        assert_eq!(report.open.oldest.map(|age| age.ns), Some(S));
    }
}
