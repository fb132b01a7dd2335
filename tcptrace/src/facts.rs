//! The sysctls that people turn when they see TIME_WAIT or CLOSE_WAIT: what each really does, what is said of it,
//! and what was measured.

use crate::inventory::sysctl::HOST_WIDE;
use crate::net::State;
use crate::outcome::{End, Phase};
use crate::snapshot::{Snapshot, StateReport, Sysctls};
use crate::views::human;

/// What is known about a sysctl.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// Dotted name.
    pub name: &'static str,
    /// What it does, in a few words.
    pub does: &'static str,
    /// The same in sentences, with what it does not do.
    pub truth: &'static str,
    /// What is said of it and does not hold, and what holds; empty where nothing is.
    pub folklore: &'static str,
    /// What the kernel sets it to.
    pub preset: Preset,
}

/// What a kernel sets a sysctl to when nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// This.
    Value(&'static str),
    /// A part of the entries of the hash of connections: the entries divided by this, and at least that.
    HashOver(u32, u32),
    /// What it is made from, in words.
    From(&'static str),
    /// Nothing: no kernel that this runs on has it.
    Gone,
}

impl Fact {
    /// Whether one value holds for the whole host, and not one for each network namespace.
    #[must_use]
    pub fn is_host_wide(&self) -> bool {
        const SHOWN_EVERYWHERE: &str = "net.netfilter.nf_conntrack_max";
        !self.name.starts_with("net.") || HOST_WIDE.contains(&self.name) || self.name == SHOWN_EVERYWHERE
    }

    /// What the kernel sets it to, a value or words; `None` where there is nothing to set. `hash_entries` are those of
    /// the hash of connections, where they are known.
    #[must_use]
    pub fn default(&self, hash_entries: Option<u32>) -> Option<String> {
        match self.preset {
            Preset::Value(value) => Some(value.to_owned()),
            Preset::From(what) => Some(what.to_owned()),
            Preset::Gone => None,
            Preset::HashOver(divisor, least) => Some(hash_entries.map_or_else(
                || format!("the entries of the hash of connections, divided by {divisor}"),
                |entries| (entries / divisor).max(least).to_string(),
            )),
        }
    }

    /// The last part of its name, by which people know it.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

const fn fact_of(
    name: &'static str,
    does: &'static str,
    truth: &'static str,
    folklore: &'static str,
    preset: Preset,
) -> Fact {
    Fact { name, does, truth, folklore, preset }
}

/// Memory decides, in `tcp_init()` and elsewhere.
const FROM_MEMORY: Preset = Preset::From("from the memory of the host");

/// In the order of interest.
pub const FACTS: &[Fact] = &[
    fact_of(
        "net.ipv4.tcp_fin_timeout",
        "limits orphaned FIN_WAIT2, not TIME_WAIT",
        "Limits how long FIN_WAIT2 lasts once the application has closed (orphaned). It touches neither TIME_WAIT, \
         whose 60 s are compiled in, nor a half-closed FIN_WAIT2, which lasts as long as the peer likes. Above \
         60 s the kernel waits t − 60 s twice: 61 gives about 2 s, 90 about 62 s.",
        "\"Lower it to get rid of TIME_WAIT\": no.",
        Preset::Value("60"),
    ),
    fact_of(
        "net.ipv4.tcp_tw_reuse",
        "connect() may take over TIME_WAITs",
        "1: connect() without bind() may take the four-tuple of a TIME_WAIT that has rested for a second, with \
         timestamps on both sides. 2 (default): the same on loopback only. It shortens no TIME_WAIT that nobody \
         wants to take over, and does nothing for a server.",
        "\"Set it on the server\": its TIME_WAITs are not waiting for a connect().",
        Preset::Value("2"),
    ),
    fact_of(
        "net.ipv4.tcp_tw_reuse_delay",
        "ms that a TIME_WAIT rests before reuse",
        "Milliseconds that a TIME_WAIT must have rested before connect() may take it over (Linux 6.14 and later; \
         1000 before).",
        "",
        Preset::Value("1000"),
    ),
    fact_of(
        "net.ipv4.tcp_tw_recycle",
        "gone since Linux 4.12",
        "Removed in Linux 4.12. Before, it dropped connections of clients behind a NAT.",
        "\"Set it to 1\": there is nothing left to set.",
        Preset::Gone,
    ),
    fact_of(
        "net.ipv4.tcp_max_tw_buckets",
        "most TIME_WAITs; beyond, none is made",
        "The number of TIME_WAITs (and orphaned FIN_WAIT2) of a network namespace. Beyond it the kernel makes none: \
         the connection ends without its protection from late segments. It makes none shorter.",
        "\"Lower it to free memory\": a TIME_WAIT takes about 250 bytes.",
        Preset::HashOver(2, 0),
    ),
    fact_of(
        "net.ipv4.ip_local_port_range",
        "ports of connect(), for each destination",
        "How many connections may exist at once, TIME_WAITs included, from one address to one address and port. \
         Beyond it connect() fails with EADDRNOTAVAIL. Connections to other destinations have ports of their own.",
        "\"64,512 connections at most\": per destination, not in all.",
        Preset::Value("32768 60999"),
    ),
    fact_of(
        "net.ipv4.ip_local_reserved_ports",
        "ports that connect() leaves alone",
        "Ports of the range that connect() does not choose by itself.",
        "",
        Preset::Value(""),
    ),
    fact_of(
        "net.ipv4.tcp_rfc1337",
        "1: an RST does not end TIME_WAIT",
        "With 0 an RST ends a TIME_WAIT at once; with 1 it is ignored.",
        "",
        Preset::Value("0"),
    ),
    fact_of(
        "net.ipv4.tcp_timestamps",
        "needed by tcp_tw_reuse",
        "Without timestamps connect() takes over no TIME_WAIT, and PAWS protects nothing.",
        "\"Switch it off to save bytes\": that switches tcp_tw_reuse off, too.",
        Preset::Value("1"),
    ),
    fact_of(
        "net.ipv4.tcp_keepalive_time",
        "idle seconds to a probe, if SO_KEEPALIVE",
        "Only for sockets with SO_KEEPALIVE. In CLOSE_WAIT a probe is answered as long as the peer's host lives and \
         has the connection; when it has gone, RST ends the state, but the descriptor stays leaked.",
        "\"CLOSE_WAIT ends after two hours\": without SO_KEEPALIVE it never does.",
        Preset::Value("7200"),
    ),
    fact_of(
        "net.ipv4.tcp_keepalive_intvl",
        "seconds between keepalive probes",
        "Seconds between probes that nobody answers.",
        "",
        Preset::Value("75"),
    ),
    fact_of(
        "net.ipv4.tcp_keepalive_probes",
        "unanswered probes before giving up",
        "Probes that nobody answers before the connection is given up.",
        "",
        Preset::Value("9"),
    ),
    fact_of(
        "net.ipv4.tcp_max_orphans",
        "most sockets without process; beyond, RST",
        "Full sockets without a process (FIN_WAIT1, CLOSING, LAST_ACK) of the whole host. Beyond it they are reset. \
         It does not shorten FIN_WAIT2.",
        "",
        Preset::HashOver(2, 0),
    ),
    fact_of(
        "net.ipv4.tcp_orphan_retries",
        "retries of FIN without a process",
        "How often FIN is sent again by a socket without a process: the length of FIN_WAIT1 and LAST_ACK when the \
         peer is silent. 0 means 8.",
        "",
        Preset::Value("0"),
    ),
    fact_of(
        "net.core.somaxconn",
        "longest accept queue; ends no state",
        "The most that listen() may ask for. A connection in CLOSE_WAIT that is not accepted yet waits there.",
        "\"Raise it against CLOSE_WAIT\": accept() faster.",
        Preset::Value("4096"),
    ),
    fact_of(
        "net.ipv4.tcp_max_syn_backlog",
        "handshakes under way; ends no state",
        "Handshakes that may be under way for a listener.",
        "",
        Preset::HashOver(128, 128),
    ),
    fact_of(
        "net.ipv4.tcp_syncookies",
        "what happens to SYNs beyond the backlog",
        "Whether SYNs beyond the backlog are answered with cookies.",
        "",
        Preset::Value("1"),
    ),
    fact_of(
        "net.core.netdev_max_backlog",
        "packets before the stack; ends no state",
        "Packets that may wait between the driver and the stack, for each CPU.",
        "\"Part of every tuning guide\": it ends no connection.",
        Preset::Value("1000"),
    ),
    fact_of(
        "net.ipv4.tcp_rmem",
        "receive buffers; ends no state",
        "Least, usual and largest receive buffer of a socket, bytes.",
        "",
        Preset::From("4096 131072, and the largest from the memory of the host"),
    ),
    fact_of(
        "net.ipv4.tcp_wmem",
        "send buffers; ends no state",
        "Least, usual and largest send buffer of a socket, bytes.",
        "",
        Preset::From("4096 16384, and the largest from the memory of the host"),
    ),
    fact_of(
        "net.ipv4.tcp_mem",
        "pages of memory of all TCP sockets",
        "Low, pressure and high mark of the memory of all TCP sockets, in pages.",
        "",
        FROM_MEMORY,
    ),
    fact_of(
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        "life of firewall entry, not of TIME_WAIT",
        "How long the firewall remembers a connection in TIME_WAIT. The socket knows nothing of it.",
        "\"Lower it to get rid of TIME_WAIT\": it ends the firewall's entry only.",
        Preset::Value("120"),
    ),
    fact_of(
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        "life of firewall entry, not of CLOSE_WAIT",
        "How long the firewall remembers a connection in CLOSE_WAIT.",
        "\"Lower it against CLOSE_WAIT\": the socket stays.",
        Preset::Value("60"),
    ),
    fact_of(
        "net.netfilter.nf_conntrack_tcp_timeout_fin_wait",
        "life of firewall entry, not of FIN_WAIT",
        "How long the firewall remembers a connection in FIN_WAIT.",
        "",
        Preset::Value("120"),
    ),
    fact_of(
        "net.netfilter.nf_conntrack_max",
        "connections a firewall remembers",
        "Connections that the firewall can remember, TIME_WAITs among them.",
        "",
        FROM_MEMORY,
    ),
    fact_of(
        "fs.file-max",
        "descriptors; TIME_WAIT takes none",
        "Open files of the whole host. Sockets that a process holds take one, CLOSE_WAIT included; TIME_WAIT and \
         orphans take none.",
        "\"TIME_WAIT eats descriptors\": it has none.",
        Preset::From("from the memory of the host; systemd raises it"),
    ),
    fact_of(
        "fs.nr_open",
        "highest descriptor limit of a process",
        "The most that RLIMIT_NOFILE of a process can be set to.",
        "",
        Preset::Value("1048576"),
    ),
];

/// What is known about a sysctl.
#[must_use]
pub fn fact(name: &str) -> Option<&'static Fact> {
    FACTS.iter().find(|fact| fact.name == name)
}

/// What the snapshot shows of it, in a few words; `None` where it shows nothing.
#[must_use]
pub fn measured(name: &str, snapshot: &Snapshot) -> Option<String> {
    match name.rsplit('.').next().unwrap_or(name) {
        "tcp_fin_timeout" => fin_timeout(snapshot),
        "tcp_tw_reuse" => ended(snapshot, End::Reused, "taken over"),
        "tcp_rfc1337" => ended(snapshot, End::Reset, "ended by RST"),
        "tcp_max_tw_buckets" => buckets(snapshot),
        "ip_local_port_range" => ports(snapshot),
        "tcp_keepalive_time" => {
            let open = &snapshot.of(State::CloseWait, None)?.open;
            Some(format!("{} in CLOSE_WAIT, oldest {}", human::count(open.count), human::age(open.oldest?)))
        }
        _ => None,
    }
}

fn fin_timeout(snapshot: &Snapshot) -> Option<String> {
    let report: &StateReport = snapshot.of(State::FinWait2, Some(Phase::Orphaned))?;
    let (median, ended) = (report.finished.p50_ns?, report.finished.count);
    Some(format!("half of {} orphans within {}", human::count(ended), human::duration(median)))
}

/// How many TIME_WAITs ended in this way.
fn ended(snapshot: &Snapshot, end: End, how: &str) -> Option<String> {
    let ends = snapshot.of(State::TimeWait, None)?.ends;
    let (these, all) = (ends.get(Some(end)), ends.total());
    (all > 0).then(|| format!("{} of {} TIME_WAITs {how}", human::count(these), human::count(all)))
}

/// Of several namespaces the first that has it.
fn value(snapshot: &Snapshot, value: fn(&Sysctls) -> Option<u32>) -> Option<u64> {
    snapshot.meta.sysctls.iter().find_map(value).map(u64::from)
}

fn buckets(snapshot: &Snapshot) -> Option<String> {
    let limit = value(snapshot, |sysctls| sysctls.tcp_max_tw_buckets)?;
    let now = snapshot.open_in(State::TimeWait);
    let overflows: u64 = snapshot.overall().map(|report| report.ends.get(Some(End::Overflow))).sum();
    let over = if overflows > 0 { format!("; {} got none", human::count(overflows)) } else { String::new() };
    Some(format!("{} now ({}){over}", human::count(now), human::percent(now, limit)))
}

fn ports(snapshot: &Snapshot) -> Option<String> {
    let ports = value(snapshot, |sysctls| sysctls.local_ports)?;
    let (to, sockets) = snapshot.time_wait.open_to.top.first()?;
    let share = human::percent(*sockets, ports);
    Some(format!("{} in TIME_WAIT to {} ({share})", human::count(*sockets), to.remote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::sysctl::NAMES;

    #[test]
    fn every_sysctl_that_is_read_is_explained() {
        for name in NAMES {
            let fact = fact(name).unwrap_or_else(|| panic!("{name}"));
            assert!(fact.does.len() <= 42, "{name}: as wide as its column");
        }
        assert_eq!(FACTS.len(), NAMES.len());
    }

    #[test]
    fn nothing_is_claimed_of_nothing() {
        for name in NAMES {
            assert_eq!(measured(name, &Snapshot::default()), None, "{name}");
        }
    }
}
