//! Records that travel through the ring buffers, one layout per hook.

/// `kind` of [`StateRecord`].
pub const KIND_STATE: u8 = 1;
/// `kind` of a [`MiniRecord`] from `timer_start`.
pub const KIND_MINI_START: u8 = 2;
/// `kind` of a [`MiniRecord`] from `timer_cancel`.
pub const KIND_MINI_CANCEL: u8 = 3;
/// `kind` of [`ExpireRecord`].
pub const KIND_MINI_EXPIRE: u8 = 4;
/// `kind` of [`EofRecord`].
pub const KIND_EOF: u8 = 5;
/// `kind` of [`StackRecord`].
pub const KIND_STACK: u8 = 6;
/// `reason` of a [`StackRecord`] of which there is no other record: a send.
pub const KIND_SENT: u8 = 7;

/// The hook ran on the task's own kernel stack: pid, tid and comm name who did it.
pub const FLAG_PROCESS: u8 = 1 << 0;
/// The hook ran on an interrupt or softirq stack: the current task has nothing to do with it.
pub const FLAG_SOFTIRQ: u8 = 1 << 1;
/// The current task is a kernel thread (PF_KTHREAD), for example a kworker tearing down a namespace.
pub const FLAG_KTHREAD: u8 = 1 << 2;
/// `sk->sk_socket` is NULL: no application holds the socket any more (or not yet, before accept()). Only told of
/// what was established, and on the way to CLOSE.
pub const FLAG_ORPHAN: u8 = 1 << 3;
/// `tcp_sock.linger2 < 0`: FIN_WAIT2 is skipped by RST (TCP_LINGER2).
pub const FLAG_LINGER2_NEGATIVE: u8 = 1 << 4;
/// The socket is a subflow of an MPTCP connection (`tcp_sock.is_mptcp`).
pub const FLAG_MPTCP_SUBFLOW: u8 = 1 << 5;
/// The socket is an MPTCP connection (`sk_protocol` 262).
pub const FLAG_MPTCP: u8 = 1 << 6;

/// `unread` where it was not read: the transition is none of those for which it says something, or the connection
/// is MPTCP, whose sequence numbers are not those of `tcp_sock`.
pub const UNREAD_UNKNOWN: u32 = u32::MAX;

/// `buckets_left` where it was not read: the transition is none that makes a mini, or the kernel does not tell.
pub const BUCKETS_UNKNOWN: u32 = u32::MAX;

/// Length of a task name in the kernel (TASK_COMM_LEN).
pub const COMM_LEN: usize = 16;

/// One transition: `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRecord {
    /// [`KIND_STATE`].
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Old state.
    pub from: u8,
    /// New state.
    pub to: u8,
    /// Network namespace inode.
    pub netns: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Address of the socket: identity while it lives, reused at once afterwards.
    pub sk: u64,
    /// cgroup v2 id of the current task; 0 outside process context.
    pub cgroup_id: u64,
    /// Process id (tgid); 0 outside process context.
    pub pid: u32,
    /// Thread id; 0 outside process context.
    pub tid: u32,
    /// `rcv_nxt - copied_seq`: bytes not read by the application, the FIN counts as 1. Read on the way into and
    /// out of CLOSE_WAIT and to CLOSE of what was established; else, and with [`FLAG_MPTCP`],
    /// [`UNREAD_UNKNOWN`].
    pub unread: u32,
    /// Local port, big endian.
    pub local_port: u16,
    /// Remote port, big endian.
    pub remote_port: u16,
    /// Local address; IPv4 as v4-mapped IPv6.
    pub local: [u8; 16],
    /// Remote address; IPv4 as v4-mapped IPv6.
    pub remote: [u8; 16],
    /// Task name; zeros outside process context.
    pub comm: [u8; COMM_LEN],
    /// `sk_err`, read when the new state is CLOSE: tells RST, timeout and abort apart. 0 otherwise.
    pub sk_err: u32,
    /// How many more minis `tcp_max_tw_buckets` allowed the namespace, when a socket went from FIN_WAIT2 or CLOSING
    /// to CLOSE without an error: tells a mini that could not be made from one that was not wanted. Else
    /// [`BUCKETS_UNKNOWN`].
    pub buckets_left: u32,
}

