//! Who runs: the task whose work this is, or an interrupt that borrowed its CPU.
//!
//! `current` is always some task. In a softirq it is whichever one the packet or the timer interrupted, so a
//! pid taken there is a guess. Where the kernel keeps the preempt count in the task (arm64; PREEMPT_RT has
//! its own count there) that count tells exactly. x86-64 keeps it per CPU, out of reach, so two facts stand
//! in for it:
//!
//! - The tracepoint's argument array, which `ctx` points to, is a local variable of `bpf_trace_run*` and so
//!   lies on the stack that the kernel runs on. Softirqs run on the CPU's own stack (`do_softirq_own_stack`),
//!   and so do interrupts of the kernel.
//! - An interrupt of *user mode* stays on the task's stack (`call_on_irqstack_cond`), and since 5.12 the
//!   softirqs at its end do too. Then the task has not entered the kernel by a system call, which the saved
//!   user registers tell: `orig_ax` is -1 there and the call's number in a system call. A task that is
//!   exiting is excepted: it may have been killed on the way out of an interrupt, and as it never returns to
//!   user mode, nothing can interrupt it there.
//!
//! A kernel thread has no user mode, so the second fact says nothing about it; ksoftirqd and threaded NAPI
//! run softirq work on a stack of their own. It gets FLAG_KTHREAD and is never taken for an application.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_current_task;
use tcptrace_common::{
    config::ABSENT,
    record::{FLAG_KTHREAD, FLAG_PROCESS, FLAG_SOFTIRQ},
};

use crate::{
    config::config,
    kernel::{ReadFailed, read},
    object::Object,
};

/// The task is on its way out (`include/linux/sched.h`).
const PF_EXITING: u32 = 0x0000_0004;
/// The task is a kernel thread (`include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;
/// SOFTIRQ_OFFSET and HARDIRQ_MASK of the preempt count (`include/linux/preempt.h`): a softirq is being
/// served, or an interrupt handled. The rest of the softirq bits count local_bh_disable(), which process
/// context uses as well.
const IN_INTERRUPT: u32 = 0x000f_0100;

/// Says with `FLAG_*` in which context the program was called; no flag when that cannot be told.
///
/// `task` is `current`.
#[inline(always)]
pub fn flags<O: Object>(ctx: *const c_void, task: &O::Other) -> u8 {
    // A task that cannot be read is as unknown as one whose offsets the kernel did not tell.
    interrupt_or_task::<O>(ctx, task).unwrap_or(0)
}

#[inline(always)]
fn interrupt_or_task<O: Object>(ctx: *const c_void, task: &O::Other) -> Result<u8, ReadFailed> {
    if config!(offsets.task_softirq_count) != ABSENT {
        if task.member::<u32>(config!(offsets.task_softirq_count))? & IN_INTERRUPT != 0 {
            return Ok(FLAG_SOFTIRQ);
        }
        let flags = task.member::<u32>(config!(offsets.task_flags))?;
        return Ok(if flags & PF_KTHREAD != 0 { FLAG_PROCESS | FLAG_KTHREAD } else { FLAG_PROCESS });
    }
    if config!(offsets.task_stack) == ABSENT {
        return Ok(0);
    }
    let mut near = task.near::<2>(config!(offsets.task_stack));
    near.fill()?;
    let stack = near.member::<u64>(config!(offsets.task_stack))?;
    // The verifier allows no arithmetic that makes a number of a context pointer, but comparisons with one.
    let here = ctx as u64;
    if here < stack || here >= stack + config!(thread_size) {
        return Ok(FLAG_SOFTIRQ);
    }
    let flags = near.member::<u32>(config!(offsets.task_flags))?;
    if flags & PF_KTHREAD != 0 {
        return Ok(FLAG_PROCESS | FLAG_KTHREAD);
    }
    if flags & PF_EXITING != 0 {
        return Ok(FLAG_PROCESS);
    }
    let system_call = match O::system_call(task)? {
        Some(number) => number,
        None => system_call(stack)?,
    };
    Ok(if system_call >= 0 { FLAG_PROCESS } else { FLAG_SOFTIRQ })
}

/// The system call by which the task entered the kernel, from the top of its kernel stack (x86-64 only); -1 where
/// it was another way.
///
/// There the CPU pushes ss, sp, flags, cs and ip, and the kernel one word below them: `orig_ax`. Kernels
/// built with CONFIG_X86_FRED (6.9+) leave 16 bytes above it (TOP_OF_KERNEL_STACK_PADDING); a user's ss is
/// never 0, those bytes are unless FRED is in use, and then the last eight are reserved and 0.
#[inline(always)]
fn system_call(stack: u64) -> Result<i64, ReadFailed> {
    const WORDS: u64 = 8;
    let top = read::<[u64; WORDS as usize]>(stack + config!(thread_size) - WORDS * 8, 0)?;
    let orig_ax = if top[7] != 0 { top[2] } else { top[0] };
    Ok(orig_ax as i64)
}

/// As [`flags`], for a hook in a function that may sleep (`sock_recvmsg`, connect()): the current task itself
/// called it, and all that is left to tell is whether that is a kernel thread.
#[inline(always)]
pub fn of_caller() -> u8 {
    // SAFETY: the helper takes nothing and returns the address of `current`.
    let task = unsafe { bpf_get_current_task() };
    match read::<u32>(task, config!(offsets.task_flags)) {
        Ok(flags) if flags & PF_KTHREAD != 0 => FLAG_PROCESS | FLAG_KTHREAD,
        _ => FLAG_PROCESS,
    }
}
