//! From evidence to leaks by process.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::evidence::{Candidate, Culprit, Custody, Evidence, Listening, Looked};
use super::growth::{History, Rate};
use super::rules::{Kind, Tally};
use crate::event::MonoNs;
use crate::filter::Filter;
use crate::net::Flow;
use crate::snapshot::Age;
use crate::stacks::Site;

/// What counts as a leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whose sockets, and which.
    pub filter: Filter,
    /// Sockets that have been in CLOSE_WAIT for less are on their way, nanoseconds.
    pub min_age_ns: u64,
}

/// All leaks at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeakReport {
    /// The moment that ages refer to.
    pub at: MonoNs,
    /// By process, most sockets first, then the oldest.
    pub leaks: Vec<Leak>,
    /// Over all of them.
    pub totals: Totals,
    /// How much was looked at.
    pub looked: Looked,
    /// Names of network namespaces other than the program's own.
    pub namespaces: BTreeMap<u32, String>,
    /// The program's own network namespace.
    pub own_netns: Option<u32>,
    /// How long it was watched before, nanoseconds; `None` for a single look.
    pub watched_ns: Option<u64>,
    /// Sockets that have been in CLOSE_WAIT for less are no leaks, nanoseconds.
    pub min_age_ns: u64,
    /// Growth over all processes, each socket counted once; `None` where it was not watched long enough.
    pub growth: Option<Rate>,
    /// What could not be seen, in words.
    pub notes: Vec<String>,
}

/// Sockets, each counted once however many processes hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// That leak.
    pub sockets: u64,
    /// The same by kind.
    pub kinds: BTreeMap<Kind, Tally>,
    /// The oldest of them; `None` where no age is known.
    pub oldest: Option<Age>,
    /// That are wanted but younger than the limit, or not known to be older.
    pub young: u64,
    /// Those of `young` of whose age nothing is known.
    pub ageless: u64,
}

/// What one process leaks; or, without a process, what nobody that can be seen holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leak {
    /// Who; `None` where nobody is known to hold the sockets.
    pub culprit: Option<Culprit>,
    /// The sockets, oldest first.
    pub sockets: Vec<LeakedSocket>,
    /// By kind.
    pub kinds: BTreeMap<Kind, Tally>,
    /// Where the process listens.
    pub listening: Vec<Listening>,
    /// Remote addresses, most sockets first.
    pub peers: Vec<(IpAddr, u64)>,
    /// Other processes that hold some of the same sockets.
    pub shared_with: BTreeSet<u32>,
    /// How fast they become more; `None` where it was not watched, or not long enough.
    pub rate: Option<Rate>,
    /// Where in the code the application was told EOF, most sockets first; empty unless asked for.
    pub sites: Vec<Site>,
    /// Where in the code the connection was opened, where that was seen; empty unless asked for.
    pub opened_at: Vec<Site>,
    /// Where in the code it was first written to, or first after the peer had closed; empty unless asked for.
    pub sent_at: Vec<Site>,
}

/// A socket that leaks, as one of its holders has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeakedSocket {
    /// Which connection.
    pub flow: Flow,
    /// Descriptors of the process, ascending; empty where there is none, or it is not known.
    pub fds: Vec<u32>,
    /// Time in CLOSE_WAIT.
    pub age: Option<Age>,
    /// Unread bytes, the end counted as one.
    pub recv_queue: Option<u32>,
    /// Whose user created it.
    pub uid: Option<u32>,
    /// The listening address that accepted it.
    pub accepted_on: Option<SocketAddr>,
    /// What is wrong with it.
    pub kind: Kind,
}

impl Terms {
    /// The age from which on a socket leaks: both limits must be passed.
    pub(super) fn least_ns(&self) -> u64 {
        self.filter.min_dwell_ns.unwrap_or(0).max(self.min_age_ns)
    }
}

impl Leak {
    /// Process id; `None` without a process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.culprit.as_ref().map(|culprit| culprit.pid)
    }

    /// How many sockets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.sockets.len() as u64
    }

    /// Age of the oldest; `None` where none is known.
    #[must_use]
    pub fn oldest(&self) -> Option<Age> {
        self.sockets.iter().filter_map(|socket| socket.age).max()
    }

    /// Seconds until the process has no descriptor left, at the present growth; `None` where it does not grow,
    /// has no limit, or either is not known.
    #[must_use]
    pub fn exhausted_in_s(&self) -> Option<u64> {
        let fds = self.culprit.as_ref()?.fds;
        let left = fds.limit?.saturating_sub(fds.open?);
        let per_min = self.rate.map(|rate| rate.held_per_min).filter(|&per_min| per_min > 0.0)?;
        // Centuries are as good as never, and fit.
        Some((left as f64 / per_min * 60.0).min(1e12) as u64)
    }

    /// Sockets of a kind.
    #[must_use]
    pub fn count_of(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).map_or(0, |tally| tally.sockets)
    }
}

