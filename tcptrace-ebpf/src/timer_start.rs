//! `timer_start(struct timer_list *timer, …)`: a mini was made, or its timer armed again. The other arguments
//! changed between 6.6 and 6.8 and are not used. The timer is already set: `expires` is the new one.

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tcptrace_common::record::KIND_MINI_START;

use crate::{
    mini,
    object::{Probed, Typed},
    ring,
};

/// Where the kernel has typed tracepoints and lets them be used.
#[btf_tracepoint(function = "timer_start")]
fn typed_timer_start(ctx: BtfTracePointContext) -> i32 {
    ring::report(mini::report(ctx.as_ptr(), KIND_MINI_START, &Typed::new(ctx.arg(0))))
}

/// Elsewhere.
#[raw_tracepoint(tracepoint = "timer_start")]
fn timer_start(ctx: RawTracePointContext) -> i32 {
    ring::report(mini::report(ctx.as_ptr(), KIND_MINI_START, &Probed(ctx.arg(0))))
}
