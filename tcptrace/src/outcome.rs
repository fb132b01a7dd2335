//! What the tracker concludes from events: transitions with measured dwells, ends with reasons, owners with
//! evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Comm, MonoNs};
use crate::net::{Flow, State};

/// A connection's number: unique in a run, from 1.
pub type ConnId = u64;

/// What tells two kinds of FIN_WAIT2 apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// shutdown(SHUT_WR), the descriptor still open: a full socket without a timer, as long as the peer likes.
    HalfClosed,
    /// The application has closed: limited by `tcp_fin_timeout`. Includes the time as a full socket that
    /// `tcp_fin_timeout` > 60 adds.
    Orphaned,
}

/// Why a dwell ended, where the kernel's way out says more than the next state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// TIME_WAIT ran its full time.
    Expired,
    /// The four-tuple was taken by a new connection: connect() with tcp_tw_reuse, an explicitly bound port, or an incoming SYN.
    Reused,
    /// RST, sent or received.
    Reset,
    /// Taken away: `ss -K`, tcp_abort(), or its network namespace went.
    Destroyed,
    /// A timer gave up: tcp_fin_timeout for an orphaned FIN_WAIT2, retransmission or keepalive elsewhere.
    TimedOut,
    /// `tcp_max_tw_buckets` was reached: no TIME_WAIT was made at all.
    Overflow,
}

/// How it is known who owns a connection. Later variants are weaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// It closed or shut down the socket, in process context.
    Close,
    /// It called connect().
    Connect,
    /// Found holding the descriptor in /proc.
    Fd,
    /// It listens on the port that accepted the connection.
    Listen,
}

/// The process a connection belongs to, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Task name.
    pub comm: Comm,
    /// How it is known.
    pub evidence: Evidence,
    /// cgroup v2 id; 0 where unknown.
    pub cgroup_id: u64,
}

/// How long a state lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dwell {
    /// Nanoseconds.
    pub ns: u64,
    /// The beginning was not seen: it lasted at least this long.
    pub is_lower_bound: bool,
}

/// One transition of one connection, as the truth about the protocol: FIN_WAIT2→TIME_WAIT→CLOSE, where the
/// tracepoint alone says FIN_WAIT2→CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: MonoNs,
    /// Which connection.
    pub conn: ConnId,
    /// Where.
    pub flow: Flow,
    /// The state that ended.
    pub from: State,
    /// The state that began.
    pub to: State,
    /// Phase of `from`, for FIN_WAIT2.
    pub phase: Option<Phase>,
    /// Phase of `to`, for FIN_WAIT2.
    pub to_phase: Option<Phase>,
    /// Time spent in `from`; `None` where its beginning is not known at all (also for CLOSE, which has none).
    pub dwell: Option<Dwell>,
    /// For an orphaned FIN_WAIT2 that lived as a full socket first (tcp_fin_timeout > 60): that part, ns.
    pub as_full_socket_ns: Option<u64>,
    /// Why `from` ended.
    pub end: Option<End>,
    /// Times the TIME_WAIT timer was seen to be re-armed: a lower bound (re-arms into the same bucket of the
    /// timer wheel are silent).
    pub rearmed: u32,
    /// The timer's base timeout in jiffies, for a mini whose start was seen.
    pub timeout_jiffies: Option<u32>,
    /// Who.
    pub owner: Option<Owner>,
}

impl Transition {
    /// A transition of which nothing is known but what is seen at once.
    #[must_use]
    pub fn new(at: MonoNs, conn: ConnId, flow: Flow, from: State, to: State) -> Self {
        Self {
            at,
            conn,
            flow,
            from,
            to,
            phase: None,
            to_phase: None,
            dwell: None,
            as_full_socket_ns: None,
            end: None,
            rearmed: 0,
            timeout_jiffies: None,
            owner: None,
        }
    }
}

/// Everything the tracker can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A transition; its `dwell` ended.
    Transition(Transition),
    /// connect() found no free local port (EADDRNOTAVAIL) or no route: SYN_SENT left again in process context
    /// within microseconds, port 0.
    ConnectFailed {
        /// When.
        at: MonoNs,
        /// Where to; the local port is 0.
        flow: Flow,
        /// Who tried.
        owner: Option<Owner>,
    },
}

/// A state that a connection is in now: what a histogram of finished dwells never shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which connection.
    pub conn: ConnId,
    /// Where.
    pub flow: Flow,
    /// In this state.
    pub state: State,
    /// For FIN_WAIT2.
    pub phase: Option<Phase>,
    /// Since when, at the latest.
    pub since: MonoNs,
    /// `since` is when it was first known, not when it began.
    pub since_is_lower_bound: bool,
    /// Who.
    pub owner: Option<Owner>,
    /// Bytes unread when last seen (CLOSE_WAIT); `None` where not known.
    pub unread: Option<u32>,
}
