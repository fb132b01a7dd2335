//! Asking `sock_diag`: a dump of the network namespace that the calling thread is in.

use std::io;
use std::path::Path;

use netlink_packet_core::{Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::decode::{Context, INET_DIAG_INFO, Part, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK, decode_datagram};
use super::{DecodeError, Dump, StateSet};
use crate::event::{MonoNs, Protocol};
use crate::inventory::clock::monotonic_ns;
use crate::net::State;

/// Receive buffer, bytes. `netlink_dump` fills at most 32 KiB a datagram, and fills that much only for a
/// reader whose buffer has shown to be as large.
const DATAGRAM_BYTES: usize = 32 << 10;
/// Size of `struct inet_diag_req_v2`, bytes.
const REQUEST_BYTES: usize = 56;
/// Size of `struct inet_diag_req`, bytes, and where its `idiag_states` are.
const ELDER_REQUEST_BYTES: usize = 60;
const ELDER_STATES: usize = 52;
/// Size of a netlink header, bytes.
const HEADER_BYTES: usize = 16;
/// Request attribute `INET_DIAG_REQ_PROTOCOL` (u32), for protocols that do not fit into a byte; since 5.9.
const INET_DIAG_REQ_PROTOCOL: u16 = 3;
/// Times a dump that the kernel calls interrupted is asked for again.
const MAX_RETRIES: u32 = 3;
/// Exists when the kernel speaks MPTCP.
const MPTCP_SYSCTLS: &str = "/proc/sys/net/mptcp";

/// Which sockets to list, and whether their ages are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// States wanted.
    pub states: StateSet,
    /// Ask for `tcp_info`, which bounds the age of CLOSE_WAIT and full FIN_WAIT2 sockets from below. The kernel
    /// then sends it for every full socket: about 100 ns each, measured. Leaving the others to a second dump
    /// would cost a second walk through the hash table (0.5 to 2 ms) and show a socket that changes between
    /// the two twice or never.
    pub ages: bool,
}

impl From<StateSet> for Query {
    /// With ages, where a wanted state has one.
    fn from(states: StateSet) -> Self {
        Self { states, ages: !states.and(StateSet::AGED_BY_TCP_INFO).is_empty() }
    }
}

impl From<State> for Query {
    fn from(state: State) -> Self {
        StateSet::from(state).into()
    }
}

