//! Asking `sock_diag`: a dump of the network namespace that the calling thread is in.

use std::io;
use std::path::Path;
use std::thread;

use caps::{CapSet, Capability};

use netlink_packet_core::{Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::decode::{Context, INET_DIAG_INFO, Part, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK, decode_datagram};
use super::halves::{self, Part as Half};
use super::masses::{Counted, Listed};
use super::{DecodeError, Sink, StateSet};
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
/// Request attribute `INET_DIAG_REQ_BYTECODE`: a filter.
const INET_DIAG_REQ_BYTECODE: u16 = 1;
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
    /// Tell subflows of MPTCP from plain TCP. The kernel shows the difference to CAP_NET_ADMIN alone, and with it
    /// what nobody here asks for: a tenth of the time of a dump. A thread that does not want it gives up that
    /// capability.
    pub subflows: bool,
}

impl Query {
    /// What counting takes: neither ages nor subflows.
    #[must_use]
    pub const fn to_count(states: StateSet) -> Self {
        Self { states, ages: false, subflows: false }
    }
}

impl From<StateSet> for Query {
    /// With ages, where a wanted state has one.
    fn from(states: StateSet) -> Self {
        Self { states, ages: !states.and(StateSet::AGED_BY_TCP_INFO).is_empty(), subflows: true }
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
    half: Half,
    what: &'static str,
}

/// Lists the sockets of the namespace that the calling thread is in and whose inode number is `netns`. On an error
/// `sink` has none of this namespace. Needs no privileges. The calling thread, which should end soon, may have lost
/// CAP_NET_ADMIN afterwards; see [`Query::subflows`].
pub fn list_here<S: Sink>(
    netns: u32,
    query: Query,
    sink: &mut S,
    notes: &mut Vec<String>,
) -> Result<(), QueryError> {
    if !query.subflows {
        // It costs time where it cannot be done, and nothing else.
        let _ = caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN);
    }
    let (mark, noted) = (sink.mark(), notes.len());
    let result = list_protocols(netns, query, sink, notes);
    if result.is_err() {
        sink.rewind(mark);
        notes.truncate(noted);
    }
    result
}

