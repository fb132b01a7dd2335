//! The immutable view that every renderer takes: text, JSON, HTML, the screen, Prometheus.
//!
//! Made by the engine from [`crate::stats::Stats`] and the tracker's open connections; nothing here changes
//! afterwards and nothing here reads a clock. All durations are nanoseconds, all moments CLOCK_MONOTONIC.

mod host;
mod key;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Comm, MonoNs};
use crate::loss::Loss;
use crate::net::{Flow, State};
use crate::outcome::{End, Phase};
use crate::stats::survival::Survival;

pub use host::{HostName, Part};
pub use key::{Key, KeyKind, Keying, ProcessKey};

/// Everything that is known at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Where, when and with what it was measured.
    pub meta: Meta,
    /// What was not seen.
    pub loss: Loss,
    /// Transitions of full sockets that found no room in the ring, by kind; part of `loss`. Counted in the kernel, so
    /// exact.
    pub lost_transitions: Vec<TransitionCount>,
    /// Hooks that this kernel lacks, and what is missing from the figures because of it.
    pub skipped: Vec<SkippedHook>,
    /// What else could not be seen, in words: namespaces that refused, connections given up.
    pub notes: Vec<String>,
    /// The BPF programs. Empty for a recording.
    pub programs: Vec<Program>,
    /// One report per state and phase in the kernel's order of states, then, with a key, one per key, state
    /// and phase; within a state the keys with most dwells first. See [`Snapshot::overall`] and
    /// [`Snapshot::keyed`].
    pub states: Vec<StateReport>,
    /// What the keyed reports are keyed by; `None` without a key.
    pub keyed_by: Option<Keying>,
    /// Transitions seen, by from and to, also those whose dwell is not known. Totals since the start.
    pub transitions: Vec<TransitionCount>,
    /// Whose sockets are in CLOSE_WAIT now, most first; `None` where the owner is not known.
    pub close_wait_holders: Ranking<Option<ProcessKey>>,
    /// Who made the TIME_WAITs. Always kept.
    pub time_wait: TimeWaitTally,
    /// connect() calls that found no local port or no route.
    pub connect_failures: ConnectFailures,
}

impl Snapshot {
    /// The reports over all connections, one per state and phase.
    pub fn overall(&self) -> impl Iterator<Item = &StateReport> {
        self.states.iter().filter(|report| report.key.is_none() && report.host.is_none())
    }

    /// The reports of single keys, or of single hosts where there are several.
    pub fn keyed(&self) -> impl Iterator<Item = &StateReport> {
        self.states.iter().filter(|report| report.key.is_some() || report.host.is_some())
    }

    /// What the keyed reports are about, for a title; `None` where there are none.
    #[must_use]
    pub fn keyed_title(&self) -> Option<&'static str> {
        match self.keyed_by {
            Some(keying) => Some(keying.kind.name()),
            None => self.keyed().next().map(|_| "host"),
        }
    }

    /// The report over all connections of one state and phase.
    #[must_use]
    pub fn of(&self, state: State, phase: Option<Phase>) -> Option<&StateReport> {
        self.overall().find(|report| report.state == state && report.phase == phase)
    }

    /// Sockets that are in `state` now, over all phases.
    #[must_use]
    pub fn open_in(&self, state: State) -> u64 {
        self.overall().filter(|report| report.state == state).map(|report| report.open.count).sum()
    }
}

