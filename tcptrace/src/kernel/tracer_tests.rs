//! The tracer against the running kernel, each test in a network namespace of its own. Skipped, and said to be,
//! where tracing is not possible.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;
use crate::event::{Context, MiniTimer, StateChange};
use crate::kernel::confine::{Allow, confine};
use crate::kernel::privileges::Release;
use crate::net::{Flow, State};

/// Runs `test` on a thread in a fresh network namespace with its loopback up, inside a tokio runtime; the
/// namespace's inode is the argument. The namespace goes with the thread.
fn in_namespace<T: Send + 'static>(test: impl AsyncFnOnce(u32) -> T + Send + 'static) -> Option<T> {
    let missing = Host::look().missing(true);
    if !missing.is_empty() {
        eprintln!("skipped: {}", StartError::Missing(missing));
        return None;
    }
    let thread = std::thread::spawn(move || {
        // SAFETY: a new network namespace changes nothing about memory or descriptors that the other threads
        // rely on.
        if let Err(error) = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) } {
            eprintln!("skipped: no network namespace can be made: {error}");
            return None;
        }
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        if !up.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no ip(8)");
            return None;
        }
        let netns = rustix::fs::stat("/proc/thread-self/ns/net").unwrap().st_ino;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(runtime.block_on(test(u32::try_from(netns).unwrap())))
    });
    thread.join().unwrap()
}

fn options(netns: u32) -> TracerOptions {
    TracerOptions { filter: Filter { netns, ..Filter::ALL }, ring_bytes: 1 << 20, ..TracerOptions::default() }
}

