//! What a full socket (`struct sock` and what contains it) knows beyond its 4-tuple.

use tcptrace_common::{
    config::ABSENT,
    record::{FLAG_LINGER2_NEGATIVE, FLAG_MPTCP, FLAG_MPTCP_SUBFLOW, FLAG_ORPHAN, UNREAD_UNKNOWN},
};

use crate::{
    config::config,
    flow::{Flow, Namespace},
    kernel::{ReadFailed, read},
    object::Object,
};

/// `IPPROTO_TCP`.
const IPPROTO_TCP: u16 = 6;
/// `IPPROTO_MPTCP`.
const IPPROTO_MPTCP: u16 = 262;

/// A TCP or MPTCP socket that no filter rules out.
pub struct Sock<'a, O: Object> {
    object: &'a O,
    /// NULL for MPTCP's own sockets.
    tcp: O::Other,
    /// Its 4-tuple and namespace.
    pub flow: Flow<'a, O>,
}

impl<'a, O: Object> Sock<'a, O> {
    /// `None` for other protocols (SCTP reports through the same tracepoints, with other meanings) and for
    /// what the filters rule out. `listening` as in [`Flow::wanted`].
    #[inline(always)]
    pub fn wanted(
        object: &'a O,
        namespace: Namespace<O>,
        listening: bool,
    ) -> Result<Option<Self>, ReadFailed> {
        let protocol = protocol(object)?;
        if protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
            return Ok(None);
        }
        // `tcp_set_state` gives the port back (`__inet_put_port` zeroes skc_num) before it reports CLOSE;
        // `inet_sport` stays.
        let tcp = if protocol == IPPROTO_MPTCP { O::null() } else { object.tcp() };
        let local_port = match object.member::<u16>(config!(offsets.skc_num))? {
            // An `mptcp_sock` begins with the same `inet_sock`.
            0 if tcp.is_null() => read(object.address(), config!(offsets.inet_sport))?,
            0 => tcp.member(config!(offsets.inet_sport))?,
            port => port.to_be(),
        };
        Ok(Flow::wanted(object, namespace, local_port, listening)?.map(|flow| Self { object, tcp, flow }))
    }

    /// FLAG_MPTCP, FLAG_MPTCP_SUBFLOW and FLAG_LINGER2_NEGATIVE.
    #[inline(always)]
    pub fn protocol_flags(&self) -> Result<u8, ReadFailed> {
        if self.tcp.is_null() {
            return Ok(FLAG_MPTCP);
        }
        let mut tcp = self.tcp.near::<4>(config!(offsets.linger2));
        tcp.fill()?;
        let mut flags = 0;
        if tcp.member::<i32>(config!(offsets.linger2))? < 0 {
            flags |= FLAG_LINGER2_NEGATIVE;
        }
        if config!(offsets.is_mptcp) != ABSENT && tcp.member::<u8>(config!(offsets.is_mptcp))? != 0 {
            flags |= FLAG_MPTCP_SUBFLOW;
        }
        Ok(flags)
    }

    /// FLAG_ORPHAN, and `sk_err`: a positive errno, or 0.
    #[inline(always)]
    pub fn orphan_and_error(&self) -> Result<(u8, u32), ReadFailed> {
        let (socket, error) = if self.tcp.is_null() {
            let address = self.object.address();
            (read::<u64>(address, config!(offsets.sk_socket))?, read(address, config!(offsets.sk_err))?)
        } else {
            // Not by way of `object`: see `Namespace::of`.
            let mut near = self.tcp.near::<2>(config!(offsets.sk_err));
            near.fill()?;
            (near.member(config!(offsets.sk_socket))?, near.member(config!(offsets.sk_err))?)
        };
        Ok((if socket == 0 { FLAG_ORPHAN } else { 0 }, error))
    }

    /// `rcv_nxt - copied_seq`, or [`UNREAD_UNKNOWN`] for MPTCP, which counts in another structure.
    #[inline(always)]
    pub fn unread(&self) -> Result<u32, ReadFailed> {
        if self.tcp.is_null() {
            return Ok(UNREAD_UNKNOWN);
        }
        Ok(self.received()?.wrapping_sub(self.tcp.member(config!(offsets.copied_seq))?))
    }

    /// `rcv_nxt`, the sequence number after the last byte or FIN received; 0 for MPTCP.
    #[inline(always)]
    pub fn received(&self) -> Result<u32, ReadFailed> {
        if self.tcp.is_null() { Ok(0) } else { self.tcp.member(config!(offsets.rcv_nxt)) }
    }
}

/// `sk_protocol` was one byte before 5.6 and where that change is not carried.
#[inline(always)]
fn protocol(object: &impl Object) -> Result<u16, ReadFailed> {
    if config!(offsets.sk_protocol_size) == 1 {
        object.member::<u8>(config!(offsets.sk_protocol)).map(u16::from)
    } else {
        object.member(config!(offsets.sk_protocol))
    }
}