/// Where, when and with what a snapshot was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// When tracing began.
    pub started: MonoNs,
    /// The moment of this snapshot: open dwells are as old as this.
    pub now: MonoNs,
    /// Turns moments into wall-clock times.
    pub wall: WallClock,
    /// Events received from the kernel or read from the recording.
    pub events: u64,
    /// Connections seen.
    pub connections: u64,
    /// Version of the tool that made the snapshot.
    pub tool_version: String,
    /// Host name; `None` where not known.
    pub host: Option<String>,
    /// Kernel release of the traced host, as `uname -r` gives it; `None` where not known.
    pub kernel: Option<String>,
    /// Timer ticks a second (CONFIG_HZ) of the traced kernel; `None` where not known.
    pub hz: Option<u32>,
    /// The sysctls that bear on dwells, per network namespace that was looked at.
    pub sysctls: Vec<Sysctls>,
    /// Name of the recording; `None` for a live kernel.
    pub recording: Option<String>,
    /// The filters in force, in words; empty without any.
    pub filters: String,
    /// The recordings that this was put together from; empty where it is of one source.
    pub parts: Vec<Part>,
}

impl Meta {
    /// Length of the trace, nanoseconds. Of several: the time in which at least one of them ran.
    #[must_use]
    pub fn elapsed_ns(&self) -> u64 {
        host::covered_ns(&self.parts).unwrap_or(self.now.saturating_sub(self.started))
    }

    /// Length of the trace, seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.elapsed_ns() as f64 / 1e9
    }
}

/// The distance between CLOCK_MONOTONIC and the wall clock, taken once so that one moment always has one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallClock {
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds.
    pub offset_ns: i64,
}

impl WallClock {
    /// The wall-clock time of a moment; the Unix epoch where it lies outside jiff's range of years.
    #[must_use]
    pub fn time(self, at: MonoNs) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(at) + i128::from(self.offset_ns)).unwrap_or_default()
    }
}

/// Sysctls of one network namespace that bear on dwells. `None` where one could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctls {
    /// Network namespace inode; `None` where not known.
    pub netns: Option<u32>,
    /// `net.ipv4.tcp_fin_timeout`, seconds.
    pub tcp_fin_timeout: Option<u32>,
    /// `net.ipv4.tcp_tw_reuse`: 0, 1 or 2.
    pub tcp_tw_reuse: Option<u32>,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub tcp_max_tw_buckets: Option<u32>,
    /// Ports that connect() may choose from: `ip_local_port_range` without `ip_local_reserved_ports`.
    #[serde(default)]
    pub local_ports: Option<u32>,
    /// Every sysctl that has to do with the closing states, or is said to, with its value; those without one are
    /// left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// A hook that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SkippedHook {
    /// Name of the tracepoint.
    pub name: String,
    /// Why, and what the figures lack because of it.
    pub why: String,
}

/// A BPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Program {
    /// Name.
    pub name: String,
    /// Times it ran; `null` where the kernel does not count (`kernel.bpf_stats_enabled` is 0).
    pub runs: Option<u64>,
}

/// How often one state followed another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransitionCount {
    /// The state that ended.
    pub from: State,
    /// The state that began.
    pub to: State,
    /// Times.
    pub count: u64,
}

/// What the figures of one state, phase and key are.
#[derive(Clone, Debug, PartialEq)]
pub struct StateReport {
    /// State.
    pub state: State,
    /// For FIN_WAIT2; `None` there means that it was only passed through on the way to TIME_WAIT, or that the
    /// phase was not known.
    pub phase: Option<Phase>,
    /// Whose; `None` for all connections together.
    pub key: Option<Key>,
    /// On which host; `None` where there is only one, and for all together.
    pub host: Option<HostName>,
    /// Times the state was entered while tracing.
    pub began: u64,
    /// Dwells that were seen from beginning to end.
    pub finished: Finished,
    /// Those of the finished that their timer ended ([`End::Expired`], [`End::TimedOut`]): what a timeout is
    /// to be judged by, because the others end when the peer or the application likes.
    pub ran_out: Finished,
    /// Sockets that are in the state now.
    pub open: OpenDwells,
    /// Kaplan-Meier over the finished and the open ones.
    pub survival: Survival,
    /// Why dwells ended, those included that began before tracing did.
    pub ends: Ends,
    /// Dwells that ended while tracing but began before it: of unknown length, so in no percentile.
    pub began_before: BeganBefore,
    /// The timer's timeout, where minis have one.
    pub timeout: Option<Timeout>,
    /// Dwells in which the timer was seen to be re-armed. A lower bound: re-arms into the same bucket of the
    /// timer wheel are silent.
    pub rearmed: u64,
    /// For orphaned FIN_WAIT2 that lived as a full socket first (`tcp_fin_timeout` > 60): that part.
    pub as_full_socket: Option<Spread>,
}

