//! Bytes of a `sock_diag` answer → [`DiagSocket`]s. Every length is checked; nothing here panics or reads a
//! clock.

use netlink_packet_core::{
    NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NlasIterator,
};

use super::DiagSocket;
use crate::event::{MonoNs, Protocol};
use crate::net::{Addr, Flow, State, UnknownStateNumber};

/// `SOCK_DIAG_BY_FAMILY`: the type of request and answer.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Size of `struct inet_diag_msg` in bytes: part of the kernel's user API, the same in every version.
const INET_DIAG_MSG_BYTES: usize = 72;
/// Attribute `INET_DIAG_INFO`: `struct tcp_info`.
pub(super) const INET_DIAG_INFO: u16 = 2;
/// Attribute `INET_DIAG_ULP_INFO`, a nest. Sent to CAP_NET_ADMIN only (`tcp_diag_get_aux`).
const INET_DIAG_ULP_INFO: u16 = 19;
/// In that nest, `INET_ULP_INFO_NAME`.
const INET_ULP_INFO_NAME: u16 = 1;
/// Attribute `INET_DIAG_CGROUP_ID`, since 5.8.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Offset of `tcpi_last_ack_recv` in `struct tcp_info`: user API, fields are only ever appended.
const TCPI_LAST_ACK_RECV: usize = 56;
/// `idiag_timer` of a mini (`inet_twsk_diag_fill`).
const TIMER_TIME_WAIT: u8 = 3;
/// `INET_DIAG_NOCOOKIE` in both halves.
const NO_COOKIE: u64 = u64::MAX;
/// Netlink messages and attributes begin at multiples of this.
const ALIGN: usize = 4;

/// An answer that is not what `struct inet_diag_msg` looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The framing is broken.
    #[error("broken netlink message at byte {at} of {len}: {what}")]
    Framing {
        /// Where the message begins.
        at: usize,
        /// Length of the datagram.
        len: usize,
        /// What netlink-packet-core says.
        what: String,
    },
    /// Too short for `struct inet_diag_msg`.
    #[error("inet_diag_msg of {0} bytes; at least 72 are needed")]
    Short(usize),
    /// Neither AF_INET nor AF_INET6.
    #[error("inet_diag_msg of address family {0}; expected 2 (IPv4) or 10 (IPv6)")]
    Family(u8),
    /// Not a state that we know.
    #[error(transparent)]
    State(#[from] UnknownStateNumber),
    /// An attribute list that does not add up.
    #[error("broken attribute after inet_diag_msg: {0}")]
    Attribute(String),
    /// A message type that does not belong into the answer.
    #[error("netlink message of type {0} in a sock_diag answer")]
    MessageType(u16),
}

/// What an answer does not say itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The network namespace that was asked.
    pub netns: u32,
    /// When the answer was read.
    pub at: MonoNs,
    /// The protocol that was asked for.
    pub protocol: Protocol,
}

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A socket.
    Socket(DiagSocket),
    /// The dump ends; the errno it ended with, 0 for success.
    Done(i32),
    /// The kernel refused; the errno, 0 for a mere acknowledgement.
    Error(i32),
    /// The kernel had to drop answers: the dump is incomplete.
    Overrun,
    /// A message that means nothing.
    Nothing,
}

/// Decodes every message of one datagram. `each` is told each message's sequence number, whether the kernel
/// says that the dump was interrupted (`NLM_F_DUMP_INTR`), and what it was. A message that cannot be decoded
/// does not hide those after it; broken framing does, and ends the datagram with an error.
pub fn decode_datagram(
    datagram: &[u8],
    context: Context,
    mut each: impl FnMut(u32, bool, Result<Part, DecodeError>),
) -> Result<(), DecodeError> {
    let mut at = 0;
    while let Some(rest) = datagram.get(at..).filter(|rest| !rest.is_empty()) {
        let message = NetlinkBuffer::new_checked(rest).map_err(|error| DecodeError::Framing {
            at,
            len: datagram.len(),
            what: error.to_string(),
        })?;
        let interrupted = message.flags() & NLM_F_DUMP_INTR != 0;
        each(
            message.sequence_number(),
            interrupted,
            part(message.message_type(), message.payload(), context),
        );
        // The length is at least that of the header (`new_checked`), so that this always moves on.
        at += (message.length() as usize).next_multiple_of(ALIGN);
    }
    Ok(())
}

