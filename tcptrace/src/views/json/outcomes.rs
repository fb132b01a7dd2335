//! Transitions as JSON, fast: `watch --json` writes hundreds of thousands of lines a second.
//!
//! Serde takes nine times as long (1.7 µs against 0.19 µs on the machine it was tried on), which is a large part
//! of what the connection itself costs the kernel. A
//! transition is therefore written by hand, key by key, into one buffer of fixed size; everything rare still
//! goes through serde. Tests hold both to the same bytes.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::event::MonoNs;
use crate::net::Family;
use crate::outcome::{End, Evidence, Outcome, Phase, Transition};
use crate::snapshot::WallClock;

use super::{Line, write_line};

const NS_PER_S: i64 = 1_000_000_000;

/// Writes outcomes, a line each.
#[derive(Debug)]
pub struct Outcomes {
    wall: WallClock,
    line: Buffer,
    /// The second that was written last and its text: many transitions share one.
    second: Option<(i64, String)>,
}

impl Outcomes {
    /// With the clock that turns moments into times.
    #[must_use]
    pub fn new(wall: WallClock) -> Self {
        Self { wall, line: Buffer::new(), second: None }
    }

    /// Writes the line of an outcome in one call of `write`.
    ///
    /// # Errors
    /// What the writer returns.
    pub fn write(&mut self, outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
        if let Outcome::Transition(transition) = outcome
            && let Some(line) = self.transition(transition)?
        {
            return out.write_all(line);
        }
        write_line(out, &Line::of_outcome(outcome, self.wall))
    }

    /// The keys in the order of [`super::Transition`]. `None` for a line that is too long.
    fn transition(&mut self, transition: &Transition) -> io::Result<Option<&[u8]>> {
        self.line.len = 0;
        self.line.put(b"{\"type\":\"transition\",\"time\":\"");
        self.time(transition.at);
        let line = &mut self.line;
        let flow = &transition.flow;
        line.number(b"\",\"mono_ns\":", transition.at);
        line.number(b",\"conn\":", transition.conn);
        line.number(b",\"netns\":", flow.netns);
        line.text(b",\"family\":\"", family(flow.family()));
        line.endpoint(b"\",\"local\":\"", flow.local_addr())?;
        line.endpoint(b"\",\"remote\":\"", flow.remote_addr())?;
        line.text(b"\",\"from\":\"", transition.from.name());
        line.text(b"\",\"to\":\"", transition.to.name());
        line.optional_number(b"\",\"dwell_ns\":", transition.dwell.map(|dwell| dwell.ns));
        let is_lower_bound = transition.dwell.is_some_and(|dwell| dwell.is_lower_bound);
        line.text(b",\"dwell_is_lower_bound\":", if is_lower_bound { "true" } else { "false" });
        line.optional_text(b",\"phase\":", transition.phase.map(phase));
        line.optional_text(b",\"to_phase\":", transition.to_phase.map(phase));
        line.optional_text(b",\"end\":", transition.end.map(end));
        line.number(b",\"rearmed\":", transition.rearmed);
        line.optional_number(b",\"as_full_socket_ns\":", transition.as_full_socket_ns);
        line.optional_number(b",\"timeout_jiffies\":", transition.timeout_jiffies);
        match &transition.owner {
            None => line.put(b",\"owner\":null"),
            Some(owner) => {
                line.number(b",\"owner\":{\"pid\":", owner.pid);
                line.put(b",\"comm\":");
                line.comm(owner.comm.bytes())?;
                line.optional_text(b",\"evidence\":", Some(evidence(owner.evidence)));
                line.put(b"}");
            }
        }
        line.put(b"}\n");
        Ok(line.whole())
    }

