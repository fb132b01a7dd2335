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

use std::collections::BTreeMap;

use fastrand::Rng;

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

/// Two samples compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Ends in the first sample.
    pub events_a: u64,
    /// Ends in the second sample.
    pub events_b: u64,
    /// The largest share of dwells that last longer in one sample than in the other by more than [`CARE`], in
    /// [0, 1]: the distance between the two survival curves.
    pub distance: f64,
    /// Where it is, nanoseconds; `None` when the curves are the same as far as anyone would care.
    pub distance_at_ns: Option<u64>,
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
    let (distance, distance_at_ns) = table.distance();
    let enough = a.events >= MIN_EVENTS && b.events >= MIN_EVENTS;
    let p_value = enough.then(|| table.permuted(distance, permutations, rng));
    Comparison {
        events_a: a.events,
        events_b: b.events,
        distance,
        distance_at_ns,
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
            Some(_) if comparison.differences.first().is_some_and(is_negligible) => Verdict::Unchanged,
            _ => Verdict::NotEnoughData,
        };
    }
}

/// The whole interval lies within what nobody would call a change.
fn is_negligible(difference: &Difference) -> bool {
    let (Some(a), Some((low, high))) = (difference.a, difference.ci95) else { return false };
    let margin = (MARGIN * a as f64).max(MARGIN_NS);
    low as f64 >= -margin && high as f64 <= margin
}

/// Both samples on one time axis.
struct Table {
    rows: Vec<Row>,
    /// Censored after the last row.
    after: [u64; 2],
}

/// A moment at which something ended: first what was censored since the row before, then what ended here.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    ns: u64,
    censored: [u64; 2],
    ended: [u64; 2],
}

impl Table {
    fn of(samples: [&Survival; 2]) -> Self {
        let mut moments: BTreeMap<u64, Row> = BTreeMap::new();
        let mut after = [0, 0];
        for (side, sample) in samples.into_iter().enumerate() {
            for step in &sample.curve {
                moments.entry(step.ns).or_default().ended[side] += step.ended;
            }
        }
        for (side, sample) in samples.into_iter().enumerate() {
            for open in &sample.open {
                // Ends count before censorings in the same moment: it is gone in the next.
                match moments.range_mut(open.le_ns + 1..).next() {
                    Some((_, row)) => row.censored[side] += open.count,
                    None => after[side] += open.count,
                }
            }
        }
        Self { rows: moments.into_iter().map(|(ns, row)| Row { ns, ..row }).collect(), after }
    }

    fn totals(&self) -> [u64; 2] {
        let total = |side: usize| {
            self.after[side] + self.rows.iter().map(|row| row.censored[side] + row.ended[side]).sum::<u64>()
        };
        [total(0), total(1)]
    }

    /// Calls `visit` with each row and how many were at risk in it.
    fn walk(&self, mut visit: impl FnMut(&Row, [u64; 2])) {
        let mut at_risk = self.totals();
        for row in &self.rows {
            for (at_risk, censored) in at_risk.iter_mut().zip(row.censored) {
                *at_risk -= censored;
            }
            visit(row, at_risk);
            for (at_risk, ended) in at_risk.iter_mut().zip(row.ended) {
                *at_risk -= ended;
            }
        }
    }

    /// The largest distance by which one product-limit curve lies above the other once that is moved to the
    /// right by what nobody cares about; and where.
    fn distance(&self) -> (f64, Option<u64>) {
        let curves = self.curves();
        let (mut largest, mut place) = (0.0, None);
        let mut moved = 0;
        for (index, row) in self.rows.iter().enumerate() {
            let until = row.ns + (row.ns as f64 * CARE) as u64 + CARE_NS;
            while moved + 1 < self.rows.len() && self.rows[moved + 1].ns <= until {
                moved += 1;
            }
            for (longer, shorter) in [(0, 1), (1, 0)] {
                // Beyond its last observation a curve is not known.
                if let (Some(longer), Some(shorter)) =
                    (curves[moved.max(index)][longer], curves[index][shorter])
                    && longer - shorter > largest
                {
                    (largest, place) = (longer - shorter, Some(row.ns));
                }
            }
        }
        (largest, place)
    }

    /// Both curves after each row.
    fn curves(&self) -> Vec<[Option<f64>; 2]> {
        let mut curves = Vec::with_capacity(self.rows.len());
        let mut longer = [1.0_f64; 2];
        self.walk(|row, at_risk| {
            let mut point = [None; 2];
            for side in 0..2 {
                if at_risk[side] > 0 {
                    longer[side] *= (at_risk[side] - row.ended[side]) as f64 / at_risk[side] as f64;
                }
                if at_risk[side] > 0 || longer[side] == 0.0 {
                    point[side] = Some(longer[side]);
                }
            }
            curves.push(point);
        });
        curves
    }

    /// Two-sided p-value of the log-rank test.
    fn log_rank(&self) -> f64 {
        let (mut observed, mut expected, mut variance) = (0.0, 0.0, 0.0);
        self.walk(|row, at_risk| {
            let (n_a, n) = (at_risk[0] as f64, (at_risk[0] + at_risk[1]) as f64);
            let ended = (row.ended[0] + row.ended[1]) as f64;
            observed += row.ended[0] as f64;
            expected += ended * n_a / n;
            if n > 1.0 {
                variance += ended * (n_a / n) * (1.0 - n_a / n) * (n - ended) / (n - 1.0);
            }
        });
        if variance <= 0.0 {
            return 1.0;
        }
        two_sided((observed - expected) / f64::sqrt(variance))
    }

