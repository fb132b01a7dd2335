//! The lines that events, leaks, counts and findings become.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LeakProcess;
use crate::event::{Comm, MonoNs};
use crate::loss::Loss;
use crate::net::{Family, State};
use crate::outcome::{ConnId, End, Evidence, Phase};
use crate::snapshot::{Key, Program, SkippedHook, TransitionCount};

/// A wall-clock time, RFC 3339 in UTC, always with nine digits: equal lengths sort as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(transparent)]
#[schemars(extend("format" = "date-time"))]
pub struct Time(#[schemars(with = "String")] pub Timestamp);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.9}", self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// The process that a connection belongs to, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnerRef {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Task name; control characters escaped.
    #[schemars(with = "String")]
    pub comm: Comm,
    /// How it is known.
    pub evidence: Evidence,
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessRef {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Task name; control characters escaped.
    #[schemars(with = "String")]
    pub comm: Comm,
}

/// A connection went from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// When.
    pub time: Time,
    /// When, CLOCK_MONOTONIC, nanoseconds.
    pub mono_ns: MonoNs,
    /// Number of the connection, unique in a run.
    pub conn: ConnId,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Address family; IPv6 sockets with v4-mapped addresses are ipv4.
    pub family: Family,
    /// Local address and port.
    #[schemars(with = "String")]
    pub local: SocketAddr,
    /// Remote address and port.
    #[schemars(with = "String")]
    pub remote: SocketAddr,
    /// The state that ended.
    pub from: State,
    /// The state that began.
    pub to: State,
    /// Time spent in `from`; null where its beginning is not known at all.
    pub dwell_ns: Option<u64>,
    /// The beginning was not seen: it lasted at least that long.
    pub dwell_is_lower_bound: bool,
    /// For FIN_WAIT2 as `from`: which kind.
    pub phase: Option<Phase>,
    /// For FIN_WAIT2 as `to`: which kind.
    pub to_phase: Option<Phase>,
    /// Why `from` ended; null when the connection moved on to its next state.
    pub end: Option<End>,
    /// Times the timer of a TIME_WAIT was seen to be re-armed: a lower bound.
    pub rearmed: u32,
    /// The part of an orphaned FIN_WAIT2 spent as a full socket (tcp_fin_timeout above 60); null without one.
    pub as_full_socket_ns: Option<u64>,
    /// The timeout of the timer, jiffies; null without a timer or where its start was not seen.
    pub timeout_jiffies: Option<u32>,
    /// Whose; null where not known.
    pub owner: Option<OwnerRef>,
}

/// connect() failed with EADDRNOTAVAIL: no free local port, or no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectFailed {
    /// When.
    pub time: Time,
    /// When, CLOCK_MONOTONIC, nanoseconds.
    pub mono_ns: MonoNs,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Address family.
    pub family: Family,
    /// Where to.
    #[schemars(with = "String")]
    pub remote: SocketAddr,
    /// Whose; null where not known.
    pub owner: Option<OwnerRef>,
}

/// Sockets by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct States {
    /// Network namespace; null for all together.
    pub netns: Option<u32>,
    /// Sockets in each state that has any.
    #[schemars(with = "BTreeMap<String, u64>")]
    pub counts: BTreeMap<State, u64>,
    /// MPTCP sockets in each state that has any. They are not in `counts`; their subflows are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, u64>")]
    pub mptcp: BTreeMap<State, u64>,
    /// The same by process or another key, most sockets first; empty unless asked for. A socket that several
    /// processes hold is counted under each of them.
    pub by: Vec<StatesBy>,
}

/// Sockets of one key by state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatesBy {
    /// Whose.
    #[serde(flatten)]
    pub whose: Whose,
    /// Sockets in each state that has any.
    #[schemars(with = "BTreeMap<String, u64>")]
    pub counts: BTreeMap<State, u64>,
}

/// What sockets are counted under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// A process that holds them; null for sockets that none holds, such as those in TIME_WAIT, and where the
    /// holder may not be seen.
    Process(Option<LeakProcess>),
    /// The lower of the two ports.
    Port(u16),
    /// The remote address.
    Peer(IpAddr),
    /// The network namespace.
    Netns(u32),
    /// The container of the holder; null for none or not known.
    Container(Option<String>),
}

