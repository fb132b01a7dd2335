//! What is known of the sockets in CLOSE_WAIT and of the processes behind them, wherever it came from.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::event::{Comm, MonoNs};
use crate::inventory::process::{Fds, Process};
use crate::net::Flow;
use crate::snapshot::Age;

/// A socket in CLOSE_WAIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which connection.
    pub flow: Flow,
    /// Time in CLOSE_WAIT; `None` where not even a bound is known.
    pub age: Option<Age>,
    /// `idiag_rqueue`: unread bytes, of which the peer's end counts as one. `None` where not known.
    pub recv_queue: Option<u32>,
    /// Whose user created it; `None` where not known.
    pub uid: Option<u32>,
    /// The listening address of the port that accepted it; `None` for a connection that was opened from here,
    /// or whose listener is gone.
    pub accepted_on: Option<SocketAddr>,
    /// In whose hands it is.
    pub custody: Custody,
}

/// In whose hands a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Custody {
    /// Processes hold it; never empty, ascending by pid and descriptor.
    Held(Vec<Keeper>),
    /// No accept() has returned it yet. Those who listen, ascending; empty where they cannot be seen.
    AcceptQueue(Vec<u32>),
    /// It exists, and no process has a descriptor of it: in flight over a UNIX socket, registered with io_uring,
    /// or a socket of the kernel's own (NFS, CIFS, Ceph).
    Nobody,
    /// Nobody was found, but not everybody could be looked at.
    Unseen,
    /// It has no inode and its port no listener: between two states of the kernel.
    Detached,
}

/// A descriptor of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keeper {
    /// Process id.
    pub pid: u32,
    /// Descriptor number; `None` where only the process is known.
    pub fd: Option<u32>,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    /// Where.
    pub addr: SocketAddr,
    /// Its network namespace.
    pub netns: u32,
    /// Connections that wait for accept().
    pub queued: u32,
    /// How many may wait: the backlog of listen(), at most `net.core.somaxconn`.
    pub backlog: u32,
}

/// A process that may be to blame. All text is escaped; what could not be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Culprit {
    /// Process id.
    pub pid: u32,
    /// Task name.
    pub comm: Comm,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Command line.
    pub cmdline: Option<String>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
    /// Container, as a person calls it: `docker 0123456789ab`.
    pub container_shown: Option<String>,
    /// cgroup v2 id; 0 where unknown.
    pub cgroup_id: u64,
    /// Descriptors.
    pub fds: Fds,
}

impl Culprit {
    /// From what /proc says.
    #[must_use]
    pub fn new(process: &Process, cgroup_id: u64) -> Self {
        let workload = process.workload();
        Self {
            pid: process.pid,
            comm: process.comm,
            exe: process.exe_shown(),
            cmdline: process.cmdline_shown(),
            uid: process.uid,
            unit: workload.unit.clone(),
            container: workload.container.as_ref().map(|container| container.id.clone()),
            container_shown: workload.container.as_ref().map(ToString::to_string),
            cgroup_id,
            fds: process.fds,
        }
    }
}

/// Everything that leaks are concluded from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The moment that ages refer to.
    pub at: MonoNs,
    /// Every socket in CLOSE_WAIT whose addresses the filter wants.
    pub candidates: Vec<Candidate>,
    /// Processes by pid.
    pub culprits: BTreeMap<u32, Culprit>,
    /// Where each process listens, ascending.
    pub listening: BTreeMap<u32, Vec<Listening>>,
    /// Names of network namespaces; those without one, and the program's own, are left out.
    pub namespaces: BTreeMap<u32, String>,
    /// The program's own network namespace, which goes without saying; `None` for a recording.
    pub own_netns: Option<u32>,
    /// How much was looked at.
    pub looked: Looked,
    /// What could not be seen, in words.
    pub notes: Vec<String>,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Network namespaces.
    pub namespaces: u64,
    /// Sockets in CLOSE_WAIT, those included that the filter does not want.
    pub close_wait: u64,
    /// Processes whose descriptors were read; `None` where nothing asked for it.
    pub processes: Option<u64>,
    /// Descriptors; `None` where nothing asked for it.
    pub fds: Option<u64>,
}
