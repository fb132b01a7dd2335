//! What is known about the sysctls that people change: when the kernel looks at them, and which traffic shows
//! what they do.

use crate::workload::Kind;

/// When the kernel looks at a sysctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acts {
    /// When a state begins: what began under the old value keeps it.
    AtBegin,
    /// At any time while a state lasts.
    AnyTime,
}

/// A sysctl that is known.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    /// Dotted name.
    pub name: &'static str,
    /// When the kernel looks at it.
    pub acts: Acts,
    /// Traffic that shows it in a sandbox.
    pub workload: Kind,
    /// What else a sandbox needs so that it shows.
    pub conditions: &'static [(&'static str, &'static str)],
    /// A sentence about what it does, and what it does not.
    pub truth: &'static str,
}

/// Two thousand local ports: connect() soon comes upon those in TIME_WAIT.
const FEW_PORTS: (&str, &str) = ("net.ipv4.ip_local_port_range", "32768 34767");

const KNOBS: &[Knob] = &[
    Knob {
        name: "net.ipv4.tcp_fin_timeout",
        acts: Acts::AtBegin,
        workload: Kind::Mixed,
        conditions: &[],
        truth: "tcp_fin_timeout limits FIN_WAIT2 after the application has closed. It does not touch TIME_WAIT, \
                whose 60 s are fixed when the kernel is compiled (TCP_TIMEWAIT_LEN), nor a half-closed FIN_WAIT2.",
    },
    Knob {
        name: "net.ipv4.tcp_tw_reuse",
        acts: Acts::AnyTime,
        workload: Kind::Short,
        conditions: &[FEW_PORTS],
        truth: "tcp_tw_reuse lets connect() take over the four-tuple of a TIME_WAIT that has rested for a second, \
                when both sides use timestamps. It does nothing for servers, and shortens no TIME_WAIT that \
                nobody wants to take over.",
    },
    Knob {
        name: "net.ipv4.tcp_tw_reuse_delay",
        acts: Acts::AnyTime,
        workload: Kind::Short,
        conditions: &[FEW_PORTS, ("net.ipv4.tcp_tw_reuse", "1")],
        truth: "tcp_tw_reuse_delay (6.14) is how many milliseconds a TIME_WAIT must have rested before connect() \
                may take it over.",
    },
    Knob {
        name: "net.ipv4.tcp_max_tw_buckets",
        acts: Acts::AtBegin,
        workload: Kind::Short,
        conditions: &[],
        truth: "tcp_max_tw_buckets makes no TIME_WAIT shorter: beyond it the kernel makes none at all, and late \
                segments of the old connection may reach a new one (TCPTimeWaitOverflow).",
    },
    Knob {
        name: "net.ipv4.tcp_rfc1337",
        acts: Acts::AnyTime,
        workload: Kind::Mixed,
        conditions: &[],
        truth: "tcp_rfc1337 = 1 makes TIME_WAIT ignore RST; without RSTs to TIME_WAITs it changes nothing.",
    },
    Knob {
        name: "net.ipv4.ip_local_port_range",
        acts: Acts::AnyTime,
        workload: Kind::Short,
        conditions: &[],
        truth: "ip_local_port_range is how many connections may exist, TIME_WAITs included, from one address to one \
                address and port; beyond it connect() fails with EADDRNOTAVAIL. It makes nothing shorter.",
    },
];

/// What is known about a sysctl; `None` for those that this does not know.
#[must_use]
pub fn knob(name: &str) -> Option<&'static Knob> {
    KNOBS.iter().find(|knob| knob.name == name)
}

/// When the kernel looks at a sysctl: at any time, where that is not known, which is never wrong but needs
/// longer arms.
#[must_use]
pub fn acts(name: &str) -> Acts {
    knob(name).map_or(Acts::AnyTime, |knob| knob.acts)
}
