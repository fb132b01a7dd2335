//! A word that this process writes and the programs read.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The only value of an array map of the programs', mapped: while a trace runs, bpf(2) is not allowed to write.
pub(super) struct SharedWord(NonNull<AtomicU64>);

// SAFETY: what it points to is an atomic that belongs to no thread.
unsafe impl Send for SharedWord {}

impl SharedWord {
    /// Maps it. Stays when the descriptor is closed.
    pub fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so nothing of ours is there.
        let page = unsafe { mmap(std::ptr::null_mut(), page_bytes(), access, MapFlags::SHARED, map, 0) }?;
        NonNull::new(page.cast()).map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Writes it.
    pub fn set(&self, value: u64) {
        // SAFETY: mapped until this is dropped, aligned to a page, and only ever looked at as a word.
        unsafe { self.0.as_ref() }.store(value, Ordering::Relaxed);
    }
}

impl Drop for SharedWord {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length, and nobody has a reference.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), page_bytes()) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Maps are mapped by pages.
fn page_bytes() -> usize {
    rustix::param::page_size()
}
