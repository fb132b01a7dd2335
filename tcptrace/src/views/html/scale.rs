//! Axes: from durations to places in a picture.

use crate::views::histogram::{edges, nice_step};

/// Above this ratio of the longest usual dwell to the shortest, equal steps show nothing of the short ones.
const LINEAR_UP_TO: f64 = 15.0;
/// The shortest duration on a logarithmic axis: the cells are no finer.
const SHORTEST_NS: u64 = 1_000;
/// Labels on an axis, about.
const LABELS: u64 = 6;

/// An axis of durations.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    from_ns: u64,
    to_ns: u64,
    is_log: bool,
    /// Places of the labels, with their texts.
    pub(super) ticks: Vec<(u64, String)>,
    start: f64,
    length: f64,
}

impl Scale {
    /// An axis for durations between `range.0` and `range.1`, most of them between `usual.0` and `usual.1`, drawn from
    /// `start` over `length`.
    pub(super) fn new(range: (u64, u64), usual: (u64, u64), (start, length): (f64, f64)) -> Self {
        let is_log = usual.1 as f64 > usual.0.max(SHORTEST_NS) as f64 * LINEAR_UP_TO;
        let (from_ns, to_ns, ticks) = if is_log { logarithmic(range) } else { linear(range) };
        Self { from_ns, to_ns, is_log, ticks, start, length }
    }

    /// Where a duration lies; at the edge where it is beyond it.
    pub(super) fn at(&self, ns: u64) -> f64 {
        let ns = ns.clamp(self.from_ns, self.to_ns);
        let share = if self.is_log {
            (ns as f64 / self.from_ns as f64).ln() / (self.to_ns as f64 / self.from_ns as f64).ln()
        } else {
            (ns - self.from_ns) as f64 / (self.to_ns - self.from_ns) as f64
        };
        self.start + share * self.length
    }

    /// Both ends.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.start, self.start + self.length)
    }

    /// For the label of the axis.
    pub(super) fn is_log(&self) -> bool {
        self.is_log
    }
}

fn linear((min, max): (u64, u64)) -> (u64, u64, Vec<(u64, String)>) {
    let step = nice_step(((max - min) / LABELS).max(1));
    let from = min / step * step;
    let to = max.div_ceil(step).saturating_mul(step).max(from.saturating_add(step));
    let ticks = std::iter::successors(Some(from), |at| at.checked_add(step)).take_while(|&at| at <= to);
    let ticks: Vec<u64> = ticks.collect();
    let labels = edges(&ticks);
    (from, to, ticks.into_iter().zip(labels).collect())
}

/// Whole powers of ten; where there are too many for labels, every second or third has one.
fn logarithmic((min, max): (u64, u64)) -> (u64, u64, Vec<(u64, String)>) {
    let min = min.max(SHORTEST_NS);
    let from = 10_u64.pow(min.ilog10());
    let to = 10_u64.saturating_pow(max.max(min).ilog10() + u32::from(!is_power_of_ten(max)));
    let to = to.max(from.saturating_mul(10));
    let powers: Vec<u64> =
        std::iter::successors(Some(from), |at| at.checked_mul(10)).take_while(|&at| at <= to).collect();
    let every = (powers.len() as u64).div_ceil(LABELS).max(1) as usize;
    let ticks = powers.iter().step_by(every).map(|&at| (at, power(at))).collect();
    (from, to, ticks)
}

fn is_power_of_ten(n: u64) -> bool {
    n > 0 && 10_u64.pow(n.ilog10()) == n
}

/// `100 s` and `1000 s`, where a histogram would write minutes: powers of ten stay recognisable.
fn power(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    if ns >= SECOND { format!("{} s", ns / SECOND) } else { edges(&[ns]).concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn what_lies_close_together_has_equal_steps() {
        let scale = Scale::new((60 * S, 62 * S), (60 * S, 62 * S), (10.0, 100.0));
        assert_eq!(labels(&scale), ["60.0 s", "60.5 s", "61.0 s", "61.5 s", "62.0 s"]);
        assert_eq!((scale.at(60 * S), scale.at(61 * S), scale.at(70 * S)), (10.0, 60.0, 110.0));
    }

    #[test]
    fn what_does_not_has_powers_of_ten() {
        let scale = Scale::new((3_000, 90 * S), (8_000, 60 * S), (0.0, 100.0));
        assert_eq!(labels(&scale), ["1 µs", "100 µs", "10 ms", "1 s", "100 s"]);
        assert!((scale.at(10_000_000) - 50.0).abs() < 1e-9);
        assert_eq!(scale.at(5), 0.0);
    }

    #[test]
    fn a_single_duration_has_an_axis() {
        for ns in [0, 1, 999, S, 86_400 * S, u64::MAX / 2] {
            let scale = Scale::new((ns, ns), (ns, ns), (0.0, 100.0));
            assert!(scale.ticks.len() >= 2, "{ns}: {scale:?}");
            assert!((0.0..=100.0).contains(&scale.at(ns)), "{ns}: {scale:?}");
        }
    }
}
