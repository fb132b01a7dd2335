//! `timer_start(struct timer_list *timer, …)`: a mini was made, or its timer armed again. The other arguments
//! changed between 6.6 and 6.8 and are not used. The timer is already set: `expires` is the new one.

use aya_ebpf::{EbpfContext as _, macros::raw_tracepoint, programs::RawTracePointContext};
use tcptrace_common::record::KIND_MINI_START;

use crate::{mini, ring};

#[raw_tracepoint(tracepoint = "timer_start")]
fn timer_start(ctx: RawTracePointContext) -> i32 {
    ring::report(mini::report(ctx.as_ptr(), KIND_MINI_START, ctx.arg(0)))
}
