//! A day of churn, compressed: memory does not grow with what has been seen. A test program of its own, because what
//! is measured is the memory of the process.

use std::net::{IpAddr, Ipv4Addr};

use tcptrace::engine::Engine;
use tcptrace::event::{Comm, Context, Event, MiniExpired, MiniTimer, Protocol, StateChange, Task};
use tcptrace::filter::Filter;
use tcptrace::net::{Addr, Flow, State};
use tcptrace::snapshot::{KeyKind, Meta};
use tcptrace::tracker::Limits;

const SECOND_NS: u64 = 1_000_000_000;
const DAY_S: u64 = 24 * 3600;
/// Each by another process, towards another peer: what tables by process and by peer are keyed with never ends.
const CONNECTIONS_PER_S: u64 = 2;
/// What an allocator may keep more at the end of the day than at the end of its second hour.
const SLACK_BYTES: u64 = 3 << 20;

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn flow(number: u64) -> Flow {
    let remote = Ipv4Addr::from(0x0b00_0000 + (number % 0x00ff_ffff) as u32);
    Flow {
        local: Addr::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, 1))),
        remote: Addr::from(IpAddr::from(remote)),
        netns: 1,
        local_port: 1024 + (number % 60_000) as u16,
        remote_port: 80,
    }
}

/// What the kernel tells of a connection that begins at `at`, is closed 100 ms later and is in TIME_WAIT for 60 s.
fn life(number: u64, at: u64) -> [(u64, Event); 8] {
    let flow = flow(number);
    let sk = 0xffff_8880_0000_0000 + number % 512 * 4096;
    let mini = 0xffff_8890_0000_0000 + number % 4096 * 256;
    let pid = 1000 + (number % 4_000_000) as u32;
    let task = Task { pid, tid: pid, comm: Comm::from_bytes(b"worker"), cgroup_id: number, kthread: false };
    let step = |after: u64, from, to, context| {
        let change = StateChange {
            at: at + after,
            sk,
            flow,
            from,
            to,
            protocol: Protocol::Tcp,
            context,
            orphan: false,
            linger2_negative: false,
            unread: None,
            sk_err: 0,
            buckets_left: None,
        };
        (at + after, Event::State(change))
    };
    let ms = 1_000_000;
    let closed = at + 101 * ms;
    let over = closed + 61 * SECOND_NS;
    let timer = |at, left_jiffies| MiniTimer {
        at,
        mini,
        flow,
        substate: State::TimeWait,
        left_jiffies,
        context: Context::Softirq,
    };
    [
        step(0, State::Close, State::SynSent, Context::Process(task)),
        step(ms, State::SynSent, State::Established, Context::Softirq),
        step(100 * ms, State::Established, State::FinWait1, Context::Process(task)),
        step(100 * ms + 1000, State::FinWait1, State::FinWait2, Context::Softirq),
        (closed - 500, Event::MiniStarted(timer(closed - 500, 15_000))),
        step(101 * ms, State::FinWait2, State::Close, Context::Softirq),
        (over, Event::MiniCancelled(timer(over, 0))),
        (over + 1000, Event::MiniExpired(MiniExpired { at: over + 1000, mini })),
    ]
}

#[test]
fn a_day_of_churn_takes_no_more_memory_than_two_hours() {
    let meta = Meta { hz: Some(250), ..Meta::default() };
    let mut engine = Engine::new(meta, Filter::default(), Some(KeyKind::Process), Limits::default());
    engine.begin(0);
    let mut ended = 0_u64;
    let mut pending = std::collections::BTreeMap::new();
    let (mut number, mut after_two_hours) = (0, 0);
    for second in 0..DAY_S {
        let now = second * SECOND_NS;
        for of_second in 0..CONNECTIONS_PER_S {
            let begins = now + of_second * SECOND_NS / CONNECTIONS_PER_S;
            pending.extend(
                life(number, begins).into_iter().map(|(at, event)| ((at, number, event.at()), event)),
            );
            number += 1;
        }
        // In order of time, as the ring gives them.
        let later = pending.split_off(&(now + SECOND_NS, 0, 0));
        for event in std::mem::replace(&mut pending, later).into_values() {
            engine.event(&event, |_| ended += 1);
        }
        engine.tick(now + SECOND_NS - 1, |_| ended += 1);
        if second == 2 * 3600 {
            after_two_hours = resident_bytes();
        }
    }
    let (at_the_end, snapshot) = (resident_bytes(), engine.snapshot(&|_| None));
    assert_eq!(engine.loss().total(), 0, "{:?}", engine.loss());
    let open = engine.open_in(State::TimeWait);
    assert!((100..200).contains(&open), "{open} in TIME_WAIT");
    assert_eq!(snapshot.meta.connections, DAY_S * CONNECTIONS_PER_S);
    assert!(ended > 5 * DAY_S * CONNECTIONS_PER_S, "{ended} outcomes");
    println!("{ended} outcomes; {after_two_hours} bytes after two hours, {at_the_end} after a day");
    assert!(
        at_the_end < after_two_hours + SLACK_BYTES,
        "{after_two_hours} bytes resident after two hours, {at_the_end} after a day"
    );
}
