//! The user's registers and the top of its stack: what an unwinder needs later, in user space.
//!
//! The helpers used here came with 5.11 (`bpf_get_current_task_btf`) and 5.15 (`bpf_task_pt_regs`); a program
//! that calls this does not load on older kernels.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs};
use tcptrace_common::{
    config::ABSENT,
    counter,
    record::{FLAG_KTHREAD, KIND_STACK, STACK_BYTES, StackRecord},
};

use crate::{
    config::config,
    kernel::{ReadFailed, read},
    maps::STACKS,
    object::{Object as _, Probed},
    ring,
};

/// What is copied at once. No page is smaller, so a copy that begins at a multiple of it and is no longer
/// touches one page and fails or succeeds as a whole.
const PAGE: u64 = 4096;
/// Whole pages after the one that the stack pointer is in.
const PAGES: u64 = STACK_BYTES as u64 / PAGE - 1;

/// The ports of a socket, big endian; 0 where there is none yet.
#[derive(Clone, Copy)]
pub struct Ports {
    /// Local.
    pub local: u16,
    /// Remote.
    pub remote: u16,
}

/// Submits the current task's registers and stack. Nothing for a kernel thread, which has neither.
#[inline(always)]
pub fn report(reason: u8, caller: u8, sk: u64, ports: Ports, time_ns: u64) -> Result<(), ReadFailed> {
    if caller & FLAG_KTHREAD != 0 || config!(offsets.regs_ip) == ABSENT {
        return Ok(());
    }
    // SAFETY: `current` is a task for as long as the program runs.
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let ip = read(regs, config!(offsets.regs_ip))?;
    let sp = read(regs, config!(offsets.regs_sp))?;
    let fp = read(regs, config!(offsets.regs_fp))?;
    let lr = if config!(offsets.regs_lr) == ABSENT { 0 } else { read(regs, config!(offsets.regs_lr))? };

    let Some(mut entry) = STACKS.reserve::<StackRecord>(0) else {
        ring::count(counter::STACK_RING_FULL);
        return Ok(());
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved, aligned to 8 and ours until it is submitted; every field but the stack
    // is written, and of the stack as much as `stack_len` says.
    unsafe {
        (*record).kind = KIND_STACK;
        (*record).reason = reason;
        (*record).local_port = ports.local;
        (*record).remote_port = ports.remote;
        (*record).time_ns = time_ns;
        (*record).sk = sk;
        ((*record).pid, (*record).tid) = Probed::pid_tid(&Probed::task());
        (*record).ip = ip;
        (*record).sp = sp;
        (*record).fp = fp;
        (*record).lr = lr;
        (*record).stack_len = copy(sp, (&raw mut (*record).stack).cast()) as u16;
    }
    // Nobody waits for a stack: it is read with the events around it.
    entry.submit(aya_ebpf::bindings::BPF_RB_NO_WAKEUP.into());
    Ok(())
}

/// Copies user memory from `sp` upwards, page by page until one is not there, and returns how many bytes.
///
/// # Safety
/// `to` has room for [`STACK_BYTES`].
#[inline(always)]
unsafe fn copy(sp: u64, to: *mut u8) -> u64 {
    // What is left of the first page: 1 to 4096 bytes.
    let first = PAGE - (sp & (PAGE - 1));
    // SAFETY: `first` is at most a page.
    if unsafe { bpf_probe_read_user(to.cast(), first as u32, sp as *const _) } != 0 {
        return 0;
    }
    let mut len = first;
    for _ in 0..PAGES {
        // SAFETY: `len` is at most `PAGES` pages here, so another one fits.
        let error = unsafe {
            bpf_probe_read_user(to.add(len as usize).cast(), PAGE as u32, sp.wrapping_add(len) as *const _)
        };
        if error != 0 {
            break;
        }
        len += PAGE;
    }
    len
}
