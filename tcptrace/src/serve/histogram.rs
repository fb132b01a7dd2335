//! Dwells folded into buckets as they end: constant cost, constant memory, the same buckets on every host.
//!
//! Two sets of buckets, because two generations of Prometheus read them: explicit bounds (classic) and
//! exponential ones (native). Both are fixed, so that the histograms of hosts can be added.

/// Upper bounds of the classic buckets, seconds. Close together around what the kernel's timers make: 60 s and
/// up to 2, 4 or 5 s of the timer wheel's lateness, `tcp_fin_timeout` as people set it (5, 10, 15, 30).
pub const BOUNDS_S: [f64; 25] = [
    0.001, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 59.0, 60.0, 60.5, 61.0, 61.5, 62.0,
    63.0, 65.0, 120.0, 300.0, 900.0, 3600.0, 86_400.0,
];

/// Resolution of the native buckets: 2⁴ of them for every doubling, each 4.4 % wider than the one before. A
/// TIME_WAIT of 60 to 62 s falls into two of them.
pub const SCHEMA: i32 = 4;
/// Dwells shorter than this are counted as zero: no dwell is, the clock has nanoseconds. Prometheus' own default
/// (2⁻¹²⁸), whose presence also tells it that an empty histogram is native.
pub const ZERO_THRESHOLD_S: f64 = 2.938_735_877_055_719e-39;

/// Index of the bucket that holds a nanosecond: ⌈log₂(10⁻⁹)·2⁴⌉.
const FIRST: i32 = -478;
/// Index of the bucket that holds 2²⁵ s, 388 days: what is longer is counted there.
const LAST: i32 = 25 << SCHEMA;
const NATIVE: usize = (LAST - FIRST + 1) as usize;

/// Dwells of one state and phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// By the first bound that the dwell does not exceed; the last is for what exceeds all.
    classic: [u64; BOUNDS_S.len() + 1],
    native: [u64; NATIVE],
    /// Of no length at all.
    zeros: u64,
    sum_ns: u128,
}

/// Neighbouring native buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the first: it reaches up to 2^(index/2⁴) seconds.
    pub first: i32,
    /// How many dwells each holds.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { classic: [0; BOUNDS_S.len() + 1], native: [0; NATIVE], zeros: 0, sum_ns: 0 }
    }
}

impl Histogram {
    /// Counts a dwell.
    pub fn record(&mut self, dwell_ns: u64) {
        let seconds = dwell_ns as f64 / 1e9;
        self.classic[BOUNDS_S.partition_point(|&bound| bound < seconds)] += 1;
        self.sum_ns += u128::from(dwell_ns);
        if dwell_ns == 0 {
            self.zeros += 1;
            return;
        }
        // Bounds between powers of two are irrational, so that no dwell lies on one; powers of two are exact.
        let index = (seconds.log2() * f64::from(1 << SCHEMA)).ceil() as i32;
        let slot = index.clamp(FIRST, LAST) - FIRST;
        self.native[usize::try_from(slot).unwrap_or(0)] += 1;
    }

    /// Dwells counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classic.iter().sum()
    }

    /// Sum of the dwells, seconds.
    #[must_use]
    pub fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Dwells of no length.
    #[must_use]
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Bounds and how many dwells do not exceed each, the last bound infinite.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_S.into_iter().chain([f64::INFINITY]);
        bounds.zip(&self.classic).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }

    /// The native buckets that hold anything, neighbours together.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for (index, &count) in (FIRST..).zip(&self.native).filter(|&(_, &count)| count > 0) {
            match spans.last_mut() {
                Some(span) if span.first + span.counts.len() as i32 == index => span.counts.push(count),
                _ => spans.push(Span { first: index, counts: vec![count] }),
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Upper bound of a native bucket, seconds.
    fn upper(index: i32) -> f64 {
        (f64::from(index) / f64::from(1 << SCHEMA)).exp2()
    }

    #[test]
    fn bounds_ascend() {
        assert!(BOUNDS_S.is_sorted());
        assert!(BOUNDS_S.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn powers_of_two_belong_to_the_bucket_below() {
        let mut histogram = Histogram::default();
        histogram.record(1_000_000_000);
        histogram.record(2_000_000_000);
        histogram.record(2_000_000_001);
        let spans = histogram.spans();
        assert_eq!(spans, [Span { first: 0, counts: vec![1] }, Span { first: 16, counts: vec![1, 1] }]);
    }

    #[test]
    fn extremes_are_counted_at_the_ends() {
        let mut histogram = Histogram::default();
        for ns in [0, 1, u64::MAX] {
            histogram.record(ns);
        }
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.zeros(), 1);
        let firsts: Vec<_> = histogram.spans().iter().map(|span| span.first).collect();
        assert_eq!(firsts, [FIRST, LAST]);
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative.first(), Some(&(0.001, 2)));
        assert_eq!(cumulative.last(), Some(&(f64::INFINITY, 3)));
    }

    proptest! {
        #[test]
        fn every_dwell_is_in_its_buckets(ns in 1..=33_000_000_000_000_000_u64) {
            let mut histogram = Histogram::default();
            histogram.record(ns);
            let seconds = ns as f64 / 1e9;
            let spans = histogram.spans();
            prop_assert_eq!(spans.len(), 1);
            let index = spans[0].first;
            prop_assert!(upper(index - 1) < seconds * (1.0 + 1e-12) && seconds <= upper(index) * (1.0 + 1e-12));
            for (bound, count) in histogram.cumulative() {
                prop_assert_eq!(count == 1, seconds <= bound);
            }
        }
    }
}
