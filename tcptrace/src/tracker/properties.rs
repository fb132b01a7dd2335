//! What holds for any order of events, likely or not. `PROPTEST_CASES=60000` looks further than the usual 256.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::pending::GRACE_NS;
use super::{Limits, Tracker};
use crate::event::{
    Comm, Context, EofTold, Event, MiniExpired, MiniTimer, MonoNs, Protocol, StateChange, Task,
};
use crate::inventory::diag::{DiagSocket, Dump};
use crate::net::{Addr, Flow, State};
use crate::outcome::{Evidence, Outcome, Owner};

/// Flows that [`flow_of`] knows.
const FLOWS: usize = 6;
const LIMITS: Limits = Limits { full_sockets: 4, minis: 3 };

/// What is done to a tracker, after a pause.
#[derive(Clone, Debug)]
enum Act {
    Apply(Event),
    BeginResync,
    Reconcile(Vec<DiagSocket>),
}

/// Pauses on both sides of every limit that the tracker knows.
const PAUSES: [u64; 9] =
    [0, 1, 1_000, 999_999, 2_000_000, 700_000_000, GRACE_NS, 2_000_000_000, 61_000_000_000];
/// Jiffies left on a timer: none, impossible, the re-arm of a FIN_WAIT2, sixty seconds.
const LEFT: [i64; 8] = [i64::MIN, -300, 0, 1, 1250, 14_000, 15_000, i64::MAX];
/// `sk_err`: none, ECONNRESET, ETIMEDOUT, EHOSTUNREACH and such.
const ERRORS: [u16; 6] = [0, 0, 104, 110, 103, 113];
/// What the kernel does.
const USUAL: [(State, State); 17] = [
    (State::Close, State::SynSent),
    (State::SynSent, State::Established),
    (State::SynSent, State::Close),
    (State::Close, State::Listen),
    (State::Listen, State::SynRecv),
    (State::SynRecv, State::Established),
    (State::Established, State::FinWait1),
    (State::FinWait1, State::FinWait2),
    (State::FinWait2, State::FinWait2),
    (State::FinWait1, State::Closing),
    (State::FinWait2, State::Close),
    (State::Closing, State::Close),
    (State::Established, State::CloseWait),
    (State::CloseWait, State::LastAck),
    (State::LastAck, State::Close),
    (State::Established, State::Close),
    (State::Listen, State::Close),
];

/// Few flows, so that events meet: both ends of one connection, a listener, a connect() without its port.
fn flow_of(number: usize) -> Flow {
    let address = |last| Addr::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
    let flow = |local, local_port, remote, remote_port, netns| Flow {
        local: address(local),
        remote: if remote == 0 { Addr::from(IpAddr::from(Ipv4Addr::UNSPECIFIED)) } else { address(remote) },
        netns,
        local_port,
        remote_port,
    };
    match number % FLOWS {
        0 => flow(1, 40_000, 2, 80, 1),
        1 => flow(2, 80, 1, 40_000, 1),
        2 => flow(1, 40_001, 2, 80, 1),
        3 => flow(1, 40_000, 2, 80, 2),
        4 => flow(1, 0, 2, 80, 1),
        _ => flow(2, 80, 0, 0, 1),
    }
}

fn task_of(number: usize) -> Task {
    let (pid, kthread) = (1 + (number & 3) as u32 % 3, number & 4 != 0);
    let comm = Comm::from_bytes(if kthread && pid == 3 { b"ksoftirqd/0" } else { b"app" });
    Task { pid, tid: pid, comm, cgroup_id: 0, kthread }
}

fn flow() -> impl Strategy<Value = Flow> {
    (0..FLOWS).prop_map(flow_of)
}

fn task() -> impl Strategy<Value = Task> {
    (0_usize..8).prop_map(task_of)
}

fn context() -> impl Strategy<Value = Context> {
    prop_oneof![
        3 => Just(Context::Softirq),
        3 => task().prop_map(Context::Process),
        1 => Just(Context::Unknown),
    ]
}

/// Mostly what the kernel does, sometimes anything.
fn states() -> impl Strategy<Value = (State, State)> {
    prop_oneof![9 => select(&USUAL[..]), 1 => (select(&State::ALL[..]), select(&State::ALL[..]))]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![8 => Just(Protocol::Tcp), 1 => Just(Protocol::Mptcp), 1 => Just(Protocol::MptcpSubflow)]
}

