//! `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)` once more, for
//! CLOSE→SYN_SENT only: the stack that called connect(). A program of its own, because it needs helpers that
//! kernels before 5.15 do not have. Attached after the state program, whose time it takes over.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext,
};
use tcptrace_common::{
    record::KIND_STATE,
    state::{CLOSE, SYN_SENT},
};

use crate::{
    context,
    flow::{self, Namespace},
    kernel::ReadFailed,
    maps::LAST_CONNECT,
    ring,
    sock::Sock,
    stack::{self, Ports},
};

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn connect_stack(ctx: RawTracePointContext) -> i32 {
    ring::report(try_connect_stack(&ctx))
}

#[inline(always)]
fn try_connect_stack(ctx: &RawTracePointContext) -> Result<(), ReadFailed> {
    if ctx.arg::<u32>(1) != CLOSE.into() || ctx.arg::<u32>(2) != SYN_SENT.into() {
        return Ok(());
    }
    let sk = ctx.arg::<u64>(0);
    let mut common = flow::common(sk);
    common.read()?;
    let Some(sock) = Sock::wanted(&common, Namespace::of(&common)?, false)? else { return Ok(()) };
    let ports = Ports { local: sock.flow.local_port, remote: sock.flow.remote_port };
    stack::report(KIND_STATE, context::of_caller(), sk, ports, time_of(sk))
}

/// The time of the state program's record, which it has just left on this CPU. When the task was moved to
/// another one in between, or a softirq there has connected too, the present time is as near as can be.
#[inline(always)]
fn time_of(sk: u64) -> u64 {
    if let Some(last) = LAST_CONNECT.get(0)
        && last.sk == sk
    {
        return last.time_ns;
    }
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}