fn part(message_type: u16, payload: &[u8], context: Context) -> Result<Part, DecodeError> {
    match message_type {
        SOCK_DIAG_BY_FAMILY => decode(payload, context).map(Part::Socket),
        NLMSG_DONE => Ok(Part::Done(errno(payload))),
        NLMSG_ERROR => Ok(Part::Error(errno(payload))),
        NLMSG_OVERRUN => Ok(Part::Overrun),
        NLMSG_NOOP => Ok(Part::Nothing),
        other => Err(DecodeError::MessageType(other)),
    }
}

/// The negative errno at the start of NLMSG_ERROR and NLMSG_DONE, made positive. A NLMSG_DONE without one is
/// success.
fn errno(payload: &[u8]) -> i32 {
    payload.first_chunk().map_or(0, |&bytes| i32::from_ne_bytes(bytes).saturating_neg().max(0))
}

/// Decodes one `struct inet_diag_msg` with its attributes.
pub fn decode(payload: &[u8], context: Context) -> Result<DiagSocket, DecodeError> {
    let Some((msg, attributes)) = payload.split_first_chunk::<INET_DIAG_MSG_BYTES>() else {
        return Err(DecodeError::Short(payload.len()));
    };
    let addr = |at: usize| address(msg[0], &msg[at..at + 16]);
    let port = |at: usize| u16::from_be_bytes([msg[at], msg[at + 1]]);
    let word = |at: usize| u32::from_ne_bytes([msg[at], msg[at + 1], msg[at + 2], msg[at + 3]]);

    let timer = msg[2];
    let is_mini = timer == TIMER_TIME_WAIT;
    // Two u32, the low half first, whatever the byte order (`sock_diag_save_cookie`).
    let cookie = u64::from(word(44)) | u64::from(word(48)) << 32;
    let mut socket = DiagSocket {
        at: context.at,
        flow: Flow {
            local: addr(8)?,
            remote: addr(24)?,
            netns: context.netns,
            local_port: port(4),
            remote_port: port(6),
        },
        state: State::try_from(msg[1])?,
        is_mini,
        protocol: context.protocol,
        expires_ms: word(52),
        timer,
        inode: Some(u64::from(word(68))).filter(|&inode| inode != 0),
        uid: (!is_mini).then(|| word(64)),
        recv_queue: word(56),
        send_queue: word(60),
        cookie: Some(cookie).filter(|&cookie| cookie != 0 && cookie != NO_COOKIE),
        cgroup_id: None,
        last_ack_recv_ms: None,
    };
    read_attributes(attributes, &mut socket)?;
    Ok(socket)
}

/// `idiag_src` or `idiag_dst`: four 32-bit words in network order, of which IPv4 uses the first.
fn address(family: u8, bytes: &[u8]) -> Result<Addr, DecodeError> {
    let mut addr = [0; 16];
    match i32::from(family) {
        libc::AF_INET => {
            addr[10..12].fill(0xff);
            addr[12..].copy_from_slice(&bytes[..4]);
        }
        libc::AF_INET6 => addr.copy_from_slice(bytes),
        _ => return Err(DecodeError::Family(family)),
    }
    Ok(Addr(addr))
}

fn read_attributes(bytes: &[u8], socket: &mut DiagSocket) -> Result<(), DecodeError> {
    for attribute in NlasIterator::new(bytes) {
        let attribute = attribute.map_err(|error| DecodeError::Attribute(error.to_string()))?;
        let value = attribute.value();
        match attribute.kind() {
            // An MPTCP socket's answer has `struct mptcp_info` under this number.
            INET_DIAG_INFO if socket.protocol == Protocol::Tcp => {
                socket.last_ack_recv_ms = value
                    .get(TCPI_LAST_ACK_RECV..)
                    .and_then(<[u8]>::first_chunk)
                    .map(|&bytes| u32::from_ne_bytes(bytes));
            }
            INET_DIAG_CGROUP_ID => {
                socket.cgroup_id =
                    value.first_chunk().map(|&bytes| u64::from_ne_bytes(bytes)).filter(|&id| id != 0);
            }
            INET_DIAG_ULP_INFO if socket.protocol == Protocol::Tcp && is_mptcp_ulp(value) => {
                socket.protocol = Protocol::MptcpSubflow;
            }
            _ => {}
        }
    }
    Ok(())
}

/// True for the attributes of a subflow's upper-layer protocol. A nest that does not add up says nothing.
fn is_mptcp_ulp(nest: &[u8]) -> bool {
    NlasIterator::new(nest).map_while(Result::ok).any(|attribute| {
        attribute.kind() == INET_ULP_INFO_NAME
            && attribute.value().split(|&byte| byte == 0).next() == Some(b"mptcp")
    })
}
