//! The line that an open connection becomes.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::line::{OwnerRef, Time};
use crate::event::MonoNs;
use crate::net::{Family, State};
use crate::outcome::{ConnId, Open, Phase};
use crate::snapshot::WallClock;

/// A connection that is open, as it was at `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// When it was looked at.
    pub time: Time,
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
    /// The state that it is in.
    pub state: State,
    /// For FIN_WAIT2: which kind.
    pub phase: Option<Phase>,
    /// Time in that state.
    pub age_ns: u64,
    /// The beginning was not seen: it has lasted at least that long.
    pub age_is_lower_bound: bool,
    /// Unread bytes when last seen, in CLOSE_WAIT: 0 when the application has read the end, which counts as
    /// one; null where not known.
    pub unread: Option<u32>,
    /// Whose; null where not known.
    pub owner: Option<OwnerRef>,
}

impl Connection {
    /// The line of an open connection at `now`.
    #[must_use]
    pub fn new(open: &Open, now: MonoNs, wall: WallClock) -> Self {
        let flow = &open.flow;
        Self {
            time: Time(wall.time(now)),
            conn: open.conn,
            netns: flow.netns,
            family: flow.family(),
            local: flow.local_addr(),
            remote: flow.remote_addr(),
            state: open.state,
            phase: open.phase,
            age_ns: now.saturating_sub(open.since),
            age_is_lower_bound: open.since_is_lower_bound,
            unread: open.unread,
            owner: open.owner.map(|owner| OwnerRef {
                pid: owner.pid,
                comm: owner.comm,
                evidence: owner.evidence,
            }),
        }
    }
}
