//! Load-time constants: written into `.rodata` by the loader before the programs are verified, so that the
//! verifier sees them as known scalars and drops the branches they rule out.

use crate::state;

/// Byte offsets of kernel members, read from the running kernel's BTF by name.
///
/// Every one of these moves between kernel versions, so none is written into the source. An offset that the
/// kernel does not have is [`ABSENT`]; the programs then leave out what depends on it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `sock_common.skc_daddr` (big endian).
    pub skc_daddr: u32,
    /// `sock_common.skc_rcv_saddr` (big endian).
    pub skc_rcv_saddr: u32,
    /// `sock_common.skc_v6_daddr`; [`ABSENT`] without CONFIG_IPV6.
    pub skc_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`; [`ABSENT`] without CONFIG_IPV6.
    pub skc_v6_rcv_saddr: u32,
    /// `sock_common.skc_dport` (big endian).
    pub skc_dport: u32,
    /// `sock_common.skc_num` (host order).
    pub skc_num: u32,
    /// `sock_common.skc_hash`: of the four-tuple, with a secret of the namespace's. A mini has its socket's.
    pub skc_hash: u32,
    /// `sock_common.skc_family`.
    pub skc_family: u32,
    /// `sock_common.skc_state`.
    pub skc_state: u32,
    /// `sock_common.skc_net.net`: pointer to `struct net`.
    pub skc_net: u32,
    /// `net.ns.inum`.
    pub net_inum: u32,
    /// `inet_sock.inet_sport` (big endian); keeps the local port when `skc_num` is already 0.
    pub inet_sport: u32,
    /// `sock.sk_protocol`.
    pub sk_protocol: u32,
    /// Size of `sk_protocol` in bytes: 2 since 5.6.
    pub sk_protocol_size: u32,
    /// `sock.sk_socket`: NULL once the socket is an orphan.
    pub sk_socket: u32,
    /// `sock.sk_err`.
    pub sk_err: u32,
    /// `tcp_sock.copied_seq`.
    pub copied_seq: u32,
    /// `tcp_sock.rcv_nxt`.
    pub rcv_nxt: u32,
    /// `tcp_sock.linger2`.
    pub linger2: u32,
    /// `tcp_sock.is_mptcp`; [`ABSENT`] without CONFIG_MPTCP.
    pub is_mptcp: u32,
    /// `timer_list.function`.
    pub timer_function: u32,
    /// `timer_list.expires` (jiffies).
    pub timer_expires: u32,
    /// `inet_timewait_sock.tw_timer`: what is subtracted from the timer's address to get the mini's.
    pub tw_timer: u32,
    /// `inet_timewait_sock.tw_substate`.
    pub tw_substate: u32,
    /// `task_struct.stack`: base of the task's kernel stack; how a program tells process context from
    /// softirq on x86-64.
    pub task_stack: u32,
    /// `task_struct.flags` (PF_EXITING, PF_KTHREAD).
    pub task_flags: u32,
    /// `task_struct.tgid`: the process id.
    pub task_tgid: u32,
    /// `task_struct.pid`: the thread id.
    pub task_pid: u32,
    /// `task_struct.comm`, 16 bytes.
    pub task_comm: u32,
    /// `task_struct.cgroups`: pointer to `struct css_set`; [`ABSENT`] unless the three that follow are known.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`: pointer to the `struct cgroup` of version 2.
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`: pointer to `struct kernfs_node`.
    pub cgroup_kn: u32,
    /// `kernfs_node.id`, 64 bits: the cgroup's id.
    pub kernfs_node_id: u32,
    /// Offset in `task_struct` of the 32-bit counter whose SOFTIRQ_OFFSET and HARDIRQ bits tell interrupt
    /// context from process context. `softirq_disable_cnt` where it exists (PREEMPT_RT), else
    /// `thread_info` plus its `preempt_count` or `preempt.count` (arm64, riscv, s390). x86-64 keeps the count
    /// per CPU, so there it is [`ABSENT`] and `task_stack` decides.
    pub task_softirq_count: u32,
    /// `pt_regs.orig_ax`: the number of the system call, -1 in an interrupt; [`ABSENT`] but on x86-64.
    pub regs_orig_ax: u32,
    /// `pt_regs` instruction pointer (`ip`, arm64 `pc`).
    pub regs_ip: u32,
    /// `pt_regs` stack pointer (`sp`).
    pub regs_sp: u32,
    /// `pt_regs` frame pointer (`bp`, arm64 `regs[29]`).
    pub regs_fp: u32,
    /// `pt_regs` link register (arm64 `regs[30]`); [`ABSENT`] on x86-64.
    pub regs_lr: u32,
    /// Offset in `net` of `ipv4.tcp_death_row`, which counts the namespace's minis; [`ABSENT`] where the kernel
    /// has none by that name.
    pub tw_death_row: u32,
    /// 1: a pointer stands there (5.19 to 6.1); 0: the `inet_timewait_death_row` itself.
    pub tw_death_row_is_pointer: u32,
    /// `inet_timewait_death_row.tw_refcount`, before 5.18 `tw_count`: 32 bits.
    pub tw_count: u32,
    /// What that says when there is no mini: 1 for `tw_refcount`, 0 for `tw_count`.
    pub tw_count_of_none: u32,
    /// `inet_timewait_death_row.sysctl_max_tw_buckets`: 32 bits.
    pub tw_max: u32,
}

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Filters that cut the volume inside the kernel. A zero field filters nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// For each old state (index) the bit mask of new states (bit = state number) that user space wants.
    pub transitions: [u16; state::SLOTS],
    /// The same for those that user space wants only for [`TAKEOVER_S`] after a mini has ended early: they tell
    /// whether a new connection took its four-tuple over.
    pub takeover: [u16; state::SLOTS],
    /// Wanted address family: 0 any, 2 IPv4 (v4-mapped IPv6 included), 10 IPv6 proper.
    pub family: u16,
    /// Wanted local port, host order, 0 any. Not applied where the port is not known yet.
    pub local_port: u16,
    /// Wanted remote port, host order, 0 any. Not applied where the port is not known yet.
    pub remote_port: u16,
    /// Wanted port on either side, host order, 0 any.
    pub either_port: u16,
    /// Wanted network namespace (inode number), 0 any.
    pub netns: u32,
}

impl Filter {
    /// Lets everything through.
    pub const ALL: Self = Self {
        transitions: [u16::MAX; state::SLOTS],
        takeover: [0; state::SLOTS],
        family: 0,
        local_port: 0,
        remote_port: 0,
        either_port: 0,
        netns: 0,
    };
}

/// How long after a mini's early end a connection that took its four-tuple over may still show, in seconds: longer than
/// the tracker waits for it.
pub const TAKEOVER_S: u64 = 2;

/// Everything the loader tells the programs: the one global, named `CONFIG`, in `.rodata`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address of `tw_timer_handler`; timers with another function are not ours.
    pub tw_timer_handler: u64,
    /// Wake the reader when at least so many bytes wait in the ring; below it records are submitted silently and
    /// found at the reader's next tick. 0: wake at every record.
    pub wakeup_bytes: u64,
    /// Size of a kernel stack in bytes (THREAD_SIZE): 16 KiB on x86-64, twice that under KASAN.
    pub thread_size: u64,
    /// [`TAKEOVER_S`] in jiffies, the clock that costs nothing to read.
    pub takeover_jiffies: u64,
    /// Member offsets.
    pub offsets: Offsets,
    /// Kernel-side filters.
    pub filter: Filter,
    /// 1: `connect_stack` is wanted (`--stacks`), so the state program leaves it the time of each SYN_SENT;
    /// 0: it does not.
    pub stacks: u64,
}

const _: () = {
    assert!(size_of::<Offsets>() == 44 * 4);
    assert!(size_of::<Filter>() == 64);
    assert!(size_of::<Config>() == 32 + 176 + 64 + 8);
};

#[cfg(feature = "user")]
// SAFETY: `Config` is `repr(C)`, made of integers only and has no implicit padding (asserted above).
unsafe impl aya::Pod for Config {}
