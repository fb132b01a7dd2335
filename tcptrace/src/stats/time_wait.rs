//! Who makes the TIME_WAITs: always counted, whatever the command, because it is the first question.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use crate::event::Comm;
use crate::net::{Addr, Flow};
use crate::outcome::Owner;
use crate::snapshot::{CommCount, ProcessKey, Ranking, TimeWaitTally};

use super::tally::Tally;
use super::{COUNTERS, keys};

/// Names with exact counts at most. Exporters need counts that never fall, which a bounded list of the most
/// frequent cannot give; names beyond these are counted together.
const COMMS: usize = 256;

/// TIME_WAITs begun, by who began them and towards whom.
#[derive(Clone, Debug)]
pub(super) struct TimeWaits {
    total: u64,
    owners: Tally<Option<ProcessKey>>,
    remotes: Tally<(Option<ProcessKey>, Addr, u16)>,
    local_ports: Tally<(Option<ProcessKey>, u16)>,
    by_comm: FxHashMap<(Comm, u64), u64>,
    by_comm_other: u64,
}

impl Default for TimeWaits {
    fn default() -> Self {
        Self {
            total: 0,
            owners: Tally::new(COUNTERS),
            remotes: Tally::new(COUNTERS),
            local_ports: Tally::new(COUNTERS),
            by_comm: FxHashMap::default(),
            by_comm_other: 0,
        }
    }
}

impl TimeWaits {
    pub(super) fn record(&mut self, flow: &Flow, owner: Option<&Owner>) {
        let process = keys::process(owner);
        self.total += 1;
        self.owners.add(process);
        self.remotes.add((process, flow.remote, flow.remote_port));
        self.local_ports.add((process, flow.local_port));
        match owner.map(|owner| (owner.comm, owner.cgroup_id)) {
            Some(name) if self.by_comm.contains_key(&name) || self.by_comm.len() < COMMS => {
                *self.by_comm.entry(name).or_default() += 1;
            }
            _ => self.by_comm_other += 1,
        }
    }

    /// What is known of those that began; what is open is for the caller to fill in.
    pub(super) fn report(&self, most: usize) -> TimeWaitTally {
        let mut by_comm: Vec<_> = self
            .by_comm
            .iter()
            .map(|(&(comm, cgroup_id), &count)| CommCount { comm, cgroup_id, count })
            .collect();
        by_comm.sort_unstable_by_key(|entry| (std::cmp::Reverse(entry.count), entry.comm, entry.cgroup_id));
        TimeWaitTally {
            total: self.total,
            owners: self.owners.ranking(most),
            remotes: self
                .remotes
                .ranking(most)
                .map(|(process, addr, port)| (process, SocketAddr::new(addr.ip(), port))),
            local_ports: self.local_ports.ranking(most),
            open_to: Ranking::default(),
            by_comm,
            by_comm_other: self.by_comm_other,
        }
    }
}
