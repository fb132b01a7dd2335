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
/// `TCPDIAG_GETSOCK`: its elder sister, whose answers look the same.
pub(super) const TCPDIAG_GETSOCK: u16 = 18;
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
/// Offset of `mptcpi_last_ack_recv` in `struct mptcp_info`, which is what an MPTCP socket answers; since 6.10.
const MPTCPI_LAST_ACK_RECV: usize = 92;
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
        SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => decode(payload, context).map(Part::Socket),
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
            INET_DIAG_INFO => {
                let at = match socket.protocol {
                    Protocol::Mptcp => MPTCPI_LAST_ACK_RECV,
                    Protocol::Tcp | Protocol::MptcpSubflow => TCPI_LAST_ACK_RECV,
                };
                socket.last_ack_recv_ms =
                    value.get(at..).and_then(<[u8]>::first_chunk).map(|&bytes| u32::from_ne_bytes(bytes));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONTEXT: Context = Context { netns: 9, at: 5, protocol: Protocol::Tcp };

    /// The bytes of an answer in `captured.txt`.
    fn captured(name: &str) -> Vec<u8> {
        let line = include_str!("captured.txt").lines().find_map(|line| line.strip_prefix(name));
        let hex = line.unwrap_or_else(|| panic!("no answer {name}")).trim().as_bytes();
        let digits = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16);
        hex.chunks(2).map(|pair| digits(pair).expect("hex digits")).collect()
    }

    fn decoded(name: &str) -> DiagSocket {
        decode(&captured(name), CONTEXT).expect("decodes")
    }

    #[test]
    fn close_wait_with_data_unread_counts_the_fin() {
        let socket = decoded("ipv4_close_wait_3000_bytes_unread ");
        assert_eq!((socket.state, socket.recv_queue), (State::CloseWait, 3001));
        assert!(!socket.is_mini && socket.inode.is_some());
        assert_eq!((socket.uid, socket.cgroup_id), (Some(0), Some(1)));
        assert_eq!(socket.flow.local_addr().ip().to_string(), "127.0.0.1");
        assert_eq!((socket.flow.netns, socket.at), (9, 5));
        assert!(socket.last_ack_recv_ms.is_some_and(|age| (100..1000).contains(&age)), "{socket:?}");
    }

    #[test]
    fn a_half_closed_fin_wait2_is_no_mini() {
        let socket = decoded("ipv4_fin_wait2_half_closed ");
        assert_eq!(socket.state, State::FinWait2);
        assert!(!socket.is_mini && socket.inode.is_some());
    }

    #[test]
    fn minis_have_a_timer_and_no_owner() {
        for (name, state) in
            [("ipv4_time_wait ", State::TimeWait), ("ipv6_fin_wait2_orphan_mini ", State::FinWait2)]
        {
            let socket = decoded(name);
            assert_eq!(socket.state, state);
            assert!(socket.is_mini);
            assert!((59_000..=62_100).contains(&socket.expires_ms), "{socket:?}");
            assert_eq!((socket.uid, socket.inode, socket.cgroup_id), (None, None, None));
            assert!(socket.cookie.is_some());
        }
    }

    #[test]
    fn v4_mapped_addresses_are_ipv4_and_a_listener_has_its_backlog() {
        let mapped = decoded("v4_mapped_established ");
        assert_eq!(mapped.flow.local_addr().to_string().split(':').next(), Some("127.0.0.1"));
        let six = decoded("ipv6_established ");
        assert!(six.flow.remote_addr().to_string().starts_with("[::1]:"));
        let listener = decoded("ipv4_listen ");
        assert_eq!((listener.state, listener.recv_queue, listener.send_queue), (State::Listen, 0, 7));
        assert_eq!((listener.flow.remote_port, listener.flow.remote.is_unspecified()), (0, true));
        assert!(decoded("ipv6_listen_dual ").flow.local.is_unspecified());
    }

    #[test]
    fn a_connection_not_yet_accepted_has_no_inode() {
        let socket = decoded("ipv4_close_wait_not_accepted ");
        assert_eq!((socket.state, socket.inode, socket.recv_queue), (State::CloseWait, None, 1));
    }

    #[test]
    fn mptcp_and_its_subflow_are_told_from_tcp() {
        let subflow = decoded("mptcp_subflow_of_it ");
        assert_eq!((subflow.protocol, subflow.state), (Protocol::MptcpSubflow, State::Established));
        let context = Context { protocol: Protocol::Mptcp, ..CONTEXT };
        let whole = decode(&captured("mptcp_close_wait "), context).expect("decodes");
        assert_eq!((whole.protocol, whole.state), (Protocol::Mptcp, State::CloseWait));
        // Its INET_DIAG_INFO is struct mptcp_info.
        assert_eq!(whole.last_ack_recv_ms, Some(200));
        // A subflow carries the inode number of the MPTCP socket.
        assert_eq!(whole.inode, subflow.inode);
    }

    /// `struct nlmsghdr` and payload, padded.
    fn message(message_type: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(message_type.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn parts(datagram: &[u8]) -> (Vec<Result<Part, DecodeError>>, bool, Result<(), DecodeError>) {
        let (mut parts, mut interrupted) = (Vec::new(), false);
        let result = decode_datagram(datagram, CONTEXT, |sequence, intr, part| {
            assert_eq!(sequence, 7);
            interrupted |= intr;
            parts.push(part);
        });
        (parts, interrupted, result)
    }

    #[test]
    fn a_datagram_is_taken_apart_and_a_bad_message_hides_no_good_one() {
        let good = captured("ipv4_time_wait ");
        let datagram = [
            message(20, 0, &good[..71]),
            message(20, NLM_F_DUMP_INTR, &good),
            message(1, 0, &[]),
            message(2, 0, &(-libc::ENOENT).to_ne_bytes()),
            message(4, 0, &[]),
            message(99, 0, &[]),
            message(3, 0, &0_i32.to_ne_bytes()),
        ]
        .concat();
        let (parts, interrupted, result) = parts(&datagram);
        assert_eq!(result, Ok(()));
        assert!(interrupted);
        assert_eq!(parts[0], Err(DecodeError::Short(71)));
        assert!(matches!(&parts[1], Ok(Part::Socket(socket)) if socket.state == State::TimeWait));
        assert_eq!(parts[2], Ok(Part::Nothing));
        assert_eq!(parts[3], Ok(Part::Error(libc::ENOENT)));
        assert_eq!(parts[4], Ok(Part::Overrun));
        assert_eq!(parts[5], Err(DecodeError::MessageType(99)));
        assert_eq!(parts[6], Ok(Part::Done(0)));
    }

    #[test]
    fn broken_answers_say_what_is_broken() {
        let mut bytes = captured("ipv4_listen ");
        bytes[1] = 13;
        assert_eq!(decode(&bytes, CONTEXT), Err(DecodeError::State(UnknownStateNumber(13))));
        bytes[1] = 10;
        bytes[0] = 1;
        assert_eq!(decode(&bytes, CONTEXT), Err(DecodeError::Family(1)));
        bytes[0] = 2;
        bytes[72] = 0xff;
        assert!(matches!(decode(&bytes, CONTEXT), Err(DecodeError::Attribute(_))));
        let (_, _, framing) = parts(&[200, 0, 0, 0]);
        assert!(matches!(framing, Err(DecodeError::Framing { at: 0, len: 4, .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes, CONTEXT);
            let _ = decode_datagram(&bytes, CONTEXT, |_, _, _| {});
        }

        #[test]
        fn no_damage_to_a_true_answer_panics(at in 0_usize..500, byte: u8, cut in 0_usize..500) {
            let mut bytes = captured("mptcp_subflow_of_it ");
            if let Some(place) = bytes.get_mut(at) { *place = byte; }
            bytes.truncate(cut);
            let _ = decode(&bytes, CONTEXT);
            let _ = decode_datagram(&message(20, 0, &bytes), CONTEXT, |_, _, _| {});
        }
    }
}
