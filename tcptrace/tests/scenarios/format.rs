//! The scenario files' format: a tale in steps, each with what follows from it. `tests/scenarios/README.md`
//! describes it.

use std::net::SocketAddr;

use serde::Deserialize;
use tcptrace::event::{
    Comm, Context, EofTold, Event, MiniExpired, MiniTimer, MonoNs, Protocol, StateChange, Task,
};
use tcptrace::inventory::diag::{DiagSocket, Dump};
use tcptrace::net::{Flow, State};
use tcptrace::outcome::{ConnId, Dwell, End, Evidence, Open, Outcome, Owner, Phase, Transition};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub title: String,
    #[serde(default = "default_hz")]
    pub hz: u32,
    pub full_sockets: Option<usize>,
    pub minis: Option<usize>,
    /// Flows by name, `LOCAL > REMOTE` with ` @NETNS` where it is not 1.
    pub flows: std::collections::BTreeMap<String, String>,
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
    /// Everything open in the end.
    #[serde(default)]
    pub open: Vec<ExpectedOpen>,
    #[serde(default)]
    pub counts: ExpectedCounts,
}

const fn default_hz() -> u32 {
    250
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ExpectedCounts {
    #[serde(default)]
    pub censored: u64,
    #[serde(default)]
    pub table_full: u64,
    pub connections: Option<u64>,
    /// Events that did not come, as others show.
    #[serde(default)]
    pub gaps: u64,
}

/// One event, or one call, and the outcomes that it brings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub at: String,
    /// `FROM > TO` of a full socket.
    pub state: Option<String>,
    /// Address of the full socket.
    pub sk: Option<u64>,
    #[serde(default)]
    pub orphan: bool,
    #[serde(default)]
    pub linger2_negative: bool,
    #[serde(default)]
    pub unread: Option<u32>,
    #[serde(default)]
    pub err: u16,
    /// Minis that `tcp_max_tw_buckets` still allows.
    pub buckets_left: Option<u32>,
    #[serde(default)]
    pub protocol: Protocol,
    /// `start SUBSTATE`, `cancel SUBSTATE` or `expire`.
    pub mini: Option<String>,
    /// Address of the mini.
    pub addr: Option<u64>,
    /// Jiffies on the timer.
    #[serde(default)]
    pub left: i64,
    /// Name of the flow; the first one where there is only one.
    pub flow: Option<String>,
    /// `softirq`, `unknown`, `COMM/PID` or `COMM/PID kthread`.
    pub by: Option<String>,
    /// The task that was told EOF.
    pub eof_told: Option<String>,
    /// A dump is about to be taken.
    #[serde(default)]
    pub begin_resync: bool,
    pub dump: Option<DumpStep>,
    /// Time passes, nothing happens.
    #[serde(default)]
    pub wait: bool,
    #[serde(default)]
    pub expect: Vec<Expected>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpStep {
    pub started: String,
    /// As far as is known no event was lost before it.
    #[serde(default)]
    pub lossless: bool,
    pub namespaces: Vec<u32>,
    #[serde(default)]
    pub sockets: Vec<DumpSocket>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpSocket {
    pub flow: String,
    pub state: State,
    #[serde(default)]
    pub mini: bool,
    #[serde(default)]
    pub protocol: Protocol,
    #[serde(default)]
    pub expires_ms: u32,
    pub inode: Option<u64>,
    #[serde(default)]
    pub recv_queue: u32,
    pub last_ack_recv_ms: Option<u32>,
    /// Who holds the descriptor, `COMM/PID`.
    pub held_by: Option<String>,
}

/// A transition or a failed connect(). What is not given is not there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// `FROM > TO`.
    pub state: Option<String>,
    /// A failed connect().
    #[serde(default)]
    pub connect_failed: bool,
    /// The step's moment where not given.
    pub at: Option<String>,
    /// A length, or `>= LENGTH`.
    pub dwell: Option<String>,
    pub phase: Option<Phase>,
    pub to_phase: Option<Phase>,
    pub as_full_socket: Option<String>,
    pub end: Option<End>,
    #[serde(default)]
    pub rearmed: u32,
    pub timeout: Option<u32>,
    /// `COMM/PID EVIDENCE`.
    pub owner: Option<String>,
    /// The step's flow where not given.
    pub flow: Option<String>,
    /// The connection's number, where it matters.
    pub conn: Option<ConnId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedOpen {
    pub state: State,
    pub since: String,
    #[serde(default)]
    pub lower_bound: bool,
    pub phase: Option<Phase>,
    pub owner: Option<String>,
    pub unread: Option<u32>,
    pub flow: Option<String>,
    pub conn: Option<ConnId>,
}

/// What a step does to the tracker.
pub enum Act {
    Apply(Event),
    BeginResync,
    /// A dump, who holds what, and whether no event was lost before it.
    Reconcile(Dump, Vec<(Flow, Owner)>, bool),
    Expire,
}

impl Scenario {
    /// Takes out what the kernel side leaves out while all sockets are known: the CLOSE from FIN_WAIT2 that comes next on
    /// its flow after the start of a mini.
    pub fn leave_out_what_minis_tell(&mut self) {
        let mut known = std::collections::BTreeSet::new();
        let mut begun = std::collections::BTreeSet::new();
        self.steps.retain(|step| {
            let (state, mini) = (step.state.as_deref().unwrap_or(""), step.mini.as_deref().unwrap_or(""));
            if state.ends_with("> FIN_WAIT2") {
                known.insert(step.flow.clone());
            }
            if mini.starts_with("start") && known.remove(&step.flow) {
                begun.insert(step.flow.clone());
                return true;
            }
            !(begun.remove(&step.flow) && state == "FIN_WAIT2 > CLOSE" && step.expect.is_empty())
        });
    }

    pub fn flow(&self, name: Option<&str>) -> Result<Flow, String> {
        let text = match name {
            Some(name) => self.flows.get(name).ok_or_else(|| format!("no flow is named {name:?}"))?,
            None if self.flows.len() == 1 => self.flows.values().next().ok_or("no flows")?,
            None => return Err("several flows: say which".to_owned()),
        };
        flow(text)
    }

    pub fn act(&self, step: &Step) -> Result<Act, String> {
        let at = moment(&step.at)?;
        let by = |what: &str| context(step.by.as_deref().ok_or_else(|| format!("{what} needs `by`"))?);
        if let Some(transition) = &step.state {
            let (from, to) = states(transition)?;
            return Ok(Act::Apply(Event::State(StateChange {
                at,
                sk: step.sk.unwrap_or(1),
                flow: self.flow(step.flow.as_deref())?,
                from,
                to,
                protocol: step.protocol,
                context: by("state")?,
                orphan: step.orphan,
                linger2_negative: step.linger2_negative,
                unread: step.unread,
                sk_err: step.err,
                buckets_left: step.buckets_left,
            })));
        }
        if let Some(mini) = &step.mini {
            let addr = step.addr.unwrap_or(0x100);
            if mini == "expire" {
                return Ok(Act::Apply(Event::MiniExpired(MiniExpired { at, mini: addr })));
            }
            let (what, substate) = mini.split_once(' ').ok_or("mini needs a substate")?;
            let timer = MiniTimer {
                at,
                mini: addr,
                flow: self.flow(step.flow.as_deref())?,
                substate: substate.parse().map_err(|error| format!("{error}"))?,
                left_jiffies: step.left,
                context: by("mini")?,
            };
            return match what {
                "start" => Ok(Act::Apply(Event::MiniStarted(timer))),
                "cancel" => Ok(Act::Apply(Event::MiniCancelled(timer))),
                _ => Err(format!("a mini does not {what:?}")),
            };
        }
        if let Some(told) = &step.eof_told {
            let flow = self.flow(step.flow.as_deref())?;
            let told = EofTold { at, sk: step.sk.unwrap_or(1), flow, task: task(told)? };
            return Ok(Act::Apply(Event::EofTold(told)));
        }
        if let Some(dump) = &step.dump {
            return self.dump(dump, at);
        }
        match (step.begin_resync, step.wait) {
            (true, false) => Ok(Act::BeginResync),
            (false, true) => Ok(Act::Expire),
            _ => Err("a step has one of state, mini, eof_told, begin_resync, dump, wait".to_owned()),
        }
    }

    fn dump(&self, step: &DumpStep, at: MonoNs) -> Result<Act, String> {
        let mut owners = Vec::new();
        let mut sockets = Vec::new();
        for socket in &step.sockets {
            let flow = self.flow(Some(&socket.flow))?;
            if let Some(holder) = &socket.held_by {
                owners.push((flow, owner(&format!("{holder} fd"))?));
            }
            sockets.push(DiagSocket {
                at,
                flow,
                state: socket.state,
                is_mini: socket.mini,
                protocol: socket.protocol,
                expires_ms: socket.expires_ms,
                timer: if socket.mini { 3 } else { 0 },
                inode: socket.inode,
                uid: socket.inode.map(|_| 0),
                recv_queue: socket.recv_queue,
                send_queue: 0,
                cookie: None,
                cgroup_id: None,
                last_ack_recv_ms: socket.last_ack_recv_ms,
            });
        }
        let dump = Dump {
            started: moment(&step.started)?,
            finished: at,
            namespaces: step.namespaces.clone(),
            sockets,
            ..Dump::default()
        };
        Ok(Act::Reconcile(dump, owners, step.lossless))
    }

    /// The outcome that a step wants. `actual` lends what the scenario leaves open.
    pub fn outcome(&self, step: &Step, wanted: &Expected, actual: &Outcome) -> Result<Outcome, String> {
        let at = moment(wanted.at.as_deref().unwrap_or(&step.at))?;
        let flow = self.flow(wanted.flow.as_deref().or(step.flow.as_deref()))?;
        let owner = wanted.owner.as_deref().map(owner).transpose()?;
        if wanted.connect_failed {
            return Ok(Outcome::ConnectFailed { at, flow, owner });
        }
        let (from, to) = states(wanted.state.as_deref().ok_or("an outcome has state or connect_failed")?)?;
        let conn = match actual {
            Outcome::Transition(actual) => actual.conn,
            Outcome::ConnectFailed { .. } => 0,
        };
        Ok(Outcome::Transition(Transition {
            at,
            conn: wanted.conn.unwrap_or(conn),
            flow,
            from,
            to,
            phase: wanted.phase,
            to_phase: wanted.to_phase,
            dwell: wanted.dwell.as_deref().map(dwell).transpose()?,
            as_full_socket_ns: wanted.as_full_socket.as_deref().map(moment).transpose()?,
            end: wanted.end,
            rearmed: wanted.rearmed,
            timeout_jiffies: wanted.timeout,
            owner,
        }))
    }

    pub fn open(&self, wanted: &ExpectedOpen, actual: Option<&Open>) -> Result<Open, String> {
        Ok(Open {
            conn: wanted.conn.or(actual.map(|open| open.conn)).unwrap_or(0),
            flow: self.flow(wanted.flow.as_deref())?,
            state: wanted.state,
            phase: wanted.phase,
            since: moment(&wanted.since)?,
            since_is_lower_bound: wanted.lower_bound,
            owner: wanted.owner.as_deref().map(owner).transpose()?,
            unread: wanted.unread,
        })
    }
}

/// `1.5s`, `20ms`, `3us`, `7ns`: exact.
pub fn moment(text: &str) -> Result<MonoNs, String> {
    let bad = || format!("{text:?} is not a time like 1.5s, 20ms, 3us or 7ns");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let digits = match unit {
        "s" => 9,
        "ms" => 6,
        "us" => 3,
        "ns" => 0,
        _ => return Err(bad()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > digits {
        return Err(bad());
    }
    format!("{whole}{fraction:0<digits$}").parse().map_err(|_| bad())
}

fn dwell(text: &str) -> Result<Dwell, String> {
    let (text, is_lower_bound) = match text.strip_prefix(">= ") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    Ok(Dwell { ns: moment(text)?, is_lower_bound })
}

fn states(text: &str) -> Result<(State, State), String> {
    let (from, to) = text.split_once(" > ").ok_or_else(|| format!("{text:?} is not FROM > TO"))?;
    let state = |text: &str| text.parse::<State>().map_err(|error| error.to_string());
    Ok((state(from)?, state(to)?))
}

fn flow(text: &str) -> Result<Flow, String> {
    let (text, netns) = match text.split_once(" @") {
        Some((text, netns)) => {
            (text, netns.parse().map_err(|error| format!("namespace of {text:?}: {error}"))?)
        }
        None => (text, 1),
    };
    let (local, remote) = text.split_once(" > ").ok_or_else(|| format!("{text:?} is not LOCAL > REMOTE"))?;
    let socket =
        |text: &str| text.parse::<SocketAddr>().map_err(|error| format!("{text:?} of a flow: {error}"));
    Ok(Flow::between(socket(local)?, socket(remote)?, netns))
}

fn context(text: &str) -> Result<Context, String> {
    match text {
        "softirq" => Ok(Context::Softirq),
        "unknown" => Ok(Context::Unknown),
        _ => Ok(Context::Process(task(text)?)),
    }
}

fn task(text: &str) -> Result<Task, String> {
    let (name, kthread) = match text.strip_suffix(" kthread") {
        Some(name) => (name, true),
        None => (text, false),
    };
    // Kernel threads have slashes in their names: the pid follows the last one.
    let (comm, pid) = name.rsplit_once('/').ok_or_else(|| format!("{text:?} is not COMM/PID"))?;
    let pid = pid.parse().map_err(|error| format!("pid of {text:?}: {error}"))?;
    Ok(Task { pid, tid: pid, comm: Comm::from_bytes(comm.as_bytes()), cgroup_id: 0, kthread })
}

fn owner(text: &str) -> Result<Owner, String> {
    let (who, evidence) =
        text.rsplit_once(' ').ok_or_else(|| format!("{text:?} is not COMM/PID EVIDENCE"))?;
    let evidence = match evidence {
        "close" => Evidence::Close,
        "connect" => Evidence::Connect,
        "fd" => Evidence::Fd,
        "listen" => Evidence::Listen,
        _ => return Err(format!("{evidence:?} is no evidence")),
    };
    let task = task(who)?;
    Ok(Owner { pid: task.pid, comm: task.comm, evidence, cgroup_id: 0 })
}
