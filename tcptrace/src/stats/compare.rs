//! Did it change? Two samples of dwells compared, the open ones included.
//!
//! Everything works on what [`Survival`] holds, counts of ends and of open dwells by duration. So nothing here
//! needs the single dwells, and a comparison costs the same for a thousand and for a hundred million of them.
//!
//! * **Changed?** How many dwells last longer in one sample than in the other *by more than matters*
//!   ([`CARE`])? The largest such share is the distance, and permutation says how often chance alone brings
//!   samples so far apart (Good P.: Permutation, Parametric and Bootstrap Tests of Hypotheses, 3rd ed.,
//!   Springer 2005). A plain test of equality is no use here: with a hundred thousand dwells it finds that
//!   CLOSE_WAIT lasts 8 µs instead of 9, which is true and means nothing. Unlike the log-rank test it also
//!   sees curves that cross. The log-rank test of plain equality is given beside it (Mantel N.: Evaluation of
//!   survival data and two new rank order statistics arising in its consideration. Cancer Chemotherapy Reports
//!   50 (1966), 163-170).
//! * **Several states at once** are one family: Holm's step-down procedure keeps the chance of any false
//!   alarm below [`ALPHA`] (Holm S.: A simple sequentially rejective multiple test procedure. Scandinavian
//!   Journal of Statistics 6 (1979), 65-70).
//! * **By how much?** Percentile bootstrap of the difference of each percentile (Efron B.: Bootstrap methods:
//!   another look at the jackknife. Annals of Statistics 7 (1979), 1-26), resampled cell by cell with Poisson
//!   weights (Chamandy N. et al.: Estimating uncertainty for massive data streams. Google, 2012).
//! * **No change, or not enough data to tell?** Absence of proof is no proof of absence: "no change" is said
//!   only where the interval of the median's difference lies within [`MARGIN`] of the median.
//!
//! Random numbers are seeded: the same input gives the same answer.

mod bootstrap;
mod draw;
mod table;

use fastrand::Rng;

use bootstrap::differences;
use table::Table;

use super::survival::Survival;

/// Chance of a false alarm over all states that are compared together.
pub const ALPHA: f64 = 0.05;
/// Fewer ends than this on either side tell nothing: the tests' distributions do not hold there.
pub const MIN_EVENTS: u64 = 10;
/// A difference of the median that is smaller than this share of it is no change that anyone would care for.
pub const MARGIN: f64 = 0.2;
/// The same in nanoseconds, for states that last microseconds: scheduling alone moves them by more.
pub const MARGIN_NS: f64 = 1e6;
/// Dwells that differ by less than this share and [`CARE_NS`] together count as equal.
pub const CARE: f64 = 0.02;
/// Nanoseconds; see [`CARE`].
pub const CARE_NS: u64 = 1_000_000;
/// Permutations (fewer in tests, which are built without optimisation): the smallest p-value is then 0.001, enough for
/// Holm over fifty comparisons. For larger families it grows with them.
const PERMUTATIONS: u32 = if cfg!(test) { 199 } else { 999 };
/// Bootstrap samples: the ends of a 95 % interval are then the 25th of 1,000 from either side.
const RESAMPLES: usize = if cfg!(test) { 200 } else { 1000 };

/// The percentiles that are compared, with the names that JSON gives them.
pub const METRICS: [(&str, f64); 3] = [("p50_ns", 0.50), ("p90_ns", 0.90), ("p99_ns", 0.99)];

/// What can be said about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The two differ.
    Changed,
    /// They do not differ by anything that matters.
    Unchanged,
    /// Neither could be shown.
    NotEnoughData,
}

/// The difference of one percentile, b minus a.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// As in JSON.
    pub metric: &'static str,
    /// In the first sample, nanoseconds; `None` where the curve does not fall so far.
    pub a: Option<u64>,
    /// In the second.
    pub b: Option<u64>,
    /// 95 % interval of `b - a`, nanoseconds; `None` where either is not reached in too many of the resamples.
    pub ci95: Option<(i64, i64)>,
}

impl Difference {
    /// It is certain that this percentile moved by more than matters ([`CARE`]), or that one side does not reach it.
    #[must_use]
    pub fn matters(&self) -> bool {
        match (self.a, self.b, self.ci95) {
            (Some(a), Some(b), Some((low, high))) => {
                let care = i64::try_from(care_ns(a.min(b))).unwrap_or(i64::MAX);
                low > care || high < -care
            }
            (a, b, _) => a.is_some() != b.is_some(),
        }
    }

    /// It is certain that it did not.
    #[must_use]
    pub fn is_negligible(&self) -> bool {
        let (Some(a), Some(b), Some((low, high))) = (self.a, self.b, self.ci95) else { return false };
        let care = i64::try_from(care_ns(a.min(b))).unwrap_or(i64::MAX);
        low >= -care && high <= care
    }
}

