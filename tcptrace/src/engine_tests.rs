use super::*;
use crate::event::{Context, MiniTimer, Protocol, StateChange};
use crate::net::Addr;
use std::net::{IpAddr, Ipv4Addr};

const SECOND: MonoNs = 1_000_000_000;

fn flow(port: u16) -> Flow {
    let address = |last| Addr::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
    Flow { local: address(1), remote: address(2), netns: 1, local_port: port, remote_port: 80 }
}

fn engine() -> Engine {
    let meta = Meta { hz: Some(250), ..Meta::default() };
    let mut engine = Engine::new(meta, Filter::default(), None, Limits::default());
    engine.expect_every_end(true);
    engine
}

fn step(at: MonoNs, from: State, to: State) -> Event {
    Event::State(StateChange {
        at,
        sk: 1,
        flow: flow(40_000),
        from,
        to,
        protocol: Protocol::Tcp,
        context: Context::Softirq,
        orphan: false,
        linger2_negative: false,
        unread: None,
        sk_err: 0,
        buckets_left: None,
    })
}

fn mini(at: MonoNs, port: u16) -> Event {
    Event::MiniStarted(MiniTimer {
        at,
        mini: 0x100 + u64::from(port) * 256,
        flow: flow(port),
        substate: State::FinWait2,
        left_jiffies: 750,
        context: Context::Softirq,
    })
}

fn empty_dump(started: MonoNs) -> Inventory {
    let dump = Dump { started, finished: started + SECOND / 10, namespaces: vec![1], ..Dump::default() };
    Inventory { dump, ..Inventory::default() }
}

fn feed(engine: &mut Engine, inputs: impl IntoIterator<Item = Input>) {
    inputs.into_iter().for_each(|input| engine.feed(&input, |_| {}));
}

/// A transition that does not fit, the step between not having come.
fn gap(at: MonoNs) -> [Input; 2] {
    [
        Input::Event(step(at, State::Established, State::CloseWait)),
        Input::Event(step(at + 1, State::LastAck, State::Close)),
    ]
}

#[test]
fn a_gap_that_nothing_explains_is_loss() {
    let mut engine = engine();
    feed(&mut engine, gap(SECOND));
    assert!(engine.has_unsettled_gaps());
    feed(&mut engine, [Input::Loss(KernelLoss::default())]);
    assert_eq!((engine.loss().vanished, engine.loss().any(), engine.needs_resync()), (1, true, false));
    // Settled once and for all.
    feed(&mut engine, [Input::Loss(KernelLoss { ring_full: 5, skipped_runs: 0 })]);
    engine.finish(|_| {});
    assert_eq!((engine.loss().vanished, engine.loss().total()), (1, 6));
}

#[test]
fn a_gap_that_counted_loss_may_explain_is_not_counted_again() {
    let mut engine = engine();
    feed(&mut engine, gap(SECOND));
    feed(&mut engine, [Input::Loss(KernelLoss { ring_full: 0, skipped_runs: 1 })]);
    assert_eq!((engine.loss().vanished, engine.loss().total()), (0, 1));
    // Until a dump has mended what is known, more may come of it.
    feed(&mut engine, gap(2 * SECOND));
    feed(&mut engine, [Input::InventoryBegins { at: 3 * SECOND }, Input::Inventory(empty_dump(3 * SECOND))]);
    assert_eq!(engine.loss().vanished, 0);
    feed(&mut engine, gap(4 * SECOND));
    engine.finish(|_| {});
    assert_eq!(engine.loss().vanished, 1);
}

/// An expiry that was not told, with nothing counted as lost: it is overdue, a dump is asked for, and says so.
#[test]
fn a_mini_that_outlives_its_timer_is_doubted_and_then_loss() {
    let mut engine = engine();
    feed(&mut engine, [Input::InventoryBegins { at: 1 }, Input::Inventory(empty_dump(1))]);
    feed(&mut engine, [mini(SECOND, 40_000), mini(5 * SECOND, 40_001)].map(Input::Event));
    // 750 jiffies and the wheel's 64 are 3.26 s; a second is for the softirq.
    feed(&mut engine, [Input::Tick { at: 5 * SECOND + SECOND / 4 }]);
    assert!(!engine.has_doubts());
    feed(&mut engine, [Input::Tick { at: 5 * SECOND + SECOND / 2 }]);
    assert!(engine.has_doubts());
    let at = 6 * SECOND;
    feed(&mut engine, [Input::InventoryBegins { at }, Input::Inventory(empty_dump(at))]);
    assert_eq!((engine.loss().vanished, engine.open_in(State::FinWait2)), (1, 1));
    // The other one has time left, and one dump may have passed over it.
    assert!(engine.has_doubts());
    let at = 7 * SECOND;
    feed(&mut engine, [Input::InventoryBegins { at }, Input::Inventory(empty_dump(at))]);
    assert_eq!((engine.loss().vanished, engine.open_in(State::FinWait2)), (2, 0));
    assert!(!engine.has_doubts());
}

#[test]
fn sockets_are_known_until_something_is_lost_and_while_there_is_room() {
    let mut engine = engine();
    assert!(engine.knows_every_socket());
    feed(&mut engine, [Input::Loss(KernelLoss { ring_full: 1, skipped_runs: 0 })]);
    assert!(!engine.knows_every_socket());
    feed(&mut engine, [Input::InventoryBegins { at: 2 * SECOND }, Input::Inventory(empty_dump(2 * SECOND))]);
    assert!(engine.knows_every_socket());

    let limits = Limits { minis: 1, ..Limits::default() };
    let mut engine = Engine::new(Meta::default(), Filter::default(), None, limits);
    feed(&mut engine, [Input::Event(mini(SECOND, 1))]);
    assert!(engine.knows_every_socket());
    feed(&mut engine, [Input::Event(mini(SECOND, 2))]);
    assert!(!engine.knows_every_socket());
}
