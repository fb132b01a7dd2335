//! Who holds sockets in CLOSE_WAIT, and how that grows.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use rustc_hash::FxHashMap;

use crate::event::MonoNs;
use crate::net::State;
use crate::outcome::Open;
use crate::snapshot::{Age, ProcessKey};

use super::view::Holder;

/// From here on a CLOSE_WAIT is held rather than about to be closed: the default of `leaks --min-age`.
pub const HELD_NS: u64 = 10_000_000_000;
/// Growth is that of the last minute.
const GROWTH_NS: u64 = 60_000_000_000;
/// Shorter than this says nothing about a minute.
const LEAST_GROWTH_NS: u64 = 10_000_000_000;
/// Places named of each process.
const PLACES: usize = 10;

/// Holders over the last minute.
#[derive(Debug, Default)]
pub struct Holders {
    now: Vec<Holder>,
    past: VecDeque<(MonoNs, FxHashMap<Option<ProcessKey>, u64>)>,
}

/// One look.
#[derive(Debug)]
pub struct Holding {
    now: MonoNs,
    by_process: FxHashMap<Option<ProcessKey>, Held>,
}

#[derive(Debug)]
struct Held {
    holder: Holder,
    peers: FxHashMap<IpAddr, u64>,
    locals: FxHashMap<SocketAddr, u64>,
}

impl Holders {
    /// Begins a look at everything that is open.
    #[must_use]
    pub fn begin(&self, now: MonoNs) -> Holding {
        Holding { now, by_process: FxHashMap::default() }
    }

    /// Takes the result of a look over.
    pub fn push(&mut self, now: MonoNs, mut held: Vec<Holder>) {
        while self.past.front().is_some_and(|(at, _)| now.saturating_sub(*at) > GROWTH_NS) {
            self.past.pop_front();
        }
        if let Some((at, before)) = self.past.front()
            && now.saturating_sub(*at) >= LEAST_GROWTH_NS
        {
            for holder in &mut held {
                let before = before.get(&holder.process).copied().unwrap_or(0);
                let minutes = (now - at) as f64 / 60e9;
                holder.per_min = Some((holder.sockets as f64 - before as f64) / minutes);
            }
        }
        self.past.push_back((now, held.iter().map(|holder| (holder.process, holder.sockets)).collect()));
        self.now = held;
    }

    /// As of the last look.
    #[must_use]
    pub fn list(&self) -> Vec<Holder> {
        self.now.clone()
    }
}

impl Holding {
    /// Looks at one.
    pub fn add(&mut self, open: &Open) {
        let age = Age { ns: self.now.saturating_sub(open.since), is_lower_bound: open.since_is_lower_bound };
        if open.state != State::CloseWait || age.ns < HELD_NS {
            return;
        }
        let process = open.owner.map(|owner| ProcessKey { pid: owner.pid, comm: owner.comm });
        let held = self.by_process.entry(process).or_insert_with(|| Held {
            holder: Holder {
                process,
                sockets: 0,
                oldest: age,
                per_min: None,
                eof_read: 0,
                unread: 0,
                peers: Vec::new(),
                locals: Vec::new(),
            },
            peers: FxHashMap::default(),
            locals: FxHashMap::default(),
        });
        let holder = &mut held.holder;
        holder.sockets += 1;
        holder.oldest = holder.oldest.max(age);
        match open.unread {
            Some(0) => holder.eof_read += 1,
            Some(_) => holder.unread += 1,
            None => {}
        }
        *held.peers.entry(open.flow.remote.ip()).or_default() += 1;
        *held.locals.entry(open.flow.local_addr()).or_default() += 1;
    }

    /// Most sockets first, then the oldest.
    #[must_use]
    pub fn finish(self) -> Vec<Holder> {
        let mut holders: Vec<_> = self
            .by_process
            .into_values()
            .map(|held| Holder { peers: most(held.peers), locals: most(held.locals), ..held.holder })
            .collect();
        holders.sort_by_key(|holder| (Reverse(holder.sockets), Reverse(holder.oldest), holder.process));
        holders
    }
}

fn most<K: Ord + Copy>(counts: FxHashMap<K, u64>) -> Vec<(K, u64)> {
    let mut all: Vec<_> = counts.into_iter().collect();
    all.sort_unstable_by_key(|&(key, count)| (Reverse(count), key));
    all.truncate(PLACES);
    all
}
