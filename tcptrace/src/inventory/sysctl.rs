//! The sysctls that people turn when they see TIME_WAIT or CLOSE_WAIT, read per network namespace.
//!
//! `/proc/sys/net` shows the namespace of the thread that looks (`net_ctl_root`), so that the same path has
//! another content on another thread.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::{fmt, fs};

use super::namespaces::{self, Namespace, NamespaceError};
use crate::snapshot;

/// Every sysctl that bears on the closing states, or is said to.
pub const NAMES: [&str; 27] = [
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_tw_reuse_delay",
    "net.ipv4.tcp_tw_recycle",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_rfc1337",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_orphan_retries",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_mem",
    "net.core.somaxconn",
    "net.core.netdev_max_backlog",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_fin_wait",
    "net.netfilter.nf_conntrack_max",
    "fs.file-max",
    "fs.nr_open",
];

/// Sysctls under `net.` that are one value for the whole host. The kernel shows them in the initial network
/// namespace only: anywhere else they read as absent.
pub const HOST_WIDE: [&str; 3] =
    ["net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem", "net.core.netdev_max_backlog"];

/// What a sysctl said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Its value, white space trimmed.
    Value(String),
    /// The kernel has none of that name, or not in this namespace.
    Absent,
    /// It is there and may not be read: why.
    Unreadable(String),
}

/// As `sysctl` would print it; `absent` and `unreadable (…)` otherwise.
impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => f.pad(&value.replace('\t', " ")),
            Self::Absent => f.pad("absent"),
            Self::Unreadable(why) => write!(f, "unreadable ({why})"),
        }
    }
}

impl Reading {
    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

/// The values of [`NAMES`] in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctls {
    /// The namespace (inode number).
    pub netns: u32,
    readings: BTreeMap<&'static str, Reading>,
}

impl Sysctls {
    /// Reads them in `namespace`.
    pub fn read(namespace: &Namespace) -> Result<Self, NamespaceError> {
        let mut readings = namespaces::within(namespace, || NAMES.map(|name| (name, read(name))))?;
        for (name, reading) in &mut readings {
            if *reading == Reading::Absent && HOST_WIDE.contains(name) {
                *reading = read_for_host(name);
            }
        }
        Ok(Self { netns: namespace.inode, readings: readings.into() })
    }

    /// Reads them in the namespaces of these inode numbers; in the program's own where none is given. One that
    /// has gone, or refuses, is left out.
    #[must_use]
    pub fn of_namespaces(inodes: &[u32]) -> Vec<Self> {
        let wanted: Vec<_> = match inodes {
            [] => vec![Namespace::own()],
            some => some.iter().map(|inode| namespaces::resolve(&inode.to_string())).collect(),
        };
        wanted.into_iter().flatten().flat_map(|namespace| Self::read(&namespace)).collect()
    }

    /// What one of [`NAMES`] said; absent for any other name.
    #[must_use]
    pub fn get(&self, name: &str) -> &Reading {
        self.readings.get(name).unwrap_or(&Reading::Absent)
    }

    /// A single number; `None` where there is none, or it is negative.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).value()?.parse().ok()
    }

    /// The three numbers of `tcp_rmem`, `tcp_wmem` and `tcp_mem`: low, default or pressure, high.
    #[must_use]
    pub fn triple(&self, name: &str) -> Option<[u64; 3]> {
        numbers(self.get(name).value()?)
    }

    /// The ports that connect() chooses from; `None` where `ip_local_port_range` is no range.
    #[must_use]
    pub fn local_ports(&self) -> Option<LocalPorts> {
        let range = self.get("net.ipv4.ip_local_port_range").value()?;
        let reserved = self.get("net.ipv4.ip_local_reserved_ports").value().unwrap_or_default();
        LocalPorts::parse(range, reserved)
    }

    /// Ports that connect() may choose from: the range without `ip_local_reserved_ports`.
    #[must_use]
    pub fn local_port_count(&self) -> Option<u32> {
        self.local_ports().map(|ports| ports.count())
    }

    /// From values that were read elsewhere, by dotted name; what is not among them is absent.
    #[must_use]
    pub fn from_values(netns: u32, values: &BTreeMap<String, String>) -> Self {
        let value =
            |name: &&'static str| values.get(*name).map(|value| (*name, Reading::Value(value.clone())));
        Self { netns, readings: NAMES.iter().filter_map(value).collect() }
    }

    /// The ones that a snapshot carries.
    #[must_use]
    pub fn for_snapshot(&self) -> snapshot::Sysctls {
        let small = |name| self.number(name).and_then(|number| u32::try_from(number).ok());
        snapshot::Sysctls {
            netns: Some(self.netns),
            tcp_fin_timeout: small("net.ipv4.tcp_fin_timeout"),
            tcp_tw_reuse: small("net.ipv4.tcp_tw_reuse"),
            tcp_max_tw_buckets: small("net.ipv4.tcp_max_tw_buckets"),
            local_ports: self.local_port_count(),
            values: self
                .readings
                .iter()
                .filter_map(|(&name, reading)| Some((name.to_owned(), reading.value()?.replace('\t', " "))))
                .collect(),
        }
    }
}

/// `ip_local_port_range` without `ip_local_reserved_ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPorts {
    first: u16,
    last: u16,
    reserved: Vec<(u16, u16)>,
}

impl LocalPorts {
    /// From the values of the two sysctls.
    #[must_use]
    pub fn parse(range: &str, reserved: &str) -> Option<Self> {
        let [first, last] = numbers(range)?;
        (first <= last).then(|| Self { first, last, reserved: port_ranges(reserved).collect() })
    }

