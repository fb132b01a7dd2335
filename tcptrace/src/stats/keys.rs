//! What a dwell is counted under with `--by`.

use std::net::IpAddr;

use crate::net::{Addr, Flow};
use crate::outcome::Owner;
use crate::snapshot::{Key, KeyKind, ProcessKey};

/// A key as met in events: small and copied, named only when a snapshot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RawKey {
    Process(Option<ProcessKey>),
    Port(u16),
    Peer(Addr),
    Netns(u32),
    /// The owner's cgroup v2 id; `None` where unknown.
    Cgroup(Option<u64>),
}

impl RawKey {
    pub(crate) fn of(kind: KeyKind, flow: &Flow, owner: Option<&Owner>) -> Self {
        match kind {
            KeyKind::Process => Self::Process(process(owner)),
            KeyKind::Port => Self::Port(service_port(flow)),
            KeyKind::Peer => Self::Peer(flow.remote),
            KeyKind::Netns => Self::Netns(flow.netns),
            KeyKind::Container => Self::Cgroup(owner.map(|owner| owner.cgroup_id).filter(|&id| id != 0)),
        }
    }

    /// The key as shown; `container` names the container of a cgroup. Several cgroups may be one container.
    pub(crate) fn name(self, container: &dyn Fn(u64) -> Option<String>) -> Key {
        match self {
            Self::Process(process) => Key::Process(process),
            Self::Port(port) => Key::Port(port),
            Self::Peer(addr) => Key::Peer(IpAddr::from(addr)),
            Self::Netns(netns) => Key::Netns(netns),
            Self::Cgroup(cgroup) => Key::Container(cgroup.and_then(container)),
        }
    }
}

pub(crate) fn process(owner: Option<&Owner>) -> Option<ProcessKey> {
    owner.map(|owner| ProcessKey { pid: owner.pid, comm: owner.comm, host: None })
}

/// The lower port: the service's, unless both are ephemeral. Which side listened is not known for every
/// connection, and a key must not change while a connection lives. A port that is not known yet is 0 and does
/// not count.
pub(crate) fn service_port(flow: &Flow) -> u16 {
    match (flow.local_port, flow.remote_port) {
        (0, port) | (port, 0) => port,
        (local, remote) => local.min(remote),
    }
}
