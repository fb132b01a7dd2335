//! The lines that leaks become.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Line, Time, write_line};
use crate::inventory::process::Process;
use crate::leaks::{self, Culprit, Kind, LeakReport, LeakedSocket, Tally};
use crate::snapshot::{Age, WallClock};
use crate::stacks::Site;

/// A process that keeps sockets in CLOSE_WAIT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Leak {
    /// When it was looked at.
    pub time: Time,
    /// Whose sockets; null where no holder was found.
    pub process: Option<LeakProcess>,
    /// How many.
    pub sockets: u64,
    /// Age of the oldest; null where not known.
    pub oldest_ns: Option<u64>,
    /// The oldest is at least that old.
    pub oldest_is_lower_bound: bool,
    /// How many more there are after a minute; null where it was not watched long enough.
    pub growth_per_min: Option<f64>,
    /// Descriptors of the process; null where they cannot be read.
    pub fds: Option<Fds>,
    /// What the application knows of the peer's end, by the receive queue alone.
    pub eof: EofVerdicts,
    /// The sockets by verdict: each under one.
    #[schemars(with = "BTreeMap<String, u64>")]
    pub kinds: BTreeMap<Kind, u64>,
    /// Sockets not yet accepted: the listener is to blame.
    pub not_accepted: u64,
    /// Where the process listens.
    #[schemars(with = "Vec<String>")]
    pub listen: Vec<SocketAddr>,
    /// The accept queues of those listeners.
    pub accept_queues: Vec<AcceptQueue>,
    /// The remote addresses, most sockets first.
    pub peers: Vec<LeakPeer>,
    /// Where in the code the application was told of the end, most sockets first.
    pub sites: Vec<LeakSite>,
    /// Where in the code connections of its own were opened, most sockets first; only of those opened while
    /// tracing.
    pub opened_at: Vec<LeakSite>,
    /// Where in the code the connections were first written to, or first after the peer had closed, most sockets
    /// first; only of those for which that was seen while tracing. Names the application's function where its
    /// runtime reads the end itself.
    #[serde(default)]
    pub sent_at: Vec<LeakSite>,
    /// Other processes that hold the same sockets.
    pub shared_with: Vec<u32>,
    /// The sockets.
    pub connections: Vec<LeakConnection>,
}

/// A process that leaks. What cannot be read is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeakProcess {
    /// Process id.
    pub pid: u32,
    /// Task name, escaped.
    pub comm: String,
    /// Path of the executable, escaped.
    pub exe: Option<String>,
    /// Command line, arguments separated by blanks, escaped.
    pub cmdline: Option<String>,
    /// User id.
    pub uid: Option<u32>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
}

/// Descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fds {
    /// Open ones; null where not known.
    pub open: Option<u64>,
    /// Soft limit; null when unlimited or not known.
    pub limit: Option<u64>,
    /// Seconds until the limit is reached at the present growth; null without growth.
    pub exhausted_in_s: Option<u64>,
}

/// How many sockets are in which condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EofVerdicts {
    /// The application was told the end and kept the socket.
    pub consumed: u64,
    /// The application has read all data and not the end: nobody is reading.
    pub unread: u64,
    /// Data waits as well.
    pub data_unread: u64,
    /// Not known: neither a recording nor an MPTCP socket shows what is read.
    pub unknown: u64,
}

/// The accept queue of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptQueue {
    /// Where it listens.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Connections that wait for accept().
    pub queued: u32,
    /// How many may wait.
    pub backlog: u32,
}

/// Sockets towards one remote address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeakPeer {
    /// Address.
    pub addr: String,
    /// How many.
    pub sockets: u64,
}

/// Sockets whose end the application was told at one place of its code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeakSite {
    /// Innermost first: `handler at app.py:41`.
    pub frames: Vec<String>,
    /// How many.
    pub sockets: u64,
    /// What the frames lack, and what to do about it; null where nothing is missing.
    pub note: Option<String>,
}

/// A socket that leaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeakConnection {
    /// Local address and port.
    #[schemars(with = "String")]
    pub local: SocketAddr,
    /// Remote address and port.
    #[schemars(with = "String")]
    pub remote: SocketAddr,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Descriptor in the process, the lowest where there are several; null where there is none.
    pub fd: Option<u32>,
    /// Age; null where not known.
    pub age_ns: Option<u64>,
    /// It is at least that old.
    pub age_is_lower_bound: bool,
    /// Recv-Q as `ss` shows it: unread bytes, the peer's end counted as one; null where not known.
    pub recv_queue: Option<u32>,
    /// What is wrong with it.
    pub kind: Kind,
}

