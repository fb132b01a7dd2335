//! What is kept of the dwells of one state and phase.

use crate::event::MonoNs;
use crate::net::State;
use crate::outcome::{End, Open, Phase, Transition};
use crate::snapshot::{
    Age, BeganBefore, Bucket, Ends, Finished, Key, OpenDwells, Spread, StateReport, Timeout,
};

use super::cells::{self, Cells, HIGHEST_US, quantile};
use super::survival::{Longest, Survival};

/// States and FIN_WAIT2's two phases, each with an index.
pub(crate) const SLOTS: usize = tcptrace_common::state::SLOTS + 2;

/// The index of a state and phase. Only FIN_WAIT2 has phases.
pub(crate) fn slot(state: State, phase: Option<Phase>) -> usize {
    match (state, phase) {
        (State::FinWait2, Some(Phase::HalfClosed)) => SLOTS - 2,
        (State::FinWait2, Some(Phase::Orphaned)) => SLOTS - 1,
        _ => usize::from(state.number()),
    }
}

/// Every state and phase in the order of reports.
pub(crate) fn slots() -> impl Iterator<Item = (State, Option<Phase>)> {
    State::ALL.into_iter().flat_map(|state| {
        let phases: &[_] = match state {
            State::FinWait2 => &[None, Some(Phase::HalfClosed), Some(Phase::Orphaned)],
            _ => &[None],
        };
        phases.iter().map(move |&phase| (state, phase))
    })
}

/// Ended dwells of one state and phase.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    began: u64,
    dwells: Dwells,
    /// Those that the state's timer ended; made when the first does.
    ran_out: Option<Dwells>,
    /// Makes `ran_out`.
    new_cells: fn() -> Cells,
    ends: Ends,
    began_before: BeganBefore,
    timeouts: Timeouts,
    rearmed: u64,
    as_full_socket: SpreadSum,
}

impl Collection {
    pub(crate) fn new(new_cells: fn() -> Cells) -> Self {
        Self {
            began: 0,
            dwells: Dwells::new(new_cells()),
            ran_out: None,
            new_cells,
            ends: Ends::default(),
            began_before: BeganBefore::default(),
            timeouts: Timeouts::default(),
            rearmed: 0,
            as_full_socket: SpreadSum::default(),
        }
    }

    /// Counts an entry into the state.
    pub(crate) fn begin(&mut self) {
        self.began += 1;
    }

    /// Takes back an entry that turned out to belong elsewhere.
    pub(crate) fn unbegin(&mut self) {
        self.began = self.began.saturating_sub(1);
    }

