//! Reserving and submitting records, and counting.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    maps::ring_buf::RingBufEntry,
};
use aya_log_ebpf::warn;
use tcptrace_common::counter;

use crate::{
    config::config,
    kernel::ReadFailed,
    maps::{COUNTERS, EVENTS},
};

/// What the kernel puts before each record (BPF_RINGBUF_HDR_SZ).
const HEADER_BYTES: u64 = 8;

/// Adds 1 to a slot of this CPU's counters.
#[inline(always)]
pub fn count(slot: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the slot belongs to this CPU; a program that interrupts this one may lose it a count.
        unsafe { *value += 1 };
    }
}

/// Reserves a record in the event ring; counts it when there is no room.
#[inline(always)]
pub fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        count(counter::RING_FULL);
    }
    entry
}

/// Submits a record to the event ring, waking the reader only when the backlog passes another mark: a
/// wake-up per record costs more than everything else that these programs do.
#[inline(always)]
pub fn submit<T: 'static>(entry: RingBufEntry<T>) {
    entry.submit(wakeup_flag(size_of::<T>() as u64));
    count(counter::SUBMITTED);
}

/// FORCE_WAKEUP for the record of `size` bytes that carries the backlog past a multiple of `wakeup_bytes`.
///
/// When CPUs reserve at the same moment, the mark may be passed without any of them seeing it as its own. Then
/// the next mark wakes, or the reader's tick. More wake-ups to be surer would cost an interrupt each.
#[inline(always)]
fn wakeup_flag(size: u64) -> u64 {
    let mark = config!(wakeup_bytes);
    if mark == 0 {
        return BPF_RB_FORCE_WAKEUP.into();
    }
    let waiting = EVENTS.query(BPF_RB_AVAIL_DATA.into());
    if waiting >= mark && waiting & (mark - 1) < size + HEADER_BYTES {
        BPF_RB_FORCE_WAKEUP.into()
    } else {
        BPF_RB_NO_WAKEUP.into()
    }
}

/// Writes zeros to `words` words of a record.
///
/// Volatile, because LLVM would otherwise make a call of `memset` of it, which goes byte by byte.
///
/// # Safety
/// All of them are inside a reserved record.
#[inline(always)]
pub unsafe fn zero(from: *mut u64, words: usize) {
    for word in 0..words {
        // SAFETY: within the record, as the caller promises; records are aligned to 8.
        unsafe { from.add(word).write_volatile(0) };
    }
}

/// Turns a program's outcome into its return value. A failed read is counted and logged; it costs one record.
#[inline(always)]
pub fn report(outcome: Result<(), ReadFailed>) -> i32 {
    if let Err(failed) = outcome {
        count(counter::READ_FAILED);
        log_failure(failed.offset, failed.error);
    }
    0
}

/// Out of line, so that the object holds it once. The plain name keeps the object the same in every directory: a
/// mangled one carries a hash of the path. Returns 0, because the verifier wants a number from a global function.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn log_failure(offset: u32, error: i32) -> i32 {
    // The macro takes a context and makes no use of it.
    warn!(&(), "read of kernel memory at member offset {} failed: error {}", offset, error);
    0
}
