//! `sock_send_length(struct sock *sk, int ret, int flags)`, since 6.5: a call that sends came back. The stack of a
//! connection's first one, and of the first after the peer has closed.
//!
//! Runtimes with an event loop read the end of file themselves and call the application afterwards: no stack at
//! that moment has a frame of it. But it is the application that writes, and does so from its own functions.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext,
};
use tcptrace_common::{
    record::KIND_SENT,
    state::{CLOSE_WAIT, ESTABLISHED},
};

use crate::{
    config::config,
    context, eof,
    flow::{self, Namespace},
    kernel::ReadFailed,
    maps::{SEND_BUDGET, SENT_SEEN, SENT_SLOTS, ToldEof},
    ring,
    sock::Sock,
    stack::{self, Ports},
};

/// Stacks that one CPU takes in a [`WINDOW_NS`] at most: a host that opens more connections than that has enough
/// of each kind of them, and a stack costs some microseconds.
const STACKS_A_WINDOW: u64 = 100;
/// A tenth of a second, nanoseconds.
const WINDOW_NS: u64 = 100_000_000;

#[raw_tracepoint(tracepoint = "sock_send_length")]
fn sock_send_length_stack(ctx: RawTracePointContext) -> i32 {
    ring::report(try_sock_send_length_stack(&ctx))
}

#[inline(always)]
fn try_sock_send_length_stack(ctx: &RawTracePointContext) -> Result<(), ReadFailed> {
    if ctx.arg::<i32>(1) <= 0 {
        return Ok(());
    }
    let sk = ctx.arg::<u64>(0);
    let mut common = flow::common(sk);
    common.read()?;
    // Sockets of every protocol come here, and all begin with a `sock_common`.
    let family = common.get::<u16>(config!(offsets.skc_family))?;
    let state = common.get::<u8>(config!(offsets.skc_state))?;
    if family != flow::AF_INET && family != flow::AF_INET6 || state != ESTABLISHED && state != CLOSE_WAIT {
        return Ok(());
    }
    let Some(sock) = Sock::wanted(&common, Namespace::of(&common)?, false)? else { return Ok(()) };
    let Some(seen) = SENT_SEEN.get_ptr_mut(eof::slot_of(sk, SENT_SLOTS)) else { return Ok(()) };
    let Sock { flow, .. } = &sock;
    let connection = u64::from(state) << 32 | u64::from(flow.local_port) << 16 | u64::from(flow.remote_port);
    // SAFETY: the helper takes nothing.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the slot is inside the map. CPUs that write it at once may mix two connections, which at worst takes
    // a stack twice or not at all.
    unsafe {
        if (*seen).sk == sk && (*seen).connection == connection || !afford(time_ns) {
            return Ok(());
        }
        seen.write(ToldEof { sk, connection, time_ns });
    }
    let ports = Ports { local: flow.local_port, remote: flow.remote_port };
    stack::report(KIND_SENT, context::of_caller(), sk, ports, time_ns)
}

/// Takes one stack out of this CPU's budget, if there is one left.
#[inline(always)]
fn afford(now: u64) -> bool {
    let Some(budget) = SEND_BUDGET.get_ptr_mut(0) else { return false };
    // SAFETY: the slot belongs to this CPU; a program that interrupts this one may lose it a count.
    unsafe {
        if now.wrapping_sub((*budget).window_ns) >= WINDOW_NS {
            (*budget).window_ns = now;
            (*budget).taken = 0;
        }
        (*budget).taken += 1;
        (*budget).taken <= STACKS_A_WINDOW
    }
}
