//! By how much? Percentiles of samples that are drawn again and again from the curves.

use fastrand::Rng;

use super::draw::poisson;
use super::table::{Row, Table};
use super::{Difference, METRICS, RESAMPLES};
use crate::stats::survival::Survival;

/// How far apart the percentiles are, with intervals.
pub(super) fn differences(a: &Survival, b: &Survival, rng: &mut Rng) -> Vec<Difference> {
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
