//! `timer_expire_entry(struct timer_list *timer, …)`: a mini's timer ran out. Always after a `timer_cancel` of
//! the same timer, which carried the tuple.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tcptrace_common::record::{ExpireRecord, KIND_MINI_EXPIRE};

use crate::{
    kernel::ReadFailed,
    mini,
    object::{Object, Probed, Typed},
    ring,
};

/// Where the kernel has typed tracepoints and lets them be used.
#[btf_tracepoint(function = "timer_expire_entry")]
fn typed_timer_expire(ctx: BtfTracePointContext) -> i32 {
    ring::report(report(&Typed::new(ctx.arg(0))))
}

/// Elsewhere.
#[raw_tracepoint(tracepoint = "timer_expire_entry")]
fn timer_expire_entry(ctx: RawTracePointContext) -> i32 {
    ring::report(report(&Probed(ctx.arg(0))))
}

#[inline(always)]
fn report(timer: &impl Object) -> Result<(), ReadFailed> {
    let Some(mini) = mini::of_timer(timer)? else { return Ok(()) };
    // SAFETY: the helper takes nothing.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let Some(mut entry) = ring::reserve::<ExpireRecord>() else { return Ok(()) };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved, aligned to 8 and ours until it is submitted; every field is written.
    unsafe {
        ring::zero(record.cast(), 1);
        (*record).kind = KIND_MINI_EXPIRE;
        (*record).time_ns = time_ns;
        (*record).mini = mini;
    }
    ring::submit(entry, time_ns);
    Ok(())
}
