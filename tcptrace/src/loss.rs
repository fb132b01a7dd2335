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
    /// Times the tracker was reconciled with a `sock_diag` dump after loss.
    pub resyncs: u64,
}

impl Loss {
    /// True when anything at all was lost.
    #[must_use]
    pub fn any(&self) -> bool {
        self.ring_full != 0 || self.skipped_runs != 0 || self.table_full != 0
    }
}
