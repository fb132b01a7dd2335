//! Bytes of the ring buffers → [`Event`]. Nothing in a record is trusted: lengths, kinds and numbers are checked.

use std::mem::offset_of;

use tcptrace_common::record::{
    BUCKETS_UNKNOWN, COMM_LEN, FLAG_KTHREAD, FLAG_LINGER2_NEGATIVE, FLAG_MPTCP, FLAG_MPTCP_SUBFLOW,
    FLAG_ORPHAN, FLAG_PROCESS, FLAG_SOFTIRQ, KIND_EOF, KIND_MINI_CANCEL, KIND_MINI_EXPIRE, KIND_MINI_START,
    KIND_SENT, KIND_STACK, KIND_STATE, STACK_BYTES, UNREAD_UNKNOWN,
};
use tcptrace_common::{EofRecord, ExpireRecord, MiniRecord, StackRecord, StateRecord};

use crate::event::{
    Comm, Context, EofTold, Event, MiniExpired, MiniTimer, MonoNs, Protocol, StateChange, Task,
};
use crate::net::{Addr, Flow, State};

/// Why a record could not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A record of no bytes.
    #[error("empty record")]
    Empty,
    /// A `kind` that is not known in this ring.
    #[error("record of unknown kind {0}")]
    UnknownKind(u8),
    /// Fewer bytes than the kind has.
    #[error("record of kind {kind} has {len} bytes where {wanted} belong")]
    Short {
        /// `kind` of the record.
        kind: u8,
        /// Its length in bytes.
        len: usize,
        /// The length that the kind has.
        wanted: usize,
    },
    /// A number that is no TCP state, or not one that can stand there.
    #[error("record of kind {kind} carries state {state}, which cannot be")]
    State {
        /// `kind` of the record.
        kind: u8,
        /// The number.
        state: u8,
    },
    /// Both in process context and in softirq.
    #[error("record carries contradictory flags {0:#04x}")]
    Flags(u8),
    /// An errno beyond MAX_ERRNO (4095).
    #[error("record carries socket error {0}, which is no errno")]
    Errno(u32),
}

/// User registers and the top of a user stack, borrowed from the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackSample<'a> {
    /// When; equal to that of the event it belongs to, where there is one.
    pub at: MonoNs,
    /// Why it was taken.
    pub reason: StackReason,
    /// Address of the socket.
    pub sk: u64,
    /// Local port; 0 where there is none yet.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// User instruction pointer.
    pub ip: u64,
    /// User stack pointer.
    pub sp: u64,
    /// User frame pointer.
    pub fp: u64,
    /// User link register; 0 on x86-64.
    pub lr: u64,
    /// The stack from `sp` upwards.
    pub stack: &'a [u8],
}

/// What a task was doing when its stack was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackReason {
    /// It was told end of file.
    Eof,
    /// It called connect().
    Connect,
    /// It sent, for the first time or for the first time since the peer closed. There is no event of this.
    Sent,
}

/// Decodes one record of the event ring.
///
/// # Errors
/// When the record is of no known kind, is short, or carries numbers that cannot be.
#[inline]
pub fn event(bytes: &[u8]) -> Result<Event, DecodeError> {
    let &kind = bytes.first().ok_or(DecodeError::Empty)?;
    match kind {
        KIND_STATE => state_change(Fields::of(bytes, kind)?).map(Event::State),
        KIND_MINI_START => mini_timer(Fields::of(bytes, kind)?).map(Event::MiniStarted),
        KIND_MINI_CANCEL => mini_timer(Fields::of(bytes, kind)?).map(Event::MiniCancelled),
        KIND_MINI_EXPIRE => Ok(Event::MiniExpired(mini_expired(&Fields::of(bytes, kind)?))),
        KIND_EOF => eof_told(&Fields::of(bytes, kind)?).map(Event::EofTold),
        _ => Err(DecodeError::UnknownKind(kind)),
    }
}

