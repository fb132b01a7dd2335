use super::*;

/// The bytes of a `repr(C)` record without implicit padding, as the kernel side writes them.
fn bytes_of<T>(record: &T) -> &[u8] {
    // SAFETY: the wire records are `repr(C)` integers without implicit padding (asserted in tcptrace-common),
    // so every byte is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<T>()) }
}

fn v4(last: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, last]
}

const COMM: [u8; 16] = *b"nginx\0\0\0\0\0\0\0\0\0\0\0";

fn state_record() -> StateRecord {
    StateRecord {
        kind: KIND_STATE,
        flags: FLAG_PROCESS | FLAG_ORPHAN,
        from: 1,
        to: 4,
        netns: 4_026_531_840,
        time_ns: 123_456_789,
        sk: 0xffff_8880_0000_0001,
        cgroup_id: 77,
        pid: 100,
        tid: 101,
        unread: 3,
        local_port: 80_u16.to_be(),
        remote_port: 44_312_u16.to_be(),
        local: v4(1),
        remote: v4(2),
        comm: COMM,
        sk_err: 0,
        buckets_left: BUCKETS_UNKNOWN,
    }
}

fn mini_record() -> MiniRecord {
    MiniRecord {
        kind: KIND_MINI_START,
        flags: FLAG_SOFTIRQ,
        substate: 6,
        pad: 0,
        netns: 1,
        time_ns: 9,
        mini: 10,
        left_jiffies: 15_000,
        pid: 0,
        tid: 0,
        local_port: 1_u16.to_be(),
        remote_port: 2_u16.to_be(),
        pad2: 0,
        local: v4(1),
        remote: v4(2),
    }
}

#[test]
fn a_state_change_carries_every_field() {
    let Event::State(event) = event(bytes_of(&state_record())).unwrap() else { panic!("not a state change") };
    assert_eq!((event.at, event.sk), (123_456_789, 0xffff_8880_0000_0001));
    assert_eq!((event.from, event.to), (State::Established, State::FinWait1));
    assert_eq!(event.flow.local_addr().to_string(), "127.0.0.1:80");
    assert_eq!(event.flow.remote_addr().to_string(), "127.0.0.2:44312");
    assert_eq!((event.flow.netns, event.unread, event.sk_err), (4_026_531_840, Some(3), 0));
    assert!(event.orphan && !event.linger2_negative);
    assert_eq!(event.protocol, Protocol::Tcp);
    let task = event.context.task().unwrap();
    assert_eq!((task.pid, task.tid, task.comm.bytes(), task.cgroup_id), (100, 101, &b"nginx"[..], 77));
    assert!(!task.kthread);
}

#[test]
fn flags_become_context_and_protocol() {
    let with = |flags| {
        let Ok(Event::State(event)) = event(bytes_of(&StateRecord { flags, ..state_record() })) else {
            panic!("not a state change")
        };
        event
    };
    assert_eq!(with(FLAG_SOFTIRQ).context, Context::Softirq);
    assert_eq!(with(0).context, Context::Unknown);
    assert!(with(FLAG_PROCESS | FLAG_KTHREAD).context.task().unwrap().kthread);
    assert_eq!(with(FLAG_MPTCP).protocol, Protocol::Mptcp);
    assert_eq!(with(FLAG_MPTCP_SUBFLOW).protocol, Protocol::MptcpSubflow);
    assert!(with(FLAG_LINGER2_NEGATIVE).linger2_negative);
    let both = StateRecord { flags: FLAG_PROCESS | FLAG_SOFTIRQ, ..state_record() };
    assert_eq!(event(bytes_of(&both)), Err(DecodeError::Flags(3)));
}

#[test]
fn minis_start_cancel_and_expire() {
    let Event::MiniStarted(start) = event(bytes_of(&mini_record())).unwrap() else { panic!("not a start") };
    assert_eq!((start.mini, start.substate, start.left_jiffies), (10, State::TimeWait, 15_000));
    assert_eq!(start.context, Context::Softirq);
    let cancel = MiniRecord { kind: KIND_MINI_CANCEL, left_jiffies: -3, ..mini_record() };
    let Event::MiniCancelled(cancel) = event(bytes_of(&cancel)).unwrap() else { panic!("not a cancel") };
    assert_eq!(cancel.left_jiffies, -3);
    let expire = ExpireRecord { kind: KIND_MINI_EXPIRE, pad: [0; 7], time_ns: 5, mini: 10 };
    assert_eq!(event(bytes_of(&expire)), Ok(Event::MiniExpired(MiniExpired { at: 5, mini: 10 })));
}

