//! Everything that the judgements are made from, as plain data, and how it is had from the running system.

use std::fs;

use super::Verdict;
use crate::experiment::journal::{self, Journal};
use crate::filter::Filter;
use crate::inventory::counters::Counters;
use crate::inventory::diag::{Dump, Query, StateSet};
use crate::inventory::dump_one;
use crate::inventory::namespaces::{self, Namespace, NamespaceError};
use crate::inventory::owners::Ownership;
use crate::inventory::slab::{self, Cache, SlabError};
use crate::inventory::sysctl::{self, Reading, Sysctls};
use crate::kernel::confine::can_filter;
use crate::kernel::hz::hz;
use crate::kernel::privileges::Host;
use crate::kernel::probe::{Probe, probe};
use crate::snapshot::Snapshot;

/// Caches of minis, IPv4 and IPv6.
const MINI_CACHES: [&str; 2] = ["tw_sock_TCP", "tw_sock_TCPv6"];

/// A host and one of its network namespaces, looked at.
#[derive(Clone, Debug)]
pub struct Patient {
    /// Kernel and privileges.
    pub host: Host,
    /// `uname -m`.
    pub machine: String,
    /// Jiffies per second.
    pub hz: Option<u32>,
    /// What the kernel takes of our programs.
    pub probe: Probe,
    /// A tracer's system calls can be filtered.
    pub can_filter: bool,
    /// The namespace (inode number).
    pub netns: u32,
    /// Its sysctls.
    pub sysctls: Sysctls,
    /// Entries of the hash of connections, from which limits are made.
    pub hash: Hash,
    /// Its counters, or why there are none.
    pub counters: Result<Counters, String>,
    /// Its sockets, or why there are none.
    pub sockets: Result<Dump, String>,
    /// Who holds them.
    pub ownership: Ownership,
    /// Memory of minis, of the whole host.
    pub minis: Vec<Result<Cache, SlabError>>,
    /// Connections that the firewall remembers; `None` without conntrack.
    pub conntrack: Option<u64>,
    /// Open files of the whole host.
    pub open_files: Option<u64>,
    /// What killed experiments have left changed, or why that is not known.
    pub left: Result<Vec<Left>, String>,
    /// What a trace or a recording has shown.
    pub measured: Option<Snapshot>,
    /// Why what was measured may not be of this host.
    pub foreign: Option<String>,
    /// Which destinations and processes are wanted.
    pub filter: Filter,
    /// What could not be seen, in words.
    pub notes: Vec<String>,
}

/// Entries of the hash of connections; `None` where the kernel does not tell (before 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hash {
    /// Of the namespace.
    pub of_namespace: Option<u32>,
    /// Of the host.
    pub of_host: Option<u32>,
}

/// A journal that a killed experiment has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What it says.
    pub journal: Journal,
    /// The present values, in its order; `None` where the namespace cannot be seen, or has gone.
    pub now: Option<Vec<Reading>>,
}

/// A namespace that cannot be examined.
pub type LookError = NamespaceError;

impl Patient {
    /// Looks at the running system. `ring_bytes` is the size of the ring buffer that is tried.
    ///
    /// # Errors
    /// When the namespace cannot be entered. What else cannot be seen is noted.
    pub fn look(namespace: &Namespace, filter: &Filter, ring_bytes: u32) -> Result<Self, LookError> {
        let host = Host::look();
        let probe = probe(&host, ring_bytes);
        let sysctls = Sysctls::read(namespace)?;
        let inside = namespaces::within(namespace, Inside::read)?;
        let sockets = dump_one(namespace, Query::to_count(StateSet::ALL));
        let mut notes = Vec::new();
        let mut ownership = Ownership::default();
        if let Ok(dump) = &sockets {
            notes.extend(dump.notes.iter().cloned());
            ownership = Ownership::find(&dump.sockets);
            notes.extend(ownership.holders.notes());
        }
        Ok(Self {
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            hz: hz(),
            netns: namespace.inode,
            hash: inside.hash,
            counters: inside.counters,
            sockets: sockets.map_err(|error| error.to_string()),
            minis: slab::caches(&MINI_CACHES),
            can_filter: can_filter(),
            conntrack: inside.conntrack,
            open_files: open_files(),
            left: left(),
            measured: None,
            foreign: None,
            filter: filter.clone(),
            host,
            probe,
            sysctls,
            ownership,
            notes,
        })
    }

