//! `timer_cancel(struct timer_list *timer)`: a mini's timer was taken off the wheel, because it ran out, is
//! about to be armed again or the mini ended early. `function` and `expires` are still what they were.

use aya_ebpf::{EbpfContext as _, macros::raw_tracepoint, programs::RawTracePointContext};
use tcptrace_common::record::KIND_MINI_CANCEL;

use crate::{mini, ring};

#[raw_tracepoint(tracepoint = "timer_cancel")]
fn timer_cancel(ctx: RawTracePointContext) -> i32 {
    ring::report(mini::report(ctx.as_ptr(), KIND_MINI_CANCEL, ctx.arg(0)))
}
