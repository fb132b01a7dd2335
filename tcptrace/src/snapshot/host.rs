//! Hosts, where a view is of several (`report --from A --from B`).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::loss::Loss;

/// The name of a host. As small and as easily copied as a number, because it is part of keys: a name is kept once,
/// for as long as the program runs, and of hosts there are few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(&'static str);

impl HostName {
    /// The name of this spelling.
    #[must_use]
    pub fn new(name: &str) -> Self {
        static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        // A panic between two statements here cannot leave the set half changed.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(name) {
            return Self(name);
        }
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        known.insert(name);
        Self(name)
    }

    /// The name; other people's bytes, escaped when the header was read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl Serialize for HostName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

/// One of the recordings that a view was put together from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its host, or the recording's name where the host is not known.
    pub host: HostName,
    /// Its file.
    pub recording: String,
    /// Kernel release.
    pub kernel: Option<String>,
    /// CONFIG_HZ.
    pub hz: Option<u32>,
    /// The filters in force.
    pub filters: String,
    /// When it began, nanoseconds since the Unix epoch.
    pub began_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// Events in it.
    pub events: u64,
    /// Connections in it.
    pub connections: u64,
    /// What was not seen.
    pub loss: Loss,
}

/// The time in which at least one of the recordings ran, nanoseconds; `None` of none.
pub(super) fn covered_ns(parts: &[Part]) -> Option<u64> {
    let mut spans: Vec<_> = parts.iter().map(|part| (part.began_ns, part.ended_ns)).collect();
    spans.sort_unstable();
    let mut until = spans.first()?.0;
    let mut covered = 0;
    for (began, ended) in spans {
        covered += ended.saturating_sub(began.max(until));
        until = until.max(ended);
    }
    Some(covered)
}