    /// Adds what could not be seen, each once.
    pub fn note(&mut self, notes: &[String]) {
        for note in notes {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
    }

    /// Adds what a trace or a recording has shown.
    #[must_use]
    pub fn with(mut self, snapshot: Snapshot) -> Self {
        let meta = &snapshot.meta;
        let here = rustix::system::uname();
        let is_other = |theirs: &Option<String>, ours: &std::ffi::CStr| {
            theirs.as_deref().is_some_and(|theirs| theirs.as_bytes() != ours.to_bytes())
        };
        if meta.recording.is_some()
            && (is_other(&meta.host, here.nodename()) || is_other(&meta.kernel, here.release()))
        {
            self.foreign = Some(format!(
                "the recording is of {} with Linux {}: what was measured there is shown beside what is so here",
                meta.host.as_deref().unwrap_or("an unknown host"),
                meta.kernel.as_deref().unwrap_or("of unknown version"),
            ));
        }
        self.measured = Some(snapshot);
        self
    }

    /// A counter of the namespace.
    pub(super) fn counter(&self, name: &str) -> Option<u64> {
        let counters = self.counters.as_ref().ok()?;
        u64::try_from(counters.get(name)?).ok()
    }
}

/// What is read with the namespace as the thread's own.
struct Inside {
    hash: Hash,
    counters: Result<Counters, String>,
    conntrack: Option<u64>,
}

impl Inside {
    fn read() -> Self {
        let number = |name| sysctl::read(name).value()?.parse::<i64>().ok();
        let entries = number("net.ipv4.tcp_ehash_entries");
        let size = entries.and_then(|entries| u32::try_from(entries.unsigned_abs()).ok());
        // Negative where the host's hash is shared. Host-wide sysctls show in the initial namespace only.
        let is_of_host = entries.is_some_and(|entries| entries < 0)
            || sysctl::read("net.ipv4.tcp_max_orphans").value().is_some();
        Self {
            hash: Hash { of_namespace: size, of_host: size.filter(|_| is_of_host) },
            counters: Counters::read_here().map_err(|error| error.to_string()),
            conntrack: number("net.netfilter.nf_conntrack_count").and_then(|count| u64::try_from(count).ok()),
        }
    }
}

/// The first of `allocated  free  limit`; nothing is ever free since 2.6.
fn open_files() -> Option<u64> {
    fs::read_to_string("/proc/sys/fs/file-nr").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

fn left() -> Result<Vec<Left>, String> {
    let entries = journal::left_behind().map_err(|error| error.to_string())?;
    let look = |journal: &Journal| {
        let namespace = namespaces::resolve(&journal.netns.to_string()).ok()?;
        let read = || journal.changed.iter().map(|changed| sysctl::read(&changed.name)).collect();
        namespaces::within(&namespace, read).ok()
    };
    Ok(entries.into_iter().map(|entry| Left { now: look(&entry.journal), journal: entry.journal }).collect())
}

/// The verdict on how much of a limit is used.
pub(super) fn fullness(used: u64, limit: u64) -> Verdict {
    /// From here on little is left.
    const NEARLY_FULL_PERCENT: u64 = 80;
    match limit {
        _ if used >= limit => Verdict::Fail,
        _ if used.saturating_mul(100) >= limit.saturating_mul(NEARLY_FULL_PERCENT) => Verdict::Warn,
        _ => Verdict::Ok,
    }
}