    /// Share of random regroupings of all dwells whose curves are as far apart as these.
    fn permuted(&self, distance: f64, permutations: u32, rng: &mut Rng) -> f64 {
        let [size_a, size_b] = self.totals();
        let mut as_far = 0;
        for _ in 0..permutations {
            let mut left = [size_a, size_b];
            let rows = self.rows.iter().map(|row| Row {
                ns: row.ns,
                censored: deal(row.censored[0] + row.censored[1], &mut left, rng),
                ended: deal(row.ended[0] + row.ended[1], &mut left, rng),
            });
            let shuffled = Self { rows: rows.collect(), after: left };
            // Sums in another order differ in the last digit.
            as_far += u32::from(shuffled.distance().0 >= distance - 1e-12);
        }
        f64::from(as_far + 1) / f64::from(permutations + 1)
    }
}

/// Deals `count` dwells to the two sides, each of which still wants `left`: hypergeometric. Large counts by
/// their normal approximation.
fn deal(count: u64, left: &mut [u64; 2], rng: &mut Rng) -> [u64; 2] {
    let total = left[0] + left[1];
    if count == 0 || total == 0 {
        return [0, 0];
    }
    let to_a = if count <= 64 {
        let (mut a, mut b) = (left[0], left[1]);
        for _ in 0..count {
            if rng.u64(0..a + b) < a { a -= 1 } else { b -= 1 }
        }
        left[0] - a
    } else {
        let share = left[0] as f64 / total as f64;
        let correction = (total - count) as f64 / (total as f64 - 1.0).max(1.0);
        let deviation = (count as f64 * share * (1.0 - share) * correction).sqrt();
        let drawn = (count as f64 * share + deviation * normal(rng)).round().max(0.0) as u64;
        drawn.clamp(count.saturating_sub(left[1]), count.min(left[0]))
    };
    left[0] -= to_a;
    left[1] -= count - to_a;
    [to_a, count - to_a]
}

fn differences(a: &Survival, b: &Survival, rng: &mut Rng) -> Vec<Difference> {
    let (sample_a, sample_b) = (Resampler::new(a), Resampler::new(b));
    let quantiles = METRICS.map(|(_, q)| q);
    let mut drawn: [Vec<i64>; METRICS.len()] = Default::default();
    if a.events > 0 && b.events > 0 {
        for _ in 0..RESAMPLES {
            let (in_a, in_b) = (sample_a.quantiles(&quantiles, rng), sample_b.quantiles(&quantiles, rng));
            for (drawn, (a, b)) in drawn.iter_mut().zip(in_a.into_iter().zip(in_b)) {
                drawn.extend(a.zip(b).map(|(a, b)| signed(b) - signed(a)));
            }
        }
    }
    METRICS
        .into_iter()
        .zip(drawn)
        .map(|((metric, q), mut drawn)| {
            drawn.sort_unstable();
            let (a, b) = (a.quantile(q), b.quantile(q));
            // A percentile that is hardly reached has an interval without an upper end.
            let reached = a.is_some() && b.is_some() && drawn.len() * 100 >= RESAMPLES * 99;
            let at = |share: f64| drawn[((drawn.len() - 1) as f64 * share).round() as usize];
            Difference { metric, a, b, ci95: reached.then(|| (at(0.025), at(0.975))) }
        })
        .collect()
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// Draws bootstrap samples of one survival curve.
struct Resampler {
    rows: Vec<Row>,
    after: u64,
}

impl Resampler {
    fn new(survival: &Survival) -> Self {
        let Table { rows, after } = Table::of([survival, &Survival::default()]);
        Self { rows, after: after[0] }
    }

    /// The quantiles of one resample: each dwell counts as often as a Poisson variable of mean 1 says.
    fn quantiles<const N: usize>(&self, wanted: &[f64; N], rng: &mut Rng) -> [Option<u64>; N] {
        let rows: Vec<(u64, u64, u64)> = self
            .rows
            .iter()
            .map(|row| (row.ns, poisson(row.censored[0], rng), poisson(row.ended[0], rng)))
            .collect();
        let mut at_risk: u64 =
            poisson(self.after, rng) + rows.iter().map(|(_, censored, ended)| censored + ended).sum::<u64>();
        let mut found = [None; N];
        let mut longer = 1.0_f64;
        for (ns, censored, ended) in rows {
            at_risk -= censored;
            if ended > 0 {
                longer *= (at_risk - ended) as f64 / at_risk as f64;
                at_risk -= ended;
                for (found, q) in found.iter_mut().zip(wanted) {
                    if found.is_none() && longer <= 1.0 - q + 1e-9 {
                        *found = Some(ns);
                    }
                }
            }
        }
        found
    }
}

/// A Poisson variable of this mean; by its normal approximation where the mean is large.
fn poisson(mean: u64, rng: &mut Rng) -> u64 {
    if mean == 0 {
        return 0;
    }
    if mean > 64 {
        let mean = mean as f64;
        return (mean + mean.sqrt() * normal(rng)).round().max(0.0) as u64;
    }
    // Knuth: count arrivals until the product of uniforms falls below e^-mean.
    let limit = (-(mean as f64)).exp();
    let mut product = rng.f64();
    let mut count = 0;
    while product > limit {
        product *= rng.f64();
        count += 1;
    }
    count
}

/// A standard normal variable (Box and Muller).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// Probability that a standard normal variable is as far from 0 as `z`: erfc(|z|/√2), by Abramowitz and Stegun
/// 7.1.26, absolute error below 1.5e-7.
fn two_sided(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    poly * (-x * x).exp()
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
    fn normal_tails_are_those_of_the_tables() {
        for (z, p) in [(0.0, 1.0), (1.0, 0.317_31), (1.959_964, 0.05), (-2.575_829, 0.01)] {
            assert!((two_sided(z) - p).abs() < 1e-4, "{z}: {}", two_sided(z));
        }
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
