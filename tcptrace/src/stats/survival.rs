//! How long a state lasts when some of its dwells have not ended: the product-limit estimator.
//!
//! A histogram of finished CLOSE_WAITs never contains a leak, because a leak does not finish. Kaplan and
//! Meier's estimator uses what an open dwell does tell, namely that it has lasted until now: it counts among
//! those at risk up to its age and is then censored.
//!
//! Kaplan E. L., Meier P.: Nonparametric Estimation from Incomplete Observations. Journal of the American
//! Statistical Association 53 (1958), 457-481. Standard errors by Greenwood's formula (The Natural Duration of
//! Cancer, 1926).
//!
//! Left truncation: a dwell that began before tracing did is here only because it lasted until then, so that
//! it would count too long a dwell too often. It could enter late, at the age at which it was found, but that
//! age is a lower bound only. Such dwells, ended and open, are therefore left out and counted.

use crate::snapshot::Bucket;

/// What is known of the distribution of dwells, the open ones included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survival {
    /// Median; `None` where fewer than half of the dwells are known to end.
    pub p50_ns: Option<u64>,
    /// 90th percentile; `None` where not reached.
    pub p90_ns: Option<u64>,
    /// 99th percentile; `None` where not reached.
    pub p99_ns: Option<u64>,
    /// Dwells that ended: what makes the curve fall.
    pub events: u64,
    /// Open dwells, censored at their age.
    pub censored: u64,
    /// Dwells left out because their beginning was not seen (left truncation), ended and open ones together.
    pub left_out: u64,
    /// The longest that any of these dwells, ended or open, was watched: a percentile that is not reached is
    /// longer than this. `None` when there are none.
    pub observed_ns: Option<u64>,
    /// The open dwells by age, ascending: where curves of two samples are compared, it matters who was still at
    /// risk when.
    pub open: Vec<Bucket>,
    /// The curve: from each step's `ns` on, the share of dwells that last longer is `longer`. Before the first
    /// step it is 1. Empty when nothing ended.
    pub curve: Vec<Step>,
}

/// A step of the survival curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Where the curve falls, nanoseconds.
    pub ns: u64,
    /// Share of dwells that last longer than `ns`, in [0, 1].
    pub longer: f64,
    /// Standard error of `longer` by Greenwood's formula; `None` where the curve reaches 0 and it has none.
    pub standard_error: Option<f64>,
    /// Dwells that had lasted until `ns` and were still observed: at risk.
    pub at_risk: u64,
    /// Dwells that ended here.
    pub ended: u64,
}

/// The exact longest of the dwells that a curve is estimated from; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Longest {
    /// Of the finished ones, nanoseconds.
    pub finished_ns: Option<u64>,
    /// Of the open ones, nanoseconds.
    pub open_ns: Option<u64>,
}

/// Products of thousands of factors differ from the exact fraction by less than this.
const ROUNDING: f64 = 1e-9;

impl Survival {
    /// Estimates the curve from finished dwells and the ages of open ones, each ascending by `le_ns`.
    ///
    /// Within a cell ends count before censorings, as the estimator has it for ties. `longest` are the exact
    /// maxima of either: no step lies beyond that of the finished ones, though its cell may.
    #[must_use]
    pub fn estimate(finished: &[Bucket], open: &[Bucket], longest: Longest, left_out: u64) -> Self {
        let events = finished.iter().map(|bucket| bucket.count).sum();
        let censored = open.iter().map(|bucket| bucket.count).sum();
        let mut at_risk: u64 = events + censored;
        let (mut longer, mut greenwood) = (1.0, 0.0);
        let mut ages = open.iter().peekable();
        let mut curve = Vec::with_capacity(finished.len());
        for bucket in finished.iter().filter(|bucket| bucket.count > 0) {
            while let Some(age) = ages.next_if(|age| age.le_ns < bucket.le_ns) {
                at_risk -= age.count;
            }
            let (ended, exposed) = (bucket.count as f64, at_risk as f64);
            let lasting = exposed - ended;
            longer *= lasting / exposed;
            greenwood += ended / (exposed * lasting);
            curve.push(Step {
                ns: longest.finished_ns.map_or(bucket.le_ns, |longest| bucket.le_ns.min(longest)),
                longer,
                standard_error: (lasting > 0.0).then(|| longer * greenwood.sqrt()),
                at_risk,
                ended: bucket.count,
            });
            at_risk -= bucket.count;
        }
        let mut survival = Self {
            events,
            censored,
            left_out,
            observed_ns: longest.finished_ns.max(longest.open_ns),
            open: open.to_vec(),
            curve,
            ..Self::default()
        };
        survival.p50_ns = survival.quantile(0.50);
        survival.p90_ns = survival.quantile(0.90);
        survival.p99_ns = survival.quantile(0.99);
        survival
    }

