//! What `doctor` makes of a host: can it be traced, what does each sysctl really do, how much room is left.
//!
//! [`patient`] looks; everything else is a pure function of what it saw, one per subject, so that every judgement can
//! be tested without such a host.

mod dwells;
mod knobs;
mod left;
mod limits;
pub mod patient;
mod processes;
mod readiness;
mod room;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use patient::Patient;

/// A verdict, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Likely to cause trouble.
    Warn,
    /// Does not work.
    Fail,
}

/// What a finding is about, in the order in which findings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Something that an experiment left changed.
    Left,
    /// Whether tcptrace works here.
    Readiness,
    /// Local ports towards each destination.
    Ports,
    /// Limits of the kernel and of processes.
    Limits,
    /// How long states lasted in a trace.
    Dwells,
    /// Sysctls.
    Sysctls,
    /// What could not be seen.
    Unseen,
}

/// A finding of `doctor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What was looked at; a sysctl by the last part of its name.
    pub name: String,
    /// Its value; null where there is none.
    pub value: Option<String>,
    /// Verdict.
    pub verdict: Verdict,
    /// Why, and what to do.
    pub detail: String,
    /// What it is about.
    pub group: Group,
    /// Network namespace (inode number); null where it is about the whole host.
    pub netns: Option<u32>,
    /// For a sysctl: what the kernel sets it to; null where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// For a sysctl: what is said of it, and whether it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folklore: Option<String>,
    /// What was measured here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<String>,
    /// For local ports: the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// For descriptors: the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// Local ports towards one destination.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ports {
    /// Source address.
    #[schemars(with = "String")]
    pub local: IpAddr,
    /// Destination.
    #[schemars(with = "String")]
    pub remote: SocketAddr,
    /// Ports that connect() may choose from: the range, less those reserved and those listened on.
    pub usable: u32,
    /// Of those, taken, TIME_WAIT included.
    pub in_use: u32,
    /// Of those, taken by TIME_WAIT.
    pub time_wait: u32,
    /// Of those, TIME_WAITs that connect() may take over now.
    pub reusable: u32,
    /// Taken by nothing.
    pub free: u32,
    /// Connections per second that can be made for ever when each leaves a TIME_WAIT here.
    pub sustainable_per_s: f64,
    /// How long a TIME_WAIT keeps its port, nanoseconds.
    pub dwell_ns: u64,
    /// That is what the kernel is compiled with; nothing was measured.
    pub dwell_is_nominal: bool,
}

impl Check {
    fn new(group: Group, name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: None,
            verdict,
            detail: detail.into(),
            group,
            netns: None,
            default: None,
            folklore: None,
            measured: None,
            ports: None,
            pid: None,
        }
    }

    fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    fn of(mut self, netns: u32) -> Self {
        self.netns = Some(netns);
        self
    }
}

pub use knobs::check as sysctl;

/// Every finding, group by group.
#[must_use]
pub fn examine(patient: &Patient) -> Vec<Check> {
    const SUBJECTS: [fn(&Patient) -> Vec<Check>; 7] = [
        left::checks,
        readiness::checks,
        room::checks,
        limits::checks,
        processes::checks,
        dwells::checks,
        knobs::checks,
    ];
    let mut checks: Vec<_> = SUBJECTS.iter().flat_map(|subject| subject(patient)).collect();
    let unseen = |note: &String| Check::new(Group::Unseen, "unseen", Verdict::Note, note.clone());
    checks.extend(patient.notes.iter().map(unseen));
    // Stable: within a group the order of the subject.
    checks.sort_by_key(|check| check.group);
    checks
}

/// The worst of them; fine where there are none.
#[must_use]
pub fn worst(checks: &[Check]) -> Verdict {
    checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
}
