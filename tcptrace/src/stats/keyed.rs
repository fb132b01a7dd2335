//! The same figures once more for every key, for a bounded number of keys.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::event::MonoNs;
use crate::outcome::{Open, Transition};
use crate::snapshot::{Key, KeyKind, Keying, StateReport};

use super::cells::Cells;
use super::keys::RawKey;
use super::{Collections, OpenBySlot};

/// Collections by key. The first `limit` keys are kept apart, what comes later is counted under `other`.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    kind: KeyKind,
    limit: usize,
    by_key: FxHashMap<RawKey, Collections>,
    other: Option<Collections>,
    folded: u64,
}

impl Keyed {
    pub(super) fn new(kind: KeyKind, limit: usize) -> Self {
        Self { kind, limit, by_key: FxHashMap::default(), other: None, folded: 0 }
    }

    pub(super) fn record(&mut self, transition: &Transition) {
        let key = RawKey::of(self.kind, &transition.flow, transition.owner.as_ref());
        let collections = if let Some(known) = self.by_key.get_mut(&key) {
            known
        } else if self.by_key.len() < self.limit {
            self.by_key.entry(key).or_default()
        } else {
            self.folded += 1;
            self.other.get_or_insert_default()
        };
        collections.record(transition, Cells::sparse);
    }

    pub(super) fn keying(&self) -> Keying {
        Keying { kind: self.kind, limit: self.limit, folded: self.folded }
    }

    /// Gathers what is open by the same keys.
    pub(super) fn open_by_key<'a>(&'a self, container: &'a dyn Fn(u64) -> Option<String>) -> OpenByKey<'a> {
        OpenByKey { keyed: self, container, by_key: FxHashMap::default(), other: None, new_keys: 0 }
    }
}

/// The open dwells of one moment by key.
pub(super) struct OpenByKey<'a> {
    keyed: &'a Keyed,
    container: &'a dyn Fn(u64) -> Option<String>,
    by_key: FxHashMap<RawKey, OpenBySlot>,
    other: Option<OpenBySlot>,
    /// Keys that so far have open dwells only.
    new_keys: usize,
}

impl OpenByKey<'_> {
    pub(super) fn add(&mut self, open: &Open, now: MonoNs) {
        let key = RawKey::of(self.keyed.kind, &open.flow, open.owner.as_ref());
        let slots = if let Some(known) = self.by_key.get_mut(&key) {
            known
        } else {
            let is_new = !self.keyed.by_key.contains_key(&key);
            if is_new && self.keyed.by_key.len() + self.new_keys >= self.keyed.limit {
                self.other.get_or_insert_default()
            } else {
                self.new_keys += usize::from(is_new);
                self.by_key.entry(key).or_default()
            }
        };
        slots.add(open, now);
    }

    /// A report per state, phase and name; within a state those with most dwells first.
    pub(super) fn reports(mut self) -> Vec<StateReport> {
        // Several raw keys may have one name (the cgroups of a container): they are added up. Ordered, so that
        // the same input gives the same output.
        let mut named: BTreeMap<Key, (Collections, OpenBySlot)> = BTreeMap::new();
        for (key, ended) in &self.keyed.by_key {
            named.entry(key.name(self.container)).or_default().0.merge(ended);
        }
        for (key, open) in self.by_key.drain() {
            named.entry(key.name(self.container)).or_default().1.merge(&open);
        }
        if self.keyed.other.is_some() || self.other.is_some() {
            let (ended, open) = named.entry(Key::Other(self.keyed.kind)).or_default();
            self.keyed.other.iter().for_each(|other| ended.merge(other));
            self.other.iter().for_each(|other| open.merge(other));
        }
        let mut reports: Vec<_> =
            named.iter().flat_map(|(key, (ended, open))| ended.reports(Some(key), open)).collect();
        reports.sort_by_key(|report| {
            let dwells = report.finished.count + report.open.count + report.began_before.count;
            (report.state, report.phase, std::cmp::Reverse(dwells))
        });
        reports
    }
}