/// Decodes one record of the stack ring. A record cut off after its valid stack bytes is complete.
///
/// # Errors
/// When the record is of no known kind, or shorter than it says.
pub fn stack(bytes: &[u8]) -> Result<StackSample<'_>, DecodeError> {
    const HEAD: usize = size_of::<StackRecord>() - STACK_BYTES;
    let &kind = bytes.first().ok_or(DecodeError::Empty)?;
    if kind != KIND_STACK {
        return Err(DecodeError::UnknownKind(kind));
    }
    let head = Fields::<HEAD>::of(bytes, kind)?;
    let reason = match head.u8(offset_of!(StackRecord, reason)) {
        KIND_EOF => StackReason::Eof,
        KIND_STATE => StackReason::Connect,
        KIND_SENT => StackReason::Sent,
        other => return Err(DecodeError::UnknownKind(other)),
    };
    let stack_len = usize::from(head.u16(offset_of!(StackRecord, stack_len)));
    let wanted = HEAD.saturating_add(stack_len);
    let stack = bytes.get(HEAD..wanted).ok_or(DecodeError::Short { kind, len: bytes.len(), wanted })?;
    Ok(StackSample {
        at: head.u64(offset_of!(StackRecord, time_ns)),
        reason,
        sk: head.u64(offset_of!(StackRecord, sk)),
        local_port: head.port(offset_of!(StackRecord, local_port)),
        remote_port: head.port(offset_of!(StackRecord, remote_port)),
        pid: head.u32(offset_of!(StackRecord, pid)),
        tid: head.u32(offset_of!(StackRecord, tid)),
        ip: head.u64(offset_of!(StackRecord, ip)),
        sp: head.u64(offset_of!(StackRecord, sp)),
        fp: head.u64(offset_of!(StackRecord, fp)),
        lr: head.u64(offset_of!(StackRecord, lr)),
        stack,
    })
}

/// The bytes of one record, as long as its kind is. Offsets are constants, so no bounds check is left after
/// inlining.
struct Fields<'a, const N: usize>(&'a [u8; N]);

impl<'a, const N: usize> Fields<'a, N> {
    #[inline]
    fn of(bytes: &'a [u8], kind: u8) -> Result<Self, DecodeError> {
        bytes.first_chunk().map(Self).ok_or(DecodeError::Short { kind, len: bytes.len(), wanted: N })
    }

    #[inline]
    fn bytes<const M: usize>(&self, at: usize) -> [u8; M] {
        let mut out = [0; M];
        out.copy_from_slice(&self.0[at..at + M]);
        out
    }

    #[inline]
    fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    #[inline]
    fn port(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.bytes(at))
    }

    #[inline]
    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes(at))
    }

    #[inline]
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    #[inline]
    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }
}

/// The fields that three of the records have alike.
macro_rules! flow {
    ($fields:expr, $record:ty) => {
        Flow {
            local: Addr($fields.bytes(offset_of!($record, local))),
            remote: Addr($fields.bytes(offset_of!($record, remote))),
            netns: $fields.u32(offset_of!($record, netns)),
            local_port: $fields.port(offset_of!($record, local_port)),
            remote_port: $fields.port(offset_of!($record, remote_port)),
        }
    };
}

#[inline]
fn state_change(fields: Fields<'_, { size_of::<StateRecord>() }>) -> Result<StateChange, DecodeError> {
    let flags = fields.u8(offset_of!(StateRecord, flags));
    let task = || Task {
        pid: fields.u32(offset_of!(StateRecord, pid)),
        tid: fields.u32(offset_of!(StateRecord, tid)),
        comm: Comm::from_bytes(&fields.bytes::<COMM_LEN>(offset_of!(StateRecord, comm))),
        cgroup_id: fields.u64(offset_of!(StateRecord, cgroup_id)),
        kthread: flags & FLAG_KTHREAD != 0,
    };
    let sk_err = fields.u32(offset_of!(StateRecord, sk_err));
    Ok(StateChange {
        at: fields.u64(offset_of!(StateRecord, time_ns)),
        sk: fields.u64(offset_of!(StateRecord, sk)),
        flow: flow!(fields, StateRecord),
        from: state(KIND_STATE, fields.u8(offset_of!(StateRecord, from)))?,
        to: state(KIND_STATE, fields.u8(offset_of!(StateRecord, to)))?,
        protocol: protocol(flags),
        context: context(flags, task)?,
        orphan: flags & FLAG_ORPHAN != 0,
        linger2_negative: flags & FLAG_LINGER2_NEGATIVE != 0,
        unread: Some(fields.u32(offset_of!(StateRecord, unread))).filter(|&bytes| bytes != UNREAD_UNKNOWN),
        sk_err: errno(sk_err)?,
        buckets_left: Some(fields.u32(offset_of!(StateRecord, buckets_left)))
            .filter(|&left| left != BUCKETS_UNKNOWN),
    })
}