fn list_protocols<S: Sink>(
    netns: u32,
    query: Query,
    sink: &mut S,
    notes: &mut Vec<String>,
) -> Result<(), QueryError> {
    match Counted::read_here() {
        // The walk through the hash table, which is the whole host's, would take some milliseconds.
        Some(counted) if counted.is_empty() => {}
        Some(counted) if counted.is_many(query.states) => {
            if !sink.only_counts() || !count_masses(netns, query, &counted, sink, notes)? {
                list_many(netns, query, sink, notes)?;
            }
        }
        _ => list_tcp(netns, query, Half::Whole, sink, notes)?,
    }
    if !Path::new(MPTCP_SYSCTLS).exists() {
        return Ok(());
    }
    let mut dumper = Dumper::open(netns)?;
    for (family, what) in [(libc::AF_INET, "IPv4 MPTCP"), (libc::AF_INET6, "IPv6 MPTCP")] {
        let request = Request { family, protocol: Protocol::Mptcp, query, half: Half::Whole, what };
        match dumper.dump(request, sink, notes) {
            // The kernel speaks MPTCP but has no mptcp_diag. Plain TCP is not hidden by that.
            Err(QueryError::Refused { error, .. }) => {
                notes.push(format!("network namespace {netns}: cannot list {what} sockets: {error}"));
                break;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Lists what is rare and takes the rest from the kernel's counters; false where those do not agree, and nothing was
/// taken.
fn count_masses<S: Sink>(
    netns: u32,
    query: Query,
    before: &Counted,
    sink: &mut S,
    notes: &mut Vec<String>,
) -> Result<bool, QueryError> {
    let noted = notes.len();
    let mut listed = Listed::new(sink.fresh());
    let rare = Query { states: Listed::<S>::states(), ..query };
    list_tcp(netns, rare, Half::Whole, &mut listed, notes)?;
    let after = Counted::read_here();
    // What could not be listed could not be compared with the counters.
    let complete = after.filter(|_| notes.len() == noted).and_then(|after| listed.completed(before, &after));
    let is_complete = complete.is_some();
    match complete {
        Some(complete) => sink.absorb(complete),
        None => notes.truncate(noted),
    }
    Ok(is_complete)
}

fn list_many<S: Sink>(
    netns: u32,
    query: Query,
    sink: &mut S,
    notes: &mut Vec<String>,
) -> Result<(), QueryError> {
    match halves::middle_port() {
        Some(port) => list_halves(netns, query, port, sink, notes),
        None => list_tcp(netns, query, Half::Whole, sink, notes),
    }
}

/// Both halves at once, one of them on a thread beside, which is in the same namespace.
fn list_halves<S: Sink>(
    netns: u32,
    query: Query,
    port: u16,
    sink: &mut S,
    notes: &mut Vec<String>,
) -> Result<(), QueryError> {
    let mark = sink.mark();
    let (mut above, mut above_notes) = (sink.fresh(), Vec::new());
    let halves = thread::scope(|scope| {
        let work = || list_tcp(netns, query, Half::Above(port), &mut above, &mut above_notes);
        let beside = thread::Builder::new().name("dump".to_owned()).spawn_scoped(scope, work).ok()?;
        let here = list_tcp(netns, query, Half::UpTo(port), sink, notes);
        // A panic is the caller's.
        let beside = beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Some(here.and(beside))
    });
    match halves {
        Some(Ok(())) => {
            sink.absorb(above);
            above_notes.into_iter().for_each(|note| note_once(notes, note));
            Ok(())
        }
        // No thread to be had, or a kernel that does not take the filter.
        None | Some(Err(QueryError::Refused { .. })) => {
            sink.rewind(mark);
            list_tcp(netns, query, Half::Whole, sink, notes)
        }
        Some(Err(error)) => Err(error),
    }
}

fn list_tcp<S: Sink>(
    netns: u32,
    query: Query,
    half: Half,
    sink: &mut S,
    notes: &mut Vec<String>,
) -> Result<(), QueryError> {
    let mut dumper = Dumper::open(netns)?;
    let ask = |family, what| Request { family, protocol: Protocol::Tcp, query, half, what };
    match dumper.dump(ask(libc::AF_UNSPEC, "TCP"), sink, notes) {
        // A kernel that has dropped the elder request.
        Err(QueryError::Refused { .. }) => {
            dumper.dump(ask(libc::AF_INET, "IPv4 TCP"), sink, notes)?;
            dumper.dump(ask(libc::AF_INET6, "IPv6 TCP"), sink, notes)
        }
        other => other,
    }
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

    fn dump<S: Sink>(
        &mut self,
        request: Request,
        sink: &mut S,
        notes: &mut Vec<String>,
    ) -> Result<(), QueryError> {
        for _ in 0..MAX_RETRIES {
            let before = sink.mark();
            let outcome = self.dump_once(request, sink, notes);
            if matches!(outcome, Ok(false)) {
                return Ok(());
            }
            sink.rewind(before);
            outcome?;
        }
        if self.dump_once(request, sink, notes)? {
            let (netns, what) = (self.netns, request.what);
            notes.push(format!(
                "network namespace {netns}: the list of {what} sockets changed during each of {} dumps; \
                 some may be missing or listed twice",
                MAX_RETRIES + 1
            ));
        }
        Ok(())
    }

    /// Returns true when the kernel says that the dump was interrupted.
    fn dump_once<S: Sink>(
        &mut self,
        request: Request,
        sink: &mut S,
        notes: &mut Vec<String>,
    ) -> Result<bool, QueryError> {
        self.sequence += 1;
        let message = request.encode(self.sequence);
        retry_interrupted(|| self.socket.send(&message, 0)).map_err(QueryError::Send)?;

        // `netlink_dump` fills the next datagram before send() or recv() returns, so that what a datagram
        // says was true when the call before the one that reads it came back.
        let mut filled_at = monotonic_ns();
        let mut interrupted = false;
        loop {
            let len = self.receive()?;
            match self.read(&self.buffer[..len], filled_at, request, &mut interrupted, sink, notes)? {
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

    fn read<S: Sink>(
        &self,
        datagram: &[u8],
        at: MonoNs,
        request: Request,
        interrupted: &mut bool,
        sink: &mut S,
        notes: &mut Vec<String>,
    ) -> Result<Progress, QueryError> {
        let context = Context { netns: self.netns, at, protocol: request.protocol };
        let mut end = None;
        decode_datagram(datagram, context, |sequence, intr, part| {
            if sequence != self.sequence {
                return;
            }
            *interrupted |= intr;
            match part {
                Ok(Part::Socket(socket)) => sink.take(socket),
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
    /// `struct nlmsghdr`, `struct inet_diag_req_v2` with the wildcard socket id, for MPTCP the attribute that carries
    /// its number, and for a half the one that tells it from the other.
    fn encode(&self, sequence: u32) -> Vec<u8> {
        let states = self.query.states.idiag_states().to_ne_bytes();
        let (message_type, mut body) = if self.family == libc::AF_UNSPEC {
            let mut body = vec![0; ELDER_REQUEST_BYTES];
            body[3] = self.ext();
            body[ELDER_STATES..ELDER_STATES + 4].copy_from_slice(&states);
            (TCPDIAG_GETSOCK, body)
        } else {
            let mut body = vec![0; REQUEST_BYTES];
            body[0] = self.family as u8;
            // A kernel that does not know the attribute must find no protocol here, rather than 262 & 0xff = TCP.
            body[1] = if self.protocol == Protocol::Mptcp { 0 } else { libc::IPPROTO_TCP as u8 };
            body[2] = self.ext();
            body[4..8].copy_from_slice(&states);
            (SOCK_DIAG_BY_FAMILY, body)
        };
        if self.protocol == Protocol::Mptcp {
            push_attribute(&mut body, INET_DIAG_REQ_PROTOCOL, &libc::IPPROTO_MPTCP.to_ne_bytes());
        }
        if let Some(bytecode) = self.half.bytecode() {
            push_attribute(&mut body, INET_DIAG_REQ_BYTECODE, &bytecode);
        }
        framed(message_type, sequence, &body)
    }

    /// `idiag_ext`: which attributes are wanted.
    fn ext(&self) -> u8 {
        if self.query.ages { 1 << (INET_DIAG_INFO - 1) } else { 0 }
    }
}

/// `struct nlattr` and its value, whose length is a multiple of four.
fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend_from_slice(value);
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