fn start(options: &TracerOptions) -> Tracer {
    Tracer::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// Collects events until `enough` says so, for at most 5 s.
async fn collect(tracer: &mut Tracer, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    let begin = Instant::now();
    while !enough(&events) {
        assert!(begin.elapsed() < Duration::from_secs(5), "not enough after 5 s: {events:#?}");
        tracer.next_batch(Duration::from_millis(20), |batch| events.extend_from_slice(batch)).await.unwrap();
    }
    events
}

/// A client that closes first. Returns the client's flow as the client sees it.
fn one_connection(bind: &str, netns: u32) -> Flow {
    let listener = TcpListener::bind(bind).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop(server);
    Flow {
        local: local.ip().into(),
        remote: remote.ip().into(),
        netns,
        local_port: local.port(),
        remote_port: remote.port(),
    }
}

fn states(events: &[Event], flow: &Flow) -> Vec<StateChange> {
    let mine = |event: &Event| match event {
        Event::State(change) if change.flow == *flow => Some(*change),
        _ => None,
    };
    events.iter().filter_map(mine).collect()
}

fn started(events: &[Event], flow: &Flow) -> Option<MiniTimer> {
    events.iter().find_map(|event| match event {
        Event::MiniStarted(mini) if mini.flow == *flow => Some(*mini),
        _ => None,
    })
}

/// The mini's beginning comes either way; the socket's CLOSE after it only until the reader knows the sockets, and again when
/// it no longer does.
#[test]
fn close_after_a_mini_is_left_out_while_the_reader_knows_the_sockets() {
    in_namespace(async |netns| {
        for typed in [true, false] {
            let mut tracer = start(&TracerOptions { typed, ..options(netns) });
            for (bind, leaves_out) in
                [("127.0.0.1:0", false), ("127.0.0.1:0", true), ("[::1]:0", true), ("[::1]:0", false)]
            {
                tracer.leave_out_what_minis_tell(leaves_out);
                let client = one_connection(bind, netns);
                let server_closed = |event: &Event| {
                    matches!(event, Event::State(change) if change.from == State::LastAck
                        && change.flow.local_port == client.remote_port)
                };
                let events = collect(&mut tracer, |events| events.iter().any(server_closed)).await;
                assert_eq!(started(&events, &client).map(|mini| mini.substate), Some(State::TimeWait));
                let told: Vec<_> = states(&events, &client).iter().map(|change| change.to).collect();
                let last = if leaves_out { State::FinWait2 } else { State::Close };
                assert_eq!(told.last(), Some(&last), "{bind}, typed {typed}: {told:?}");
            }
        }
    });
}

#[test]
fn a_connection_is_seen_with_its_tuple_its_process_and_its_mini() {
    in_namespace(async |netns| {
        let has_typed = !Host::look().older_than(Release { major: 5, minor: 15 });
        for (bind, typed) in
            [("127.0.0.1:0", true), ("[::1]:0", true), ("127.0.0.1:0", false), ("[::1]:0", false)]
        {
            let mut tracer = start(&TracerOptions { typed, ..options(netns) });
            assert_eq!(
                tracer.programs().unwrap().iter().map(|program| program.name).collect::<Vec<_>>(),
                if typed && has_typed {
                    ["typed_timer_start", "typed_timer_cancel", "typed_timer_expire", "typed_set_state"]
                } else {
                    ["timer_start", "timer_cancel", "timer_expire_entry", "inet_sock_set_state"]
                }
            );
            let client = one_connection(bind, netns);
            let server = Flow {
                local: client.remote,
                remote: client.local,
                local_port: client.remote_port,
                remote_port: client.local_port,
                ..client
            };
            use State::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck, SynSent};
            let ended = |events: &[Event]| {
                states(events, &server).last().is_some_and(|change| change.to == Close)
                    && started(events, &client).is_some()
            };
            let events = collect(&mut tracer, ended).await;

            // FIN_WAIT2 → CLOSE is what the tracepoint says when TIME_WAIT begins.
            let path: Vec<_> =
                states(&events, &client).iter().map(|change| (change.from, change.to)).collect();
            let expected =
                [(SynSent, Established), (Established, FinWait1), (FinWait1, FinWait2), (FinWait2, Close)];
            assert!(path.ends_with(&expected), "{path:?}");
            let path: Vec<_> =
                states(&events, &server).iter().map(|change| (change.from, change.to)).collect();
            assert!(
                path.ends_with(&[(Established, CloseWait), (CloseWait, LastAck), (LastAck, Close)]),
                "{path:?}"
            );

            let close = states(&events, &client).into_iter().find(|change| change.to == FinWait1).unwrap();
            let task = close.context.task().copied().expect("close() runs in process context");
            assert_eq!(task.pid, std::process::id());
            assert_eq!(task.tid, rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
            assert!(!task.comm.bytes().is_empty() && !task.kthread);

            let mini = started(&events, &client).unwrap();
            assert_eq!(mini.substate, State::TimeWait);
            let hz = i64::from(tracer.hz().unwrap());
            assert_eq!(mini.left_jiffies, 60 * hz, "TCP_TIMEWAIT_LEN in jiffies");
            assert!(matches!(mini.context, Context::Process(_) | Context::Softirq));
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let now = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
            assert!(mini.at < now && now - mini.at < 5_000_000_000, "on CLOCK_MONOTONIC");

            assert_eq!(tracer.loss().unwrap(), Loss::default());
            let counters = tracer.counters().unwrap();
            assert_eq!(counters.submitted as usize, events.len());
            assert_eq!((counters.read_failed, tracer.first_undecodable()), (0, None));
        }
    });
}

#[test]
fn a_reader_that_stops_loses_events_and_says_how_many() {
    in_namespace(async |netns| {
        let mut tracer = start(&TracerOptions { ring_bytes: 4096, ..options(netns) });
        for _ in 0..50 {
            one_connection("127.0.0.1:0", netns);
        }
        let lost = tracer.loss().unwrap().ring_full;
        assert!(lost > 100, "{lost}");
        let counters = tracer.counters().unwrap();
        let mut seen = 0;
        while tracer.next_batch(Duration::ZERO, |events| seen += events.len() as u64).await.unwrap().events
            > 0
        {}
        assert_eq!(counters.submitted, seen);
        assert_eq!(counters.ring_full, lost);
        // Room again: it goes on by itself.
        let client = one_connection("127.0.0.1:0", netns);
        collect(&mut tracer, |events| started(events, &client).is_some()).await;
    });
}

#[test]
fn without_timers_no_mini_is_seen_and_a_foreign_namespace_never_is() {
    in_namespace(async |netns| {
        let mut plain = start(&TracerOptions { timers: false, ..options(netns) });
        let mut foreign = start(&options(1));
        let client = one_connection("127.0.0.1:0", netns);
        let is_closed =
            |events: &[Event]| states(events, &client).last().is_some_and(|c| c.to == State::Close);
        let events = collect(&mut plain, is_closed).await;
        assert!(events.iter().all(|event| matches!(event, Event::State(_))));
        let info =
            foreign.next_batch(Duration::from_millis(50), |events| panic!("{events:?}")).await.unwrap();
        assert_eq!(info, BatchInfo::default());
    });
}

#[test]
fn a_tracer_that_has_given_up_its_capabilities_still_reads_and_counts() {
    in_namespace(async |netns| {
        let mut tracer = start(&options(netns));
        // Connections are made by a thread that was there before.
        let (go, gate) = std::sync::mpsc::channel();
        let others = std::thread::spawn(move || gate.recv().map(|()| one_connection("127.0.0.1:0", netns)));
        confine(&Host::look().needed_while_tracing(), Allow::default()).unwrap();
        go.send(()).unwrap();
        let client = others.join().unwrap().unwrap();
        collect(&mut tracer, |events| started(events, &client).is_some()).await;
        assert_eq!(tracer.loss().unwrap(), Loss::default());
        assert_eq!(tracer.programs().unwrap().len(), 4);
        // And can start no other.
        let Err(error) = Tracer::start(&options(netns)) else { panic!("started without capabilities") };
        assert!(matches!(error, StartError::Missing(_)), "{error}");
    });
}

#[test]
fn end_of_file_and_its_stack_are_told() {
    in_namespace(async |netns| {
        let mut tracer = start(&TracerOptions { stacks: true, ..options(netns) });
        if let Some(skipped) = tracer.skipped_hooks().first() {
            eprintln!("skipped: {}: {}", skipped.name, skipped.why);
            return;
        }
        one_connection("127.0.0.1:0", netns);
        let told = |events: &[Event]| {
            events.iter().find_map(|event| match event {
                Event::EofTold(told) => Some(*told),
                _ => None,
            })
        };
        let events = collect(&mut tracer, |events| told(events).is_some()).await;
        let told = told(&events).unwrap();
        assert_eq!(told.task.pid, std::process::id());
        let mut stacks = Vec::new();
        assert!(!tracer.drain_stacks(|sample| {
            stacks.push((
                sample.reason,
                sample.sk,
                sample.at,
                sample.pid,
                sample.sp,
                sample.ip,
                sample.stack.len(),
            ));
        }));
        let (_, _, _, pid, sp, ip, len) = *stacks
            .iter()
            .find(|stack| (stack.0, stack.1, stack.2) == (decode::StackReason::Eof, told.sk, told.at))
            .unwrap_or_else(|| panic!("no stack for {told:?} in {stacks:?}"));
        assert_eq!(pid, std::process::id());
        assert!(sp != 0 && ip != 0 && len > 256, "sp {sp:#x} ip {ip:#x} len {len}");
        assert!(stacks.iter().any(|stack| stack.0 == decode::StackReason::Connect), "{stacks:?}");
    });
}

#[test]
fn dropping_the_tracer_detaches_it() {
    in_namespace(async |netns| {
        let tracer = start(&options(netns));
        let before = tracer.counters().unwrap().submitted;
        assert_eq!(before, 0);
        let ids = || {
            aya::programs::loaded_programs()
                .filter_map(Result::ok)
                .map(|program| program.id())
                .collect::<Vec<_>>()
        };
        let mine: Vec<_> = tracer
            .programs
            .iter()
            .map(|&name| tracer.bpf.program(name).unwrap().info().unwrap().id())
            .collect();
        assert!(mine.iter().all(|id| ids().contains(id)));
        drop(tracer);
        // The kernel frees programs after an RCU grace period.
        let begin = Instant::now();
        while mine.iter().any(|id| ids().contains(id)) {
            assert!(begin.elapsed() < Duration::from_secs(5), "still loaded");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn an_event_wakes_a_sleeping_reader() {
    in_namespace(async |netns| {
        let mut tracer = start(&TracerOptions { wakeup_bytes: 0, ..options(netns) });
        let traffic = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            // Threads are born into their parent's namespace.
            one_connection("127.0.0.1:0", netns)
        });
        let begin = Instant::now();
        let info = tracer.next_batch(Duration::from_secs(20), |_| ()).await.unwrap();
        assert!(info.events > 0 && begin.elapsed() < Duration::from_secs(10), "{info:?}");
        traffic.join().unwrap();
    });
}

#[test]
fn starting_outside_a_runtime_is_an_error_not_a_panic() {
    if !Host::look().missing(true).is_empty() {
        return;
    }
    let Err(error) = Tracer::start(&options(1)) else { panic!("started without a runtime") };
    assert!(matches!(error, StartError::Ring(_)), "{error}");
}

/// Run with `--release --ignored --nocapture`: prints the time from nothing to the first event.
#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_starting() {
    in_namespace(async |netns| {
        for _ in 0..5 {
            let begin = Instant::now();
            let layout = Layout::of_running_kernel().unwrap();
            let laid_out = begin.elapsed();
            symbols::tw_timer_handler().unwrap();
            let found = begin.elapsed();
            assert_ne!(layout.thread_size, 0);
            let begin = Instant::now();
            let mut tracer = start(&TracerOptions { wakeup_bytes: 0, ..options(netns) });
            let attached = begin.elapsed();
            one_connection("127.0.0.1:0", netns);
            collect(&mut tracer, |events| !events.is_empty()).await;
            let first = begin.elapsed();
            println!(
                "layout {laid_out:?}, symbol {:?}; start in all {attached:?}, first event {first:?}",
                found - laid_out
            );
        }
    });
}