impl LeakReport {
    /// True when nothing leaks, so far as could be seen.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.leaks.is_empty()
    }

    /// Processes that leak.
    #[must_use]
    pub fn processes(&self) -> u64 {
        self.leaks.iter().filter(|leak| leak.culprit.is_some()).count() as u64
    }

    /// Applies the rules to everything that is wanted and old enough. `history` has what was seen before; with an
    /// empty one no growth is claimed.
    #[must_use]
    pub fn new(evidence: &Evidence, terms: &Terms, history: &History) -> Self {
        let growth = history.growth(evidence, terms);
        let mut report = Self {
            at: evidence.at,
            looked: evidence.looked,
            namespaces: evidence.namespaces.clone(),
            own_netns: evidence.own_netns,
            min_age_ns: terms.least_ns(),
            growth: growth.as_ref().map(|growth| growth.total),
            notes: evidence.notes.clone(),
            ..Self::default()
        };
        let mut leaks: BTreeMap<Blamed, Leak> = BTreeMap::new();
        for candidate in &evidence.candidates {
            let blamed = blamed(candidate, evidence, &terms.filter);
            if blamed.is_empty() || !terms.filter.matches_flow(&candidate.flow) {
                continue;
            }
            if !is_old_enough(candidate.age, terms) {
                report.totals.young += 1;
                report.totals.ageless += u64::from(candidate.age.is_none());
                continue;
            }
            report.totals.add(candidate);
            for who in blamed {
                leaks.entry(who).or_default().add(candidate, who);
            }
        }
        report.leaks = leaks
            .into_iter()
            .map(|(who, mut leak)| {
                leak.rate = growth.as_ref().map(|growth| growth.of(who));
                leak.complete(who, evidence)
            })
            .collect();
        report.leaks.sort_by_key(|leak| (Reverse(leak.sockets.len()), Reverse(leak.oldest()), leak.pid()));
        report
    }
}

/// Ages are exact or lower bounds: what passes is certain.
pub(super) fn is_old_enough(age: Option<Age>, terms: &Terms) -> bool {
    let least_ns = terms.least_ns();
    age.map_or(least_ns == 0, |age| age.ns >= least_ns)
}

/// Where a socket is reported: under a process, or among those of its kind that no process is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blamed {
    Process(u32),
    Nobody(Kind),
}

/// Everybody who is to be blamed for the socket and whom the filter wants.
fn blamed(candidate: &Candidate, evidence: &Evidence, filter: &Filter) -> Vec<Blamed> {
    let wanted = |who: &Blamed| match who {
        // A filter by owner wants nothing that has none.
        Blamed::Nobody(_) => !filter.needs_owner(),
        Blamed::Process(pid) => evidence.culprits.get(pid).map_or(!filter.needs_owner(), |culprit| {
            filter.matches_process(culprit.pid, culprit.comm, culprit.cgroup_id)
        }),
    };
    let mut blamed = everybody(candidate);
    blamed.retain(wanted);
    blamed
}

/// Every process that holds the socket, or that listens for it; else nobody. Ascending.
pub(super) fn everybody(candidate: &Candidate) -> Vec<Blamed> {
    let mut pids: Vec<u32> = match &candidate.custody {
        Custody::Held(keepers) => keepers.iter().map(|keeper| keeper.pid).collect(),
        Custody::AcceptQueue(listeners) => listeners.clone(),
        Custody::Nobody | Custody::Unseen | Custody::Detached => Vec::new(),
    };
    // Several descriptors of one process.
    pids.dedup();
    if pids.is_empty() {
        return vec![Blamed::Nobody(Kind::of(candidate))];
    }
    pids.into_iter().map(Blamed::Process).collect()
}

impl Totals {
    fn add(&mut self, candidate: &Candidate) {
        self.sockets += 1;
        self.kinds.entry(Kind::of(candidate)).or_default().add(candidate.recv_queue);
        self.oldest = self.oldest.max(candidate.age);
    }
}

impl Leak {
    fn add(&mut self, candidate: &Candidate, who: Blamed) {
        let kind = Kind::of(candidate);
        let mut fds = Vec::new();
        if let (Custody::Held(keepers), Blamed::Process(pid)) = (&candidate.custody, who) {
            fds = keepers.iter().filter(|keeper| keeper.pid == pid).filter_map(|keeper| keeper.fd).collect();
        }
        self.kinds.entry(kind).or_default().add(candidate.recv_queue);
        self.shared_with.extend(everybody(candidate).into_iter().filter_map(|other| match other {
            Blamed::Process(pid) if other != who => Some(pid),
            _ => None,
        }));
        self.sockets.push(LeakedSocket {
            flow: candidate.flow,
            fds,
            age: candidate.age,
            recv_queue: candidate.recv_queue,
            uid: candidate.uid,
            accepted_on: candidate.accepted_on,
            kind,
        });
    }

    /// Orders what was added, and says who it is.
    fn complete(mut self, who: Blamed, evidence: &Evidence) -> Self {
        self.sockets.sort_by_key(|socket| (Reverse(socket.age), socket.flow));
        let mut peers: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for socket in &self.sockets {
            *peers.entry(socket.flow.remote.ip()).or_default() += 1;
        }
        self.peers = peers.into_iter().collect();
        self.peers.sort_by_key(|&(addr, count)| (Reverse(count), addr));
        if let Blamed::Process(pid) = who {
            let known = evidence.culprits.get(&pid).cloned();
            self.culprit = Some(known.unwrap_or(Culprit { pid, ..Culprit::default() }));
            self.listening = evidence.listening.get(&pid).cloned().unwrap_or_default();
        }
        self
    }
}
