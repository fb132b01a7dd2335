//! Local ports of connect(): how many there are towards a destination, how many are taken, and how long they last.
//!
//! The kernel (`__inet_hash_connect()`) looks for a port of `ip_local_port_range` that is not reserved, that nobody has
//! bound, and whose four-tuple with this source and destination is free. So every pair of a source address and a
//! destination has all ports for itself, but for those that somebody listens on.

use std::collections::{BTreeMap, BTreeSet};

use crate::inventory::diag::DiagSocket;
use crate::inventory::sysctl::LocalPorts;
use crate::net::State;
use crate::snapshot::Destination;

/// `TCP_TIMEWAIT_LEN`, milliseconds.
const TIME_WAIT_MS: u32 = 60_000;
/// What a TIME_WAIT must have rested before it is taken over, where `tcp_tw_reuse_delay` does not say.
pub const REUSE_AFTER_MS: u32 = 1000;

/// Whether connect() takes over TIME_WAITs towards a destination (`tcp_twsk_unique()`): with `tcp_tw_reuse` 1
/// always, with 2 where either end is a loopback address. Timestamps are needed, too, which nearly every connection
/// has.
#[must_use]
pub fn reuses(to: &Destination, tcp_tw_reuse: Option<u32>) -> bool {
    match tcp_tw_reuse {
        Some(1) => true,
        Some(2) => to.local.is_loopback() || to.remote.ip().is_loopback(),
        _ => false,
    }
}

/// What a namespace lets connect() do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Ports to choose from.
    pub ports: LocalPorts,
    /// `tcp_tw_reuse`.
    pub tcp_tw_reuse: Option<u32>,
    /// `tcp_tw_reuse_delay`, milliseconds.
    pub reuse_after_ms: u32,
}

/// The local ports towards one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// From where to where.
    pub to: Destination,
    /// Ports of the range that can be used for it: neither reserved nor listened on.
    pub usable: u32,
    /// Of those, taken by a connection in any state, TIME_WAIT included.
    pub in_use: u32,
    /// Of those, taken by TIME_WAIT.
    pub time_wait: u32,
    /// Of those, TIME_WAITs that connect() may take over now.
    pub reusable: u32,
    /// connect() may take over TIME_WAITs towards it, now or once they have rested.
    pub reuses: bool,
}

impl Headroom {
    /// Ports that nothing takes.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.usable.saturating_sub(self.in_use)
    }

    /// Connections per second that can be made for ever when each takes a port for `seconds`.
    #[must_use]
    pub fn sustainable_per_s(&self, seconds: f64) -> f64 {
        f64::from(self.usable) / seconds
    }
}

/// Ports in use towards each destination of the sockets of one namespace, the fullest first. Connections of
/// servers, whose local port somebody listens on or which lies outside the range, take no port from connect().
#[must_use]
pub fn headroom(sockets: &[DiagSocket], rules: &Rules) -> Vec<Headroom> {
    let listened: BTreeSet<u16> = sockets
        .iter()
        .filter(|socket| socket.state == State::Listen)
        .map(|socket| socket.flow.local_port)
        .filter(|&port| rules.ports.contains(port))
        .collect();
    // Listeners are as many ports of the range less for everybody; both counts are below 65,537.
    let usable = rules.ports.count().saturating_sub(u32::try_from(listened.len()).unwrap_or(u32::MAX));
    let mut found: BTreeMap<Destination, BTreeMap<u16, Taken>> = BTreeMap::new();
    for socket in sockets {
        let flow = &socket.flow;
        let is_connection = flow.remote_port != 0 && !matches!(socket.state, State::Listen | State::Close);
        if is_connection && rules.ports.contains(flow.local_port) && !listened.contains(&flow.local_port) {
            // An MPTCP socket and its first subflow have one four-tuple, which is one port.
            let taken = Taken::by(socket, rules.reuse_after_ms);
            let port =
                found.entry(Destination::of(flow)).or_default().entry(flow.local_port).or_insert(taken);
            *port = (*port).min(taken);
        }
    }
    let headroom = |(to, ports): (Destination, BTreeMap<u16, Taken>)| {
        let count = |wanted: &dyn Fn(Taken) -> bool| {
            u32::try_from(ports.values().filter(|&&taken| wanted(taken)).count()).unwrap_or(u32::MAX)
        };
        let reuses = reuses(&to, rules.tcp_tw_reuse);
        Headroom {
            usable,
            in_use: count(&|_| true),
            time_wait: count(&|taken| taken != Taken::InUse),
            reusable: if reuses { count(&|taken| taken == Taken::Rested) } else { 0 },
            reuses,
            to,
        }
    };
    let mut all: Vec<_> = found.into_iter().map(headroom).collect();
    all.sort_by(|a, b| b.in_use.cmp(&a.in_use).then_with(|| a.to.cmp(&b.to)));
    all
}