/// All leaks together: the last line of `leaks`, before the summary of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LeakTotal {
    /// When it was looked at.
    pub time: Time,
    /// Sockets that leak, each counted once however many processes hold it.
    pub sockets: u64,
    /// The same by verdict.
    #[schemars(with = "BTreeMap<String, u64>")]
    pub kinds: BTreeMap<Kind, u64>,
    /// Processes that leak.
    pub processes: u64,
    /// Age of the oldest; null without one.
    pub oldest_ns: Option<u64>,
    /// The oldest is at least that old.
    pub oldest_is_lower_bound: bool,
    /// Sockets in CLOSE_WAIT that are wanted but younger than `min_age_ns`, or not known to be older.
    pub young: u64,
    /// Sockets that have been in CLOSE_WAIT for less are no leaks.
    pub min_age_ns: u64,
    /// Sockets in CLOSE_WAIT that were looked at, before any filter.
    pub close_wait: u64,
    /// Network namespaces that were looked at.
    pub namespaces: u64,
    /// What could not be seen, in words.
    pub notes: Vec<String>,
}

impl From<&Culprit> for LeakProcess {
    fn from(culprit: &Culprit) -> Self {
        Self {
            pid: culprit.pid,
            comm: culprit.comm.to_string(),
            exe: culprit.exe.clone(),
            cmdline: culprit.cmdline.clone(),
            uid: culprit.uid,
            unit: culprit.unit.clone(),
            container: culprit.container.clone(),
        }
    }
}

impl From<&Process> for LeakProcess {
    fn from(process: &Process) -> Self {
        let workload = process.workload();
        Self {
            pid: process.pid,
            comm: process.comm.to_string(),
            exe: process.exe_shown(),
            cmdline: process.cmdline_shown(),
            uid: process.uid,
            unit: workload.unit.clone(),
            container: workload.container.as_ref().map(|container| container.id.clone()),
        }
    }
}

impl From<&LeakedSocket> for LeakConnection {
    fn from(socket: &LeakedSocket) -> Self {
        Self {
            local: socket.flow.local_addr(),
            remote: socket.flow.remote_addr(),
            netns: socket.flow.netns,
            fd: socket.fds.first().copied(),
            age_ns: socket.age.map(|age| age.ns),
            age_is_lower_bound: is_lower_bound(socket.age),
            recv_queue: socket.recv_queue,
            kind: socket.kind,
        }
    }
}

impl From<&Site> for LeakSite {
    fn from(site: &Site) -> Self {
        Self {
            frames: site.frames.clone(),
            sockets: site.count,
            note: site.note.as_ref().map(ToString::to_string),
        }
    }
}

impl EofVerdicts {
    fn of(sockets: &[LeakedSocket]) -> Self {
        let mut eof = Self::default();
        for socket in sockets {
            *match socket.recv_queue {
                Some(0) => &mut eof.consumed,
                Some(1) => &mut eof.unread,
                Some(_) => &mut eof.data_unread,
                None => &mut eof.unknown,
            } += 1;
        }
        eof
    }
}

impl Leak {
    /// The line of one process's leaks.
    #[must_use]
    pub fn new(leak: &leaks::Leak, time: Time) -> Self {
        let oldest = leak.oldest();
        Self {
            time,
            process: leak.culprit.as_ref().map(LeakProcess::from),
            sockets: leak.count(),
            oldest_ns: oldest.map(|age| age.ns),
            oldest_is_lower_bound: is_lower_bound(oldest),
            growth_per_min: leak.rate.map(|rate| rate.per_min),
            fds: leak.culprit.as_ref().filter(|culprit| culprit.fds.open.is_some()).map(|culprit| Fds {
                open: culprit.fds.open,
                limit: culprit.fds.limit,
                exhausted_in_s: leak.exhausted_in_s(),
            }),
            eof: EofVerdicts::of(&leak.sockets),
            kinds: counts(&leak.kinds),
            not_accepted: leak.count_of(Kind::NotAccepted),
            listen: leak.listening.iter().map(|place| place.addr).collect(),
            accept_queues: leak
                .listening
                .iter()
                .map(|place| AcceptQueue {
                    listen: place.addr,
                    netns: place.netns,
                    queued: place.queued,
                    backlog: place.backlog,
                })
                .collect(),
            peers: leak
                .peers
                .iter()
                .map(|&(addr, sockets)| LeakPeer { addr: addr.to_string(), sockets })
                .collect(),
            sites: leak.sites.iter().map(LeakSite::from).collect(),
            opened_at: leak.opened_at.iter().map(LeakSite::from).collect(),
            sent_at: leak.sent_at.iter().map(LeakSite::from).collect(),
            shared_with: leak.shared_with.iter().copied().collect(),
            connections: leak.sockets.iter().map(LeakConnection::from).collect(),
        }
    }
}

impl LeakTotal {
    /// The line of all leaks together.
    #[must_use]
    pub fn new(report: &LeakReport, time: Time) -> Self {
        let totals = &report.totals;
        Self {
            time,
            sockets: totals.sockets,
            kinds: counts(&totals.kinds),
            processes: report.processes(),
            oldest_ns: totals.oldest.map(|age| age.ns),
            oldest_is_lower_bound: is_lower_bound(totals.oldest),
            young: totals.young,
            min_age_ns: report.min_age_ns,
            close_wait: report.looked.close_wait,
            namespaces: report.looked.namespaces,
            notes: report.notes.clone(),
        }
    }
}

