//! Loss is data: every output carries it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was not seen, by cause. Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Records that found no room in the ring buffer, and kernel reads that failed.
    pub ring_full: u64,
    /// Program runs that the kernel skipped (`recursion_misses`).
    pub skipped_runs: u64,
    /// Connections that the tracker's tables had no room for.
    pub table_full: u64,
    /// Gaps in what the kernel told although none was known to be lost: connections that went on from a state they
    /// were not in, or were gone although no event had said so. Left out of JSON while it is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vanished: u64,
    /// Times the tracker was reconciled with a `sock_diag` dump after loss.
    pub resyncs: u64,
}

impl Loss {
    /// Everything that is known to be missing, in whatever it was counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ring_full + self.skipped_runs + self.table_full + self.vanished
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            ring_full: self.ring_full + other.ring_full,
            skipped_runs: self.skipped_runs + other.skipped_runs,
            table_full: self.table_full + other.table_full,
            vanished: self.vanished + other.vanished,
            resyncs: self.resyncs + other.resyncs,
        }
    }

    /// Events that the kernel had to tell, when `seen` of them were received: those without room and the runs that
    /// were skipped included. A skipped run may have been of a timer that is nobody's: at most so many.
    #[must_use]
    pub fn told(&self, seen: u64) -> u64 {
        seen + self.ring_full + self.skipped_runs
    }

    /// True when anything at all was lost.
    #[must_use]
    pub fn any(&self) -> bool {
        self.total() != 0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