#[inline]
fn mini_timer(fields: Fields<'_, { size_of::<MiniRecord>() }>) -> Result<MiniTimer, DecodeError> {
    let kind = fields.u8(offset_of!(MiniRecord, kind));
    let flags = fields.u8(offset_of!(MiniRecord, flags));
    let number = fields.u8(offset_of!(MiniRecord, substate));
    let substate = match state(kind, number)? {
        substate @ (State::FinWait2 | State::TimeWait) => substate,
        _ => return Err(DecodeError::State { kind, state: number }),
    };
    let task = || Task {
        pid: fields.u32(offset_of!(MiniRecord, pid)),
        tid: fields.u32(offset_of!(MiniRecord, tid)),
        comm: Comm::default(),
        cgroup_id: 0,
        kthread: flags & FLAG_KTHREAD != 0,
    };
    Ok(MiniTimer {
        at: fields.u64(offset_of!(MiniRecord, time_ns)),
        mini: fields.u64(offset_of!(MiniRecord, mini)),
        flow: flow!(fields, MiniRecord),
        substate,
        left_jiffies: i64::from_ne_bytes(fields.bytes(offset_of!(MiniRecord, left_jiffies))),
        context: context(flags, task)?,
    })
}

#[inline]
fn mini_expired(fields: &Fields<'_, { size_of::<ExpireRecord>() }>) -> MiniExpired {
    MiniExpired {
        at: fields.u64(offset_of!(ExpireRecord, time_ns)),
        mini: fields.u64(offset_of!(ExpireRecord, mini)),
    }
}

#[inline]
fn eof_told(fields: &Fields<'_, { size_of::<EofRecord>() }>) -> Result<EofTold, DecodeError> {
    let flags = fields.u8(offset_of!(EofRecord, flags));
    Ok(EofTold {
        at: fields.u64(offset_of!(EofRecord, time_ns)),
        sk: fields.u64(offset_of!(EofRecord, sk)),
        flow: flow!(fields, EofRecord),
        task: Task {
            pid: fields.u32(offset_of!(EofRecord, pid)),
            tid: fields.u32(offset_of!(EofRecord, tid)),
            comm: Comm::from_bytes(&fields.bytes::<COMM_LEN>(offset_of!(EofRecord, comm))),
            cgroup_id: 0,
            kthread: flags & FLAG_KTHREAD != 0,
        },
    })
}

#[inline]
fn state(kind: u8, number: u8) -> Result<State, DecodeError> {
    State::try_from(number).map_err(|_| DecodeError::State { kind, state: number })
}

#[inline]
fn protocol(flags: u8) -> Protocol {
    if flags & FLAG_MPTCP != 0 {
        Protocol::Mptcp
    } else if flags & FLAG_MPTCP_SUBFLOW != 0 {
        Protocol::MptcpSubflow
    } else {
        Protocol::Tcp
    }
}

#[inline]
fn context(flags: u8, task: impl FnOnce() -> Task) -> Result<Context, DecodeError> {
    match (flags & FLAG_PROCESS != 0, flags & FLAG_SOFTIRQ != 0) {
        (true, false) => Ok(Context::Process(task())),
        (false, true) => Ok(Context::Softirq),
        (false, false) => Ok(Context::Unknown),
        (true, true) => Err(DecodeError::Flags(flags)),
    }
}

/// The kernel's MAX_ERRNO is 4095.
#[inline]
fn errno(number: u32) -> Result<u16, DecodeError> {
    u16::try_from(number).ok().filter(|&errno| errno <= 4095).ok_or(DecodeError::Errno(number))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