impl StateReport {
    /// False when the state was at most entered, and nothing is known of how long it lasts.
    #[must_use]
    pub fn has_dwells(&self) -> bool {
        self.finished.count + self.open.count + self.began_before.count > 0
    }

    /// Whether the open ones belong into a picture of how long the state lasts: where it lasts as long as somebody
    /// likes they do. Where a timer ends it, open ones are only on their way.
    #[must_use]
    pub fn shows_open(&self) -> bool {
        let has_limit = matches!(
            (self.state, self.phase),
            (State::TimeWait, _) | (State::FinWait2, Some(Phase::Orphaned))
        );
        self.open.count > 0 && (!has_limit || self.finished.count == 0)
    }
}

/// Finished dwells. The figures beside `count` are `None` when it is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    /// How many.
    pub count: u64,
    /// Sum, nanoseconds, exact.
    pub sum_ns: u128,
    /// Shortest, exact.
    pub min_ns: Option<u64>,
    /// Mean.
    pub mean_ns: Option<u64>,
    /// Median, to three significant digits.
    pub p50_ns: Option<u64>,
    /// 90th percentile, to three significant digits.
    pub p90_ns: Option<u64>,
    /// 99th percentile, to three significant digits.
    pub p99_ns: Option<u64>,
    /// Longest, exact.
    pub max_ns: Option<u64>,
    /// The cells of the histogram that hold anything, ascending. Their counts add up to `count`.
    pub buckets: Vec<Bucket>,
}

/// One cell of a histogram: durations from `ge_ns` to `le_ns`, both included.
///
/// The cells are HdrHistogram's at three significant digits over microseconds, so that those of two hosts or
/// two runs line up and can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Bucket {
    /// Shortest duration counted here, nanoseconds.
    pub ge_ns: u64,
    /// Longest duration counted here, nanoseconds.
    pub le_ns: u64,
    /// Durations in this cell alone: not cumulative.
    pub count: u64,
}

/// Dwells that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenDwells {
    /// How many.
    pub count: u64,
    /// How many of them were there before tracing began, so that their age is a lower bound. They are in no
    /// survival percentile.
    pub began_before: u64,
    /// Age of the oldest; `None` when there is none.
    pub oldest: Option<Age>,
    /// Ages (lower bounds included), ascending.
    pub ages: Vec<Bucket>,
    /// The ages of those whose beginning was seen, ascending: the censored part of a sample, beside
    /// [`Finished::buckets`].
    pub censored: Vec<Bucket>,
}

/// How long something has lasted. Of two equal ages the lower bound is the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    /// Nanoseconds.
    pub ns: u64,
    /// It began at an unknown time before: it has lasted at least this long.
    pub is_lower_bound: bool,
}

/// Dwells whose end was seen and whose beginning was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeganBefore {
    /// How many.
    pub count: u64,
    /// The longest that one of them is known to have lasted at least; `None` where nothing is known.
    pub longest_at_least_ns: Option<u64>,
}

/// Why dwells ended: a count per reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    counts: [u64; Self::NAMES.len()],
}

