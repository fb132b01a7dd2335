//! Every map of the object, with its size and why.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use tcptrace_common::counter;

/// State, mini and EOF records. 8 MiB hold about 70,000 records: 100 ms, the longest that the reader sleeps,
/// at 700,000 events a second. The loader may choose another size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// User stacks, 36 KiB each, in a ring of their own so that they can never push out an event. 8 MiB hold 220
/// of them; the loader shrinks it to a page when no stacks are wanted.
#[map]
pub static STACKS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Counts of what happened on this CPU, by `tcptrace_common::counter`.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::SLOTS, 0);

/// Transitions that found no room in [`EVENTS`], on this CPU, by `tcptrace_common::counter::lost_transition`: how
/// many of which kind stays exact when the events themselves are lost.
#[map]
pub static LOST_TRANSITIONS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(counter::LOST_TRANSITION_SLOTS, 0);

/// When a mini last ended early, in jiffies, 0 while none has: in the first slot on the whole
/// host, in the others by network namespace. Common to all CPUs: what takes a four-tuple over may run on another
/// one. Namespaces that meet in a slot only let through more than they would alone.
#[map]
pub static EARLY_ENDS: Array<u64> = Array::with_max_entries(1 + EARLY_END_SLOTS, 0);

/// Slots of [`EARLY_ENDS`] for namespaces, a power of two.
pub const EARLY_END_SLOTS: u32 = 64;

/// Not 0 while the reader knows every socket: then the programs leave out what `succession` says. The reader has it mapped and
/// writes it.
#[map]
pub static READER_KNOWS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The mini whose beginning this CPU reported last, if nothing has been reported since; see `succession`.
#[map]
pub static LAST_MINI: PerCpuArray<Identity> = PerCpuArray::with_max_entries(1, 0);

/// A connection, as its socket and its mini both tell it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// `skc_hash` and the ports.
    pub hash_and_ports: u64,
    /// Inode number of the network namespace.
    pub netns: u64,
}

/// The SYN_SENT that this CPU reported last, from the state program to `connect_stack`, so that the stack
/// carries the time of its event.
#[map]
pub static LAST_CONNECT: PerCpuArray<SockTime> = PerCpuArray::with_max_entries(1, 0);

/// Sockets told EOF lately, a direct-mapped cache: an application that spins on a socket at EOF, which is
/// how many leaks look, must not flood the rings. 1024 slots of 24 bytes; two sockets that meet in a slot
/// only repeat themselves.
#[map]
pub static EOF_SEEN: Array<ToldEof> = Array::with_max_entries(EOF_SLOTS, 0);

/// The number of slots of [`EOF_SEEN`], a power of two.
pub const EOF_SLOTS: u32 = 1024;

/// Connections whose first send has had its stack taken, a direct-mapped cache like [`EOF_SEEN`]. Larger, for every
/// connection is in it: 8192 slots, 192 KiB.
#[map]
pub static SENT_SEEN: Array<ToldEof> = Array::with_max_entries(SENT_SLOTS, 0);

/// The number of slots of [`SENT_SEEN`], a power of two.
pub const SENT_SLOTS: u32 = 8192;

/// How many stacks of sends this CPU has taken lately.
#[map]
pub static SEND_BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);

/// What was spent, and since when.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Budget {
    /// When the window began, CLOCK_MONOTONIC, nanoseconds.
    pub window_ns: u64,
    /// Stacks asked for in it.
    pub taken: u64,
}

/// A socket and a moment.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SockTime {
    /// Address of the socket.
    pub sk: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
}

/// A connection that was told EOF.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ToldEof {
    /// Address of the socket; reused at once when it is freed.
    pub sk: u64,
    /// Tells the connections that use the address one after the other apart: where the peer's sequence
    /// numbers ended, and the ports.
    pub connection: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
}
