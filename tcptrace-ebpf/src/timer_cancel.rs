//! `timer_cancel(struct timer_list *timer)`: a mini's timer was taken off the wheel, because it ran out, is
//! about to be armed again or the mini ended early. `function` and `expires` are still what they were.

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tcptrace_common::record::KIND_MINI_CANCEL;

use crate::{
    mini,
    object::{Probed, Typed},
    ring,
};

/// Where the kernel has typed tracepoints and lets them be used.
#[btf_tracepoint(function = "timer_cancel")]
fn typed_timer_cancel(ctx: BtfTracePointContext) -> i32 {
    ring::report(mini::report(ctx.as_ptr(), KIND_MINI_CANCEL, &Typed::new(ctx.arg(0))))
}

/// Elsewhere.
#[raw_tracepoint(tracepoint = "timer_cancel")]
fn timer_cancel(ctx: RawTracePointContext) -> i32 {
    ring::report(mini::report(ctx.as_ptr(), KIND_MINI_CANCEL, &Probed(ctx.arg(0))))
}