impl Ends {
    /// The reasons in JSON's words, in the order of [`Ends::iter`]. The last is for a dwell that ended
    /// because the connection moved on to its next state.
    pub const NAMES: [&'static str; 7] =
        ["expired", "reused", "reset", "destroyed", "timed_out", "overflow", "moved_on"];

    const fn slot(end: Option<End>) -> usize {
        match end {
            Some(End::Expired) => 0,
            Some(End::Reused) => 1,
            Some(End::Reset) => 2,
            Some(End::Destroyed) => 3,
            Some(End::TimedOut) => 4,
            Some(End::Overflow) => 5,
            None => 6,
        }
    }

    /// Counts one end.
    pub const fn add(&mut self, end: Option<End>) {
        self.counts[Self::slot(end)] += 1;
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
    }

    /// How many dwells ended for this reason; `None` is moving on to the next state.
    #[must_use]
    pub const fn get(&self, end: Option<End>) -> u64 {
        self.counts[Self::slot(end)]
    }

    /// All ends.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Name and count of every reason that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.counts).filter(|&(_, count)| count > 0)
    }
}

/// The timeouts, in jiffies, that the timers of minis were started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// Shortest.
    pub min_jiffies: u32,
    /// Most frequent.
    pub most_common_jiffies: u32,
    /// Longest.
    pub max_jiffies: u32,
}

/// Count, extremes and mean of some durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Shortest, nanoseconds.
    pub min_ns: u64,
    /// Mean, nanoseconds.
    pub mean_ns: u64,
    /// Longest, nanoseconds.
    pub max_ns: u64,
}

/// Who made the TIME_WAITs, and towards whom. A TIME_WAIT is counted when it begins.
///
/// The lists are bounded; counts are exact while `undercount` is 0 and else lower bounds, too low by at most
/// `undercount`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeWaitTally {
    /// TIME_WAITs that began, exact.
    pub total: u64,
    /// Processes, most first; `None` where the owner is not known.
    pub owners: Ranking<Option<ProcessKey>>,
    /// Processes and remote endpoints, most first. Spread thin when the remote ports are ephemeral, that is
    /// when the process is the server.
    pub remotes: Ranking<(Option<ProcessKey>, SocketAddr)>,
    /// Processes and local ports, most first. Spread thin when the local ports are ephemeral, that is when
    /// the process is the client.
    pub local_ports: Ranking<(Option<ProcessKey>, u16)>,
    /// TIME_WAITs that are there now, by what they keep a local port from being used for; most first.
    pub open_to: Ranking<Destination>,
    /// Task name and cgroup of the owners. Counts are exact and never fall; what came after the limit is in
    /// `by_comm_other`.
    pub by_comm: Vec<CommCount>,
    /// TIME_WAITs whose owner is not among `by_comm`, those of unknown owners included.
    pub by_comm_other: u64,
}

/// What a local port can be used for once at a time: a client's TIME_WAITs towards one destination use up
/// `ip_local_port_range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// Network namespace.
    pub netns: u32,
    /// Local address.
    pub local: IpAddr,
    /// Remote address and port.
    pub remote: SocketAddr,
}

impl Destination {
    /// Where a connection leads.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        Self { netns: flow.netns, local: flow.local.ip(), remote: flow.remote_addr() }
    }
}

/// A bounded list of the most frequent.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking<T> {
    /// What and how often, most first.
    pub top: Vec<(T, u64)>,
    /// Each count is too low by at most this; 0 when all are exact.
    pub undercount: u64,
}

impl<T> Ranking<T> {
    /// The same list with other entries.
    #[must_use]
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Ranking<U> {
        Ranking {
            top: self.top.into_iter().map(|(entry, count)| (change(entry), count)).collect(),
            undercount: self.undercount,
        }
    }
}

impl<T> Default for Ranking<T> {
    fn default() -> Self {
        Self { top: Vec::new(), undercount: 0 }
    }
}

/// TIME_WAITs begun by the processes of one name in one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommCount {
    /// Task name.
    pub comm: Comm,
    /// cgroup v2 id; 0 where unknown.
    pub cgroup_id: u64,
    /// TIME_WAITs.
    pub count: u64,
}

/// connect() calls that failed with EADDRNOTAVAIL: no free local port, or no route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectFailures {
    /// How many.
    pub count: u64,
    /// Who, and to where; most first.
    pub by: Ranking<(Option<ProcessKey>, SocketAddr)>,
}
