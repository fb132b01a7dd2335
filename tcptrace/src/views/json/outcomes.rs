//! Transitions as JSON, fast: `watch --json` writes hundreds of thousands of lines a second.
//!
//! Serde takes nine times as long (1.7 µs against 0.19 µs on the machine it was tried on), which is a large part
//! of what the connection itself costs the kernel. A
//! transition is therefore written by hand, key by key, into one buffer that is kept; everything rare still
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
    line: Vec<u8>,
    /// The second that was written last and its text: many transitions share one.
    second: Option<(i64, String)>,
}

impl Outcomes {
    /// With the clock that turns moments into times.
    #[must_use]
    pub fn new(wall: WallClock) -> Self {
        Self { wall, line: Vec::with_capacity(1024), second: None }
    }

    /// Writes the line of an outcome in one call of `write`.
    ///
    /// # Errors
    /// What the writer returns.
    pub fn write(&mut self, outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
        match outcome {
            Outcome::Transition(transition) => {
                self.transition(transition)?;
                out.write_all(&self.line)
            }
            Outcome::ConnectFailed { .. } => write_line(out, &Line::of_outcome(outcome, self.wall)),
        }
    }

    /// The keys in the order of [`super::Transition`].
    fn transition(&mut self, transition: &Transition) -> io::Result<()> {
        self.line.clear();
        self.line.extend_from_slice(b"{\"type\":\"transition\",\"time\":\"");
        self.time(transition.at);
        let line = &mut self.line;
        let flow = &transition.flow;
        number(line, "\",\"mono_ns\":", transition.at);
        number(line, ",\"conn\":", transition.conn);
        number(line, ",\"netns\":", flow.netns);
        text(line, ",\"family\":\"", family(flow.family()));
        endpoint(line, "\",\"local\":\"", flow.local_addr())?;
        endpoint(line, "\",\"remote\":\"", flow.remote_addr())?;
        text(line, "\",\"from\":\"", transition.from.name());
        text(line, "\",\"to\":\"", transition.to.name());
        optional_number(line, "\",\"dwell_ns\":", transition.dwell.map(|dwell| dwell.ns));
        let is_lower_bound = transition.dwell.is_some_and(|dwell| dwell.is_lower_bound);
        text(line, ",\"dwell_is_lower_bound\":", if is_lower_bound { "true" } else { "false" });
        optional_text(line, ",\"phase\":", transition.phase.map(phase));
        optional_text(line, ",\"to_phase\":", transition.to_phase.map(phase));
        optional_text(line, ",\"end\":", transition.end.map(end));
        number(line, ",\"rearmed\":", transition.rearmed);
        optional_number(line, ",\"as_full_socket_ns\":", transition.as_full_socket_ns);
        optional_number(line, ",\"timeout_jiffies\":", transition.timeout_jiffies);
        match &transition.owner {
            None => line.extend_from_slice(b",\"owner\":null"),
            Some(owner) => {
                number(line, ",\"owner\":{\"pid\":", owner.pid);
                line.extend_from_slice(b",\"comm\":");
                comm(line, owner.comm.bytes())?;
                optional_text(line, ",\"evidence\":", Some(evidence(owner.evidence)));
                line.push(b'}');
            }
        }
        line.extend_from_slice(b"}\n");
        Ok(())
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
            self.line.extend_from_slice(shown.as_bytes());
        }
        // A leading 1 keeps the zeros, and makes room for the point.
        let digits = self.line.len();
        self.line.extend_from_slice(itoa::Buffer::new().format(ns + NS_PER_S).as_bytes());
        self.line[digits] = b'.';
        self.line.push(b'Z');
    }
}

#[inline(always)]
fn text(line: &mut Vec<u8>, key: &str, value: &str) {
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(value.as_bytes());
}

#[inline(always)]
fn number(line: &mut Vec<u8>, key: &str, value: impl itoa::Integer) {
    text(line, key, itoa::Buffer::new().format(value));
}

#[inline(always)]
fn optional_number(line: &mut Vec<u8>, key: &str, value: Option<impl itoa::Integer>) {
    match value {
        Some(value) => number(line, key, value),
        None => text(line, key, "null"),
    }
}

#[inline(always)]
fn optional_text(line: &mut Vec<u8>, key: &str, value: Option<&str>) {
    match value {
        Some(value) => {
            text(line, key, "\"");
            text(line, value, "\"");
        }
        None => text(line, key, "null"),
    }
}

fn endpoint(line: &mut Vec<u8>, key: &str, addr: SocketAddr) -> io::Result<()> {
    line.extend_from_slice(key.as_bytes());
    let IpAddr::V4(v4) = addr.ip() else { return write!(line, "{addr}") };
    for (index, octet) in v4.octets().into_iter().enumerate() {
        number(line, if index == 0 { "" } else { "." }, octet);
    }
    number(line, ":", addr.port());
    Ok(())
}

/// A task name in quotes. What has to be escaped goes the way of everything else.
fn comm(line: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    if bytes.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        line.push(b'"');
        line.extend_from_slice(bytes);
        line.push(b'"');
        return Ok(());
    }
    Ok(serde_json::to_writer(line, &crate::text::escape(bytes))?)
}

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
