//! The line that a [`StateReport`](crate::snapshot::StateReport) becomes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::State;
use crate::outcome::Phase;
use crate::snapshot::{self, Bucket, Key};
use crate::wheel;

/// How long a state lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StateReport {
    /// State.
    pub state: State,
    /// For FIN_WAIT2: half_closed or orphaned; null there when it was only passed through on the way to
    /// TIME_WAIT.
    pub phase: Option<Phase>,
    /// Whose; null for all connections together.
    pub key: Option<Key>,
    /// On which host, where the report is of several; absent for all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Times the state was entered while tracing.
    pub began: u64,
    /// Dwells seen from beginning to end.
    pub finished: Finished,
    /// Those of the finished that the state's timer ended.
    pub ran_out: Finished,
    /// Sockets in the state now.
    pub open: Ages,
    /// Percentiles by Kaplan and Meier over finished and open dwells.
    pub survival: SurvivalPercentiles,
    /// Why dwells ended and how often, those of `began_before_tracing` included. `moved_on`: the connection
    /// went on to its next state.
    pub ends: BTreeMap<String, u64>,
    /// Dwells that ended while tracing and began before: in no percentile.
    pub began_before_tracing: BeganBefore,
    /// Dwells whose timer was seen to be re-armed: a lower bound.
    pub rearmed: u64,
    /// The timer's timeout and what the kernel's timer wheel makes of it; null without timers.
    pub expected: Option<Expected>,
    /// Orphaned FIN_WAIT2 that lived as a full socket first, and the mean length of that part; null without.
    pub as_full_socket: Option<FullSocketPart>,
    /// The histogram of finished dwells: counts by cell, not cumulative, empty cells left out.
    pub buckets: Vec<Bucket>,
}

/// Finished dwells; null beside a count of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    /// How many.
    pub count: u64,
    /// Shortest, exact.
    pub min_ns: Option<u64>,
    /// Mean.
    pub mean_ns: Option<u64>,
    /// Median, to three digits.
    pub p50_ns: Option<u64>,
    /// 90th percentile, to three digits.
    pub p90_ns: Option<u64>,
    /// 99th percentile, to three digits.
    pub p99_ns: Option<u64>,
    /// Longest, exact.
    pub max_ns: Option<u64>,
}

/// Sockets that are in a state now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ages {
    /// How many.
    pub count: u64,
    /// Age of the oldest; null when there is none.
    pub oldest_ns: Option<u64>,
    /// The oldest was there before tracing began: it is at least that old.
    pub oldest_is_lower_bound: bool,
    /// How many were there before tracing began.
    pub began_before_tracing: u64,
    /// Their ages: counts by cell, not cumulative.
    pub ages: Vec<Bucket>,
}

/// Percentiles over finished and open dwells; null where not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SurvivalPercentiles {
    /// Median.
    pub p50_ns: Option<u64>,
    /// 90th percentile.
    pub p90_ns: Option<u64>,
    /// 99th percentile.
    pub p99_ns: Option<u64>,
    /// `kaplan_meier`.
    pub method: String,
    /// Dwells that ended.
    pub events: u64,
    /// Open dwells, censored at their age.
    pub censored: u64,
    /// Left truncation: dwells left out because they began before tracing.
    pub left_out: u64,
}

/// Dwells of unknown length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BeganBefore {
    /// How many.
    pub count: u64,
    /// What the longest of them is known to have lasted at least; null where nothing is known.
    pub longest_at_least_ns: Option<u64>,
}

/// What the timer was asked for and what that comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expected {
    /// The timeout that most timers were started with, jiffies.
    pub timeout_jiffies: u32,
    /// Shortest timeout seen, jiffies.
    pub min_timeout_jiffies: u32,
    /// Longest timeout seen, jiffies.
    pub max_timeout_jiffies: u32,
    /// The most common timeout; null where HZ is not known.
    pub base_ns: Option<u64>,
    /// When the timer wheel fires it at the latest; null where HZ is not known.
    pub latest_ns: Option<u64>,
}

/// The part of a dwell spent as a full socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FullSocketPart {
    /// How many dwells had one.
    pub count: u64,
    /// Shortest.
    pub min_ns: u64,
    /// Mean.
    pub mean_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

impl StateReport {
    /// The line of a report; `hz` as in the snapshot's meta.
    #[must_use]
    pub fn new(report: &snapshot::StateReport, hz: Option<u32>) -> Self {
        let finished = &report.finished;
        let oldest = report.open.oldest;
        Self {
            state: report.state,
            phase: report.phase,
            key: report.key.clone(),
            host: report.host.map(|host| host.as_str().to_owned()),
            began: report.began,
            finished: Finished::from(finished),
            ran_out: Finished::from(&report.ran_out),
            open: Ages {
                count: report.open.count,
                oldest_ns: oldest.map(|age| age.ns),
                oldest_is_lower_bound: oldest.is_some_and(|age| age.is_lower_bound),
                began_before_tracing: report.open.began_before,
                ages: report.open.ages.clone(),
            },
            survival: SurvivalPercentiles {
                p50_ns: report.survival.p50_ns,
                p90_ns: report.survival.p90_ns,
                p99_ns: report.survival.p99_ns,
                method: "kaplan_meier".to_owned(),
                events: report.survival.events,
                censored: report.survival.censored,
                left_out: report.survival.left_out,
            },
            ends: report.ends.iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            began_before_tracing: BeganBefore {
                count: report.began_before.count,
                longest_at_least_ns: report.began_before.longest_at_least_ns,
            },
            rearmed: report.rearmed,
            expected: report.timeout.map(|timeout| Expected::new(timeout, hz)),
            as_full_socket: report.as_full_socket.map(|part| FullSocketPart {
                count: part.count,
                min_ns: part.min_ns,
                mean_ns: part.mean_ns,
                max_ns: part.max_ns,
            }),
            buckets: finished.buckets.clone(),
        }
    }
}

impl From<&snapshot::Finished> for Finished {
    fn from(finished: &snapshot::Finished) -> Self {
        Self {
            count: finished.count,
            min_ns: finished.min_ns,
            mean_ns: finished.mean_ns,
            p50_ns: finished.p50_ns,
            p90_ns: finished.p90_ns,
            p99_ns: finished.p99_ns,
            max_ns: finished.max_ns,
        }
    }
}

impl Expected {
    fn new(timeout: snapshot::Timeout, hz: Option<u32>) -> Self {
        let range = hz.and_then(|hz| wheel::Expected::of_most(&timeout, hz));
        Self {
            timeout_jiffies: timeout.most_common_jiffies,
            min_timeout_jiffies: timeout.min_jiffies,
            max_timeout_jiffies: timeout.max_jiffies,
            base_ns: range.map(|range| range.base_ns),
            latest_ns: range.map(|range| range.latest_ns),
        }
    }
}
