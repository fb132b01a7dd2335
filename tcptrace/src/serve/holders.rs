//! Who holds sockets in CLOSE_WAIT, by label set.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::labels::Who;
use crate::filter::Filter;
use crate::inventory::process::Fds;
use crate::leaks::{Candidate, Custody, Evidence};

/// The processes of one label set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holder {
    /// Their sockets in CLOSE_WAIT. One that several of them share counts once.
    pub sockets: u64,
    /// Age of the oldest, nanoseconds; `None` where none is known.
    pub oldest_ns: Option<u64>,
    /// Descriptors of the one that is closest to its limit: open and allowed. `None` without a limit, or where it
    /// cannot be read.
    pub fds: Option<(u64, u64)>,
}

/// Holders by label set: those with most sockets, and the rest as one.
#[must_use]
pub fn by_label(evidence: &Evidence, filter: &Filter, max_series: usize) -> Vec<(Who, Holder)> {
    let mut holders: BTreeMap<Who, Holder> = BTreeMap::new();
    for candidate in &evidence.candidates {
        for (who, fds) in blamed(candidate, evidence, filter) {
            let holder = holders.entry(who).or_default();
            holder.sockets += 1;
            holder.oldest_ns = holder.oldest_ns.max(candidate.age.map(|age| age.ns));
            holder.fds = closest(holder.fds, fds);
        }
    }
    let mut holders: Vec<_> = holders.into_iter().collect();
    holders.sort_by_key(|(_, holder)| Reverse((holder.sockets, holder.oldest_ns)));
    if holders.len() > max_series {
        let mut other = Holder::default();
        for (_, holder) in holders.drain(max_series..) {
            other.sockets += holder.sockets;
            other.oldest_ns = other.oldest_ns.max(holder.oldest_ns);
            other.fds = closest(other.fds, holder.fds);
        }
        holders.push((Who::other(), other));
    }
    holders
}

/// The label sets that hold a socket, each once.
fn blamed(candidate: &Candidate, evidence: &Evidence, filter: &Filter) -> BTreeMap<Who, Option<(u64, u64)>> {
    let pids: BTreeSet<u32> = match &candidate.custody {
        Custody::Held(keepers) => keepers.iter().map(|keeper| keeper.pid).collect(),
        Custody::AcceptQueue(listeners) => listeners.iter().copied().collect(),
        Custody::Nobody | Custody::Unseen | Custody::Detached => BTreeSet::new(),
    };
    let mut blamed = BTreeMap::new();
    for culprit in pids.iter().filter_map(|pid| evidence.culprits.get(pid)) {
        if filter.matches_process(culprit.pid, culprit.comm, culprit.cgroup_id) {
            let who = Who::new(culprit.comm, culprit.unit.as_deref(), culprit.container.as_deref());
            let fds = blamed.entry(who).or_default();
            *fds = closest(*fds, pair(culprit.fds));
        }
    }
    if pids.is_empty() && !filter.needs_owner() {
        blamed.insert(Who::unknown(), None);
    }
    blamed
}

fn pair(fds: Fds) -> Option<(u64, u64)> {
    Some((fds.open?, fds.limit?))
}

/// The one with the greater share of its limit.
fn closest(a: Option<(u64, u64)>, b: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let share = |(open, limit): (u64, u64)| open as f64 / limit.max(1) as f64;
    match (a, b) {
        (Some(a), Some(b)) => Some(if share(b) > share(a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Comm;
    use crate::leaks::{Culprit, Keeper};
    use crate::net::{Addr, Flow};
    use crate::snapshot::Age;

    fn candidate(custody: Custody, age_s: u64) -> Candidate {
        let addr = Addr([0; 16]);
        Candidate {
            flow: Flow { local: addr, remote: addr, netns: 1, local_port: 1, remote_port: 2 },
            age: Some(Age { ns: age_s * 1_000_000_000, is_lower_bound: false }),
            recv_queue: None,
            uid: None,
            accepted_on: None,
            custody,
        }
    }

    fn held(pids: &[u32]) -> Custody {
        Custody::Held(pids.iter().map(|&pid| Keeper { pid, fd: Some(3) }).collect())
    }

    fn evidence() -> Evidence {
        let culprit = |pid, comm: &str, open| Culprit {
            pid,
            comm: Comm::from_bytes(comm.as_bytes()),
            fds: Fds { open: Some(open), limit: Some(100) },
            ..Culprit::default()
        };
        let culprits = [culprit(1, "pre", 10), culprit(2, "pre", 90), culprit(3, "solo", 5)];
        Evidence {
            candidates: vec![
                candidate(held(&[1, 2]), 5),
                candidate(held(&[1]), 7),
                candidate(held(&[3]), 60),
                candidate(Custody::Nobody, 1),
            ],
            culprits: culprits.into_iter().map(|culprit| (culprit.pid, culprit)).collect(),
            ..Evidence::default()
        }
    }

    #[test]
    fn a_socket_that_workers_share_counts_once() {
        let holders = by_label(&evidence(), &Filter::default(), 10);
        let shown: Vec<_> = holders
            .iter()
            .map(|(who, holder)| (who.comm.as_str(), holder.sockets, holder.oldest_ns, holder.fds))
            .collect();
        assert_eq!(
            shown,
            [
                ("pre", 2, Some(7_000_000_000), Some((90, 100))),
                ("solo", 1, Some(60_000_000_000), Some((5, 100))),
                ("?", 1, Some(1_000_000_000), None),
            ]
        );
    }

    #[test]
    fn beyond_the_limit_all_are_one() {
        let holders = by_label(&evidence(), &Filter::default(), 1);
        assert_eq!(holders.len(), 2);
        assert_eq!(holders[1].0, Who::other());
        assert_eq!((holders[1].1.sockets, holders[1].1.oldest_ns), (2, Some(60_000_000_000)));
    }
}