    /// Counts the dwell that a transition ended.
    pub(crate) fn end(&mut self, transition: &Transition) {
        self.ends.add(transition.end);
        self.rearmed += u64::from(transition.rearmed > 0);
        if let Some(jiffies) = transition.timeout_jiffies {
            self.timeouts.add(jiffies, 1);
        }
        match transition.dwell {
            Some(dwell) if !dwell.is_lower_bound => {
                self.dwells.add(dwell.ns);
                if matches!(transition.end, Some(End::Expired | End::TimedOut)) {
                    self.ran_out.get_or_insert_with(|| Dwells::new((self.new_cells)())).add(dwell.ns);
                }
                if let Some(ns) = transition.as_full_socket_ns {
                    self.as_full_socket.add(ns);
                }
            }
            unknown => {
                let before = &mut self.began_before;
                before.count += 1;
                before.longest_at_least_ns = before.longest_at_least_ns.max(unknown.map(|dwell| dwell.ns));
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.began += other.began;
        self.dwells.merge(&other.dwells);
        if let Some(theirs) = &other.ran_out {
            self.ran_out.get_or_insert_with(|| Dwells::new((self.new_cells)())).merge(theirs);
        }
        self.ends.merge(&other.ends);
        self.began_before.count += other.began_before.count;
        self.began_before.longest_at_least_ns =
            self.began_before.longest_at_least_ns.max(other.began_before.longest_at_least_ns);
        self.timeouts.merge(&other.timeouts);
        self.rearmed += other.rearmed;
        self.as_full_socket.merge(&other.as_full_socket);
    }

    pub(crate) fn report(
        &self,
        (state, phase): (State, Option<Phase>),
        key: Option<Key>,
        open: &OpenAges,
    ) -> StateReport {
        let finished = self.dwells.finished();
        let open_dwells = open.report();
        let left_out = self.began_before.count + open.began_before;
        StateReport {
            state,
            phase,
            key,
            host: None,
            began: self.began,
            survival: Survival::estimate(
                &finished.buckets,
                &open_dwells.censored,
                Longest { finished_ns: finished.max_ns, open_ns: open.oldest_seen_ns },
                left_out,
            ),
            finished,
            ran_out: self.ran_out.as_ref().map(Dwells::finished).unwrap_or_default(),
            open: open_dwells,
            ends: self.ends,
            began_before: self.began_before,
            timeout: self.timeouts.report(),
            rearmed: self.rearmed,
            as_full_socket: self.as_full_socket.report(),
        }
    }
}

fn finished(buckets: Vec<Bucket>, sums: SpreadSum) -> Finished {
    let spread = sums.report();
    let percentile = |q| {
        // The last cell has no upper edge: everything longer than a day is in it.
        let edge = quantile(&buckets, q)?;
        let max_ns = spread?.max_ns;
        Some(if edge / 1000 >= HIGHEST_US { max_ns } else { edge.min(max_ns) })
    };
    Finished {
        count: sums.count,
        sum_ns: sums.sum_ns,
        min_ns: spread.map(|spread| spread.min_ns),
        mean_ns: spread.map(|spread| spread.mean_ns),
        p50_ns: percentile(0.50),
        p90_ns: percentile(0.90),
        p99_ns: percentile(0.99),
        max_ns: spread.map(|spread| spread.max_ns),
        buckets,
    }
}

/// The finished dwells of several samples together: exact, because all have the same cells.
pub(crate) fn merged<'a>(samples: impl Iterator<Item = &'a Finished> + Clone) -> Finished {
    let mut sums = SpreadSum::default();
    for sample in samples.clone() {
        sums.merge(&SpreadSum {
            count: sample.count,
            sum_ns: sample.sum_ns,
            min_ns: sample.min_ns.unwrap_or(0),
            max_ns: sample.max_ns.unwrap_or(0),
        });
    }
    finished(cells::added(samples.map(|sample| sample.buckets.as_slice())), sums)
}

/// Durations with their exact extremes.
#[derive(Clone, Debug)]
struct Dwells {
    cells: Cells,
    spread: SpreadSum,
}

impl Dwells {
    fn new(cells: Cells) -> Self {
        Self { cells, spread: SpreadSum::default() }
    }

    fn add(&mut self, ns: u64) {
        self.cells.record(ns);
        self.spread.add(ns);
    }

    fn merge(&mut self, other: &Self) {
        self.cells.merge(&other.cells);
        self.spread.merge(&other.spread);
    }

