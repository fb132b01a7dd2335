//! Reserving and submitting records, and counting.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_ktime_get_ns,
    maps::ring_buf::RingBufEntry,
};
use aya_log_ebpf::warn;
use tcptrace_common::counter;

use crate::{
    config::config,
    kernel::ReadFailed,
    maps::{COUNTERS, EVENTS, LOST_TRANSITIONS},
};

/// Adds 1 to a slot of this CPU's counters.
#[inline(always)]
pub fn count(slot: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the slot belongs to this CPU; a program that interrupts this one may lose it a count.
        unsafe { *value += 1 };
    }
}

/// Counts a transition whose record found no room.
#[cold]
#[inline(always)]
pub fn count_lost_transition(from: u8, to: u8) {
    if let Some(value) = LOST_TRANSITIONS.get_ptr_mut(counter::lost_transition(from, to)) {
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

/// Submits a record to the event ring, waking the reader only when enough waits for it: a wake-up per record costs
/// more than everything else that these programs do. `time_ns` is the record's.
#[inline(always)]
pub fn submit<T: 'static>(entry: RingBufEntry<T>, time_ns: u64) {
    let submitted = match COUNTERS.get_ptr_mut(counter::SUBMITTED) {
        // SAFETY: the slot belongs to this CPU; a program that interrupts this one may lose it a count.
        Some(slot) => unsafe {
            *slot += 1;
            *slot
        },
        None => 0,
    };
    let flag =
        if ends_a_quiet_time(time_ns) || wakes(submitted) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    entry.submit(flag.into());
}

/// How many records a CPU submits between two looks at how much waits, a power of two: a look costs as much as a
/// third of the record.
const LOOK_EVERY: u64 = 64;

/// The shortest time between two wake-ups by one CPU, in nanoseconds: each is an interrupt, and a reader that has
/// been woken needs no second one.
const WAKE_EVERY_NS: u64 = 1_000_000;

/// A reader to whom nothing has come for longer than this rests, nanoseconds. It waits twice as long before it does.
const QUIET_NS: u64 = 1_000_000_000;

/// Whether the record at `time_ns` is this CPU's first after a quiet time: the reader may rest, and is woken for it, so that
/// it need not look for events where there are none.
#[inline(always)]
fn ends_a_quiet_time(time_ns: u64) -> bool {
    let Some(last) = COUNTERS.get_ptr_mut(counter::LAST_NS) else { return true };
    // SAFETY: the slot belongs to this CPU; of a program that interrupts this one the time is nearly the same.
    unsafe {
        let since_ns = time_ns.wrapping_sub(*last) as i64;
        *last = time_ns;
        since_ns >= QUIET_NS as i64
    }
}

/// Whether the `submitted`-th record of this CPU wakes the reader. What no record does, the reader's tick does.
#[inline(always)]
fn wakes(submitted: u64) -> bool {
    let mark = config!(wakeup_bytes);
    if mark == 0 {
        return true;
    }
    if submitted & (LOOK_EVERY - 1) != 0 || EVENTS.query(BPF_RB_AVAIL_DATA.into()) < mark {
        return false;
    }
    let Some(last) = COUNTERS.get_ptr_mut(counter::WOKEN_NS) else { return true };
    // SAFETY: the helper takes nothing, and the slot belongs to this CPU.
    unsafe {
        let now_ns = bpf_ktime_get_ns();
        let is_due = now_ns.wrapping_sub(*last) >= WAKE_EVERY_NS;
        if is_due {
            *last = now_ns;
        }
        is_due
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
