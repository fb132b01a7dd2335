//! `sock_diag`: every TCP socket of a network namespace, TIME_WAIT minis included.

pub(crate) mod decode;
mod halves;
mod masses;
mod query;
mod sink;
mod states;

pub use decode::{Context, DecodeError, Part, decode, decode_datagram};
pub use query::{Query, QueryError, list_here};
pub use sink::Sink;
pub use states::StateSet;

use serde::{Deserialize, Serialize};

use crate::event::{MonoNs, Protocol};
use crate::net::{Flow, State};

/// The longest jiffy, 10 ms at HZ=100, nanoseconds. Times in a dump are differences of two readings of `jiffies`: they
/// may be longer than the truth by less than one.
pub(crate) const JIFFY_NS: u64 = 10_000_000;

/// One socket of an `inet_diag` dump (72 bytes of `struct inet_diag_msg` and its attributes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagSocket {
    /// When this answer was read.
    pub at: MonoNs,
    /// Where.
    pub flow: Flow,
    /// State; for a mini its substate (FIN_WAIT2 or TIME_WAIT).
    pub state: State,
    /// A TIME_WAIT mini (`idiag_timer` == 3): no owner, no inode, no queues.
    pub is_mini: bool,
    /// TCP, the MPTCP socket that an application holds, or one of its TCP subflows (told apart only with
    /// CAP_NET_ADMIN).
    pub protocol: Protocol,
    /// `idiag_expires`: milliseconds left on the socket's timer; 0 without a timer.
    pub expires_ms: u32,
    /// `idiag_timer`: 0 none, 1 retransmission, 2 keepalive, 3 TIME_WAIT, 4 zero-window probe.
    pub timer: u8,
    /// Inode of the socket; `None` for minis, orphans and connections not yet accepted.
    pub inode: Option<u64>,
    /// Owner's uid; `None` for minis.
    pub uid: Option<u32>,
    /// `idiag_rqueue`: unread bytes (the FIN counts as 1); for a listener the accept queue's length.
    pub recv_queue: u32,
    /// `idiag_wqueue`: bytes not acknowledged; for a listener the backlog.
    pub send_queue: u32,
    /// Socket cookie; a mini has that of the socket it replaced. `None` where the kernel gives none.
    pub cookie: Option<u64>,
    /// cgroup v2 id of the socket's creator; `None` for minis, request sockets and kernels before 5.8.
    #[serde(default)]
    pub cgroup_id: Option<u64>,
    /// `tcpi_last_ack_recv`, or `mptcpi_last_ack_recv` (since 6.10), milliseconds: a lower bound of the age of
    /// CLOSE_WAIT and a full FIN_WAIT2.
    pub last_ack_recv_ms: Option<u32>,
}

#[cfg(test)]
impl DiagSocket {
    /// A TCP socket of which nothing else is known; a mini in TIME_WAIT.
    pub(crate) fn bare(flow: Flow, state: State) -> Self {
        Self {
            at: 0,
            flow,
            state,
            is_mini: state == State::TimeWait,
            protocol: Protocol::Tcp,
            expires_ms: 0,
            timer: 0,
            inode: None,
            uid: None,
            recv_queue: 0,
            send_queue: 0,
            cookie: None,
            cgroup_id: None,
            last_ack_recv_ms: None,
        }
    }
}

/// The dump of one or more network namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// When the first request was sent.
    pub started: MonoNs,
    /// When the last answer was read.
    pub finished: MonoNs,
    /// The namespaces that were dumped completely; sockets of others are not in `sockets` and nothing may be
    /// concluded from their absence.
    pub namespaces: Vec<u32>,
    /// Every socket.
    pub sockets: Vec<DiagSocket>,
    /// What could not be seen, in words (a namespace that refused or vanished).
    pub notes: Vec<String>,
}
