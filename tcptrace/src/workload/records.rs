//! Records as the ring holds them, of connections that never were: what a fixed stream of events costs in decode,
//! tracker and statistics, however many are open, of however many processes and namespaces.
//!
//! Every connection of the stream is closed by a client of this host, its server is on this host too, and its
//! TIME_WAIT runs out after 60 s of the stream's own time. Once as many are open as wanted, each new connection
//! comes with the end of an old one, so that the tables keep their size.

use std::hint::black_box;
use std::io::{self, Write as _};
use std::mem::offset_of;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tcptrace_common::record::{
    FLAG_PROCESS, FLAG_SOFTIRQ, KIND_MINI_CANCEL, KIND_MINI_EXPIRE, KIND_MINI_START, KIND_STATE,
};
use tcptrace_common::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_SENT, TIME_WAIT,
};
use tcptrace_common::{ExpireRecord, MiniRecord, StateRecord};

use crate::decode;
use crate::engine::Engine;
use crate::event::Event;
use crate::filter::Filter;
use crate::kernel::EVENTS_AT_ONCE;
use crate::outcome::Outcome;
use crate::snapshot::Meta;
use crate::tracker::Limits;

/// Length of a TIME_WAIT, nanoseconds.
const TIME_WAIT_NS: u64 = 60_000_000_000;
/// Connections whose records are made at once, outside the measured time: few enough to stay in the cache, as
/// records do that the kernel has just written.
pub const AT_ONCE: u64 = 64;
/// Inode number of the first network namespace.
const FIRST_NETNS: u32 = 4_026_531_840;

/// How large the world of the stream is.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// TIME_WAITs that are open at any time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=8_000_000))]
    pub open: u64,
    /// Processes that make the connections.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub processes: u64,
    /// Network namespaces that they are in.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub namespaces: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { open: 10_000, processes: 50, namespaces: 1 }
    }
}

/// Options of the hidden subcommand `__replay`, for benchmarks.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The world.
    #[command(flatten)]
    pub shape: Shape,
    /// Measured slices.
    #[arg(long, default_value_t = 21)]
    pub slices: u32,
    /// Connections of a slice, rounded up to 64.
    #[arg(long, default_value_t = 12_800)]
    pub connections: u64,
}

/// What a replay took.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    /// Events of all slices.
    pub events: u64,
    /// Nanoseconds for an event, slice by slice.
    pub ns_per_event: Vec<f64>,
}

/// Prints what [`replay`] finds, as a line of JSON.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: &ReplayArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &replay(args))?;
    out.write_all(b"\n")
}

/// Opens as many connections as wanted, then measures slice after slice.
///
/// # Panics
/// When the tables of the tracker were too small for what is measured.
#[must_use]
pub fn replay(args: &ReplayArgs) -> Replayed {
    let (mut reader, mut stream) = (Reader::new(args.shape), Stream::new(args.shape));
    while stream.made < args.shape.open {
        reader.feed(&stream.next_records());
    }
    let mut replayed = Replayed { events: 0, ns_per_event: Vec::new() };
    for _ in 0..args.slices {
        let (mut events, mut elapsed_ns) = (0, 0.0);
        for _ in 0..args.connections.div_ceil(AT_ONCE) {
            let records = stream.next_records();
            let started = Instant::now();
            reader.feed(&records);
            elapsed_ns += started.elapsed().as_nanos() as f64;
            events += records.len() as u64;
        }
        replayed.events += events;
        replayed.ns_per_event.push(elapsed_ns / events as f64);
    }
    assert_eq!(reader.engine.loss().table_full, 0, "the tables were too small for what this measures");
    replayed
}

/// An engine with room for a stream, fed as a live trace feeds it.
pub struct Reader {
    engine: Engine,
    /// Empty between two calls; kept for its memory.
    decoded: Vec<Event>,
}