    /// Whether connect() may choose this port (`__inet_hash_connect()`).
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
            && !self.reserved.iter().any(|&(from, to)| (from..=to).contains(&port))
    }

    /// The port with as many of the range below it as above.
    #[must_use]
    pub fn middle(&self) -> u16 {
        self.first + (self.last - self.first) / 2
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        let in_range = |&(from, to): &(u16, u16)| {
            (u32::from(to.min(self.last)) + 1).saturating_sub(u32::from(from.max(self.first)))
        };
        let reserved: u32 = self.reserved.iter().map(in_range).sum();
        (u32::from(self.last - self.first) + 1).saturating_sub(reserved)
    }
}

/// As in the sysctl: `32768 60999`.
impl fmt::Display for LocalPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.first, self.last)
    }
}

/// Reads one of [`HOST_WIDE`], from the first process's namespace where this program's own does not show it and
/// that one may be entered.
fn read_for_host(name: &str) -> Reading {
    let here = read(name);
    if here != Reading::Absent {
        return here;
    }
    let there = Namespace::of_pid(1).and_then(|first| namespaces::within(&first, || read(name)));
    there.unwrap_or(Reading::Absent)
}

/// Reads any sysctl as the calling thread's network namespace has it.
#[must_use]
pub fn read(name: &str) -> Reading {
    let Some(path) = path(name) else { return Reading::Absent };
    match fs::read(path) {
        Ok(bytes) => Reading::Value(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Reading::Absent,
        Err(error) => Reading::Unreadable(error.to_string()),
    }
}

/// The file of a sysctl: dots become slashes and slashes dots, as in sysctl(8), so that
/// `net.ipv4.conf.eth0/1.rp_filter` is about `eth0.1`. `None` for what is no name: it would lead elsewhere.
#[must_use]
pub fn path(name: &str) -> Option<PathBuf> {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let is_part = |part: &str| !part.is_empty() && !part.contains('\0') && !matches!(part, "/" | "//");
    name.split('.')
        .all(is_part)
        .then(|| PathBuf::from(format!("/proc/sys/{}", name.chars().map(swap).collect::<String>())))
}

fn numbers<T: std::str::FromStr, const N: usize>(text: &str) -> Option<[T; N]> {
    let numbers: Vec<T> = text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

/// `8080,9000-9010`, as the kernel prints a port list (`proc_do_large_bitmap`): ascending, without overlap.
pub(crate) fn port_ranges(text: &str) -> impl Iterator<Item = (u16, u16)> {
    text.split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> Sysctls {
        let readings = pairs.iter().map(|&(name, value)| (name, Reading::Value(value.to_owned())));
        Sysctls { netns: 1, readings: readings.collect() }
    }

    #[test]
    fn names_become_paths_and_never_leave_proc_sys() {
        assert_eq!(path("net.ipv4.tcp_fin_timeout"), Some("/proc/sys/net/ipv4/tcp_fin_timeout".into()));
        assert_eq!(path("net.ipv4.conf.eth0/1.x"), Some("/proc/sys/net/ipv4/conf/eth0.1/x".into()));
        for name in ["", ".", "..", "net..x", "net.//.x", "//.//.etc.shadow", "a\0b"] {
            assert_eq!(path(name), None, "{name:?}");
        }
    }

    #[test]
    fn own_values_are_read_without_privileges() {
        let own = Sysctls::read(&Namespace::own().expect("own namespace")).expect("read");
        assert!(own.number("net.ipv4.tcp_fin_timeout").is_some_and(|seconds| seconds > 0));
        assert!(own.triple("net.ipv4.tcp_rmem").is_some());
        assert!(own.local_port_count().is_some_and(|ports| ports > 0));
        assert_eq!(own.get("net.ipv4.no_such"), &Reading::Absent);
        assert!(own.for_snapshot().tcp_max_tw_buckets.is_some());
        assert_eq!(read("net.ipv4.no_such"), Reading::Absent);
    }

    #[test]
    fn ports_are_counted_without_the_reserved_ones() {
        let range = ("net.ipv4.ip_local_port_range", "32768\t60999");
        assert_eq!(of(&[range]).local_port_count(), Some(28_232));
        let reserved = ("net.ipv4.ip_local_reserved_ports", "22,32768-32777,60999,61000-65535");
        assert_eq!(of(&[range, reserved]).local_port_count(), Some(28_221));
        let ports = of(&[range, reserved]).local_ports().expect("a range");
        let counted = (0..=u16::MAX).filter(|&port| ports.contains(port)).count();
        assert_eq!(counted, 28_221, "one by one");
        let all = ("net.ipv4.ip_local_reserved_ports", "1-65535");
        let top = of(&[("net.ipv4.ip_local_port_range", "65530 65535"), all]);
        assert_eq!(top.local_port_count(), Some(0));
        assert_eq!(of(&[range, all]).local_port_count(), Some(0));
        assert_eq!(of(&[("net.ipv4.ip_local_port_range", "9 1")]).local_port_count(), None);
    }

    #[test]
    fn what_is_no_number_is_unknown() {
        let odd = of(&[("net.ipv4.tcp_fin_timeout", "x"), ("net.ipv4.tcp_mem", "1 2")]);
        assert_eq!(odd.number("net.ipv4.tcp_fin_timeout"), None);
        assert_eq!(odd.triple("net.ipv4.tcp_mem"), None);
        assert_eq!(Reading::Absent.to_string(), "absent");
    }
}
