//! What the BPF programs must know about the kernel's structs, read from its BTF.

use std::io;

use tcptrace_common::Offsets;
use tcptrace_common::config::ABSENT;

use super::btf::{self, Btf, BtfError, Member};
use super::tracepoints::Tracepoints;

/// Where the kernel publishes its own BTF (CONFIG_DEBUG_INFO_BTF, 5.4).
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's layout could not be learned.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The file is not there or not readable.
    #[error("the kernel's type information {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is there and does not say what is needed.
    #[error("{path}: {source}")]
    Btf {
        /// The file.
        path: String,
        /// Why.
        source: BtfError,
    },
}

/// Layout of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Member offsets.
    pub offsets: Offsets,
    /// Size of a kernel stack in bytes (THREAD_SIZE).
    pub thread_size: u32,
    /// Tracepoints that programs can be typed for.
    pub tracepoints: Tracepoints,
}

impl Layout {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// When there is no BTF, or a struct or member that every supported kernel has is missing from it.
    pub fn of_running_kernel() -> Result<Self, LayoutError> {
        Self::from_file(VMLINUX_BTF)
    }

    /// Reads a file of raw BTF.
    ///
    /// # Errors
    /// As [`Layout::of_running_kernel`].
    pub fn from_file(path: &str) -> Result<Self, LayoutError> {
        let bytes = std::fs::read(path)
            .map_err(|source| LayoutError::Unreadable { path: path.to_owned(), source })?;
        let layout =
            btf::parse(&bytes).and_then(|btf| Self::from_btf(&btf, rustix::param::page_size() as u64));
        layout.map_err(|source| LayoutError::Btf { path: path.to_owned(), source })
    }

    /// Picks what is needed out of BTF. `page_size` in bytes decides the kernel stack's size on arm64.
    ///
    /// # Errors
    /// When a struct or member that every supported kernel has is missing, named in the error.
    pub fn from_btf(btf: &Btf<'_>, page_size: u64) -> Result<Self, BtfError> {
        Ok(Self {
            offsets: offsets(btf)?,
            thread_size: thread_size(btf, page_size)?,
            tracepoints: Tracepoints::from_btf(btf),
        })
    }
}

fn offsets(btf: &Btf<'_>) -> Result<Offsets, BtfError> {
    let need = |of, path| btf.member(of, path).map(|member| member.offset);
    let optional = |of, path| Ok(member_if_any(btf, of, path)?.map_or(ABSENT, |member| member.offset));
    let protocol = btf.member("sock", "sk_protocol")?;
    let regs = registers(btf)?;
    let buckets = buckets(btf)?;
    let cgroup = cgroup(btf)?;
    Ok(Offsets {
        skc_daddr: need("sock_common", "skc_daddr")?,
        skc_rcv_saddr: need("sock_common", "skc_rcv_saddr")?,
        skc_v6_daddr: optional("sock_common", "skc_v6_daddr")?,
        skc_v6_rcv_saddr: optional("sock_common", "skc_v6_rcv_saddr")?,
        skc_dport: need("sock_common", "skc_dport")?,
        skc_num: need("sock_common", "skc_num")?,
        skc_hash: need("sock_common", "skc_hash")?,
        skc_family: need("sock_common", "skc_family")?,
        skc_state: need("sock_common", "skc_state")?,
        // `possible_net_t` is an empty struct without CONFIG_NET_NS.
        skc_net: optional("sock_common", "skc_net.net")?,
        net_inum: need("net", "ns.inum")?,
        inet_sport: need("inet_sock", "inet_sport")?,
        sk_protocol: protocol.offset,
        sk_protocol_size: protocol.size,
        sk_socket: need("sock", "sk_socket")?,
        sk_err: need("sock", "sk_err")?,
        copied_seq: need("tcp_sock", "copied_seq")?,
        rcv_nxt: need("tcp_sock", "rcv_nxt")?,
        linger2: need("tcp_sock", "linger2")?,
        is_mptcp: optional("tcp_sock", "is_mptcp")?,
        timer_function: need("timer_list", "function")?,
        timer_expires: need("timer_list", "expires")?,
        tw_timer: need("inet_timewait_sock", "tw_timer")?,
        tw_substate: need("inet_timewait_sock", "tw_substate")?,
        task_stack: need("task_struct", "stack")?,
        task_flags: need("task_struct", "flags")?,
        task_tgid: need("task_struct", "tgid")?,
        task_pid: need("task_struct", "pid")?,
        task_comm: need("task_struct", "comm")?,
        task_cgroups: cgroup.task_cgroups,
        css_set_dfl_cgrp: cgroup.dfl_cgrp,
        cgroup_kn: cgroup.kn,
        kernfs_node_id: cgroup.id,
        task_softirq_count: task_softirq_count(btf)?,
        regs_orig_ax: optional("pt_regs", "orig_ax")?,
        regs_ip: regs.ip,
        regs_sp: regs.sp,
        regs_fp: regs.fp,
        regs_lr: regs.lr,
        tw_death_row: buckets.death_row,
        tw_death_row_is_pointer: buckets.is_pointer.into(),
        tw_count: buckets.count,
        tw_count_of_none: buckets.count_of_none,
        tw_max: buckets.max,
    })
}

