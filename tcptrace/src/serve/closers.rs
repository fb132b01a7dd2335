//! Who begins TIME_WAITs, by label set: counters that never fall, for a bounded number of label sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::labels::Who;
use crate::event::{Comm, MonoNs};
use crate::outcome::Owner;

/// A label set that began no TIME_WAIT for so long gives its place up when there is need: containers come and
/// go.
const IDLE_NS: MonoNs = 3600 * 1_000_000_000;
/// Pairs of name and cgroup for each label set at most: a container has several cgroups.
const PAIRS_PER_SERIES: usize = 4;

/// Task name and cgroup v2 id.
pub type Pair = (Comm, u64);

/// Counts by owner.
#[derive(Debug)]
pub struct Closers {
    by_pair: FxHashMap<Pair, Count>,
    /// Those without an owner.
    unknown: u64,
    /// Those beyond the limit.
    other: u64,
    max_series: usize,
    /// Label sets given their own series so far that still have it.
    series: usize,
    unnamed: Vec<Pair>,
}

#[derive(Debug)]
struct Count {
    count: u64,
    last: MonoNs,
    /// `None` until the cgroup's name has been looked up.
    who: Option<Arc<Who>>,
}

impl Closers {
    /// Nothing yet. At most `max_series` label sets are kept apart.
    #[must_use]
    pub fn new(max_series: usize) -> Self {
        let by_pair = FxHashMap::default();
        Self { by_pair, unknown: 0, other: 0, max_series, series: 0, unnamed: Vec::new() }
    }

    /// Counts a TIME_WAIT that began.
    pub fn add(&mut self, owner: Option<&Owner>, now: MonoNs) {
        let Some(owner) = owner else {
            self.unknown += 1;
            return;
        };
        let pair = (owner.comm, owner.cgroup_id);
        if let Some(known) = self.by_pair.get_mut(&pair) {
            known.count += 1;
            known.last = now;
        } else if self.by_pair.len() < self.max_series * PAIRS_PER_SERIES {
            self.by_pair.insert(pair, Count { count: 1, last: now, who: None });
            self.unnamed.push(pair);
        } else {
            self.other += 1;
        }
    }

    /// Pairs whose names are not known yet, once each.
    pub fn take_unnamed(&mut self) -> Vec<Pair> {
        std::mem::take(&mut self.unnamed)
    }

    /// Names pairs. A label set for which there is no place is counted under `other`, with all that comes of it.
    pub fn name(&mut self, named: Vec<(Pair, Who)>, now: MonoNs) {
        for (pair, who) in named {
            let known =
                self.by_pair.values().find_map(|count| count.who.clone().filter(|known| **known == who));
            if known.is_none() && self.series >= self.max_series {
                self.forget_idle(now);
            }
            let who = match known {
                Some(known) => known,
                None if self.series < self.max_series => {
                    self.series += 1;
                    Arc::new(who)
                }
                None => {
                    self.other += self.by_pair.remove(&pair).map_or(0, |count| count.count);
                    continue;
                }
            };
            if let Some(count) = self.by_pair.get_mut(&pair) {
                count.who = Some(who);
            }
        }
    }

    /// Drops label sets none of whose pairs was counted of late, as a whole: what is left of a label set must not
    /// fall, and `other` must not jump.
    fn forget_idle(&mut self, now: MonoNs) {
        let mut last: FxHashMap<Arc<Who>, MonoNs> = FxHashMap::default();
        for count in self.by_pair.values() {
            if let Some(who) = &count.who {
                let last = last.entry(Arc::clone(who)).or_default();
                *last = count.last.max(*last);
            }
        }
        let is_idle = |who: &Arc<Who>| last.get(who).is_some_and(|&last| now.saturating_sub(last) > IDLE_NS);
        self.by_pair.retain(|_, count| !count.who.as_ref().is_some_and(is_idle));
        self.series = last.values().filter(|&&last| now.saturating_sub(last) <= IDLE_NS).count();
    }

    /// Label sets with their counts, most first; the count of those without an owner; the count beyond the limit.
    /// What has no name yet comes with the next scrape.
    #[must_use]
    pub fn series(&self) -> (Vec<(Arc<Who>, u64)>, u64, u64) {
        let mut sums: BTreeMap<&Arc<Who>, u64> = BTreeMap::new();
        for count in self.by_pair.values() {
            if let Some(who) = &count.who {
                *sums.entry(who).or_default() += count.count;
            }
        }
        let mut series: Vec<_> = sums.into_iter().map(|(who, count)| (Arc::clone(who), count)).collect();
        series.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        (series, self.unknown, self.other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Evidence;

    fn owner(comm: &str, cgroup_id: u64) -> Owner {
        Owner { pid: 1, comm: Comm::from_bytes(comm.as_bytes()), evidence: Evidence::Close, cgroup_id }
    }

    fn count(closers: &mut Closers, comm: &str, cgroup_id: u64, now: MonoNs) {
        closers.add(Some(&owner(comm, cgroup_id)), now);
        let unnamed = closers.take_unnamed();
        let named = unnamed.into_iter().map(|pair| (pair, Who::new(pair.0, None, None))).collect();
        closers.name(named, now);
    }

    fn shown(closers: &Closers) -> Vec<(String, u64)> {
        closers.series().0.into_iter().map(|(who, count)| (who.comm.clone(), count)).collect()
    }

    #[test]
    fn cgroups_of_one_label_set_are_added_up_and_the_rest_is_other() {
        let mut closers = Closers::new(2);
        for (comm, cgroup_id) in [("a", 1), ("a", 2), ("b", 1), ("c", 1), ("c", 1)] {
            count(&mut closers, comm, cgroup_id, 1);
        }
        closers.add(None, 1);
        assert_eq!(shown(&closers), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!((closers.series().1, closers.series().2), (1, 2));
    }

    #[test]
    fn the_idle_make_room() {
        let mut closers = Closers::new(2);
        count(&mut closers, "a", 1, 1);
        count(&mut closers, "a", 2, IDLE_NS);
        count(&mut closers, "b", 1, 1);
        count(&mut closers, "c", 1, IDLE_NS + 2);
        // One of the two pairs of `a` was idle, but not the label set.
        assert_eq!(shown(&closers).into_iter().map(|(comm, _)| comm).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(closers.series().2, 0);
    }

    #[test]
    fn what_has_no_name_yet_is_not_shown() {
        let mut closers = Closers::new(2);
        closers.add(Some(&owner("a", 1)), 1);
        assert!(shown(&closers).is_empty());
    }
}
