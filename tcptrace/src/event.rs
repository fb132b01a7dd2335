//! What the kernel said, as owned values. Made from bytes by `decode`, or read from a recording.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::net::{Flow, State};

/// A moment on CLOCK_MONOTONIC, in nanoseconds since boot. The only time the pure parts know.
pub type MonoNs = u64;

/// A task name (TASK_COMM_LEN): other people's bytes, shown only escaped, as its `Display` does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The bytes before the first NUL.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        &self.0[..end]
    }

    /// Takes the bytes before the first NUL, 15 at most, as the kernel does: what lies behind them is no part of
    /// the name, and must not tell two equal names apart.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut comm = [0; 16];
        let len = bytes.iter().take(15).position(|&byte| byte == 0).unwrap_or(bytes.len().min(15));
        comm[..len].copy_from_slice(&bytes[..len]);
        Self(comm)
    }
}

/// Shown with control characters and invalid UTF-8 escaped, so that no name can drive a terminal.
impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&crate::text::escape(self.bytes()))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Comm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Comm {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::from_bytes(&crate::text::unescape(&text)))
    }
}

/// The task that was running in process context when the event happened. Never the on-CPU task of a softirq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Task name. Empty in mini events, which do not carry it.
    #[serde(default)]
    pub comm: Comm,
    /// cgroup v2 id (inode of its directory); 0 where unknown.
    #[serde(default)]
    pub cgroup_id: u64,
    /// A kernel thread.
    #[serde(default)]
    pub kthread: bool,
}

/// Where the event ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// On the stack of this task.
    Process(Task),
    /// On an interrupt or softirq stack.
    Softirq,
    /// Could not be told on this kernel.
    Unknown,
}

impl Context {
    /// The task, where there is one.
    #[must_use]
    pub fn task(&self) -> Option<&Task> {
        match self {
            Self::Process(task) => Some(task),
            Self::Softirq | Self::Unknown => None,
        }
    }
}

/// Which protocol the socket speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Plain TCP.
    #[default]
    Tcp,
    /// An MPTCP connection: the socket that the application holds.
    Mptcp,
    /// A TCP subflow of an MPTCP connection.
    MptcpSubflow,
}

/// `sock:inet_sock_set_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// When.
    pub at: MonoNs,
    /// Address of the socket; identity only while the socket lives.
    pub sk: u64,
    /// Where. Provisional when `from` is LISTEN (the child's peer may not be filled in yet) and when `to` is
    /// SYN_SENT (the local port may still be 0).
    pub flow: Flow,
    /// Old state.
    pub from: State,
    /// New state.
    pub to: State,
    /// Protocol.
    pub protocol: Protocol,
    /// Execution context.
    pub context: Context,
    /// No application holds the socket (`sk_socket == NULL`).
    pub orphan: bool,
    /// TCP_LINGER2 is negative: FIN_WAIT2 ends at once by RST.
    pub linger2_negative: bool,
    /// `rcv_nxt - copied_seq`; the FIN counts as 1. Known on the way into and out of CLOSE_WAIT, and to CLOSE
    /// of what was established; never of an MPTCP connection, which counts in a structure of its own.
    pub unread: Option<u32>,
    /// `sk_err` when `to` is CLOSE, else 0.
    pub sk_err: u16,
    /// How many more minis `tcp_max_tw_buckets` allowed the namespace, when a socket went from FIN_WAIT2 or
    /// CLOSING to CLOSE without an error; `None` elsewhere, and where the kernel does not tell.
    pub buckets_left: Option<u32>,
}

/// `timer_start` or `timer_cancel` of a mini's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MiniTimer {
    /// When.
    pub at: MonoNs,
    /// Address of the mini; identity only while it lives.
    pub mini: u64,
    /// Where.
    pub flow: Flow,
    /// `tw_substate`: [`State::FinWait2`] or [`State::TimeWait`].
    pub substate: State,
    /// Time left on the timer when the event fired, in jiffies: on start the timeout, on cancel what was
    /// left; ≤ 0 on cancel means that it had run out.
    pub left_jiffies: i64,
    /// Execution context.
    pub context: Context,
}

/// `timer_expire_entry` of a mini's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MiniExpired {
    /// When.
    pub at: MonoNs,
    /// Address of the mini.
    pub mini: u64,
}

/// The application was told end of file in CLOSE_WAIT (`sock_recv_length` with 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EofTold {
    /// When.
    pub at: MonoNs,
    /// Address of the socket.
    pub sk: u64,
    /// Where.
    pub flow: Flow,
    /// Who was told.
    pub task: Task,
}

/// One event of the kernel, in the order in which the ring buffer received them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A transition of a full socket.
    State(StateChange),
    /// A mini's timer was started: it was created, or re-armed.
    MiniStarted(MiniTimer),
    /// A mini's timer was taken off the wheel: expired, about to be re-armed, or ended early.
    MiniCancelled(MiniTimer),
    /// A mini's timer ran out.
    MiniExpired(MiniExpired),
    /// An application was told EOF.
    EofTold(EofTold),
}

impl Event {
    /// When it happened.
    #[must_use]
    pub fn at(&self) -> MonoNs {
        match self {
            Self::State(event) => event.at,
            Self::MiniStarted(event) | Self::MiniCancelled(event) => event.at,
            Self::MiniExpired(event) => event.at,
            Self::EofTold(event) => event.at,
        }
    }

    /// Whose flow it was; a mini's expiry does not carry it.
    #[must_use]
    pub fn flow(&self) -> Option<&Flow> {
        match self {
            Self::State(event) => Some(&event.flow),
            Self::MiniStarted(event) | Self::MiniCancelled(event) => Some(&event.flow),
            Self::MiniExpired(_) => None,
            Self::EofTold(event) => Some(&event.flow),
        }
    }
}
