//! Two samples on one time axis: how far apart their curves are, and by what chance.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::draw::deal;
use super::{Distance, care_ns};
use crate::stats::survival::Survival;

/// Both samples on one time axis.
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// Censored after the last row.
    pub(super) after: [u64; 2],
}

/// A moment at which something ended: first what was censored since the row before, then what ended here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) ns: u64,
    pub(super) censored: [u64; 2],
    pub(super) ended: [u64; 2],
}

impl Table {
    pub(super) fn of(samples: [&Survival; 2]) -> Self {
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
    /// right by what nobody cares about.
    pub(super) fn distance(&self) -> Distance {
        let curves = self.curves();
        let mut largest = Distance::default();
        let mut moved = 0;
        for (index, row) in self.rows.iter().enumerate() {
            let until = row.ns + care_ns(row.ns);
            while moved + 1 < self.rows.len() && self.rows[moved + 1].ns <= until {
                moved += 1;
            }
            for (longer, shorter) in [(0, 1), (1, 0)] {
                // Beyond its last observation a curve is not known.
                if let (Some(above), Some(below)) = (curves[moved.max(index)][longer], curves[index][shorter])
                    && above - below > largest.share
                {
                    largest = Distance { share: above - below, at_ns: Some(until), is_b_longer: longer == 1 };
                }
            }
        }
        largest
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
    pub(super) fn log_rank(&self) -> f64 {
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
    pub(super) fn permuted(&self, distance: f64, permutations: u32, rng: &mut Rng) -> f64 {
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
            as_far += u32::from(shuffled.distance().share >= distance - 1e-12);
        }
        f64::from(as_far + 1) / f64::from(permutations + 1)
    }
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

    #[test]
    fn normal_tails_are_those_of_the_tables() {
        for (z, p) in [(0.0, 1.0), (1.0, 0.317_31), (1.959_964, 0.05), (-2.575_829, 0.01)] {
            assert!((two_sided(z) - p).abs() < 1e-4, "{z}: {}", two_sided(z));
        }
    }
}