fn change() -> impl Strategy<Value = Event> {
    let flags = (any::<bool>(), any::<bool>(), 0_u32..3, select(&ERRORS[..]));
    (1_u64..4, flow(), states(), protocol(), context(), flags).prop_map(
        |(sk, flow, (from, to), protocol, context, (orphan, linger2_negative, unread, sk_err))| {
            Event::State(StateChange {
                at: 0,
                sk,
                flow,
                from,
                to,
                protocol,
                context,
                orphan,
                linger2_negative,
                unread: Some(unread).filter(|&unread| unread > 0),
                sk_err,
                buckets_left: Some(unread).filter(|_| orphan),
            })
        },
    )
}

fn timer() -> impl Strategy<Value = MiniTimer> {
    let substate = select(vec![State::FinWait2, State::TimeWait]);
    let left = select(&LEFT[..]);
    (1_u64..4, flow(), substate, left, context()).prop_map(|(mini, flow, substate, left_jiffies, context)| {
        MiniTimer { at: 0, mini, flow, substate, left_jiffies, context }
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => change(),
        3 => timer().prop_map(Event::MiniStarted),
        3 => timer().prop_map(Event::MiniCancelled),
        2 => (1_u64..4).prop_map(|mini| Event::MiniExpired(MiniExpired { at: 0, mini })),
        1 => (1_u64..4, flow(), task())
            .prop_map(|(sk, flow, task)| Event::EofTold(EofTold { at: 0, sk, flow, task })),
    ]
}

fn socket() -> impl Strategy<Value = DiagSocket> {
    let full = (select(&State::ALL[..]), Just(false));
    let mini = (select(vec![State::FinWait2, State::TimeWait]), Just(true));
    let kind = prop_oneof![full, mini];
    (
        flow(),
        kind,
        protocol(),
        0_u32..90_000,
        proptest::option::of(1_u64..9),
        proptest::option::of(0_u32..9000),
    )
        .prop_map(|(flow, (state, is_mini), protocol, expires_ms, inode, last_ack_recv_ms)| DiagSocket {
            at: 0,
            flow,
            state,
            is_mini,
            protocol,
            expires_ms,
            timer: if is_mini { 3 } else { 0 },
            inode,
            uid: None,
            recv_queue: 1,
            send_queue: 0,
            cookie: None,
            cgroup_id: None,
            last_ack_recv_ms,
        })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => event().prop_map(Act::Apply),
        1 => Just(Act::BeginResync),
        1 => vec(socket(), 0..6).prop_map(Act::Reconcile),
    ]
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    vec((select(&PAUSES[..]), act()), 0..60)
}

fn at(event: &Event, at: MonoNs) -> Event {
    match *event {
        Event::State(change) => Event::State(StateChange { at, ..change }),
        Event::MiniStarted(timer) => Event::MiniStarted(MiniTimer { at, ..timer }),
        Event::MiniCancelled(timer) => Event::MiniCancelled(MiniTimer { at, ..timer }),
        Event::MiniExpired(expired) => Event::MiniExpired(MiniExpired { at, ..expired }),
        Event::EofTold(told) => Event::EofTold(EofTold { at, ..told }),
    }
}

/// Runs the acts; between two of them time may be told to the tracker as often as `ticks` says, and after each its
/// rows be moved.
fn run(acts: &[(u64, Act)], ticks: u64, compacts: bool) -> (Tracker, Vec<Outcome>, MonoNs) {
    let mut tracker = Tracker::new(LIMITS);
    tracker.set_hz(Some(250));
    let mut out = Vec::new();
    let mut now = 1_000_000_000;
    for (pause, act) in acts {
        for tick in 1..=ticks {
            tracker.expire(now + pause / ticks * tick, &mut out);
        }
        now += pause;
        match act {
            Act::Apply(event) => tracker.apply(&at(event, now), &mut out),
            Act::BeginResync => tracker.begin_resync(now),
            Act::Reconcile(sockets) => {
                tracker.expire(now, &mut out);
                reconcile(&mut tracker, now, sockets, &mut out);
            }
        }
        if compacts {
            tracker.fulls.compact();
            tracker.compact_minis();
        }
        assert!(tracker.fulls.len() <= LIMITS.full_sockets && tracker.minis.len() <= LIMITS.minis);
    }
    tracker.expire(now, &mut out);
    (tracker, out, now)
}

fn reconcile(tracker: &mut Tracker, now: MonoNs, sockets: &[DiagSocket], out: &mut Vec<Outcome>) {
    let dump = Dump {
        started: now.saturating_sub(1_000),
        finished: now,
        namespaces: vec![1, 2],
        sockets: sockets.iter().map(|socket| DiagSocket { at: now, ..*socket }).collect(),
        ..Dump::default()
    };
    let owner = Owner { pid: 9, comm: Comm::default(), evidence: Evidence::Fd, cgroup_id: 0 };
    tracker.reconcile(&dump, &|socket| socket.inode.map(|_| owner), out);
}

