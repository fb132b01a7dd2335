//! How counts moved over the last minutes: one small sample a second.

use std::collections::VecDeque;

use crate::event::MonoNs;

use super::lanes::LANES;

/// Distance of samples, nanoseconds of the traced host's time.
pub const EVERY_NS: u64 = 1_000_000_000;
/// What counting one open connection takes, nanoseconds, with a million of them, none of which a cache holds.
const COUNTING_NS: u64 = 30;
/// Counting takes at most this part of the time: with more than 300,000 connections, samples are further apart.
const COST_FACTOR: u64 = 100;
/// Ten minutes of samples: wide screens show five.
const SAMPLES: usize = 600;

/// Counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: MonoNs,
    /// Sockets in each lane.
    pub open: [u64; LANES.len()],
    /// Times that each lane was entered, in all.
    pub began: [u64; LANES.len()],
    /// Events, in all.
    pub events: u64,
    /// connect() calls without a port, in all.
    pub connect_failures: u64,
    /// TIME_WAITs that found no room, in all.
    pub overflows: u64,
    /// Whatever was lost, in all.
    pub lost: u64,
}

/// Samples, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trends {
    samples: VecDeque<Sample>,
}

impl Trends {
    /// True when it is time for the next sample. Reckoned from how many connections there were, and not from how long
    /// counting them took, so that a recording gives the same samples each time.
    #[must_use]
    pub fn is_due(&self, now: MonoNs) -> bool {
        self.samples.back().is_none_or(|last| {
            let counted: u64 = last.open.iter().sum();
            let every_ns = EVERY_NS.max(counted * COUNTING_NS * COST_FACTOR);
            now >= last.at.saturating_add(every_ns)
        })
    }

    /// Adds a sample.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The last sample.
    #[must_use]
    pub fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// How much a total grew over the last `over_ns`, and how long that was exactly. `None` before the second
    /// sample.
    #[must_use]
    pub fn growth(&self, over_ns: u64, total: impl Fn(&Sample) -> u64) -> Option<(u64, u64)> {
        let last = self.samples.back()?;
        let from = last.at.saturating_sub(over_ns);
        let within = self.samples.iter().find(|sample| sample.at >= from && sample.at < last.at);
        // Samples may be further apart than that.
        let first = within.or_else(|| self.samples.iter().rev().nth(1))?;
        let ns = last.at - first.at;
        (ns > 0).then(|| (total(last).saturating_sub(total(first)), ns))
    }

    /// The same per second.
    #[must_use]
    pub fn per_second(&self, over_ns: u64, total: impl Fn(&Sample) -> u64) -> Option<f64> {
        self.growth(over_ns, total).map(|(grown, ns)| grown as f64 / (ns as f64 / 1e9))
    }

    /// The last `over_ns` of a figure in `columns` columns, each the highest of its time, newest last. `None`
    /// where there is no sample.
    #[must_use]
    pub fn columns(&self, columns: usize, over_ns: u64, figure: impl Fn(&Sample) -> u64) -> Vec<Option<u64>> {
        let mut out = vec![None; columns];
        let Some(last) = self.samples.back().filter(|_| columns > 0) else { return out };
        for sample in self.samples.iter().rev() {
            let age_ns = last.at - sample.at;
            if age_ns >= over_ns {
                break;
            }
            // The newest sample falls into the last column.
            let back = (u128::from(age_ns) * columns as u128 / u128::from(over_ns)) as usize;
            let column = columns - 1 - back;
            out[column] = out[column].max(Some(figure(sample)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn trends(counts: &[u64]) -> Trends {
        let mut trends = Trends::default();
        for (n, &events) in counts.iter().enumerate() {
            trends.push(Sample { at: (n as u64 + 5) * S, events, ..Sample::default() });
        }
        trends
    }

    #[test]
    fn growth_is_that_of_the_time_asked_for() {
        let trends = trends(&[0, 10, 20, 50]);
        assert_eq!(trends.growth(2 * S, |sample| sample.events), Some((40, 2 * S)));
        assert_eq!(trends.growth(60 * S, |sample| sample.events), Some((50, 3 * S)));
        assert_eq!(trends.per_second(S, |sample| sample.events), Some(30.0));
        assert_eq!(self::trends(&[7]).growth(S, |sample| sample.events), None);
    }

    #[test]
    fn columns_end_now_and_are_empty_before_the_start() {
        let trends = trends(&[1, 2, 3]);
        assert_eq!(trends.columns(4, 4 * S, |sample| sample.events), [None, Some(1), Some(2), Some(3)]);
        assert_eq!(trends.columns(1, 4 * S, |sample| sample.events), [Some(3)]);
        assert_eq!(trends.columns(0, 4 * S, |sample| sample.events), []);
    }

    #[test]
    fn memory_is_bounded() {
        let trends = trends(&vec![1; SAMPLES + 50]);
        assert_eq!(trends.samples.len(), SAMPLES);
        assert!(trends.is_due(u64::MAX) && !trends.is_due(0));
    }

    #[test]
    fn a_million_connections_are_counted_less_often() {
        let mut trends = trends(&[1]);
        let at = trends.last().expect("a sample").at;
        assert!(trends.is_due(at + S));
        let mut many = Sample { at, ..Sample::default() };
        many.open[0] = 1_000_000;
        trends.push(many);
        assert!(!trends.is_due(at + 2 * S) && trends.is_due(at + 3 * S));
    }
}