impl Reader {
    /// Knows of no connection.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let limits = Limits {
            minis: usize::try_from(shape.open).unwrap_or(usize::MAX).saturating_add(1024),
            ..Limits::default()
        };
        let engine = Engine::new(Meta::default(), Filter::default(), None, limits);
        Self { engine, decoded: Vec::with_capacity(EVENTS_AT_ONCE) }
    }

    /// What is measured: a function of its own, by whose name profilers find it.
    ///
    /// # Panics
    /// When a record that was made here is not understood.
    #[inline(never)]
    pub fn feed(&mut self, records: &[Vec<u8>]) {
        for records in records.chunks(EVENTS_AT_ONCE) {
            for record in records {
                self.decoded.push(decode::event(record).expect("records made here are well-formed"));
            }
            self.engine.fetch(&self.decoded);
            for event in &self.decoded {
                self.engine.event(event, |outcome: &Outcome| {
                    black_box(outcome);
                });
            }
            self.decoded.clear();
        }
    }
}

/// Makes the records.
#[derive(Clone, Debug)]
pub struct Stream {
    shape: Shape,
    made: u64,
    now_ns: u64,
}

/// One end of a connection.
#[derive(Clone, Copy)]
struct End {
    sk: u64,
    netns: u32,
    local: ([u8; 16], u16),
    remote: ([u8; 16], u16),
    pid: u32,
}

impl Stream {
    /// At its beginning, when nothing is open.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self { shape, made: 0, now_ns: 1_000_000_000 }
    }

    /// Connections made so far.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made
    }

    /// The records of the next [`AT_ONCE`] connections, and of the TIME_WAITs that they replace.
    #[must_use]
    pub fn next_records(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::with_capacity(AT_ONCE as usize * 10);
        for _ in 0..AT_ONCE {
            if let Some(old) = self.made.checked_sub(self.shape.open) {
                out.push(mini(KIND_MINI_CANCEL, self.now_ns, old, self.client(old), -10));
                out.push(expiry(self.now_ns + 300, old));
            }
            self.connect_and_close(&mut out);
            self.made += 1;
            self.now_ns += TIME_WAIT_NS / self.shape.open;
        }
        out
    }

    /// The records of [`AT_ONCE`] connections that stay open, of a socket each.
    #[must_use]
    pub fn next_that_stay(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::with_capacity(AT_ONCE as usize * 2);
        for _ in 0..AT_ONCE {
            let client = End { sk: 0xffff_8900_0000_0000 + self.made * 4096, ..self.client(self.made) };
            let unbound = End { local: (client.local.0, 0), ..client };
            out.push(state(self.now_ns, unbound, CLOSE, SYN_SENT, FLAG_PROCESS));
            out.push(state(self.now_ns + 20_000, client, SYN_SENT, ESTABLISHED, FLAG_SOFTIRQ));
            self.made += 1;
            self.now_ns += 100_000;
        }
        out
    }

    fn connect_and_close(&self, out: &mut Vec<Vec<u8>>) {
        let (client, server, at) = (self.client(self.made), self.server(self.made), self.now_ns);
        let unbound = End { local: (client.local.0, 0), ..client };
        out.push(state(at, unbound, CLOSE, SYN_SENT, FLAG_PROCESS));
        out.push(state(at + 20_000, client, ESTABLISHED, FIN_WAIT1, FLAG_PROCESS));
        out.push(state(at + 22_000, server, ESTABLISHED, CLOSE_WAIT, FLAG_SOFTIRQ));
        out.push(state(at + 23_000, client, FIN_WAIT1, FIN_WAIT2, FLAG_SOFTIRQ));
        out.push(state(at + 30_000, server, CLOSE_WAIT, LAST_ACK, FLAG_PROCESS));
        out.push(mini(KIND_MINI_START, at + 31_000, self.made, client, 15_000));
        // The client's CLOSE is left out, as it is while the reader knows every socket.
        out.push(state(at + 32_000, server, LAST_ACK, CLOSE, FLAG_SOFTIRQ));
    }

    fn client(&self, number: u64) -> End {
        // Sockets are reused as the kernel does, at once.
        let sk = 0xffff_8880_1000_0000 + number % 8 * 4096;
        let pid = 5000 + u32::try_from(number % self.shape.processes).unwrap_or(0);
        End { sk, netns: self.netns(number), local: address(number), remote: service(), pid }
    }

    fn server(&self, number: u64) -> End {
        let sk = 0xffff_8880_2000_0000 + number % 8 * 4096;
        End { sk, netns: self.netns(number), local: service(), remote: address(number), pid: 4242 }
    }

    fn netns(&self, number: u64) -> u32 {
        FIRST_NETNS + u32::try_from(number % self.shape.namespaces).unwrap_or(0)
    }
}