/// No order of events panics, no dwell is longer than what has passed, and what one connection is said to have
/// spent in its states does not overlap: every dwell that began ends once at most.
fn dwells_follow_each_other(acts: &[(u64, Act)]) {
    let (_, out, now) = run(acts, 0, false);
    let mut spent: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for outcome in &out {
        let Outcome::Transition(transition) = outcome else { continue };
        assert!(transition.at <= now);
        let Some(dwell) = transition.dwell else { continue };
        assert!(dwell.ns <= transition.at, "{transition:?}");
        if !dwell.is_lower_bound {
            spent.entry(transition.conn).or_default().push((transition.at - dwell.ns, transition.at));
        }
    }
    for (conn, mut intervals) in spent {
        intervals.sort_unstable();
        for pair in intervals.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "connection {conn}: {pair:?}");
        }
    }
}

/// When time is told to the tracker makes no difference.
fn ticks_change_nothing(acts: &[(u64, Act)], ticks: u64) {
    let (one, without, _) = run(acts, 0, false);
    let (other, with, _) = run(acts, ticks, false);
    assert_eq!(without, with);
    assert_eq!(one.counts(), other.counts());
}

/// Where rows stand makes no difference.
fn giving_memory_back_changes_nothing(acts: &[(u64, Act)]) {
    let (one, without, _) = run(acts, 0, false);
    let (other, with, _) = run(acts, 0, true);
    assert_eq!(without, with);
    assert_eq!(one.counts(), other.counts());
}

/// A complete dump of nothing, and time, leave nothing behind.
fn nothing_is_kept_of_what_is_gone(acts: &[(u64, Act)]) {
    let (mut tracker, mut out, now) = run(acts, 0, false);
    let late = now + 10 * GRACE_NS;
    tracker.expire(late, &mut out);
    tracker.begin_resync(late);
    reconcile(&mut tracker, late + 2_000, &[], &mut out);
    assert_eq!(tracker.open().count(), 0);
    assert_eq!((tracker.fulls.len(), tracker.minis.len()), (0, 0));
    assert_eq!(tracker.deadline(), None);
}

/// A flow has one live mini at most, and a connection is open once.
fn what_is_open_is_open_once(acts: &[(u64, Act)]) {
    let (tracker, _, now) = run(acts, 0, false);
    let mut conns: Vec<_> = tracker.open().map(|open| open.conn).collect();
    assert!(tracker.open().all(|open| open.since <= now));
    conns.sort_unstable();
    let all = conns.len();
    conns.dedup();
    assert_eq!(all, conns.len());
    assert_eq!(tracker.counts().open.iter().sum::<u64>(), all as u64);
}

/// The CLOSE of a socket that was known to be in FIN_WAIT2 when its mini began says nothing.
fn close_says_what_the_mini_has_said(acts: &[(u64, Act)], sk: u64, flow: usize) {
    let (mut told, mut out, now) = run(acts, 0, false);
    let change = |from, to| {
        Event::State(StateChange {
            at: now,
            sk,
            flow: flow_of(flow),
            from,
            to,
            protocol: Protocol::Tcp,
            context: Context::Softirq,
            orphan: true,
            linger2_negative: false,
            unread: None,
            sk_err: 0,
            buckets_left: None,
        })
    };
    told.apply(&change(State::FinWait1, State::FinWait2), &mut out);
    let known: Vec<_> = told.fulls.with_flow(&flow_of(flow), |_| true).collect();
    if told.minis.is_full() || known.len() != 1 || told.fulls[known[0]].addr() != sk {
        // There is no room, or an act has left another row on the flow.
        return;
    }
    told.apply(
        &Event::MiniStarted(MiniTimer {
            at: now,
            mini: 77,
            flow: flow_of(flow),
            substate: State::TimeWait,
            left_jiffies: 15_000,
            context: Context::Softirq,
        }),
        &mut out,
    );
    let untold = told.clone();
    out.clear();
    told.apply(&change(State::FinWait2, State::Close), &mut out);
    assert_eq!(out, []);
    assert_eq!((told.counts(), told.gaps()), (untold.counts(), untold.gaps()));
    assert!(told.open().eq(untold.open()));
}

/// Checks everything on the acts that bytes stand for.
pub(crate) fn check(bytes: &[u8]) {
    let acts = acts_of(bytes);
    let byte = |at: usize| usize::from(bytes.get(at).copied().unwrap_or_default());
    close_says_what_the_mini_has_said(&acts, 1 + (byte(2) as u64 & 3), byte(3) % 4);
    dwells_follow_each_other(&acts);
    ticks_change_nothing(&acts, 1 + acts.len() as u64 % 3);
    giving_memory_back_changes_nothing(&acts);
    nothing_is_kept_of_what_is_gone(&acts);
    what_is_open_is_open_once(&acts);
}

