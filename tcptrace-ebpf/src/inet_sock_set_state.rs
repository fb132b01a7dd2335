//! `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: every transition of
//! a full socket. It never says TIME_WAIT; that is what the timer hooks are for.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tcptrace_common::{
    record::{BUCKETS_UNKNOWN, FLAG_PROCESS, KIND_STATE, StateRecord, UNREAD_UNKNOWN},
    state::{
        self, CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, SYN_SENT,
    },
};

use crate::{
    buckets,
    config::{CONFIG, config},
    context,
    flow::{self, Namespace},
    kernel::ReadFailed,
    maps::{LAST_CONNECT, SockTime},
    object::{Object, Typed},
    ring,
    sock::Sock,
    succession, takeover,
};

/// States of a connection that has been established: an application or nobody holds it, and its sequence numbers
/// mean what `unread` is made of.
const SYNCHRONISED: u16 =
    1 << ESTABLISHED | 1 << FIN_WAIT1 | 1 << FIN_WAIT2 | 1 << CLOSE_WAIT | 1 << LAST_ACK | 1 << CLOSING;

/// States that `tcp_time_wait` is called in.
const MAKES_MINIS: u16 = 1 << FIN_WAIT2 | 1 << CLOSING;

/// Where the kernel has typed tracepoints and lets them be used.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn typed_set_state(ctx: BtfTracePointContext) -> i32 {
    let sock = Typed::new(ctx.arg(0));
    ring::report(report(ctx.as_ptr(), sock, ctx.arg(1), ctx.arg(2)))
}

/// Elsewhere.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    ring::report(report(ctx.as_ptr(), flow::common(ctx.arg(0)), ctx.arg(1), ctx.arg(2)))
}

#[inline(always)]
fn report<O: Object>(ctx: *const c_void, mut object: O, from: u32, to: u32) -> Result<(), ReadFailed> {
    if from >= state::SLOTS as u32 || to >= state::SLOTS as u32 {
        return Ok(());
    }
    let is_wanted = is_in(&raw const CONFIG.filter.transitions, from, to);
    if !is_wanted && !(is_in(&raw const CONFIG.filter.takeover, from, to) && takeover::is_possible()) {
        return Ok(());
    }
    let (from, to) = (from as u8, to as u8);
    let listening = from == LISTEN || to == LISTEN;
    object.fill()?;
    let namespace = Namespace::of(&object)?;
    if !is_wanted && !takeover::is_possible_in(namespace.inode) {
        return Ok(());
    }
    let Some(sock) = Sock::wanted(&object, namespace, listening)? else { return Ok(()) };

    if succession::is_told(&sock.flow, from == FIN_WAIT2 && to == CLOSE)? {
        return Ok(());
    }

    let mut flags = sock.protocol_flags()?;
    let mut sk_err = 0;
    if 1 << from & SYNCHRONISED != 0 || to == CLOSE {
        let (orphan, error) = sock.orphan_and_error()?;
        flags |= orphan;
        if to == CLOSE {
            sk_err = error;
        }
    }
    let unread = unread(&sock, from, to)?;
    let buckets_left = if to == CLOSE && sk_err == 0 && 1 << from & MAKES_MINIS != 0 {
        // Without it a reason may be missing; without the record the whole transition would.
        buckets::left(sock.flow.namespace.net.as_ref()).unwrap_or(BUCKETS_UNKNOWN)
    } else {
        BUCKETS_UNKNOWN
    };
    let (local, remote) = (sock.flow.local()?, sock.flow.remote()?);
    let task = O::task();
    flags |= context::flags::<O>(ctx, &task);
    // SAFETY: the helper takes nothing.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    if config!(stacks) != 0 && to == SYN_SENT {
        leave_time(object.address(), time_ns);
    }

    let Some(mut entry) = ring::reserve::<StateRecord>() else {
        ring::count_lost_transition(from, to);
        return Ok(());
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved, aligned to 8 and ours until it is submitted; every field is written.
    unsafe {
        (*record).kind = KIND_STATE;
        (*record).flags = flags;
        (*record).from = from;
        (*record).to = to;
        (*record).netns = sock.flow.namespace.inode;
        (*record).time_ns = time_ns;
        (*record).sk = object.address();
        (*record).unread = unread;
        (*record).local_port = sock.flow.local_port;
        (*record).remote_port = sock.flow.remote_port;
        (&raw mut (*record).local).cast::<[u32; 4]>().write(local);
        (&raw mut (*record).remote).cast::<[u32; 4]>().write(remote);
        (*record).sk_err = sk_err;
        (*record).buckets_left = buckets_left;
        if flags & FLAG_PROCESS != 0 {
            ((*record).pid, (*record).tid) = O::pid_tid(&task);
            (*record).cgroup_id = O::cgroup_id(&task);
            O::comm(&task, &raw mut (*record).comm);
        } else {
            ring::zero(&raw mut (*record).cgroup_id, 2);
            ring::zero((&raw mut (*record).comm).cast(), 2);
        }
    }
    ring::submit(entry, time_ns);
    Ok(())
}

/// `unread` where it says something: on the way into and out of CLOSE_WAIT, and when a connection is closed.
#[inline(always)]
fn unread(sock: &Sock<'_, impl Object>, from: u8, to: u8) -> Result<u32, ReadFailed> {
    if from == CLOSE_WAIT || to == CLOSE_WAIT || to == CLOSE && 1 << from & SYNCHRONISED != 0 {
        sock.unread()
    } else {
        Ok(UNREAD_UNKNOWN)
    }
}

/// Whether a table of the filter names this transition; both are states.
#[inline(always)]
fn is_in(table: *const [u16; state::SLOTS], from: u32, to: u32) -> bool {
    // SAFETY: `from` is within the array, which the verifier checks too.
    let wanted = unsafe { table.cast::<u16>().add(from as usize).read_volatile() };
    wanted >> to & 1 != 0
}

/// Tells `connect_stack`, which runs next on this CPU, when this SYN_SENT was.
#[inline(always)]
fn leave_time(sk: u64, time_ns: u64) {
    if let Some(slot) = LAST_CONNECT.get_ptr_mut(0) {
        // SAFETY: the slot belongs to this CPU.
        unsafe { slot.write(SockTime { sk, time_ns }) };
    }
}