fn address(number: u64) -> ([u8; 16], u16) {
    let host = u32::try_from(number / 50_000 % (1 << 24)).unwrap_or(0);
    let port = 10_000 + u16::try_from(number % 50_000).unwrap_or(0);
    (mapped(0x0a00_0000 | host), port)
}

fn service() -> ([u8; 16], u16) {
    (mapped(0x0a00_0001), 443)
}

fn mapped(v4: u32) -> [u8; 16] {
    let mut address = [0; 16];
    address[10..12].fill(0xff);
    address[12..].copy_from_slice(&v4.to_be_bytes());
    address
}

fn mini_address(number: u64) -> u64 {
    0xffff_8881_0000_0000 + number % (1 << 24) * 256
}

fn state(at: u64, end: End, from: u8, to: u8, flags: u8) -> Vec<u8> {
    let mut record = vec![0; size_of::<StateRecord>()];
    let mut put = |offset: usize, bytes: &[u8]| record[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(StateRecord, kind), &[KIND_STATE, flags, from, to]);
    put(offset_of!(StateRecord, netns), &end.netns.to_ne_bytes());
    put(offset_of!(StateRecord, time_ns), &at.to_ne_bytes());
    put(offset_of!(StateRecord, sk), &end.sk.to_ne_bytes());
    put(offset_of!(StateRecord, unread), &u32::MAX.to_ne_bytes());
    put(offset_of!(StateRecord, local_port), &end.local.1.to_be_bytes());
    put(offset_of!(StateRecord, remote_port), &end.remote.1.to_be_bytes());
    put(offset_of!(StateRecord, local), &end.local.0);
    put(offset_of!(StateRecord, remote), &end.remote.0);
    if flags & FLAG_PROCESS != 0 {
        put(offset_of!(StateRecord, pid), &end.pid.to_ne_bytes());
        put(offset_of!(StateRecord, tid), &end.pid.to_ne_bytes());
        put(offset_of!(StateRecord, cgroup_id), &77_u64.to_ne_bytes());
        put(offset_of!(StateRecord, comm), b"client");
    }
    record
}

fn mini(kind: u8, at: u64, number: u64, end: End, left_jiffies: i64) -> Vec<u8> {
    let mut record = vec![0; size_of::<MiniRecord>()];
    let mut put = |offset: usize, bytes: &[u8]| record[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(MiniRecord, kind), &[kind, FLAG_SOFTIRQ, TIME_WAIT]);
    put(offset_of!(MiniRecord, netns), &end.netns.to_ne_bytes());
    put(offset_of!(MiniRecord, time_ns), &at.to_ne_bytes());
    put(offset_of!(MiniRecord, mini), &mini_address(number).to_ne_bytes());
    put(offset_of!(MiniRecord, left_jiffies), &left_jiffies.to_ne_bytes());
    put(offset_of!(MiniRecord, local_port), &end.local.1.to_be_bytes());
    put(offset_of!(MiniRecord, remote_port), &end.remote.1.to_be_bytes());
    put(offset_of!(MiniRecord, local), &end.local.0);
    put(offset_of!(MiniRecord, remote), &end.remote.0);
    record
}

fn expiry(at: u64, number: u64) -> Vec<u8> {
    let mut record = vec![0; size_of::<ExpireRecord>()];
    record[offset_of!(ExpireRecord, kind)] = KIND_MINI_EXPIRE;
    let at_offset = offset_of!(ExpireRecord, time_ns);
    record[at_offset..at_offset + 8].copy_from_slice(&at.to_ne_bytes());
    let mini_offset = offset_of!(ExpireRecord, mini);
    record[mini_offset..mini_offset + 8].copy_from_slice(&mini_address(number).to_ne_bytes());
    record
}