/// A dump that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No netlink socket.
    #[error("cannot open a sock_diag netlink socket: {0} (CONFIG_INET_DIAG may be missing)")]
    Open(#[source] io::Error),
    /// The request could not be sent.
    #[error("cannot send a sock_diag request: {0}")]
    Send(#[source] io::Error),
    /// The answer could not be read.
    #[error("cannot read the sock_diag answer: {0}")]
    Receive(#[source] io::Error),
    /// The kernel said no.
    #[error("sock_diag refused to list {what} sockets: {error}{hint}", hint = hint(error))]
    Refused {
        /// Protocol and family.
        what: &'static str,
        /// Its errno.
        error: io::Error,
    },
    /// A datagram larger than any that the kernel should send.
    #[error("sock_diag sent a datagram of {0} bytes, more than {DATAGRAM_BYTES}")]
    TooLong(usize),
    /// Framing that cannot be followed.
    #[error("sock_diag answer not understood: {0}")]
    Decode(#[from] DecodeError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => " (the kernel lacks tcp_diag: try `modprobe tcp_diag`, CONFIG_INET_TCP_DIAG)",
        _ => "",
    }
}

/// What one request asks for.
#[derive(Clone, Copy)]
struct Request {
    /// `AF_UNSPEC`, for TCP alone: both families in one walk through the hash table, which takes 4 ms where it is
    /// large. Only `TCPDIAG_GETSOCK` can ask so (`inet_diag_dump_compat`).
    family: i32,
    protocol: Protocol,
    query: Query,
    what: &'static str,
}

/// Dumps the namespace that the calling thread is in and whose inode number is `netns`, and adds it to `dump`.
/// On an error `dump` has no sockets of this namespace. Needs no privileges.
pub fn dump_here(netns: u32, query: Query, dump: &mut Dump) -> Result<(), QueryError> {
    let (sockets, notes) = (dump.sockets.len(), dump.notes.len());
    let result = dump_protocols(netns, query, dump);
    match result {
        Ok(()) => dump.namespaces.push(netns),
        Err(_) => {
            dump.sockets.truncate(sockets);
            dump.notes.truncate(notes);
        }
    }
    dump.finished = monotonic_ns();
    result
}

fn dump_protocols(netns: u32, query: Query, dump: &mut Dump) -> Result<(), QueryError> {
    let mut dumper = Dumper::open(netns)?;
    let ask = |family, protocol, what| Request { family, protocol, query, what };
    match dumper.dump(ask(libc::AF_UNSPEC, Protocol::Tcp, "TCP"), dump) {
        // A kernel that has dropped the elder request.
        Err(QueryError::Refused { .. }) => {
            dumper.dump(ask(libc::AF_INET, Protocol::Tcp, "IPv4 TCP"), dump)?;
            dumper.dump(ask(libc::AF_INET6, Protocol::Tcp, "IPv6 TCP"), dump)?;
        }
        other => other?,
    }
    if Path::new(MPTCP_SYSCTLS).exists() {
        for (family, what) in [(libc::AF_INET, "IPv4 MPTCP"), (libc::AF_INET6, "IPv6 MPTCP")] {
            match dumper.dump(ask(family, Protocol::Mptcp, what), dump) {
                // The kernel speaks MPTCP but has no mptcp_diag. Plain TCP is not hidden by that.
                Err(QueryError::Refused { error, .. }) => {
                    dump.notes
                        .push(format!("network namespace {netns}: cannot list {what} sockets: {error}"));
                    break;
                }
                other => other?,
            }
        }
    }
    Ok(())
}

/// One netlink socket. It holds a reference on its namespace: not to be kept.
struct Dumper {
    socket: Socket,
    netns: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Dumper {
    fn open(netns: u32) -> Result<Self, QueryError> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(QueryError::Open)?;
        socket.bind_auto().map_err(QueryError::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(QueryError::Open)?;
        Ok(Self { socket, netns, sequence: 0, buffer: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    fn dump(&mut self, request: Request, dump: &mut Dump) -> Result<(), QueryError> {
        let before = dump.sockets.len();
        for _ in 0..MAX_RETRIES {
            let outcome = self.dump_once(request, dump);
            if matches!(outcome, Ok(false)) {
                return Ok(());
            }
            dump.sockets.truncate(before);
            outcome?;
        }
        if self.dump_once(request, dump)? {
            let (netns, what) = (self.netns, request.what);
            dump.notes.push(format!(
                "network namespace {netns}: the list of {what} sockets changed during each of {} dumps; \
                 some may be missing or listed twice",
                MAX_RETRIES + 1
            ));
        }
        Ok(())
    }

    /// Returns true when the kernel says that the dump was interrupted.
    fn dump_once(&mut self, request: Request, dump: &mut Dump) -> Result<bool, QueryError> {
        self.sequence += 1;
        let message = request.encode(self.sequence);
        retry_interrupted(|| self.socket.send(&message, 0)).map_err(QueryError::Send)?;

        // `netlink_dump` fills the next datagram before send() or recv() returns, so that what a datagram
        // says was true when the call before the one that reads it came back.
        let mut filled_at = monotonic_ns();
        let mut interrupted = false;
        loop {
            let len = self.receive()?;
            match self.read(&self.buffer[..len], filled_at, request, &mut interrupted, dump)? {
                Progress::More => filled_at = monotonic_ns(),
                Progress::Done => return Ok(interrupted),
            }
        }
    }

    /// Reads a datagram into `buffer`.
    fn receive(&mut self) -> Result<usize, QueryError> {
        let Self { socket, buffer, .. } = self;
        buffer.clear();
        let len = retry_interrupted(|| socket.recv(buffer, libc::MSG_TRUNC)).map_err(QueryError::Receive)?;
        if len > buffer.len() { Err(QueryError::TooLong(len)) } else { Ok(len) }
    }

    fn read(
        &self,
        datagram: &[u8],
        at: MonoNs,
        request: Request,
        interrupted: &mut bool,
        dump: &mut Dump,
    ) -> Result<Progress, QueryError> {
        let context = Context { netns: self.netns, at, protocol: request.protocol };
        let Dump { sockets, notes, .. } = dump;
        let mut end = None;
        decode_datagram(datagram, context, |sequence, intr, part| {
            if sequence != self.sequence {
                return;
            }
            *interrupted |= intr;
            match part {
                Ok(Part::Socket(socket)) => sockets.push(socket),
                Ok(Part::Done(errno) | Part::Error(errno)) => end = Some(errno),
                Ok(Part::Overrun) => *interrupted = true,
                Ok(Part::Nothing) => {}
                Err(error) => note_once(notes, format!("a {} socket is missing: {error}", request.what)),
            }
        })?;
        match end {
            None => Ok(Progress::More),
            Some(0) => Ok(Progress::Done),
            Some(errno) => {
                Err(QueryError::Refused { what: request.what, error: io::Error::from_raw_os_error(errno) })
            }
        }
    }
}

enum Progress {
    More,
    Done,
}

impl Request {
    /// `struct nlmsghdr`, `struct inet_diag_req_v2` with the wildcard socket id, and for MPTCP the attribute
    /// that carries its number.
    fn encode(&self, sequence: u32) -> Vec<u8> {
        if self.family == libc::AF_UNSPEC {
            let mut body = vec![0; ELDER_REQUEST_BYTES];
            body[3] = self.ext();
            body[ELDER_STATES..ELDER_STATES + 4]
                .copy_from_slice(&self.query.states.idiag_states().to_ne_bytes());
            return framed(TCPDIAG_GETSOCK, sequence, &body);
        }
        let mut body = vec![0; REQUEST_BYTES];
        body[0] = self.family as u8;
        // A kernel that does not know the attribute must find no protocol here, rather than 262 & 0xff = TCP.
        body[1] = if self.protocol == Protocol::Mptcp { 0 } else { libc::IPPROTO_TCP as u8 };
        body[2] = self.ext();
        body[4..8].copy_from_slice(&self.query.states.idiag_states().to_ne_bytes());
        if self.protocol == Protocol::Mptcp {
            body.extend(8_u16.to_ne_bytes());
            body.extend(INET_DIAG_REQ_PROTOCOL.to_ne_bytes());
            body.extend(libc::IPPROTO_MPTCP.to_ne_bytes());
        }
        framed(SOCK_DIAG_BY_FAMILY, sequence, &body)
    }

    /// `idiag_ext`: which attributes are wanted.
    fn ext(&self) -> u8 {
        if self.query.ages { 1 << (INET_DIAG_INFO - 1) } else { 0 }
    }
}

fn framed(message_type: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.length = (HEADER_BYTES + body.len()) as u32;
    header.message_type = message_type;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let mut message = vec![0; HEADER_BYTES];
    header.emit(&mut message);
    message.extend_from_slice(body);
    message
}

/// A kernel newer than this program may say the same for each of 100,000 sockets: once is enough.
fn note_once(notes: &mut Vec<String>, note: String) {
    if notes.last() != Some(&note) && notes.iter().all(|known| *known != note) {
        notes.push(note);
    }
}

fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
