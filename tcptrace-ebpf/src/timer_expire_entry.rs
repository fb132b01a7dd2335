//! `timer_expire_entry(struct timer_list *timer, …)`: a mini's timer ran out. Always after a `timer_cancel` of
//! the same timer, which carried the tuple.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext,
};
use tcptrace_common::record::{ExpireRecord, KIND_MINI_EXPIRE};

use crate::{kernel::ReadFailed, mini, ring};

#[raw_tracepoint(tracepoint = "timer_expire_entry")]
fn timer_expire_entry(ctx: RawTracePointContext) -> i32 {
    ring::report(try_timer_expire_entry(&ctx))
}

#[inline(always)]
fn try_timer_expire_entry(ctx: &RawTracePointContext) -> Result<(), ReadFailed> {
    let Some(mini) = mini::of_timer(ctx.arg(0))? else { return Ok(()) };
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
    ring::submit(entry);
    Ok(())
}
