//! The most frequent of arbitrarily many, in bounded memory.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::snapshot::Ranking;

/// Misra and Gries' summary (Finding Repeated Elements, Science of Computer Programming 2, 1982): at most
/// `limit` counters, each too low by at most `n / (limit + 1)` after `n` counts, and exact while no more than
/// `limit` different keys came. Chosen over the space-saving algorithm because its counts are lower bounds: a
/// process is never blamed for more than it did.
#[derive(Clone, Debug)]
pub(crate) struct Tally<K> {
    counts: FxHashMap<K, u64>,
    limit: usize,
    undercount: u64,
}

impl<K: Eq + Hash + Ord + Clone> Tally<K> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { counts: FxHashMap::default(), limit, undercount: 0 }
    }

    /// Counts one. The sweep over all counters pays back what at least as many counts before it paid in, so
    /// that a count costs O(1) on average whatever the keys are.
    pub(crate) fn add(&mut self, key: K) {
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < self.limit {
            self.counts.insert(key, 1);
        } else {
            self.undercount += 1;
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// The `most` most frequent; equal counts in the order of the keys, so that the same input always gives
    /// the same list.
    pub(crate) fn ranking(&self, most: usize) -> Ranking<K> {
        let mut top: Vec<_> = self.counts.iter().map(|(key, &count)| (key.clone(), count)).collect();
        top.sort_unstable_by(|(a_key, a), (b_key, b)| b.cmp(a).then_with(|| a_key.cmp(b_key)));
        top.truncate(most);
        Ranking { top, undercount: self.undercount }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exact_while_there_is_room() {
        let mut tally = Tally::new(3);
        "abacab".chars().for_each(|c| tally.add(c));
        assert_eq!(tally.ranking(2), Ranking { top: vec![('a', 3), ('b', 2)], undercount: 0 });
    }

    #[test]
    fn a_heavy_one_is_found_among_a_million_light_ones() {
        let mut tally = Tally::new(100);
        for n in 0..1_000_000_u32 {
            tally.add(if n % 2 == 0 { u32::MAX } else { n });
        }
        let ranking = tally.ranking(1);
        assert_eq!(ranking.top[0].0, u32::MAX);
        assert!(ranking.undercount <= 1_000_000 / 101);
        assert!(ranking.top[0].1 + ranking.undercount >= 500_000);
    }

    proptest! {
        #[test]
        fn counts_are_lower_bounds_within_the_stated_undercount(keys in prop::collection::vec(0u8..30, 0..500)) {
            let mut tally = Tally::new(8);
            keys.iter().for_each(|&key| tally.add(key));
            let ranking = tally.ranking(usize::MAX);
            prop_assert!(ranking.top.len() <= 8);
            prop_assert!(ranking.undercount <= keys.len() as u64 / 9);
            for (key, count) in ranking.top {
                let truth = keys.iter().filter(|&&other| other == key).count() as u64;
                prop_assert!(count <= truth && truth <= count + ranking.undercount);
            }
        }
    }
}
