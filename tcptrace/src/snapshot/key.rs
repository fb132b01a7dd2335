//! What a report can be about other than all connections (`--by`).

use std::net::IpAddr;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HostName;
use crate::event::Comm;

/// What reports can be keyed by (`--by`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// The owning process.
    Process,
    /// The lower of the two ports, which is the service's unless both are ephemeral.
    Port,
    /// The remote address, without its port.
    Peer,
    /// The network namespace.
    Netns,
    /// The owner's container.
    Container,
}

impl KeyKind {
    /// As written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Port => "port",
            Self::Peer => "peer",
            Self::Netns => "netns",
            Self::Container => "container",
        }
    }
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A process; `null` where the owner is not known.
    Process(Option<ProcessKey>),
    /// A port.
    Port(u16),
    /// A remote address.
    Peer(IpAddr),
    /// A network namespace.
    Netns(u32),
    /// A container; `null` where the owner or its cgroup is not known.
    Container(Option<String>),
    /// Everything beyond the limit of keys.
    Other(KeyKind),
}

/// A process as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ProcessKey {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Task name, escaped.
    #[schemars(with = "String")]
    pub comm: Comm,
    /// On which host, where several are looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub host: Option<HostName>,
}

/// How the keyed reports were keyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keying {
    /// By what.
    pub kind: KeyKind,
    /// Keys kept apart at most: the first that were seen. The rest is under [`Key::Other`].
    pub limit: usize,
    /// Transitions that were counted under [`Key::Other`].
    pub folded: u64,
}
