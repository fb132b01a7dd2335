//! What an event costs in user space: records as the ring holds them, through decode, tracker and statistics, on
//! one core, with more and more TIME_WAITs open.
//!
//! Every connection of the stream is closed by a client of this host, its server is on this host too, and its
//! TIME_WAIT runs out after 60 s of the stream's own time. Once as many are open as wanted, each new connection
//! comes with the end of an old one, so that the tables keep their size.

use std::hint::black_box;
use std::mem::offset_of;
use std::time::Instant;

use tcptrace::decode;
use tcptrace::engine::Engine;
use tcptrace::filter::Filter;
use tcptrace::outcome::Outcome;
use tcptrace::snapshot::Meta;
use tcptrace::tracker::Limits;
use tcptrace_common::record::{
    FLAG_PROCESS, FLAG_SOFTIRQ, KIND_MINI_CANCEL, KIND_MINI_EXPIRE, KIND_MINI_START, KIND_STATE,
};
use tcptrace_common::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_SENT, TIME_WAIT,
};
use tcptrace_common::{ExpireRecord, MiniRecord, StateRecord};

/// Length of a TIME_WAIT, nanoseconds.
const TIME_WAIT_NS: u64 = 60_000_000_000;
/// Processes that make the connections.
const PROCESSES: u64 = 50;
/// Connections whose records are made at once, outside the measured time: few enough to stay in the cache, as
/// records do that the kernel has just written.
const AT_ONCE: u64 = 64;
/// Measured slices of each size.
const SLICES: usize = 21;
/// Connections in a slice.
const PER_SLICE: u64 = 12_800;

fn main() {
    // `cargo test --benches` asks for nothing but that it runs.
    let is_test = std::env::args().any(|arg| arg == "--test");
    let sizes: &[u64] = if is_test { &[1_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    println!("{:>12}  {:>14}  {:>16}  {:>18}", "open minis", "ns per event", "range", "events/s on a core");
    for &open in sizes {
        let mut nanoseconds = per_event(open);
        nanoseconds.sort_by(f64::total_cmp);
        let median = nanoseconds[nanoseconds.len() / 2];
        let range = format!("{:.1}–{:.1}", nanoseconds[0], nanoseconds[nanoseconds.len() - 1]);
        println!("{open:>12}  {median:>14.1}  {range:>16}  {:>18.0}", 1e9 / median);
    }
}

/// Nanoseconds per event in each slice, with `open` minis in the tables.
fn per_event(open: u64) -> Vec<f64> {
    let limits = Limits { minis: usize::try_from(open).unwrap_or(usize::MAX) + 1024, ..Limits::default() };
    let mut engine = Engine::new(Meta::default(), Filter::default(), None, limits);
    let mut stream = Stream::new(open);
    while stream.made < open {
        feed(&mut engine, &stream.next_records());
    }
    let mut slices = Vec::with_capacity(SLICES);
    for _ in 0..SLICES {
        let (mut events, mut elapsed_ns) = (0, 0.0);
        for _ in 0..PER_SLICE / AT_ONCE {
            let records = stream.next_records();
            let started = Instant::now();
            feed(&mut engine, &records);
            elapsed_ns += started.elapsed().as_nanos() as f64;
            events += records.len();
        }
        slices.push(elapsed_ns / events as f64);
    }
    assert_eq!(engine.loss().table_full, 0, "the tables were too small for what this measures");
    slices
}

fn feed(engine: &mut Engine, records: &[Vec<u8>]) {
    for record in records {
        let event = decode::event(record).expect("records made here are well-formed");
        engine.event(&event, |outcome: &Outcome| {
            black_box(outcome);
        });
    }
}

/// Makes the records.
struct Stream {
    open: u64,
    made: u64,
    now_ns: u64,
}

/// One end of a connection.
#[derive(Clone, Copy)]
struct End {
    sk: u64,
    local: ([u8; 16], u16),
    remote: ([u8; 16], u16),
    pid: u32,
}

impl Stream {
    fn new(open: u64) -> Self {
        Self { open, made: 0, now_ns: 1_000_000_000 }
    }

    /// The records of the next [`AT_ONCE`] connections, and of the TIME_WAITs that they replace.
    fn next_records(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::with_capacity(AT_ONCE as usize * 10);
        for _ in 0..AT_ONCE {
            if let Some(old) = self.made.checked_sub(self.open) {
                out.push(mini(KIND_MINI_CANCEL, self.now_ns, old, -10));
                out.push(expiry(self.now_ns + 300, old));
            }
            self.connect_and_close(&mut out);
            self.made += 1;
            self.now_ns += TIME_WAIT_NS / self.open;
        }
        out
    }

    fn connect_and_close(&self, out: &mut Vec<Vec<u8>>) {
        let (client, server, at) = (client(self.made), server(self.made), self.now_ns);
        let unbound = End { local: (client.local.0, 0), ..client };
        out.push(state(at, unbound, CLOSE, SYN_SENT, FLAG_PROCESS));
        out.push(state(at + 20_000, client, ESTABLISHED, FIN_WAIT1, FLAG_PROCESS));
        out.push(state(at + 22_000, server, ESTABLISHED, CLOSE_WAIT, FLAG_SOFTIRQ));
        out.push(state(at + 23_000, client, FIN_WAIT1, FIN_WAIT2, FLAG_SOFTIRQ));
        out.push(state(at + 30_000, server, CLOSE_WAIT, LAST_ACK, FLAG_PROCESS));
        out.push(mini(KIND_MINI_START, at + 31_000, self.made, 15_000));
        out.push(state(at + 31_500, client, FIN_WAIT2, CLOSE, FLAG_SOFTIRQ));
        out.push(state(at + 32_000, server, LAST_ACK, CLOSE, FLAG_SOFTIRQ));
    }
}

fn client(number: u64) -> End {
    // Sockets are reused as the kernel does, at once.
    let sk = 0xffff_8880_1000_0000 + number % 8 * 4096;
    End { sk, local: address(number), remote: service(), pid: pid(number) }
}

fn server(number: u64) -> End {
    let sk = 0xffff_8880_2000_0000 + number % 8 * 4096;
    End { sk, local: service(), remote: address(number), pid: 4242 }
}

fn pid(number: u64) -> u32 {
    5000 + u32::try_from(number % PROCESSES).unwrap_or(0)
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
    put(offset_of!(StateRecord, netns), &4_026_531_840_u32.to_ne_bytes());
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

fn mini(kind: u8, at: u64, number: u64, left_jiffies: i64) -> Vec<u8> {
    let end = client(number);
    let mut record = vec![0; size_of::<MiniRecord>()];
    let mut put = |offset: usize, bytes: &[u8]| record[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(MiniRecord, kind), &[kind, FLAG_SOFTIRQ, TIME_WAIT]);
    put(offset_of!(MiniRecord, netns), &4_026_531_840_u32.to_ne_bytes());
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
