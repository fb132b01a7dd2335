//! How fast counts of many keys move, from a few looks at them.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::event::MonoNs;

/// Looks are kept this far apart, and for this long.
const APART_NS: u64 = 3_000_000_000;
const KEPT_NS: u64 = 30_000_000_000;

/// Counts at some moments of the last half minute. The lists that they come from are bounded, and so is this.
#[derive(Clone, Debug)]
pub struct Recent<K> {
    looks: VecDeque<(MonoNs, FxHashMap<K, u64>)>,
}

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self { looks: VecDeque::new() }
    }
}

impl<K: Eq + Hash> Recent<K> {
    /// Keeps a look for those that come later.
    pub fn keep(&mut self, now: MonoNs, counts: impl Iterator<Item = (K, u64)>) {
        if self.looks.back().is_some_and(|(at, _)| now.saturating_sub(*at) < APART_NS) {
            return;
        }
        self.looks.push_back((now, counts.collect()));
        while self.looks.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= KEPT_NS) {
            self.looks.pop_front();
        }
    }

    /// Growth per second since the first look that is kept. What was not in it was 0. `None` before there is a
    /// look that is old enough.
    #[must_use]
    pub fn per_second(&self, key: &K, now: MonoNs, count: u64) -> Option<f64> {
        let (at, before) = self.looks.front()?;
        let ns = now.saturating_sub(*at);
        let before = before.get(key).copied().unwrap_or(0);
        (ns >= APART_NS).then(|| (count as f64 - before as f64) / (ns as f64 / 1e9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn rates_are_those_of_the_last_half_minute() {
        let mut recent = Recent::default();
        for second in 0..100 {
            recent.keep(second * S, [("a", second * 10), ("b", 7)].into_iter());
        }
        assert_eq!(recent.per_second(&"a", 99 * S, 990), Some(10.0));
        assert_eq!(recent.per_second(&"b", 99 * S, 7), Some(0.0));
        assert!(recent.looks.len() <= 12);
    }

    #[test]
    fn one_look_is_no_rate() {
        let mut recent = Recent::default();
        recent.keep(5 * S, [("a", 1)].into_iter());
        assert_eq!(recent.per_second(&"a", 6 * S, 2), None);
        assert_eq!(recent.per_second(&"new", 9 * S, 8), Some(2.0));
    }
}
