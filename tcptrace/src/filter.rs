//! Which connections are wanted. Values of one kind are alternatives, different kinds must all hold.
//!
//! Pure: names that only a running system or a recording can resolve go through [`Resolver`] once, when the
//! filter is built (`settings`). What can be decided in the kernel is, by [`Filter::kernel_part`]; user space
//! decides everything again, so that a kernel that lets more through changes nothing.

mod kernel;
mod line;
mod pattern;

use ipnet::IpNet;

use crate::event::{Comm, MonoNs};
use crate::inventory::diag::DiagSocket;
use crate::net::{Addr, Family, Flow, State};
use crate::outcome::{Open, Owner, Transition};

pub use crate::inventory::diag::StateSet;
pub use kernel::{Detail, tells_every_end};
pub use line::parse_line;
pub use pattern::CommPattern;

/// A name in a filter that stands for nothing: a sentence with the name in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unresolved(pub String);

/// Resolves what only the running system, or the system that made a recording, knows.
pub trait Resolver {
    /// Inode number of a network namespace that exists, given as a name in `ip netns`, an inode number or the id of
    /// a process in it.
    fn netns(&self, wanted: &str) -> Result<u32, Unresolved>;

    /// cgroup v2 ids (inodes of their directories) of every cgroup of the one container or pod whose id begins so.
    fn container(&self, id: &str) -> Result<Vec<u64>, Unresolved>;

    /// Confirms that a process exists.
    fn pid(&self, pid: u32) -> Result<(), Unresolved>;
}

/// A wanted network namespace: what was asked for, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// As given, but for the id of a process: the inode number.
    pub wanted: String,
    /// Inode number.
    pub inode: u32,
}

/// A wanted container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Beginning of its id, as given.
    pub wanted: String,
    /// Its cgroups.
    pub cgroup_ids: Vec<u64>,
}

/// Which connections are wanted. An empty list wants all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Port on either side.
    pub ports: Vec<u16>,
    /// Local port.
    pub local_ports: Vec<u16>,
    /// Remote port.
    pub remote_ports: Vec<u16>,
    /// Address on either side; never v4-mapped.
    pub networks: Vec<IpNet>,
    /// Owner's process id.
    pub pids: Vec<u32>,
    /// Owner's task name.
    pub comms: Vec<CommPattern>,
    /// Network namespace.
    pub namespaces: Vec<Netns>,
    /// Owner's container.
    pub containers: Vec<Container>,
    /// Address family as shown.
    pub family: Option<Family>,
    /// Wanted states. Never empty.
    pub states: StateSet,
    /// Shortest dwell of interest, nanoseconds.
    pub min_dwell_ns: Option<u64>,
}

impl Default for Filter {
    /// Wants everything.
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            local_ports: Vec::new(),
            remote_ports: Vec::new(),
            networks: Vec::new(),
            pids: Vec::new(),
            comms: Vec::new(),
            namespaces: Vec::new(),
            containers: Vec::new(),
            family: None,
            states: StateSet::ALL,
            min_dwell_ns: None,
        }
    }
}

impl Filter {
    /// True when the filter wants everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// True when it asks about owners: whoever finds holders in /proc must then do so before matching.
    #[must_use]
    pub fn needs_owner(&self) -> bool {
        !(self.pids.is_empty() && self.comms.is_empty() && self.containers.is_empty())
    }

    /// Decides by addresses, ports, family and namespace. Ports that connect() has not chosen yet are 0 and
    /// match no wanted port.
    #[must_use]
    pub fn matches_flow(&self, flow: &Flow) -> bool {
        let one_of = |wanted: &[u16], port: u16| wanted.is_empty() || wanted.contains(&port);
        (self.ports.is_empty()
            || self.ports.contains(&flow.local_port)
            || self.ports.contains(&flow.remote_port))
            && one_of(&self.local_ports, flow.local_port)
            && one_of(&self.remote_ports, flow.remote_port)
            && self.family.is_none_or(|family| family == flow.family())
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|netns| netns.inode == flow.netns))
            && (self.networks.is_empty() || self.in_networks(flow.local) || self.in_networks(flow.remote))
    }

    fn in_networks(&self, addr: Addr) -> bool {
        let ip = addr.ip();
        self.networks.iter().any(|net| net.contains(&ip))
    }

    /// Decides by the owner. An owner that is not known matches no wish for one.
    #[must_use]
    pub fn matches_owner(&self, owner: Option<&Owner>) -> bool {
        match owner {
            None => !self.needs_owner(),
            Some(owner) => self.matches_process(owner.pid, owner.comm, owner.cgroup_id),
        }
    }

    /// Decides by a process, for example one that holds a descriptor. `cgroup_id` 0 is not known.
    #[must_use]
    pub fn matches_process(&self, pid: u32, comm: Comm, cgroup_id: u64) -> bool {
        (self.pids.is_empty() || self.pids.contains(&pid))
            && (self.comms.is_empty() || self.comms.iter().any(|pattern| pattern.matches(comm)))
            && (self.containers.is_empty()
                || (cgroup_id != 0
                    && self.containers.iter().any(|container| container.cgroup_ids.contains(&cgroup_id))))
    }

    /// Decides by age or length, nanoseconds, also where only a lower bound is known: a socket is left out
    /// unless it is certain to have lasted long enough.
    #[must_use]
    pub fn matches_dwell_ns(&self, dwell_ns: Option<u64>) -> bool {
        self.min_dwell_ns.is_none_or(|min_ns| dwell_ns.is_some_and(|ns| ns >= min_ns))
    }

    /// For a list of transitions: those that leave or enter a wanted state.
    #[must_use]
    pub fn matches_transition(&self, transition: &Transition) -> bool {
        (self.states.contains(transition.from) || self.states.contains(transition.to))
            && self.matches_dwell_ns(transition.dwell.map(|dwell| dwell.ns))
            && self.matches_flow(&transition.flow)
            && self.matches_owner(transition.owner.as_ref())
    }

    /// For statistics: the dwells that ended in a wanted state.
    #[must_use]
    pub fn matches_finished(&self, transition: &Transition) -> bool {
        self.states.contains(transition.from) && self.matches_transition(transition)
    }

    /// For statistics and inventories: connections that are in a wanted state at `now`.
    #[must_use]
    pub fn matches_open(&self, open: &Open, now: MonoNs) -> bool {
        self.states.contains(open.state)
            && self.matches_dwell_ns(Some(now.saturating_sub(open.since)))
            && self.matches_flow(&open.flow)
            && self.matches_owner(open.owner.as_ref())
    }

    /// For a `sock_diag` answer: by flow and state. Holders and ages are not in it: [`Self::matches_process`]
    /// and [`Self::matches_dwell_ns`] decide about those.
    #[must_use]
    pub fn matches_diag(&self, socket: &DiagSocket) -> bool {
        // Request sockets are answered as SYN_RECV (`inet_req_diag_fill`).
        let is_request = socket.state == State::SynRecv && self.states.contains(State::NewSynRecv);
        (self.states.contains(socket.state) || is_request) && self.matches_flow(&socket.flow)
    }
}

#[cfg(test)]
mod tests;
