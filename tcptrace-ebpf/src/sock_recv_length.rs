//! `sock_recv_length(struct sock *sk, int ret, int flags)`, absent in 6.2 and present in 6.5: reports end of
//! file, without the stack.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{eof, ring};

#[raw_tracepoint(tracepoint = "sock_recv_length")]
fn sock_recv_length(ctx: RawTracePointContext) -> i32 {
    ring::report(eof::report(&ctx).map(|_told| ()))
}
