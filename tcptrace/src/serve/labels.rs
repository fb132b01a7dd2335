//! Who a series is about. Label values are other people's bytes: cleaned, and of bounded length.

use crate::event::Comm;
use crate::inventory::cgroup::Workload;
use crate::text;

/// Characters of a label value at most. Container ids have 64; units may be longer and are cut.
const MAX_CHARS: usize = 128;
/// What is not known.
const UNKNOWN: &str = "?";
/// What is beyond the limit of series.
const OTHER: &str = "other";

/// The labels `comm`, `unit` and `container`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// Task name; `?` where the owner is not known.
    pub comm: String,
    /// systemd unit; empty without one.
    pub unit: String,
    /// Container id; empty outside of containers.
    pub container: String,
}

impl Who {
    /// A process.
    #[must_use]
    pub fn new(comm: Comm, unit: Option<&str>, container: Option<&str>) -> Self {
        let comm = text::escape(comm.bytes());
        Self {
            comm: cut(if comm.is_empty() { UNKNOWN } else { &comm }),
            unit: cut(unit.unwrap_or_default()),
            container: cut(container.unwrap_or_default()),
        }
    }

    /// The processes of one name in a cgroup, where that is known.
    #[must_use]
    pub fn of(comm: Comm, workload: Option<&Workload>) -> Self {
        let unit = workload.and_then(|workload| workload.unit.as_deref());
        let container = workload.and_then(|workload| workload.container.as_ref());
        Self::new(comm, unit, container.map(|container| container.id.as_str()))
    }

    /// Nobody that is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self::new(Comm::default(), None, None)
    }

    /// Everybody beyond the limit of series.
    #[must_use]
    pub fn other() -> Self {
        Self { comm: OTHER.to_owned(), unit: OTHER.to_owned(), container: OTHER.to_owned() }
    }
}

/// Units and ids were escaped where they were read; what is escaped again here cannot occur.
fn cut(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_clean_and_bounded() {
        let who = Who::new(Comm::from_bytes(b"a\"b\n\xff\x1b"), Some(&"u".repeat(500)), None);
        assert_eq!(who.comm, "a\"b\\x0a\\xff\\x1b");
        assert_eq!(who.unit.len(), MAX_CHARS);
        assert_eq!(who.container, "");
        assert_eq!(Who::unknown().comm, "?");
    }
}
