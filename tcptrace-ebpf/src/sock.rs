//! What a full socket (`struct sock` and what contains it) knows beyond its 4-tuple.

use tcptrace_common::{
    config::ABSENT,
    record::{FLAG_LINGER2_NEGATIVE, FLAG_MPTCP, FLAG_MPTCP_SUBFLOW, FLAG_ORPHAN, UNREAD_UNKNOWN},
};

use crate::{
    config::config,
    flow::{Common, Flow},
    kernel::{ReadFailed, read},
    window::Window,
};

/// `IPPROTO_TCP`.
const IPPROTO_TCP: u16 = 6;
/// `IPPROTO_MPTCP`.
const IPPROTO_MPTCP: u16 = 262;

/// A TCP or MPTCP socket that no filter rules out.
pub struct Sock<'a> {
    sk: u64,
    is_mptcp: bool,
    /// Its 4-tuple and namespace.
    pub flow: Flow<'a>,
}

impl<'a> Sock<'a> {
    /// `None` for other protocols (SCTP reports through the same tracepoints, with other meanings) and for
    /// what the filters rule out. `listening` as in [`Flow::wanted`].
    #[inline(always)]
    pub fn wanted(sk: u64, common: &'a Common, listening: bool) -> Result<Option<Self>, ReadFailed> {
        let protocol = protocol(sk)?;
        if protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
            return Ok(None);
        }
        // `tcp_set_state` gives the port back (`__inet_put_port` zeroes skc_num) before it reports CLOSE;
        // `inet_sport` stays.
        let local_port = match common.member::<u16>(config!(offsets.skc_num))? {
            0 => read(sk, config!(offsets.inet_sport))?,
            port => port.to_be(),
        };
        let is_mptcp = protocol == IPPROTO_MPTCP;
        Ok(Flow::wanted(common, local_port, listening)?.map(|flow| Self { sk, is_mptcp, flow }))
    }

    /// FLAG_MPTCP, FLAG_MPTCP_SUBFLOW and FLAG_LINGER2_NEGATIVE.
    #[inline(always)]
    pub fn protocol_flags(&self) -> Result<u8, ReadFailed> {
        if self.is_mptcp {
            return Ok(FLAG_MPTCP);
        }
        let mut tcp = Window::<4>::new(self.sk, config!(offsets.linger2));
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
        let mut near = Window::<2>::new(self.sk, config!(offsets.sk_err));
        near.fill()?;
        let is_orphan = near.member::<u64>(config!(offsets.sk_socket))? == 0;
        Ok((if is_orphan { FLAG_ORPHAN } else { 0 }, near.member(config!(offsets.sk_err))?))
    }

    /// `rcv_nxt - copied_seq`, or [`UNREAD_UNKNOWN`] for MPTCP, which counts in another structure.
    #[inline(always)]
    pub fn unread(&self) -> Result<u32, ReadFailed> {
        if self.is_mptcp {
            return Ok(UNREAD_UNKNOWN);
        }
        Ok(self.received()?.wrapping_sub(read(self.sk, config!(offsets.copied_seq))?))
    }

    /// `rcv_nxt`, the sequence number after the last byte or FIN received; 0 for MPTCP.
    #[inline(always)]
    pub fn received(&self) -> Result<u32, ReadFailed> {
        if self.is_mptcp { Ok(0) } else { read(self.sk, config!(offsets.rcv_nxt)) }
    }
}

/// `sk_protocol` was one byte before 5.6 and where that change is not carried.
#[inline(always)]
fn protocol(sk: u64) -> Result<u16, ReadFailed> {
    if config!(offsets.sk_protocol_size) == 1 {
        read::<u8>(sk, config!(offsets.sk_protocol)).map(u16::from)
    } else {
        read(sk, config!(offsets.sk_protocol))
    }
}