    /// The shortest duration that a share of at most `1 - q` exceeds; `None` where the curve never falls so
    /// far.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let step = self.curve.partition_point(|step| step.longer > 1.0 - q + ROUNDING);
        self.curve.get(step).map(|step| step.ns)
    }

    /// The share of dwells that last longer than `ns`.
    #[must_use]
    pub fn longer_than(&self, ns: u64) -> f64 {
        let steps = self.curve.partition_point(|step| step.ns <= ns);
        steps.checked_sub(1).and_then(|last| self.curve.get(last)).map_or(1.0, |step| step.longer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets(mut durations: Vec<u64>) -> Vec<Bucket> {
        durations.sort_unstable();
        durations
            .chunk_by(|a, b| a == b)
            .map(|same| Bucket { ge_ns: same[0], le_ns: same[0], count: same.len() as u64 })
            .collect()
    }

    fn estimate(finished: &[u64], open: &[u64]) -> Survival {
        Survival::estimate(&buckets(finished.to_vec()), &buckets(open.to_vec()), Longest::default(), 0)
    }

    fn assert_close(actual: f64, expected: f64, tolerance: f64) {
        assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected}");
    }

    #[test]
    fn by_hand() {
        // Ends at 1, 3, 3, 7; open at 2, 3, 9. Eight would be wrong to divide by: at 1 seven are at risk, at 3
        // five (one was censored at 2), at 7 two (3 ended twice, was censored once).
        let survival = estimate(&[1, 3, 3, 7], &[2, 3, 9]);
        let expected = [(1, 6.0 / 7.0, 7, 1), (3, 6.0 / 7.0 * 3.0 / 5.0, 5, 2), (7, 18.0 / 35.0 / 2.0, 2, 1)];
        assert_eq!(survival.curve.len(), expected.len());
        for (step, (ns, longer, at_risk, ended)) in survival.curve.iter().zip(expected) {
            assert_eq!((step.ns, step.at_risk, step.ended), (ns, at_risk, ended));
            assert_close(step.longer, longer, 1e-12);
        }
        // 18/35 is more than a half, 9/35 less: the median is 7. A tenth is never reached.
        assert_eq!((survival.p50_ns, survival.p90_ns, survival.p99_ns), (Some(7), None, None));
        assert_eq!((survival.events, survival.censored), (4, 3));
        assert_close(survival.longer_than(0), 1.0, 0.0);
        assert_close(survival.longer_than(6), 18.0 / 35.0, 1e-12);
        assert_close(survival.longer_than(1000), 9.0 / 35.0, 1e-12);
    }

    #[test]
    fn remission_times_of_the_textbooks() {
        // Weeks of remission of 21 leukaemia patients given 6-mercaptopurine (Freireich et al., Blood 21, 1963),
        // the standard example; estimates and standard errors as the textbooks print them.
        let survival =
            estimate(&[6, 6, 6, 7, 10, 13, 16, 22, 23], &[6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]);
        let expected = [
            (6, 21, 0.8571, 0.0764),
            (7, 17, 0.8067, 0.0869),
            (10, 15, 0.7529, 0.0963),
            (13, 12, 0.6902, 0.1068),
            (16, 11, 0.6275, 0.1141),
            (22, 7, 0.5378, 0.1282),
            (23, 6, 0.4482, 0.1346),
        ];
        assert_eq!(survival.curve.len(), expected.len());
        for (step, (ns, at_risk, longer, standard_error)) in survival.curve.iter().zip(expected) {
            assert_eq!((step.ns, step.at_risk), (ns, at_risk));
            assert_close(step.longer, longer, 5e-5);
            assert_close(step.standard_error.unwrap(), standard_error, 5e-5);
        }
        assert_eq!((survival.p50_ns, survival.p90_ns), (Some(23), None));
    }

    #[test]
    fn a_leak_keeps_the_high_percentiles_open() {
        let survival = estimate(&[5; 80], &[1_000; 20]);
        assert_eq!((survival.p50_ns, survival.p90_ns, survival.p99_ns), (Some(5), None, None));
    }

    #[test]
    fn nothing_ended_or_nothing_at_all_has_no_percentile() {
        assert_eq!(estimate(&[], &[7, 8]).p50_ns, None);
        assert_eq!(estimate(&[], &[]), Survival::default());
    }

    #[test]
    fn no_step_beyond_the_longest() {
        let cell = [Bucket { ge_ns: 61_000, le_ns: 61_999, count: 1 }];
        assert_eq!(
            Survival::estimate(&cell, &[], Longest { finished_ns: Some(61_004), open_ns: None }, 0).p50_ns,
            Some(61_004)
        );
    }

    proptest! {
        #[test]
        fn falls_from_one_and_never_below_zero(
            finished in prop::collection::vec(0u64..50, 0..200),
            open in prop::collection::vec(0u64..60, 0..200),
        ) {
            let survival = estimate(&finished, &open);
            let mut previous = 1.0;
            for step in &survival.curve {
                prop_assert!(step.longer <= previous && step.longer >= 0.0);
                prop_assert!(step.ended <= step.at_risk);
                previous = step.longer;
            }
            prop_assert!(survival.p50_ns <= survival.p90_ns || survival.p90_ns.is_none());
            // Censoring can only raise the curve above what the finished ones alone would say.
            let alone = estimate(&finished, &[]);
            for ns in 0..60 {
                prop_assert!(survival.longer_than(ns) >= alone.longer_than(ns) - 1e-12);
            }
        }

        #[test]
        fn without_censoring_it_is_the_empirical_distribution(
            finished in prop::collection::vec(0u64..50, 1..200),
        ) {
            let survival = estimate(&finished, &[]);
            for ns in 0..60 {
                let share = finished.iter().filter(|&&duration| duration > ns).count() as f64 / finished.len() as f64;
                prop_assert!((survival.longer_than(ns) - share).abs() < 1e-9);
            }
            for q in [0.5, 0.9, 0.99] {
                prop_assert_eq!(survival.quantile(q), crate::stats::cells::quantile(&buckets(finished.clone()), q));
            }
        }
    }
}
