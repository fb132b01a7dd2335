//! `tcp_max_tw_buckets`: how many minis a namespace may have (`inet_twsk_alloc()` refuses beyond it).

use rustc_hash::FxHashMap;

/// The limits that were told, and how many minis stand against them.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    namespaces: FxHashMap<u32, Namespace>,
}

#[derive(Clone, Copy, Debug)]
struct Namespace {
    max: u32,
    live: usize,
}

impl Buckets {
    /// `live` counts the namespace's minis.
    pub(super) fn set(&mut self, netns: u32, max: Option<u32>, live: impl FnOnce() -> usize) {
        match max {
            Some(max) => {
                self.namespaces.entry(netns).or_insert_with(|| Namespace { max, live: live() }).max = max;
            }
            None => {
                self.namespaces.remove(&netns);
            }
        }
    }

    /// A mini was made.
    pub(super) fn add(&mut self, netns: u32) {
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            namespace.live += 1;
        }
    }

    /// A mini has gone, or is about to.
    pub(super) fn remove(&mut self, netns: u32) {
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            namespace.live = namespace.live.saturating_sub(1);
        }
    }

    /// Whether the namespace has no room for another mini; `None` where its limit is not known.
    ///
    /// The kernel frees a mini a little after its timer has gone, and a record may be late: an eighth more
    /// than is counted may be there.
    pub(super) fn are_full(&self, netns: u32) -> Option<bool> {
        let Namespace { max, live } = *self.namespaces.get(&netns)?;
        Some(live.saturating_add(live / 8) >= max as usize)
    }
}
