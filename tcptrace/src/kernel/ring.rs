//! Waiting for a BPF ring buffer and draining it fairly.

use std::io;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::prefetch;

/// Most records drained in one go: about a millisecond of work, so that signals, ticks and the terminal are
/// served between two batches however full the ring is.
const BATCH_RECORDS: usize = 4096;

/// A ring buffer in a tokio runtime.
pub(super) struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
    /// The last batch ended at its limit, not at the end of the ring.
    more: bool,
}

/// What one batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drained {
    pub records: usize,
    /// The ring holds more.
    pub more: bool,
}

impl Ring {
    /// Registers the ring with the runtime that this is called in.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // Registering panics without a runtime.
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        // SAFETY: the descriptor is the map's own. The `RingBuf` owns it, gives out the same one for its whole
        // life, and stays inside this `AsyncFd`.
        let fd = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        Ok(Self { fd, more: false })
    }

    /// Waits until the programs ask to be read or `max_wait` has passed, then drains a batch. Cancelling it
    /// loses nothing: records are consumed only after the last await.
    pub async fn next_batch(
        &mut self,
        max_wait: Duration,
        on_record: impl FnMut(&[u8]),
    ) -> io::Result<Drained> {
        if self.more {
            // Without this the runtime would never get to look at signals and timers while the ring is full.
            tokio::task::yield_now().await;
        } else if let Ok(readable) = tokio::time::timeout(max_wait, self.fd.readable_mut()).await {
            // Cleared before draining: what arrives from here on is either drained below or wakes anew
            // (epoll is edge-triggered).
            readable?.clear_ready();
        }
        Ok(self.drain(on_record))
    }

    /// Drains a batch without waiting. A record whose program is still writing ends it; the next tick finds it.
    pub fn drain(&mut self, mut on_record: impl FnMut(&[u8])) -> Drained {
        let ring = self.fd.get_mut();
        let mut records = 0;
        while records < BATCH_RECORDS {
            let Some(record) = ring.next() else {
                self.more = false;
                return Drained { records, more: false };
            };
            fetch_ahead(&record);
            on_record(&record);
            records += 1;
        }
        self.more = true;
        Drained { records, more: true }
    }
}

/// How far ahead of a record its successors are fetched, bytes: three or four of them.
const AHEAD_BYTES: usize = 384;
/// What is fetched for each record, bytes: as much as the longest takes.
const RECORD_BYTES: usize = 128;

/// What another processor has just written is in its cache: it comes while the records before it are worked on.
#[inline]
fn fetch_ahead(record: &[u8]) {
    prefetch::lines(record.as_ptr().wrapping_add(AHEAD_BYTES), RECORD_BYTES);
}
