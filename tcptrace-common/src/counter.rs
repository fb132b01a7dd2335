//! Slots of the per-CPU counter array that the BPF programs keep.

/// Records that found no room in the event ring (`bpf_ringbuf_reserve` failed).
pub const RING_FULL: u32 = 0;
/// Stack records that found no room in the stack ring.
pub const STACK_RING_FULL: u32 = 1;
/// Kernel reads that failed: the record was given up. Rare; logged through aya-log as well.
pub const READ_FAILED: u32 = 2;
/// Records submitted to the event ring.
pub const SUBMITTED: u32 = 3;
/// No count: when this CPU last woke the reader, CLOCK_MONOTONIC, nanoseconds.
pub const WOKEN_NS: u32 = 4;
/// No count: when this CPU last submitted a record, CLOCK_MONOTONIC, nanoseconds.
pub const LAST_NS: u32 = 5;
/// The number of slots.
pub const SLOTS: u32 = 6;

/// Slots of the other per-CPU array, which counts the transitions that found no room in the event ring, by
/// [`lost_transition`].
pub const LOST_TRANSITION_SLOTS: u32 = (crate::state::SLOTS * crate::state::SLOTS) as u32;

/// The slot of a transition; both states are below [`SLOTS`](crate::state::SLOTS).
#[must_use]
pub const fn lost_transition(from: u8, to: u8) -> u32 {
    from as u32 * crate::state::SLOTS as u32 + to as u32
}