/// What a changed sysctl, or the difference between two recordings, did to a state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effect {
    /// The sysctl; null when two recordings are compared.
    pub sysctl: Option<String>,
    /// Its value in the first arm.
    pub before: Option<String>,
    /// Its value in the second arm.
    pub after: Option<String>,
    /// State.
    pub state: State,
    /// For FIN_WAIT2.
    pub phase: Option<Phase>,
    /// Whose; null for all connections together.
    pub key: Option<Key>,
    /// What is compared: `p50_ns`, `p90_ns`, `p99_ns`, `ends_` and a reason (counts), `curve_distance` (the
    /// largest distance between the two survival curves, 0 to 1, in `b`).
    pub metric: String,
    /// The metric in the first arm; null where it is not reached.
    pub a: Option<f64>,
    /// The metric in the second arm; null where it is not reached.
    pub b: Option<f64>,
    /// 95 % confidence interval of the difference, second minus first; null without enough data.
    pub difference_ci95_ns: Option<[i64; 2]>,
    /// Whether it changed; null when there is not enough data to tell.
    pub changed: Option<bool>,
    /// Chance of such a difference without a change, corrected for all states that were compared together;
    /// null without enough data.
    pub p_value: Option<f64>,
    /// The same in words.
    pub detail: Option<String>,
}

/// The end of a trace: how much was seen and how much was not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Length of the trace.
    pub seconds: f64,
    /// Events received.
    pub events: u64,
    /// Connections seen.
    pub connections: u64,
    /// What was not seen.
    pub loss: Loss,
    /// Share of the kernel's events that was received, at least: 1 when none was lost. Null without events.
    pub seen_share: Option<f64>,
    /// Of what found no room in the ring the transitions of full sockets, by kind: counted in the kernel, exact. Absent
    /// where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_transitions: Vec<TransitionCount>,
    /// The BPF side.
    pub bpf: Bpf,
    /// Hooks that this kernel lacks.
    pub skipped: Vec<SkippedHook>,
    /// connect() calls that found no local port or no route.
    pub connect_failures: u64,
    /// TIME_WAITs that began.
    pub time_waits: u64,
    /// Who began them, most first: at most ten.
    pub time_wait_makers: Vec<TimeWaitMaker>,
    /// The recordings that a report of several was put together from; absent for one source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// A recording that is part of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Its host, or its file where the host is not known.
    pub host: String,
    /// Its file.
    pub recording: String,
    /// When it began.
    pub began: Time,
    /// Its length.
    pub seconds: f64,
    /// Events in it.
    pub events: u64,
    /// Connections in it.
    pub connections: u64,
    /// What was not seen.
    pub loss: Loss,
}

/// The BPF side of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bpf {
    /// The programs; empty for a recording.
    pub programs: Vec<Program>,
}

/// TIME_WAITs begun by one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeWaitMaker {
    /// Whose; null where not known.
    pub process: Option<ProcessRef>,
    /// On which host, where the report is of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How many, at least.
    pub count: u64,
    /// How many more it may be: 0 when the count is exact.
    pub undercount: u64,
}

/// A command that was traced from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Program and arguments; control characters escaped.
    pub command: Vec<String>,
    /// Its exit status; `null` when a signal killed it.
    pub status: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Sockets that it left in CLOSE_WAIT.
    pub leaks: Vec<RunLeak>,
    /// What counts as its own, and what could not be seen.
    pub notes: Vec<String>,
}

/// A socket that a command left in CLOSE_WAIT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunLeak {
    /// Number of the connection, unique in a run.
    pub conn: ConnId,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Whose.
    pub process: Option<ProcessRef>,
    /// Time in CLOSE_WAIT, nanoseconds; `null` where its beginning was not seen.
    pub age_ns: Option<u64>,
    /// A process that outlived the command holds it; otherwise it was closed only as its process ended.
    pub still_open: bool,
}