    /// RFC 3339 in UTC with nine digits, as [`super::Time`] writes it.
    fn time(&mut self, at: MonoNs) {
        let (second, ns) = match i64::try_from(at).ok().and_then(|at| at.checked_add(self.wall.offset_ns)) {
            Some(ns) => (ns.div_euclid(NS_PER_S), ns.rem_euclid(NS_PER_S)),
            // After the year 2262: no real moment, so that the slower division does not matter.
            None => {
                let ns = i128::from(at) + i128::from(self.wall.offset_ns);
                let per_s = i128::from(NS_PER_S);
                (ns.div_euclid(per_s) as i64, ns.rem_euclid(per_s) as i64)
            }
        };
        if self.second.as_ref().is_none_or(|&(known, _)| known != second) {
            let shown = Timestamp::from_second(second).unwrap_or_default().to_zoned(TimeZone::UTC);
            self.second = Some((second, shown.strftime("%FT%T").to_string()));
        }
        if let Some((_, shown)) = &self.second {
            self.line.bytes(shown.as_bytes());
        }
        // A leading 1 keeps the zeros, and the point takes its place.
        self.line.put(b".");
        self.line.bytes(&itoa::Buffer::new().format(ns + NS_PER_S).as_bytes()[1..]);
        self.line.put(b"Z");
    }
}

/// Room for a line of a transition: the longest has some 700 bytes, but for a task name of which each byte is escaped.
const CAPACITY: usize = 1024;

/// A line in the making. Of fixed size, so that a key is a few moves, where a vector would be asked each time whether it
/// has room, and then have `memcpy` called.
#[derive(Debug)]
struct Buffer {
    written: Box<[u8; CAPACITY]>,
    /// Greater than [`CAPACITY`] when something did not fit.
    len: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { written: Box::new([0; CAPACITY]), len: 0 }
    }

    /// What was written, if all of it fitted.
    fn whole(&self) -> Option<&[u8]> {
        self.written.get(..self.len)
    }

    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        if let Some(room) = self.written.get_mut(self.len..).and_then(|rest| rest.first_chunk_mut()) {
            *room = *bytes;
        }
        self.len += N;
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.written.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
    }

    #[inline(always)]
    fn text<const N: usize>(&mut self, key: &[u8; N], value: &str) {
        self.put(key);
        self.bytes(value.as_bytes());
    }

    #[inline(always)]
    fn number<const N: usize>(&mut self, key: &[u8; N], value: impl itoa::Integer) {
        self.text(key, itoa::Buffer::new().format(value));
    }

    #[inline(always)]
    fn optional_number<const N: usize>(&mut self, key: &[u8; N], value: Option<impl itoa::Integer>) {
        match value {
            Some(value) => self.number(key, value),
            None => {
                self.put(key);
                self.put(b"null");
            }
        }
    }

    #[inline(always)]
    fn optional_text<const N: usize>(&mut self, key: &[u8; N], value: Option<&str>) {
        self.put(key);
        match value {
            Some(value) => {
                self.text(b"\"", value);
                self.put(b"\"");
            }
            None => self.put(b"null"),
        }
    }

    #[inline(always)]
    fn endpoint<const N: usize>(&mut self, key: &[u8; N], addr: SocketAddr) -> io::Result<()> {
        self.put(key);
        let IpAddr::V4(v4) = addr.ip() else { return write!(self, "{addr}") };
        for octet in v4.octets() {
            let (digits, count) = OCTETS[usize::from(octet)];
            self.put(&digits);
            // What a shorter number leaves unused is written over.
            self.len -= digits.len() - usize::from(count);
            self.put(b".");
        }
        self.len -= 1;
        self.number(b":", addr.port());
        Ok(())
    }

    /// A task name in quotes. What has to be escaped goes the way of everything else.
    fn comm(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.put(b"\"");
            self.bytes(bytes);
            self.put(b"\"");
            return Ok(());
        }
        Ok(serde_json::to_writer(self, &crate::text::escape(bytes))?)
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digits of every octet, from the left, and how many there are.
const OCTETS: [([u8; 3], u8); 256] = {
    let mut octets = [([b'0'; 3], 0); 256];
    let mut n = 0;
    while n < octets.len() {
        let digits = [n / 100, n / 10 % 10, n % 10];
        let count = if n >= 100 {
            3
        } else if n >= 10 {
            2
        } else {
            1
        };
        let mut i = 0;
        while i < count {
            octets[n].0[i] = b'0' + digits[3 - count + i] as u8;
            i += 1;
        }
        octets[n].1 = count as u8;
        n += 1;
    }
    octets
};

