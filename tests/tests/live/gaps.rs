//! What the kernel did not tell, and did not count either: nobody knows how to make a kernel do that on purpose, so
//! the events of a real mini's end are kept from the engine, and the rest is real: the others, the timers, the dump.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tcptrace::engine::{Engine, Inventory};
use tcptrace::event::Event;
use tcptrace::filter::{Detail, Filter, StateSet, tells_every_end};
use tcptrace::inventory::namespaces;
use tcptrace::kernel::{Tracer, TracerOptions};
use tcptrace::loss::Loss;
use tcptrace::net::State;
use tcptrace::outcome::Outcome;
use tcptrace::sandbox::Sandbox;
use tcptrace::snapshot::Meta;
use tcptrace::tracker::Limits;
use tests::clock::{now_ns, sleep_ms};
use tests::sockets::{Flavour, Meeting};
use tests::trial::live;
use tests::truth;

const ORPHANS: usize = 5;
const SWALLOWED: usize = 2;

pub fn trials() -> Vec<Trial> {
    vec![live("ends_that_were_not_told_are_loss", ends_not_told)]
}

fn ends_not_told(sandbox: &Sandbox) -> Result<()> {
    sandbox.set_sysctl("net.ipv4.tcp_fin_timeout", "3")?;
    // The tracer reads its ring in a runtime of the calling thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(with_swallowed_ends(sandbox.netns()))
}

async fn with_swallowed_ends(netns: u32) -> Result<()> {
    let filter = Filter::default().kernel_part(StateSet::ALL, Detail::Transitions);
    let options =
        TracerOptions { filter: tcptrace_common::Filter { netns, ..filter }, ..TracerOptions::default() };
    let mut tracer = Tracer::start(&options)?;
    let meta = Meta { hz: tracer.hz(), ..Meta::default() };
    let mut engine = Engine::new(meta, Filter::default(), None, Limits::default());
    engine.expect_every_end(tells_every_end(&options.filter.transitions));
    engine.begin(now_ns());
    look(&mut engine, netns)?;

    let meeting = Meeting::new(Flavour::V4)?;
    let mut held = Vec::new();
    for _ in 0..ORPHANS {
        let pair = meeting.pair()?;
        drop(pair.client);
        held.push((pair.client_addr.port(), pair.server));
    }
    let swallowed: Vec<u16> = held.iter().take(SWALLOWED).map(|&(port, _)| port).collect();
    let mut of_swallowed = Vec::new();
    let mut ended = 0;
    let deadline = now_ns() + 60_000_000_000;
    // An end that was not told shows by the timer, which ran out a second ago at least.
    while !engine.has_doubts() {
        ensure!(now_ns() < deadline, "nothing is doubted: {:?}", engine.loss());
        let at = now_ns();
        let batch = tracer.next_batch(Duration::from_millis(50), |events| {
            for event in events {
                match event {
                    Event::MiniCancelled(timer) if swallowed.contains(&timer.flow.local_port) => {
                        of_swallowed.push(timer.mini);
                    }
                    Event::MiniExpired(expired) if of_swallowed.contains(&expired.mini) => {}
                    event => engine.event(event, |outcome| ended += usize::from(is_end_of_orphan(outcome))),
                }
            }
        });
        if !batch.await?.more {
            engine.tick(at, |_| {});
        }
    }
    ensure!(truth::count(truth::state::FIN_WAIT2)? == 0, "the kernel still has orphans");
    ensure!(engine.loss() == Loss::default(), "{:?}", engine.loss());
    ensure!(engine.open_in(State::FinWait2) == (ORPHANS - ended) as u64, "{ended} ended");
    sleep_ms(1);
    look(&mut engine, netns)?;
    ensure!(engine.open_in(State::FinWait2) == 0, "given up, because the kernel does not have them");
    ensure!(engine.loss().vanished == (ORPHANS - ended) as u64, "{:?}, {ended} ended", engine.loss());
    // Where a kernel really keeps something back, it is more.
    ensure!(ended <= ORPHANS - SWALLOWED && engine.loss().any(), "{ended} ended");
    drop(held);
    Ok(())
}

fn is_end_of_orphan(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Transition(step) if step.from == State::FinWait2 && step.to == State::Close)
}

fn look(engine: &mut Engine, netns: u32) -> Result<()> {
    engine.inventory_begins(now_ns());
    let found = namespaces::all()?.only(&[netns]);
    let dump = tcptrace::inventory::dump_these(&found.list, StateSet::ALL)?;
    ensure!(dump.namespaces == [netns], "{:?}", dump.notes);
    engine.inventory(&Inventory { dump, owners: Vec::new() }, |_| {});
    Ok(())
}