fn counts(kinds: &BTreeMap<Kind, Tally>) -> BTreeMap<Kind, u64> {
    kinds.iter().map(|(&kind, tally)| (kind, tally.sockets)).collect()
}

fn is_lower_bound(age: Option<Age>) -> bool {
    age.is_some_and(|age| age.is_lower_bound)
}

/// Writes a `leak` line for every process, then the `leak_total`.
///
/// # Errors
/// What the writer returns.
pub fn write_leaks(report: &LeakReport, wall: WallClock, out: &mut impl Write) -> io::Result<()> {
    let time = Time(wall.time(report.at));
    for leak in &report.leaks {
        write_line(out, &Line::Leak(Leak::new(leak, time)))?;
    }
    write_line(out, &Line::LeakTotal(LeakTotal::new(report, time)))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde_json::{Value, json};

    use super::*;
    use crate::event::Comm;
    use crate::filter::Filter;
    use crate::inventory::process;
    use crate::leaks::{Candidate, Custody, Evidence, History, Keeper, Listening, Looked, Terms};
    use crate::net::{Addr, Flow};

    fn lines() -> Vec<Value> {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let candidate = |remote_port, seconds: u64, recv_queue, keepers: &[(u32, u32)]| Candidate {
            flow: Flow {
                local: addr("127.0.0.1"),
                remote: addr("10.0.0.7"),
                netns: 9,
                local_port: 8080,
                remote_port,
            },
            age: Some(Age { ns: seconds * 1_000_000_000, is_lower_bound: seconds > 30 }),
            recv_queue: Some(recv_queue),
            uid: Some(33),
            accepted_on: None,
            custody: Custody::Held(keepers.iter().map(|&(pid, fd)| Keeper { pid, fd: Some(fd) }).collect()),
        };
        let culprit = Culprit {
            pid: 10,
            comm: Comm::from_bytes(b"a\x1b[2J"),
            cmdline: Some("server --x".to_owned()),
            uid: Some(33),
            fds: process::Fds { open: Some(40), limit: Some(1024) },
            ..Culprit::default()
        };
        let place = Listening { addr: "0.0.0.0:8080".parse().unwrap(), netns: 9, queued: 0, backlog: 128 };
        let evidence = Evidence {
            at: 5_000_000_042,
            candidates: vec![candidate(1, 60, 0, &[(10, 7), (412, 3)]), candidate(2, 20, 3201, &[(10, 8)])],
            culprits: [(10, culprit)].into(),
            listening: [(10, vec![place])].into(),
            looked: Looked { namespaces: 1, close_wait: 2, processes: Some(3), fds: Some(50) },
            ..Evidence::default()
        };
        let terms = Terms { filter: Filter::default(), min_age_ns: 10_000_000_000 };
        let report = LeakReport::new(&evidence, &terms, &History::default());
        let mut out = Vec::new();
        write_leaks(&report, WallClock { offset_ns: 1_767_323_040_000_000_000 }, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_leak_as_promised() {
        assert_eq!(
            lines()[0],
            json!({
                "type": "leak", "time": "2026-01-02T03:04:05.000000042Z",
                "process": {"pid": 10, "comm": "a\\x1b[2J", "exe": null, "cmdline": "server --x", "uid": 33,
                            "unit": null, "container": null},
                "sockets": 2, "oldest_ns": 60_000_000_000_u64, "oldest_is_lower_bound": true,
                "growth_per_min": null, "fds": {"open": 40, "limit": 1024, "exhausted_in_s": null},
                "eof": {"consumed": 1, "unread": 0, "data_unread": 1, "unknown": 0},
                "kinds": {"eof_consumed": 1, "data_unread": 1}, "not_accepted": 0,
                "listen": ["0.0.0.0:8080"],
                "accept_queues": [{"listen": "0.0.0.0:8080", "netns": 9, "queued": 0, "backlog": 128}],
                "peers": [{"addr": "10.0.0.7", "sockets": 2}], "sites": [], "opened_at": [], "sent_at": [],
                "shared_with": [412],
                "connections": [
                    {"local": "127.0.0.1:8080", "remote": "10.0.0.7:1", "netns": 9, "fd": 7,
                     "age_ns": 60_000_000_000_u64, "age_is_lower_bound": true, "recv_queue": 0,
                     "kind": "eof_consumed"},
                    {"local": "127.0.0.1:8080", "remote": "10.0.0.7:2", "netns": 9, "fd": 8,
                     "age_ns": 20_000_000_000_u64, "age_is_lower_bound": false, "recv_queue": 3201,
                     "kind": "data_unread"},
                ],
            })
        );
    }

    #[test]
    fn totals_count_a_shared_socket_once() {
        let lines = lines();
        assert_eq!(lines.len(), 3, "two processes hold them");
        assert_eq!(lines[1]["process"]["pid"], 412);
        assert_eq!((&lines[2]["type"], &lines[2]["sockets"]), (&json!("leak_total"), &json!(2)));
        assert_eq!(lines[2]["processes"], 2);
    }

    #[test]
    fn lines_are_read_back_as_they_were() {
        for line in lines() {
            let read: Line = serde_json::from_value(line.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), line);
        }
    }
}