#[test]
fn end_of_file_carries_who_was_told() {
    let record = EofRecord {
        kind: KIND_EOF,
        flags: FLAG_PROCESS,
        pad: [0; 2],
        netns: 1,
        time_ns: 5,
        sk: 6,
        pid: 7,
        tid: 8,
        comm: COMM,
        local_port: 0,
        remote_port: 443_u16.to_be(),
        pad2: 0,
        local: v4(1),
        remote: v4(2),
    };
    let Event::EofTold(told) = event(bytes_of(&record)).unwrap() else { panic!("not an EOF") };
    assert_eq!((told.at, told.sk, told.task.pid, told.task.tid), (5, 6, 7, 8));
    assert_eq!((told.task.comm.bytes(), told.flow.remote_port), (&b"nginx"[..], 443));
}

#[test]
fn impossible_numbers_are_errors() {
    let of = |record: StateRecord| event(bytes_of(&record)).unwrap_err();
    assert_eq!(
        of(StateRecord { from: 0, ..state_record() }),
        DecodeError::State { kind: KIND_STATE, state: 0 }
    );
    assert_eq!(
        of(StateRecord { to: 13, ..state_record() }),
        DecodeError::State { kind: KIND_STATE, state: 13 }
    );
    assert_eq!(of(StateRecord { sk_err: 4096, ..state_record() }), DecodeError::Errno(4096));
    assert_eq!(of(StateRecord { sk_err: u32::MAX, ..state_record() }), DecodeError::Errno(u32::MAX));
    // A full socket's state cannot be a mini's substate.
    let mini = MiniRecord { substate: 1, ..mini_record() };
    assert_eq!(event(bytes_of(&mini)), Err(DecodeError::State { kind: KIND_MINI_START, state: 1 }));
}

#[test]
fn every_shorter_record_is_an_error() {
    let record = state_record();
    let whole = bytes_of(&record);
    assert_eq!(event(&[]), Err(DecodeError::Empty));
    for len in 1..whole.len() {
        assert_eq!(
            event(&whole[..len]),
            Err(DecodeError::Short { kind: KIND_STATE, len, wanted: whole.len() })
        );
    }
    assert_eq!(event(&[KIND_STACK; 200]), Err(DecodeError::UnknownKind(KIND_STACK)));
    assert_eq!(event(&[0; 200]), Err(DecodeError::UnknownKind(0)));
}

#[test]
fn a_stack_is_as_long_as_it_says() {
    let record = StackRecord {
        kind: KIND_STACK,
        reason: KIND_EOF,
        stack_len: 24,
        local_port: 80_u16.to_be(),
        remote_port: 1024_u16.to_be(),
        time_ns: 1,
        sk: 2,
        pid: 3,
        tid: 4,
        ip: 5,
        sp: 6,
        fp: 7,
        lr: 8,
        stack: [0xab; STACK_BYTES],
    };
    let sample = stack(bytes_of(&record)).unwrap();
    assert_eq!((sample.at, sample.sk, sample.pid, sample.tid), (1, 2, 3, 4));
    assert_eq!((sample.ip, sample.sp, sample.fp, sample.lr), (5, 6, 7, 8));
    assert_eq!((sample.local_port, sample.remote_port), (80, 1024));
    assert_eq!((sample.reason, sample.stack), (StackReason::Eof, &[0xab; 24][..]));
    let cut = &bytes_of(&record)[..64 + 24];
    assert_eq!(stack(cut).unwrap().stack.len(), 24);
    assert!(matches!(stack(&cut[..80]), Err(DecodeError::Short { .. })));
    let lies = StackRecord { stack_len: u16::MAX, ..record };
    assert!(matches!(stack(bytes_of(&lies)), Err(DecodeError::Short { .. })));
    assert_eq!(stack(bytes_of(&StackRecord { reason: 99, ..record })), Err(DecodeError::UnknownKind(99)));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(kind in 0_u8..8, mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let _ = event(&bytes);
        let _ = stack(&bytes);
    }
}

/// Run with `--release --ignored --nocapture`: prints nanoseconds per record.
#[test]
#[ignore = "a measurement, not a check"]
fn cost_per_record() {
    let state = state_record();
    let mini = mini_record();
    for (name, record) in [("state", bytes_of(&state)), ("mini", bytes_of(&mini))] {
        let rounds = 20_000_000_u32;
        let begin = std::time::Instant::now();
        for _ in 0..rounds {
            let _ = std::hint::black_box(event(std::hint::black_box(record)));
        }
        println!("{name}: {:.1} ns", begin.elapsed().as_secs_f64() * 1e9 / f64::from(rounds));
    }
}
