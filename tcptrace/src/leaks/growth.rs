//! How fast leaks become more, from two looks and what was traced between them.
//!
//! Sockets in CLOSE_WAIT come and go on a healthy host, too. What counts is those that stay: a socket has
//! arrived when its beginning was seen and it has stayed for the time that makes a leak; one has departed when
//! it was a leak at the first look and is gone at the second. A single look shows no growth.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

use super::evidence::{Custody, Evidence};
use super::report::{Blamed, Terms, everybody, is_old_enough};
use crate::event::MonoNs;
use crate::net::Flow;

/// Watched for less than this, a rate is noise.
const LEAST_WATCHED_NS: u64 = 4_000_000_000;
/// Looks are kept this far apart, and for this long: growth is that of the last ten minutes.
const LOOKS_APART_NS: u64 = 60_000_000_000;
const KEPT_NS: u64 = 600_000_000_000;

/// The growth of one process's leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Sockets more after a minute; below 0 when they become fewer.
    pub per_min: f64,
    /// The same of those that take up a descriptor.
    pub held_per_min: f64,
}

/// Who leaked what at an earlier look.
#[derive(Clone, Debug)]
struct Look {
    at: MonoNs,
    leaks: FxHashMap<Flow, Leaked>,
}

#[derive(Clone, Debug)]
struct Leaked {
    by: Vec<Blamed>,
    is_held: bool,
}

/// Earlier looks, to compare with.
#[derive(Clone, Debug, Default)]
pub struct History {
    looks: VecDeque<Look>,
}

/// Growth by whom, and over all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Growth {
    by: BTreeMap<Blamed, Rate>,
    /// Each socket counted once.
    pub(super) total: Rate,
}

impl Growth {
    /// Of one; none where nothing of its came or went.
    pub(super) fn of(&self, who: Blamed) -> Rate {
        self.by.get(&who).copied().unwrap_or_default()
    }
}

impl History {
    /// Keeps a look for those that come later. Ages must be in it already.
    pub fn keep(&mut self, evidence: &Evidence, terms: &Terms) {
        if self.looks.back().is_some_and(|look| evidence.at.saturating_sub(look.at) < LOOKS_APART_NS) {
            return;
        }
        let leaks = evidence
            .candidates
            .iter()
            .filter(|candidate| is_old_enough(candidate.age, terms))
            .map(|candidate| {
                let is_held = matches!(candidate.custody, Custody::Held(_));
                (candidate.flow, Leaked { by: everybody(candidate), is_held })
            })
            .collect();
        self.looks.push_back(Look { at: evidence.at, leaks });
        while self.looks.get(1).is_some_and(|second| evidence.at.saturating_sub(second.at) >= KEPT_NS) {
            self.looks.pop_front();
        }
    }

    /// Growth since the earliest look that is kept; `None` where that was not long enough ago.
    pub(super) fn growth(&self, evidence: &Evidence, terms: &Terms) -> Option<Growth> {
        let first = self.looks.front()?;
        let watched_ns = evidence.at.saturating_sub(first.at);
        if watched_ns < LEAST_WATCHED_NS {
            return None;
        }
        // Somebody who watches for ten seconds wants an answer, too: then half of it has to do.
        let stay_ns = terms.least_ns().min(watched_ns / 2);
        let mut growth = Growth::default();
        let arrival = per_min(1.0, watched_ns - stay_ns);
        for candidate in &evidence.candidates {
            let arrived = candidate
                .age
                .is_some_and(|age| !age.is_lower_bound && (stay_ns..watched_ns).contains(&age.ns));
            if arrived {
                let is_held = matches!(candidate.custody, Custody::Held(_));
                growth.add(&everybody(candidate), is_held, arrival);
            }
        }
        // A four-tuple that is in CLOSE_WAIT again is another socket.
        let mut left: FxHashMap<&Flow, &Leaked> = first.leaks.iter().collect();
        for candidate in &evidence.candidates {
            if candidate.age.is_none_or(|age| age.is_lower_bound || age.ns >= watched_ns) {
                left.remove(&candidate.flow);
            }
        }
        let departure = per_min(-1.0, watched_ns);
        for leaked in left.values() {
            growth.add(&leaked.by, leaked.is_held, departure);
        }
        Some(growth)
    }
}

impl Growth {
    fn add(&mut self, by: &[Blamed], is_held: bool, per_min: f64) {
        let held = if is_held { per_min } else { 0.0 };
        let add = |rate: &mut Rate| {
            rate.per_min += per_min;
            rate.held_per_min += held;
        };
        by.iter().for_each(|&who| add(self.by.entry(who).or_default()));
        add(&mut self.total);
    }
}

fn per_min(sockets: f64, over_ns: u64) -> f64 {
    sockets * 60e9 / over_ns as f64
}
