//! `sock_recv_length(struct sock *sk, int ret, int flags)` once more: reports end of file, with the stack that
//! was told it. In place of the plain program, not beside it, so that both records carry the same time.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tcptrace_common::record::KIND_EOF;

use crate::{eof, kernel::ReadFailed, ring, stack};

#[raw_tracepoint(tracepoint = "sock_recv_length")]
fn sock_recv_length_stack(ctx: RawTracePointContext) -> i32 {
    ring::report(try_sock_recv_length_stack(&ctx))
}

#[inline(always)]
fn try_sock_recv_length_stack(ctx: &RawTracePointContext) -> Result<(), ReadFailed> {
    match eof::report(ctx)? {
        Some(told) => stack::report(KIND_EOF, told.caller, told.sk, told.ports, told.time_ns),
        None => Ok(()),
    }
}
