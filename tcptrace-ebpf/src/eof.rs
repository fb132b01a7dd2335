//! `sock_recv_length(struct sock *sk, int ret, int flags)`: a call that receives came back. With 0 it was told
//! end of file, and on a socket in CLOSE_WAIT that is the moment at which an application should close.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, programs::RawTracePointContext};
use tcptrace_common::{
    record::{EofRecord, KIND_EOF, UNREAD_UNKNOWN},
    state::CLOSE_WAIT,
};

use crate::{
    config::config,
    context,
    flow::{self, Namespace},
    kernel::ReadFailed,
    maps::{EOF_SEEN, EOF_SLOTS, ToldEof},
    object::{Object as _, Probed},
    ring,
    sock::Sock,
    stack::Ports,
};

/// MSG_PEEK: the call looked without taking.
const MSG_PEEK: u32 = 2;
/// A socket is reported once in this time, in nanoseconds: an application that polls a socket at EOF in a loop
/// is told it a million times a second.
const REPEAT_AFTER_NS: u64 = 1_000_000_000;

/// An end of file that an application was told.
pub struct Told {
    /// Address of the socket.
    pub sk: u64,
    /// Its ports.
    pub ports: Ports,
    /// The record's time, for whatever else belongs to it.
    pub time_ns: u64,
    /// `FLAG_*` of the caller's context.
    pub caller: u8,
}

/// Reports an end of file. `None` when this is none, a filter rules the socket out, or it was told a moment ago.
#[inline(always)]
pub fn report(ctx: &RawTracePointContext) -> Result<Option<Told>, ReadFailed> {
    if ctx.arg::<i32>(1) != 0 || ctx.arg::<u32>(2) & MSG_PEEK != 0 {
        return Ok(None);
    }
    let sk = ctx.arg::<u64>(0);
    let mut common = flow::common(sk);
    common.read()?;
    if common.get::<u8>(config!(offsets.skc_state))? != CLOSE_WAIT {
        return Ok(None);
    }
    let Some(sock) = Sock::wanted(&common, Namespace::of(&common)?, false)? else { return Ok(None) };
    // A call for no bytes returns 0 as well, with data or the end of file still to be read.
    let unread = sock.unread()?;
    if unread != 0 && unread != UNREAD_UNKNOWN {
        return Ok(None);
    }
    // SAFETY: the helper takes nothing.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let connection = u64::from(sock.received()?) << 32
        | u64::from(sock.flow.local_port) << 16
        | u64::from(sock.flow.remote_port);
    if was_told(ToldEof { sk, connection, time_ns }) {
        return Ok(None);
    }
    let caller = context::of_caller();
    let flags = sock.protocol_flags()? | caller;
    let (local, remote) = (sock.flow.local()?, sock.flow.remote()?);

    if let Some(mut entry) = ring::reserve::<EofRecord>() {
        let record = entry.as_mut_ptr();
        // SAFETY: the record is reserved, aligned to 8 and ours until it is submitted; every field is written.
        unsafe {
            (*record).kind = KIND_EOF;
            (*record).flags = flags;
            (*record).pad = [0; 2];
            (*record).netns = sock.flow.namespace.inode;
            (*record).time_ns = time_ns;
            (*record).sk = sk;
            ((*record).pid, (*record).tid) = Probed::pid_tid(&Probed::task());
            Probed::comm(&Probed::task(), &raw mut (*record).comm);
            (*record).local_port = sock.flow.local_port;
            (*record).remote_port = sock.flow.remote_port;
            (*record).pad2 = 0;
            (&raw mut (*record).local).cast::<[u32; 4]>().write(local);
            (&raw mut (*record).remote).cast::<[u32; 4]>().write(remote);
        }
        ring::submit(entry, time_ns);
    }
    let ports = Ports { local: sock.flow.local_port, remote: sock.flow.remote_port };
    Ok(Some(Told { sk, ports, time_ns, caller }))
}

/// Where a direct-mapped cache with so many slots, a power of two, keeps a socket.
#[inline(always)]
pub fn slot_of(sk: u64, slots: u32) -> u32 {
    // Sockets are aligned to at least 64 bytes; the higher bits tell the slab's pages apart.
    (sk >> 6 ^ sk >> 16) as u32 & (slots - 1)
}

/// Whether the connection was reported a moment ago; if not, it is from now on.
#[inline(always)]
fn was_told(told: ToldEof) -> bool {
    let Some(seen) = EOF_SEEN.get_ptr_mut(slot_of(told.sk, EOF_SLOTS)) else { return false };
    // SAFETY: the slot is inside the map. CPUs that write it at once may mix two connections, which at worst
    // repeats a report or drops one for a second.
    unsafe {
        if (*seen).sk == told.sk
            && (*seen).connection == told.connection
            && told.time_ns.wrapping_sub((*seen).time_ns) < REPEAT_AFTER_NS
        {
            return true;
        }
        seen.write(told);
    }
    false
}