/// A TIME_WAIT mini's timer was started or cancelled:
/// `timer_start(struct timer_list *, …)`, `timer_cancel(struct timer_list *)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiniRecord {
    /// [`KIND_MINI_START`] or [`KIND_MINI_CANCEL`].
    pub kind: u8,
    /// `FLAG_*`: PROCESS, SOFTIRQ and KTHREAD only.
    pub flags: u8,
    /// `tw_substate`: FIN_WAIT2 or TIME_WAIT.
    pub substate: u8,
    /// Explicit padding.
    pub pad: u8,
    /// Network namespace inode.
    pub netns: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Address of the `inet_timewait_sock`.
    pub mini: u64,
    /// `timer->expires - jiffies`, signed: the time left in jiffies; ≤ 0 when a cancel is the timer running out.
    pub left_jiffies: i64,
    /// Process id (tgid); 0 outside process context.
    pub pid: u32,
    /// Thread id; 0 outside process context.
    pub tid: u32,
    /// Local port, big endian.
    pub local_port: u16,
    /// Remote port, big endian.
    pub remote_port: u16,
    /// Explicit padding.
    pub pad2: u32,
    /// Local address; IPv4 as v4-mapped IPv6.
    pub local: [u8; 16],
    /// Remote address; IPv4 as v4-mapped IPv6.
    pub remote: [u8; 16],
}

/// A TIME_WAIT mini's timer ran out: `timer_expire_entry(struct timer_list *, …)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpireRecord {
    /// [`KIND_MINI_EXPIRE`].
    pub kind: u8,
    /// Explicit padding.
    pub pad: [u8; 7],
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Address of the `inet_timewait_sock`.
    pub mini: u64,
}

/// The application was told end of file: `sock_recv_length(struct sock *sk, int ret, int flags)` with
/// `ret == 0`, without MSG_PEEK, on a socket in CLOSE_WAIT. The stack follows in a [`StackRecord`] of the
/// stack ring with the same `sk` and `time_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EofRecord {
    /// [`KIND_EOF`].
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Explicit padding.
    pub pad: [u8; 2],
    /// Network namespace inode.
    pub netns: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Address of the socket.
    pub sk: u64,
    /// Process id (tgid).
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Task name.
    pub comm: [u8; COMM_LEN],
    /// Local port, big endian.
    pub local_port: u16,
    /// Remote port, big endian.
    pub remote_port: u16,
    /// Explicit padding.
    pub pad2: u32,
    /// Local address; IPv4 as v4-mapped IPv6.
    pub local: [u8; 16],
    /// Remote address; IPv4 as v4-mapped IPv6.
    pub remote: [u8; 16],
}

/// Bytes of user stack that one [`StackRecord`] carries at most: what is left of the page that the stack
/// pointer is in, and eight more pages of 4 KiB, so at least 32 KiB of a stack that is as deep.
///
/// Deep enough for the frames between a libc wrapper and the application's own function in every runtime
/// looked at: Node alone has a buffer of 16 KiB on its stack where it writes (`StreamBase::WriteString`). Copied with one `bpf_probe_read_user` a page, so that a fault at the stack's end keeps what
/// was read before.
pub const STACK_BYTES: usize = 9 * 4096;

/// User registers and the top of the user stack: what an `.eh_frame` unwinder needs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StackRecord {
    /// [`KIND_STACK`].
    pub kind: u8,
    /// Why it was taken: [`KIND_EOF`] (told EOF), [`KIND_STATE`] (connect()) or [`KIND_SENT`] (the first send, or
    /// the first after the peer has closed).
    pub reason: u8,
    /// Bytes of `stack` that are valid, from the stack pointer up.
    pub stack_len: u16,
    /// Local port of the socket, big endian; 0 where there is none yet.
    pub local_port: u16,
    /// Remote port, big endian.
    pub remote_port: u16,
    /// CLOCK_MONOTONIC, nanoseconds; equal to that of the event it belongs to, where there is one.
    pub time_ns: u64,
    /// Address of the socket.
    pub sk: u64,
    /// Process id (tgid).
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// User instruction pointer.
    pub ip: u64,
    /// User stack pointer.
    pub sp: u64,
    /// User frame pointer.
    pub fp: u64,
    /// User link register (arm64), 0 on x86-64.
    pub lr: u64,
    /// The stack, from `sp` upwards.
    pub stack: [u8; STACK_BYTES],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<StateRecord>() == 104 && align_of::<StateRecord>() == 8);
    assert!(offset_of!(StateRecord, local) == 48 && offset_of!(StateRecord, comm) == 80);
    assert!(size_of::<MiniRecord>() == 80 && align_of::<MiniRecord>() == 8);
    assert!(offset_of!(MiniRecord, left_jiffies) == 24 && offset_of!(MiniRecord, local) == 48);
    assert!(size_of::<ExpireRecord>() == 24);
    assert!(size_of::<EofRecord>() == 88);
    assert!(size_of::<StackRecord>() == 64 + STACK_BYTES && STACK_BYTES <= u16::MAX as usize);
};