/// Where two survival curves are farthest apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// The largest share of dwells that last longer in one sample than in the other by more than [`CARE`], in
    /// [0, 1].
    pub share: f64,
    /// So many more last longer than this, nanoseconds; `None` when the curves are the same as far as anyone would
    /// care.
    pub at_ns: Option<u64>,
    /// It is in the second sample that they last longer.
    pub is_b_longer: bool,
}

/// What counts as equal to a dwell of this length, nanoseconds more or less.
fn care_ns(ns: u64) -> u64 {
    (ns as f64 * CARE) as u64 + CARE_NS
}

/// Two samples compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Ends in the first sample.
    pub events_a: u64,
    /// Ends in the second sample.
    pub events_b: u64,
    /// Between the two survival curves.
    pub distance: Distance,
    /// Chance of such a distance between samples of the same kind, in [0, 1]; `None` with fewer than
    /// [`MIN_EVENTS`] ends on either side.
    pub p_value: Option<f64>,
    /// p-value of the log-rank test of plain equality; `None` as `p_value`.
    pub log_rank_p: Option<f64>,
    /// The same after Holm's correction for everything that was compared together.
    pub p_adjusted: Option<f64>,
    /// Percentiles.
    pub differences: Vec<Difference>,
    /// The conclusion.
    pub verdict: Verdict,
}

/// Compares pairs of samples as one family. Each pair gets its own stream of random numbers from `seed`.
#[must_use]
pub fn compare_all(pairs: &[(&Survival, &Survival)], seed: u64) -> Vec<Comparison> {
    // Twice what Holm's smallest threshold takes.
    let permutations = PERMUTATIONS.max((2.0 * pairs.len() as f64 / ALPHA) as u32);
    let mut all: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(index, (a, b))| {
            compare(a, b, permutations, &mut Rng::with_seed(seed.wrapping_add(index as u64)))
        })
        .collect();
    adjust(&mut all);
    all
}

fn compare(a: &Survival, b: &Survival, permutations: u32, rng: &mut Rng) -> Comparison {
    let table = Table::of([a, b]);
    let distance = table.distance();
    let enough = a.events >= MIN_EVENTS && b.events >= MIN_EVENTS;
    let p_value = enough.then(|| table.permuted(distance.share, permutations, rng));
    Comparison {
        events_a: a.events,
        events_b: b.events,
        distance,
        p_value,
        log_rank_p: enough.then(|| table.log_rank()),
        p_adjusted: p_value,
        differences: differences(a, b, rng),
        verdict: Verdict::NotEnoughData,
    }
}

/// Holm's procedure, then the verdicts.
fn adjust(all: &mut [Comparison]) {
    let mut order: Vec<usize> = (0..all.len()).filter(|&index| all[index].p_value.is_some()).collect();
    order.sort_by(|&a, &b| all[a].p_value.partial_cmp(&all[b].p_value).unwrap_or(std::cmp::Ordering::Equal));
    let tests = order.len();
    let mut largest: f64 = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        if let Some(p) = all[index].p_value {
            largest = largest.max((p * (tests - rank) as f64).min(1.0));
            all[index].p_adjusted = Some(largest);
        }
    }
    for comparison in all {
        comparison.verdict = match comparison.p_adjusted {
            Some(p) if p < ALPHA => Verdict::Changed,
            Some(_) if comparison.differences.first().is_some_and(is_within_margin) => Verdict::Unchanged,
            _ => Verdict::NotEnoughData,
        };
    }
}