    fn finished(&self) -> Finished {
        finished(self.cells.buckets(), self.spread)
    }
}

/// The ages of the open dwells of one state and phase at one moment.
#[derive(Clone, Debug)]
pub(crate) struct OpenAges {
    seen_beginning: Cells,
    older_than_tracing: Cells,
    count: u64,
    began_before: u64,
    oldest: Option<Age>,
    /// Of those whose beginning was seen.
    oldest_seen_ns: Option<u64>,
}

impl Default for OpenAges {
    fn default() -> Self {
        Self {
            seen_beginning: Cells::sparse(),
            older_than_tracing: Cells::sparse(),
            count: 0,
            began_before: 0,
            oldest: None,
            oldest_seen_ns: None,
        }
    }
}

impl OpenAges {
    pub(crate) fn add(&mut self, open: &Open, now: MonoNs) {
        let age = Age { ns: now.saturating_sub(open.since), is_lower_bound: open.since_is_lower_bound };
        self.count += 1;
        if age.is_lower_bound {
            self.began_before += 1;
            self.older_than_tracing.record(age.ns);
        } else {
            self.seen_beginning.record(age.ns);
            self.oldest_seen_ns = self.oldest_seen_ns.max(Some(age.ns));
        }
        self.oldest = self.oldest.max(Some(age));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.seen_beginning.merge(&other.seen_beginning);
        self.older_than_tracing.merge(&other.older_than_tracing);
        self.count += other.count;
        self.began_before += other.began_before;
        self.oldest = self.oldest.max(other.oldest);
        self.oldest_seen_ns = self.oldest_seen_ns.max(other.oldest_seen_ns);
    }

    fn report(&self) -> OpenDwells {
        let mut ages = self.seen_beginning.clone();
        ages.merge(&self.older_than_tracing);
        let ages: Vec<Bucket> = ages.buckets();
        OpenDwells {
            count: self.count,
            began_before: self.began_before,
            oldest: self.oldest,
            ages,
            censored: self.seen_beginning.buckets(),
        }
    }
}

/// Count, sum and extremes, exact.
#[derive(Clone, Copy, Debug, Default)]
struct SpreadSum {
    count: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
}

impl SpreadSum {
    fn add(&mut self, ns: u64) {
        self.merge(&Self { count: 1, sum_ns: ns.into(), min_ns: ns, max_ns: ns });
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min_ns = if self.count == 0 { other.min_ns } else { self.min_ns.min(other.min_ns) };
        self.max_ns = self.max_ns.max(other.max_ns);
        self.count += other.count;
        self.sum_ns += other.sum_ns;
    }

    fn report(&self) -> Option<Spread> {
        // A mean lies between two u64, so that it is one.
        let mean = self.sum_ns.checked_div(u128::from(self.count))?;
        Some(Spread { count: self.count, min_ns: self.min_ns, mean_ns: mean as u64, max_ns: self.max_ns })
    }
}

/// The timeouts seen, with the most frequent kept by count. A host has few of them: 60 s, `tcp_fin_timeout`
/// and what applications set by TCP_LINGER2.
#[derive(Clone, Debug, Default)]
struct Timeouts {
    counts: Vec<(u32, u64)>,
    min_max: Option<(u32, u32)>,
}

impl Timeouts {
    /// Different timeouts counted; later ones enter only the extremes. 3.5 RTO may exceed `tcp_fin_timeout`
    /// and differs by connection, hence a bound.
    const LIMIT: usize = 16;

    fn add(&mut self, jiffies: u32, times: u64) {
        let (min, max) = self.min_max.unwrap_or((jiffies, jiffies));
        self.min_max = Some((min.min(jiffies), max.max(jiffies)));
        if let Some((_, count)) = self.counts.iter_mut().find(|(known, _)| *known == jiffies) {
            *count += times;
        } else if self.counts.len() < Self::LIMIT {
            self.counts.push((jiffies, times));
        }
    }

    fn merge(&mut self, other: &Self) {
        for &(jiffies, count) in &other.counts {
            self.add(jiffies, count);
        }
        if let (Some((min, max)), Some(mine)) = (other.min_max, &mut self.min_max) {
            *mine = (mine.0.min(min), mine.1.max(max));
        }
    }

    fn report(&self) -> Option<Timeout> {
        let (min_jiffies, max_jiffies) = self.min_max?;
        // Of equally frequent ones the shorter, so that the answer does not depend on their order.
        let &(most_common_jiffies, _) =
            self.counts.iter().max_by_key(|(jiffies, count)| (*count, std::cmp::Reverse(*jiffies)))?;
        Some(Timeout { min_jiffies, most_common_jiffies, max_jiffies })
    }
}