/// Eight bytes for an act, so that a fuzzer's small change is a small change of what happens.
fn acts_of(bytes: &[u8]) -> Vec<(u64, Act)> {
    bytes.chunks_exact(8).take(200).map(act_of).collect()
}

fn act_of(bytes: &[u8]) -> (u64, Act) {
    let byte = |at: usize| usize::from(bytes[at]);
    let pause = PAUSES[byte(0) % PAUSES.len()];
    let sk = 1 + (byte(2) as u64 & 3);
    let flow = flow_of(byte(3));
    let task = task_of(byte(4));
    let context = match byte(4) >> 4 {
        0..=6 => Context::Softirq,
        7..=14 => Context::Process(task),
        _ => Context::Unknown,
    };
    let states = |number: usize| {
        USUAL.get(number).copied().unwrap_or_else(|| {
            (State::ALL[number % State::ALL.len()], State::ALL[number / 16 % State::ALL.len()])
        })
    };
    let timer = || MiniTimer {
        at: 0,
        mini: sk,
        flow,
        substate: if byte(5) & 1 == 0 { State::FinWait2 } else { State::TimeWait },
        left_jiffies: LEFT[byte(6) % LEFT.len()],
        context,
    };
    let act = match byte(1) % 16 {
        0..=8 => {
            let (from, to) = states(byte(5));
            Act::Apply(Event::State(StateChange {
                at: 0,
                sk,
                flow,
                from,
                to,
                protocol: match byte(7) >> 4 {
                    0 => Protocol::Mptcp,
                    1 => Protocol::MptcpSubflow,
                    _ => Protocol::Tcp,
                },
                context,
                orphan: byte(6) & 1 != 0,
                linger2_negative: byte(6) & 2 != 0,
                unread: Some(byte(6) as u32 >> 4).filter(|&unread| unread > 0),
                sk_err: ERRORS[byte(7) % ERRORS.len()],
                buckets_left: Some(byte(6) as u32 >> 6).filter(|_| byte(6) & 1 != 0),
            }))
        }
        9 | 10 => Act::Apply(Event::MiniStarted(timer())),
        11 => Act::Apply(Event::MiniCancelled(timer())),
        12 => Act::Apply(Event::MiniExpired(MiniExpired { at: 0, mini: sk })),
        13 => Act::Apply(Event::EofTold(EofTold { at: 0, sk, flow, task })),
        14 => Act::BeginResync,
        _ => Act::Reconcile((2..byte(7) % 7).map(|at| socket_of(byte(at), byte(at + 1))).collect()),
    };
    (pause, act)
}

fn socket_of(one: usize, other: usize) -> DiagSocket {
    let is_mini = one & 8 != 0;
    let mini = if other & 1 == 0 { State::FinWait2 } else { State::TimeWait };
    DiagSocket {
        at: 0,
        flow: flow_of(one),
        state: if is_mini { mini } else { State::ALL[other % State::ALL.len()] },
        is_mini,
        protocol: if one >> 4 == 0 { Protocol::Mptcp } else { Protocol::Tcp },
        expires_ms: (other as u32) << 8,
        timer: if is_mini { 3 } else { 0 },
        inode: Some(other as u64).filter(|inode| inode % 3 > 0),
        uid: None,
        recv_queue: 1,
        send_queue: 0,
        cookie: None,
        cgroup_id: None,
        last_ack_recv_ms: Some(one as u32 * 40).filter(|_| other & 2 != 0),
    }
}

#[cfg(test)]
proptest! {
    #[test]
    fn dwells_of_a_connection_follow_each_other(acts in acts()) {
        dwells_follow_each_other(&acts);
    }

    #[test]
    fn time_told_more_often_changes_nothing(acts in acts(), ticks in 1_u64..4) {
        ticks_change_nothing(&acts, ticks);
    }

    #[test]
    fn rows_that_move_change_nothing(acts in acts()) {
        giving_memory_back_changes_nothing(&acts);
    }

    #[test]
    fn a_dump_of_nothing_leaves_nothing(acts in acts()) {
        nothing_is_kept_of_what_is_gone(&acts);
    }

    #[test]
    fn close_adds_nothing_to_the_beginning_of_a_mini(acts in acts(), sk in 1_u64..5, flow in 0_usize..4) {
        close_says_what_the_mini_has_said(&acts, sk, flow);
    }

    #[test]
    fn nothing_is_open_twice(acts in acts()) {
        what_is_open_is_open_once(&acts);
    }
}