/// What takes a port; the firmest hold first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    /// A connection, an orphaned FIN_WAIT2 included: nothing takes it over.
    InUse,
    /// A TIME_WAIT.
    TimeWait,
    /// A TIME_WAIT that has rested long enough to be taken over.
    Rested,
}

impl Taken {
    fn by(socket: &DiagSocket, reuse_after_ms: u32) -> Self {
        if socket.state != State::TimeWait {
            return Self::InUse;
        }
        let rested_ms = TIME_WAIT_MS.saturating_sub(socket.expires_ms);
        if rested_ms > reuse_after_ms { Self::Rested } else { Self::TimeWait }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::net::Flow;

    fn socket(local: &str, remote: &str, state: State, expires_ms: u32) -> DiagSocket {
        let addr = |text: &str| text.parse().expect("an address");
        DiagSocket { expires_ms, ..DiagSocket::bare(Flow::between(addr(local), addr(remote), 7), state) }
    }

    fn rules(tcp_tw_reuse: u32) -> Rules {
        let ports = LocalPorts::parse("40000 40009", "40001,40005-40006").expect("a range");
        Rules { ports, tcp_tw_reuse: Some(tcp_tw_reuse), reuse_after_ms: REUSE_AFTER_MS }
    }

    #[test]
    fn ports_are_counted_for_each_destination() {
        let to = "10.0.0.2:80";
        let sockets = [
            socket("10.0.0.1:40000", to, State::Established, 0),
            // An MPTCP socket beside its subflow.
            socket("10.0.0.1:40000", to, State::Established, 0),
            socket("10.0.0.1:40002", to, State::TimeWait, 59_500),
            socket("10.0.0.1:40003", to, State::TimeWait, 10_000),
            socket("10.0.0.1:40004", to, State::FinWait2, 30_000),
            // The same port towards another destination, and from another address.
            socket("10.0.0.1:40000", "10.0.0.2:81", State::SynSent, 0),
            socket("10.0.0.9:40000", to, State::CloseWait, 0),
            // Bound by hand: outside the range, and reserved.
            socket("10.0.0.1:50000", to, State::Established, 0),
            socket("10.0.0.1:40005", to, State::Established, 0),
            // A server whose port lies in the range, and its connection.
            socket("0.0.0.0:40009", "0.0.0.0:0", State::Listen, 0),
            socket("10.0.0.1:40009", "10.0.0.7:33000", State::Established, 0),
        ];
        let found = headroom(&sockets, &rules(1));
        let first = &found[0];
        assert_eq!(first.to.remote, to.parse().expect("an address"));
        assert_eq!(first.to.local, IpAddr::from([10, 0, 0, 1]));
        // Ten, less three reserved and one listened on.
        assert_eq!((first.usable, first.in_use, first.free()), (6, 4, 2));
        assert_eq!((first.time_wait, first.reusable), (2, 1));
        assert_eq!(found.len(), 3);
        assert!(found[1..].iter().all(|other| other.in_use == 1 && other.usable == 6));
        assert_eq!(headroom(&sockets, &rules(2))[0].reusable, 0, "not on loopback");
        assert!((first.sustainable_per_s(60.0) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn reuse_depends_on_the_sysctl_and_the_address() {
        let to = |local: &str, remote: &str| Destination {
            netns: 7,
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
        };
        let (far, near, six) =
            (to("10.0.0.1", "10.0.0.2:80"), to("127.0.0.1", "127.0.0.1:80"), to("::1", "[::1]:80"));
        for (sysctl, expected) in
            [(Some(0), [false; 3]), (Some(1), [true; 3]), (Some(2), [false, true, true]), (None, [false; 3])]
        {
            assert_eq!([&far, &near, &six].map(|to| reuses(to, sysctl)), expected, "{sysctl:?}");
        }
    }
}