/// The whole interval lies within what nobody would call a change.
fn is_within_margin(difference: &Difference) -> bool {
    let (Some(a), Some((low, high))) = (difference.a, difference.ci95) else { return false };
    let margin = (MARGIN * a as f64).max(MARGIN_NS);
    low as f64 >= -margin && high as f64 <= margin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Bucket;
    use crate::stats::survival::Longest;

    const MS: u64 = 1_000_000;

    fn sample(ended: &[u64], open: &[u64]) -> Survival {
        let buckets = |values: &[u64]| {
            let mut values = values.to_vec();
            values.sort_unstable();
            values
                .chunk_by(|a, b| a == b)
                .map(|same| Bucket { ge_ns: same[0], le_ns: same[0], count: same.len() as u64 })
                .collect::<Vec<_>>()
        };
        let longest =
            Longest { finished_ns: ended.iter().max().copied(), open_ns: open.iter().max().copied() };
        Survival::estimate(&buckets(ended), &buckets(open), longest, 0)
    }

    fn drawn(rng: &mut Rng, n: usize, from: u64, spread: u64) -> Vec<u64> {
        (0..n).map(|_| (from + rng.u64(0..spread)) * MS).collect()
    }

    /// Freireich et al. 1963: remission of leukaemia, 6-MP against placebo, the textbook example of the
    /// log-rank test: chi-square 16.79.
    #[test]
    fn log_rank_agrees_with_the_textbook() {
        let treated =
            sample(&[6, 6, 6, 7, 10, 13, 16, 22, 23], &[6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]);
        let placebo = sample(&[1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23], &[]);
        let table = Table::of([&treated, &placebo]);
        let p = table.log_rank();
        assert!((p - 4.17e-5).abs() < 0.05e-5, "{p}");
    }

    #[test]
    fn halves_of_one_sample_are_not_found_to_differ_too_often() {
        let mut false_alarms = 0;
        for seed in 0..40 {
            let mut rng = Rng::with_seed(seed);
            let halves: Vec<_> = (0..3)
                .map(|_| {
                    (
                        sample(&drawn(&mut rng, 120, 60_000, 2_048), &[]),
                        sample(&drawn(&mut rng, 120, 60_000, 2_048), &[]),
                    )
                })
                .collect();
            let pairs: Vec<_> = halves.iter().map(|(a, b)| (a, b)).collect();
            let all = compare_all(&pairs, seed);
            assert!(all.iter().all(|one| one.verdict != Verdict::NotEnoughData));
            false_alarms += usize::from(all.iter().any(|one| one.verdict == Verdict::Changed));
        }
        // 2 are expected; 6 or more have a chance of 1.4 %.
        assert!(false_alarms <= 5, "{false_alarms} of 40");
    }

    #[test]
    fn a_real_change_is_found_and_measured() {
        for seed in 0..10 {
            let mut rng = Rng::with_seed(seed);
            let a = sample(&drawn(&mut rng, 60, 5_000, 260), &[MS, 3 * MS]);
            let b = sample(&drawn(&mut rng, 60, 3_000, 260), &[2 * MS]);
            let all = compare_all(&[(&a, &b)], seed);
            assert_eq!(all[0].verdict, Verdict::Changed);
            let (low, high) = all[0].differences[0].ci95.expect("both reached");
            assert!(low < -1_900_000_000 && high > -2_100_000_000 && low <= high, "{low} {high}");
        }
    }

    #[test]
    fn curves_that_cross_are_found_to_differ() {
        let mut rng = Rng::with_seed(1);
        let narrow = sample(&drawn(&mut rng, 300, 500, 2), &[]);
        let wide = sample(&drawn(&mut rng, 300, 1, 1_000), &[]);
        assert_eq!(compare_all(&[(&narrow, &wide)], 7)[0].verdict, Verdict::Changed);
    }

    #[test]
    fn little_data_is_no_proof_of_anything() {
        let few = sample(&[5 * MS; 3], &[]);
        let many = sample(&[5 * MS; 300], &[]);
        assert_eq!(compare_all(&[(&few, &many)], 1)[0].verdict, Verdict::NotEnoughData);
        // Enough of them, but all over the place: a change of a fifth could hide in it.
        let mut rng = Rng::with_seed(3);
        let (a, b) =
            (sample(&drawn(&mut rng, 12, 1, 60_000), &[]), sample(&drawn(&mut rng, 12, 1, 60_000), &[]));
        assert_eq!(compare_all(&[(&a, &b)], 1)[0].verdict, Verdict::NotEnoughData);
        let nothing = Survival::default();
        assert_eq!(compare_all(&[(&nothing, &nothing)], 1)[0].verdict, Verdict::NotEnoughData);
    }

    #[test]
    fn a_difference_that_nobody_cares_about_is_no_change() {
        let eight = sample(&(0..5_000).map(|n| 8_000 + n % 100).collect::<Vec<_>>(), &[]);
        let nine = sample(&(0..5_000).map(|n| 9_000 + n % 100).collect::<Vec<_>>(), &[]);
        let all = compare_all(&[(&eight, &nine)], 1);
        assert_eq!(all[0].verdict, Verdict::Unchanged);
        assert!(all[0].log_rank_p.is_some_and(|p| p < 1e-6), "plain equality is refuted all the same");
    }

    #[test]
    fn what_never_ends_on_one_side_is_a_change() {
        let mut rng = Rng::with_seed(5);
        let closed = sample(&drawn(&mut rng, 200, 1, 100), &[]);
        let leaked = sample(&drawn(&mut rng, 20, 1, 100), &drawn(&mut rng, 180, 10_000, 100));
        let all = compare_all(&[(&closed, &leaked)], 1);
        assert_eq!(all[0].verdict, Verdict::Changed);
        assert_eq!(all[0].differences[0].b, None);
        assert_eq!(all[0].differences[0].ci95, None);
    }

    #[test]
    fn the_same_seed_gives_the_same_answer() {
        let mut rng = Rng::with_seed(9);
        let (a, b) = (sample(&drawn(&mut rng, 90, 1, 90), &[]), sample(&drawn(&mut rng, 90, 1, 95), &[]));
        assert_eq!(compare_all(&[(&a, &b)], 4), compare_all(&[(&a, &b)], 4));
    }
}