const fn family(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::HalfClosed => "half_closed",
        Phase::Orphaned => "orphaned",
    }
}

const fn end(end: End) -> &'static str {
    match end {
        End::Expired => "expired",
        End::Reused => "reused",
        End::Reset => "reset",
        End::Destroyed => "destroyed",
        End::TimedOut => "timed_out",
        End::Overflow => "overflow",
    }
}

const fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Close => "close",
        Evidence::Connect => "connect",
        Evidence::Fd => "fd",
        Evidence::Listen => "listen",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Comm;
    use crate::net::{Addr, Flow, State};
    use crate::outcome::{Dwell, Owner};

    fn any_transition() -> impl Strategy<Value = Transition> {
        let addr = prop_oneof![
            any::<[u8; 4]>().prop_map(|octets| Addr::from(IpAddr::from(octets))),
            any::<[u8; 16]>().prop_map(Addr),
        ];
        let flow = (addr.clone(), addr, any::<u32>(), any::<u16>(), any::<u16>());
        let states = (prop::sample::select(State::ALL.to_vec()), prop::sample::select(State::ALL.to_vec()));
        let phase = prop::option::of(prop::sample::select(vec![Phase::HalfClosed, Phase::Orphaned]));
        let ends = vec![End::Expired, End::Reused, End::Reset, End::Destroyed, End::TimedOut, End::Overflow];
        let evidence = vec![Evidence::Close, Evidence::Connect, Evidence::Fd, Evidence::Listen];
        let comm = prop_oneof!["[ -~]{0,15}".prop_map(String::into_bytes), any::<Vec<u8>>()];
        let owner = (any::<u32>(), comm, prop::sample::select(evidence));
        let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<Option<u64>>(), any::<Option<u32>>());
        let dwell = any::<Option<(u64, bool)>>();
        (
            flow,
            states,
            phase.clone(),
            phase,
            prop::option::of(prop::sample::select(ends)),
            prop::option::of(owner),
            numbers,
            dwell,
        )
            .prop_map(|(flow, (from, to), phase, to_phase, end, owner, numbers, dwell)| {
                let (local, remote, netns, local_port, remote_port) = flow;
                let (at, conn, rearmed, as_full_socket_ns, timeout_jiffies) = numbers;
                Transition {
                    at,
                    conn,
                    flow: Flow { local, remote, netns, local_port, remote_port },
                    from,
                    to,
                    phase,
                    to_phase,
                    dwell: dwell.map(|(ns, is_lower_bound)| Dwell { ns, is_lower_bound }),
                    as_full_socket_ns,
                    end,
                    rearmed,
                    timeout_jiffies,
                    owner: owner.map(|(pid, comm, evidence)| Owner {
                        pid,
                        comm: Comm::from_bytes(&comm),
                        evidence,
                        cgroup_id: 0,
                    }),
                }
            })
    }

    proptest! {
        #[test]
        fn the_same_bytes_as_serde(
            transitions in prop::collection::vec(any_transition(), 1..4),
            offset_ns in -2_000_000_000_000_000_000..4_000_000_000_000_000_000_i64,
            uptime_ns in 0u64..10_000_000_000,
        ) {
            let wall = WallClock { offset_ns };
            let (mut by_hand, mut by_serde) = (Vec::new(), Vec::new());
            let mut outcomes = Outcomes::new(wall);
            for (n, transition) in transitions.into_iter().enumerate() {
                // Real uptimes, and once any number at all.
                let at = if n == 0 { transition.at } else { uptime_ns + n as u64 };
                let outcome = Outcome::Transition(Transition { at, ..transition });
                outcomes.write(&outcome, &mut by_hand).unwrap();
                write_line(&mut by_serde, &Line::of_outcome(&outcome, wall)).unwrap();
            }
            prop_assert_eq!(String::from_utf8(by_hand), String::from_utf8(by_serde));
        }
    }
}
