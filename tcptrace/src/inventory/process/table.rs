//! Processes that were read, kept for a moment.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Process;
use crate::event::MonoNs;

/// A view that asks for the same process again within this time gets the same answer; a fresh one costs about
/// 0.1 ms. Short enough that a command line changed by exec() is not shown for long.
const FRESH_NS: u64 = 1_000_000_000;
/// Processes that are kept. A host has some thousands; each costs about 1 KiB, a long command line up to 5.
const MAX_PROCESSES: usize = 8192;

/// Processes by pid, each read anew when it is older than a second. Whether a pid is still the same process
/// is told by [`Process::start_ticks`].
#[derive(Debug, Default)]
pub struct ProcessTable {
    read: FxHashMap<u32, Read>,
}

#[derive(Debug)]
struct Read {
    at: MonoNs,
    /// `None`: there was no such process.
    process: Option<Arc<Process>>,
}

impl ProcessTable {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The process as it was at most a second ago; `None` when there is none of that pid.
    pub fn get(&mut self, pid: u32, now: MonoNs) -> Option<Arc<Process>> {
        if let Some(known) = self.read.get(&pid)
            && now.saturating_sub(known.at) < FRESH_NS
        {
            return known.process.clone();
        }
        self.make_room(now);
        let process = Process::read(pid).map(Arc::new);
        self.read.insert(pid, Read { at: now, process: process.clone() });
        process
    }

    /// Forgets what is stale, and everything where that does not help: it is only a cache.
    fn make_room(&mut self, now: MonoNs) {
        if self.read.len() < MAX_PROCESSES {
            return;
        }
        self.read.retain(|_, known| now.saturating_sub(known.at) < FRESH_NS);
        if self.read.len() >= MAX_PROCESSES {
            self.read.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_a_second() {
        let mut table = ProcessTable::new();
        let pid = std::process::id();
        let first = table.get(pid, 5).expect("it runs");
        let again = table.get(pid, 5 + FRESH_NS - 1).expect("it runs");
        assert!(Arc::ptr_eq(&first, &again));
        let fresh = table.get(pid, 5 + FRESH_NS).expect("it runs");
        assert!(!Arc::ptr_eq(&first, &fresh));
        assert_eq!(first.start_ticks, fresh.start_ticks);
        assert_eq!(table.get(u32::MAX, 5), None);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut table = ProcessTable::new();
        for pid in 0..MAX_PROCESSES as u32 + 10 {
            table.get(u32::MAX - pid, 5);
        }
        assert!(table.read.len() <= MAX_PROCESSES);
    }
}
