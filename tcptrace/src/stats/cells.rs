//! The grid of durations: HdrHistogram's cells at three significant digits over microseconds.
//!
//! Totals use HdrHistogram itself (an index and an increment). Collections of single keys, of which there may
//! be thousands, keep the same cells in a map, because each of them holds few: the TIME_WAITs of one process
//! fall into some 60 cells, where a full histogram takes 230 KB.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use crate::snapshot::Bucket;

/// Shortest duration that is told apart, microseconds; what is shorter shares the cell of 0.
pub const LOWEST_US: u64 = 1;
/// Longest duration that has a cell of its own, microseconds: 24 h. What is longer is in the last cell.
pub const HIGHEST_US: u64 = 24 * 60 * 60 * 1_000_000;
/// Significant decimal digits that a cell keeps.
pub const DIGITS: u8 = 3;

const NS_PER_US: u64 = 1000;

/// An empty histogram: only asked where its cells lie.
static GRID: LazyLock<Histogram<u64>> = LazyLock::new(histogram);

/// An empty histogram with the bounds that all of ours have.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_US, HIGHEST_US, DIGITS).expect("the bounds are constants and valid")
}

/// The histogram that some buckets came from, for the formats of HdrHistogram (microseconds).
#[must_use]
pub fn histogram_of(buckets: &[Bucket]) -> Histogram<u64> {
    let mut histogram = histogram();
    for bucket in buckets {
        histogram.saturating_record_n(bucket.ge_ns / NS_PER_US, bucket.count);
    }
    histogram
}

/// The cell that a duration falls into.
#[must_use]
pub fn cell_of(ns: u64, count: u64) -> Bucket {
    bucket_at((ns / NS_PER_US).min(HIGHEST_US), count)
}

fn bucket_at(us: u64, count: u64) -> Bucket {
    Bucket {
        ge_ns: GRID.lowest_equivalent(us) * NS_PER_US,
        le_ns: GRID.next_non_equivalent(us) * NS_PER_US - 1,
        count,
    }
}

/// Cells of several histograms added up, ascending.
pub(crate) fn added<'a>(histograms: impl Iterator<Item = &'a [Bucket]>) -> Vec<Bucket> {
    let mut counts: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for bucket in histograms.flatten() {
        *counts.entry((bucket.ge_ns, bucket.le_ns)).or_default() += bucket.count;
    }
    counts.into_iter().map(|((ge_ns, le_ns), count)| Bucket { ge_ns, le_ns, count }).collect()
}

/// Counts of durations by cell.
#[derive(Clone, Debug)]
pub(crate) enum Cells {
    /// HdrHistogram: 230 KB, the cheapest to record into.
    Dense(Box<Histogram<u64>>),
    /// The cells that hold anything, by their lowest microsecond.
    Sparse(FxHashMap<u64, u64>),
}

impl Cells {
    pub(crate) fn dense() -> Self {
        Self::Dense(Box::new(histogram()))
    }

    pub(crate) fn sparse() -> Self {
        Self::Sparse(FxHashMap::default())
    }

    /// Counts one duration. Allocates only when a sparse map meets a cell for the first time.
    pub(crate) fn record(&mut self, ns: u64) {
        let us = (ns / NS_PER_US).min(HIGHEST_US);
        match self {
            Self::Dense(histogram) => histogram.saturating_record(us),
            Self::Sparse(cells) => *cells.entry(GRID.lowest_equivalent(us)).or_default() += 1,
        }
    }

    /// Adds the counts of another to a sparse one or a dense one.
    pub(crate) fn merge(&mut self, other: &Self) {
        for bucket in other.buckets() {
            let us = bucket.ge_ns / NS_PER_US;
            match self {
                Self::Dense(histogram) => histogram.saturating_record_n(us, bucket.count),
                Self::Sparse(cells) => *cells.entry(us).or_default() += bucket.count,
            }
        }
    }

    /// The cells that hold anything, ascending.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        match self {
            Self::Dense(histogram) => histogram
                .iter_recorded()
                .map(|value| bucket_at(value.value_iterated_to().min(HIGHEST_US), value.count_at_value()))
                .collect(),
            Self::Sparse(cells) => {
                let mut buckets: Vec<_> = cells.iter().map(|(&us, &count)| bucket_at(us, count)).collect();
                buckets.sort_unstable();
                buckets
            }
        }
    }
}

/// The duration that the share `q` of all counted ones does not exceed, to the precision of the cells: the
/// upper edge of the cell that holds the ⌈q·n⌉-th. `None` when there are none.
#[must_use]
pub fn quantile(buckets: &[Bucket], q: f64) -> Option<u64> {
    let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let mut rank = nearest_rank(total, q)?;
    buckets
        .iter()
        .find(|bucket| {
            let found = rank <= bucket.count;
            rank = rank.saturating_sub(bucket.count);
            found
        })
        .map(|bucket| bucket.le_ns)
}

/// ⌈q·n⌉, at least 1, in integers: as a float 0.07 · 100 is a little more than 7.
fn nearest_rank(total: u64, q: f64) -> Option<u64> {
    const PARTS: u128 = 1_000_000_000;
    let parts = (q.clamp(0.0, 1.0) * PARTS as f64).round() as u128;
    let rank = (u128::from(total) * parts).div_ceil(PARTS).max(1);
    u64::try_from(rank).ok().filter(|_| total > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cell_holds_what_falls_into_it_to_three_digits() {
        for ns in [0, 1, 999, 1000, 2_424, 3_000_000, 60_567_123_456, 86_400_000_000_000] {
            let cell = cell_of(ns, 1);
            assert!(cell.ge_ns <= ns && ns <= cell.le_ns, "{ns} in {cell:?}");
            assert!(cell.le_ns - cell.ge_ns < 1000 + ns / 1000, "{cell:?}");
        }
    }

    #[test]
    fn what_is_longer_than_a_day_is_in_the_last_cell() {
        assert_eq!(cell_of(u64::MAX, 1), cell_of(86_400_000_000_000, 1));
        let mut dense = Cells::dense();
        dense.record(u64::MAX);
        assert_eq!(dense.buckets(), [cell_of(u64::MAX, 1)]);
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let buckets: Vec<_> =
            (1..=100).map(|ns| Bucket { ge_ns: ns, le_ns: ns, count: 1 }).collect::<Vec<_>>();
        for (q, expected) in [(0.0, 1), (0.07, 7), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)] {
            assert_eq!(quantile(&buckets, q), Some(expected), "q {q}");
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn dense_and_sparse_have_the_same_cells(durations: Vec<u64>) {
            let (mut dense, mut sparse) = (Cells::dense(), Cells::sparse());
            for &ns in &durations {
                dense.record(ns);
                sparse.record(ns);
            }
            prop_assert_eq!(dense.buckets(), sparse.buckets());
            let total: u64 = dense.buckets().iter().map(|bucket| bucket.count).sum();
            prop_assert_eq!(total, durations.len() as u64);
            prop_assert_eq!(histogram_of(&dense.buckets()), *match dense { Cells::Dense(h) => h, Cells::Sparse(_) => unreachable!() });
        }
    }
}