/// A member that depends on the kernel's configuration or version; damage is still an error. A flag that some kernel
/// has made a bit field is one that the programs cannot read there, so it is as good as absent.
fn member_if_any(btf: &Btf<'_>, of: &str, path: &str) -> Result<Option<Member>, BtfError> {
    match btf.member(of, path) {
        Ok(member) => Ok(Some(member)),
        Err(error) if error.is_absence() || matches!(error, BtfError::BitField { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The way from a task to the id of its cgroup.
struct Cgroup {
    /// Absent unless everything else is known.
    task_cgroups: u32,
    dfl_cgrp: u32,
    kn: u32,
    id: u32,
}

/// As `bpf_get_current_cgroup_id` goes.
fn cgroup(btf: &Btf<'_>) -> Result<Cgroup, BtfError> {
    let way = [("task_struct", "cgroups"), ("css_set", "dfl_cgrp"), ("cgroup", "kn"), ("kernfs_node", "id")];
    let mut offsets = [ABSENT; 4];
    for ((of, path), offset) in way.into_iter().zip(&mut offsets) {
        if let Some(member) = member_if_any(btf, of, path)?.filter(|member| member.size == 8) {
            *offset = member.offset;
        }
    }
    let [cgroups, dfl_cgrp, kn, id] = offsets;
    let task_cgroups = if offsets.contains(&ABSENT) { ABSENT } else { cgroups };
    Ok(Cgroup { task_cgroups, dfl_cgrp, kn, id })
}

/// Where a namespace counts its minis.
struct Buckets {
    /// Within `net`; absent unless everything else is known.
    death_row: u32,
    is_pointer: bool,
    count: u32,
    count_of_none: u32,
    max: u32,
}

/// `inet_timewait_death_row` is a part of `net` or pointed to from there, and counts from 0 (`tw_count`) or, as
/// a reference counter does, from 1 (`tw_refcount`).
fn buckets(btf: &Btf<'_>) -> Result<Buckets, BtfError> {
    const DEATH_ROW: &str = "inet_timewait_death_row";
    let optional = |of, path| member_if_any(btf, of, path);
    let counts_references = optional(DEATH_ROW, "tw_refcount")?;
    let counts = optional(DEATH_ROW, "tw_count")?;
    let count = counts_references.or(counts);
    let max = optional(DEATH_ROW, "sysctl_max_tw_buckets")?;
    let (Some(row), Some(count), Some(max)) = (optional("net", "ipv4.tcp_death_row")?, count, max) else {
        return Ok(Buckets {
            death_row: ABSENT,
            is_pointer: false,
            count: ABSENT,
            count_of_none: 0,
            max: ABSENT,
        });
    };
    Ok(Buckets {
        death_row: row.offset,
        // The struct itself is larger than a cache line.
        is_pointer: row.size == 8,
        count: count.offset,
        count_of_none: counts_references.is_some().into(),
        max: max.offset,
    })
}

/// Where a task itself counts the softirqs that it serves; nowhere on x86-64, which counts per CPU.
fn task_softirq_count(btf: &Btf<'_>) -> Result<u32, BtfError> {
    // PREEMPT_RT first: there the preempt count says nothing about softirqs.
    for path in ["softirq_disable_cnt", "thread_info.preempt_count", "thread_info.preempt.count"] {
        match btf.member("task_struct", path) {
            Ok(member) => return Ok(member.offset),
            Err(error) if error.is_absence() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ABSENT)
}

/// Offsets within `pt_regs`.
struct Registers {
    ip: u32,
    sp: u32,
    fp: u32,
    lr: u32,
}

/// `pt_regs` tells the architecture by itself: arm64 has a `pc`, x86-64 an `ip`. Elsewhere all are absent and
/// the stack programs are skipped.
fn registers(btf: &Btf<'_>) -> Result<Registers, BtfError> {
    let optional = |path| match btf.member("pt_regs", path) {
        Ok(member) => Ok(member.offset),
        Err(error) if error.is_absence() => Ok(ABSENT),
        Err(error) => Err(error),
    };
    let general = optional("regs")?;
    let pc = optional("pc")?;
    if general != ABSENT && pc != ABSENT {
        // arm64: x0 to x30 are 8 bytes each in `regs`; x29 is the frame pointer, x30 the link register.
        return Ok(Registers {
            ip: pc,
            sp: optional("sp")?,
            fp: general.saturating_add(29 * 8),
            lr: general.saturating_add(30 * 8),
        });
    }
    Ok(Registers { ip: optional("ip")?, sp: optional("sp")?, fp: optional("bp")?, lr: ABSENT })
}

/// THREAD_SIZE. No type of that size is in BTF on every kernel, so it is rebuilt from what decides it
/// (`arch/x86/include/asm/page_64_types.h`, `arch/arm64/include/asm/memory.h`): 16 KiB, doubled by KASAN (which
/// alone gives `task_struct` a `kasan_depth`), on arm64 at least one page.
fn thread_size(btf: &Btf<'_>, page_size: u64) -> Result<u32, BtfError> {
    // x86-64 gives its interrupt stacks the same order as its task stacks, and those are a struct in BTF.
    if let Ok(size) = btf.struct_size("irq_stack")
        && size.is_power_of_two()
        && (4096..=1 << 20).contains(&size)
    {
        return Ok(size);
    }
    let kasan = match btf.member("task_struct", "kasan_depth") {
        Ok(_) => 2,
        Err(error) if error.is_absence() => 1,
        Err(error) => return Err(error),
    };
    let page_size = u32::try_from(page_size).unwrap_or(4096);
    Ok((16 * 1024 * kasan).max(page_size))
}

#[cfg(test)]
#[path = "offsets_tests.rs"]
mod tests;
