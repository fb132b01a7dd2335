//! TCP states, addresses and flows: the nouns of everything else.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A TCP state, numbered and named as in the kernel (`include/net/tcp_states.h`), without the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum State {
    /// Data flows.
    Established = 1,
    /// An active open waits for SYN+ACK.
    SynSent = 2,
    /// A passive open whose handshake completes.
    SynRecv = 3,
    /// We sent FIN first and wait for its ACK.
    #[serde(rename = "FIN_WAIT1")]
    FinWait1 = 4,
    /// Our FIN is acknowledged; the peer has not sent its own.
    #[serde(rename = "FIN_WAIT2")]
    FinWait2 = 5,
    /// Both FINs exchanged, we closed first.
    TimeWait = 6,
    /// No connection.
    Close = 7,
    /// The peer sent FIN; our application has not closed.
    CloseWait = 8,
    /// We closed second and wait for the ACK of our FIN.
    LastAck = 9,
    /// A passive socket.
    Listen = 10,
    /// Both sides closed at once.
    Closing = 11,
    /// A request socket: shown by `sock_diag`, never by the tracepoint.
    NewSynRecv = 12,
}

/// A number that is no TCP state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a TCP state number (1 to 12)")]
pub struct UnknownStateNumber(pub u8);

/// A word that is no TCP state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown TCP state {0:?}; known are {known}", known = State::ALL.map(State::name).join(", "))]
pub struct UnknownStateName(pub String);

impl State {
    /// Every state, in the kernel's order.
    pub const ALL: [Self; 12] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
        Self::NewSynRecv,
    ];

    /// The kernel's name without the `TCP_` prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::NewSynRecv => "NEW_SYN_RECV",
        }
    }

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl TryFrom<u8> for State {
    type Error = UnknownStateNumber;

    fn try_from(number: u8) -> Result<Self, UnknownStateNumber> {
        usize::from(number)
            .checked_sub(1)
            .and_then(|index| Self::ALL.get(index))
            .copied()
            .ok_or(UnknownStateNumber(number))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = UnknownStateName;

    /// Takes the kernel's names, with `-` for `_` and in any case, as `ss` prints them.
    fn from_str(text: &str) -> Result<Self, UnknownStateName> {
        let plain = |s: &str| s.replace(['-', '_'], "").to_ascii_uppercase();
        let wanted = plain(text);
        Self::ALL
            .into_iter()
            .find(|state| plain(state.name()) == wanted)
            .ok_or_else(|| UnknownStateName(text.to_owned()))
    }
}

/// An IP address as the kernel's records carry it: 16 bytes in network order, IPv4 as v4-mapped IPv6.
///
/// One form for both families, because an IPv6 socket may carry `::ffff:a.b.c.d` and is then the same flow as
/// its IPv4 twin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "IpAddr", into = "IpAddr")]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// The address as shown: v4-mapped becomes IPv4.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }

    /// True for IPv4 and v4-mapped addresses.
    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    }

    /// True for `0.0.0.0` and `::`.
    #[must_use]
    pub fn is_unspecified(self) -> bool {
        self.ip().is_unspecified()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        addr.ip()
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

/// Address family of a flow as shown: a v4-mapped flow is `ipv4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4, or IPv6 sockets with v4-mapped addresses.
    Ipv4,
    /// IPv6 proper.
    Ipv6,
}

/// A connection's four-tuple in its network namespace: how a TIME_WAIT mini and its full socket are matched.
/// Ports in host order. 40 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow {
    /// Local address.
    pub local: Addr,
    /// Remote address; unspecified for a listener.
    pub remote: Addr,
    /// Network namespace (inode number of its nsfs file).
    pub netns: u32,
    /// Local port; 0 where connect() has not chosen one yet.
    pub local_port: u16,
    /// Remote port; 0 for a listener.
    pub remote_port: u16,
}

/// By words: every event looks a flow up, and field by field this is a third of the cost of doing so.
impl Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.local.0));
        state.write_u128(u128::from_ne_bytes(self.remote.0));
        let ports = u32::from(self.local_port) << 16 | u32::from(self.remote_port);
        state.write_u64(u64::from(self.netns) << 32 | u64::from(ports));
    }
}

impl Flow {
    /// From one end to the other, in this network namespace.
    #[must_use]
    pub fn between(local: SocketAddr, remote: SocketAddr, netns: u32) -> Self {
        Self {
            local: local.ip().into(),
            remote: remote.ip().into(),
            netns,
            local_port: local.port(),
            remote_port: remote.port(),
        }
    }

    /// Local address and port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        SocketAddr::new(self.local.ip(), self.local_port)
    }

    /// Remote address and port.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        SocketAddr::new(self.remote.ip(), self.remote_port)
    }

    /// Family as shown. Decided by either side: a wildcard `::` peer of a v4-mapped socket is IPv4.
    #[must_use]
    pub fn family(&self) -> Family {
        if self.local.is_ipv4() || self.remote.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} in {}", self.local_addr(), self.remote_addr(), self.netns)
    }
}
