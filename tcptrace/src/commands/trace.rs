//! What every command that traces sets up the same way.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::Arc;

use crate::engine::Engine;
use crate::filter::{Detail, Filter, Resolver as _, StateSet};
use crate::inventory::cgroup::Cgroups;
use crate::inventory::clock;
use crate::inventory::sysctl::Sysctls;
use crate::kernel::{TracerOptions, hz};
use crate::live;
use crate::loss::Loss;
use crate::settings::{System, Tracing};
use crate::snapshot::{KeyKind, Meta, Snapshot, WallClock};
use crate::tracker::Limits;
use crate::views::human;

use super::Exit;

/// States that a connection passes through while it ends: what the tool is for, and what is traced when no
/// `--state` says otherwise.
pub const CLOSING_STATES: [crate::net::State; 6] = {
    use crate::net::State::{CloseWait, Closing, FinWait1, FinWait2, LastAck, TimeWait};
    [FinWait1, FinWait2, TimeWait, CloseWait, LastAck, Closing]
};

/// An engine for the running kernel.
#[must_use]
pub fn engine(filter: &Filter, by: Option<KeyKind>) -> Engine {
    Engine::new(live_meta(filter), filter.clone(), by, Limits::default())
}

/// What is known about this host before tracing begins.
fn live_meta(filter: &Filter) -> Meta {
    let uname = rustix::system::uname();
    let namespaces: Vec<u32> = filter.namespaces.iter().map(|netns| netns.inode).collect();
    let text = |text: &std::ffi::CStr| crate::text::escape(text.to_bytes()).into_owned();
    Meta {
        wall: WallClock { offset_ns: clock::realtime_offset_ns() },
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: Some(text(uname.nodename())),
        kernel: Some(text(uname.release())),
        hz: hz::hz(),
        sysctls: Sysctls::of_namespaces(&namespaces).iter().map(Sysctls::for_snapshot).collect(),
        filters: filter.to_string(),
        ..Meta::default()
    }
}

/// Names the containers of cgroups by asking the running system: at once, and again for what is not known then.
pub fn live_containers() -> impl Fn(u64) -> Option<String> {
    let mut cgroups = Cgroups::new();
    cgroups.learn_all();
    let cgroups = RefCell::new(cgroups);
    move |id| {
        let workload = cgroups.borrow_mut().workload(id, clock::monotonic_ns())?;
        workload.container.as_ref().map(|container| container.id.clone())
    }
}

/// What the live loop is told: `wanted` are the states that the command is about, and `detail` is what it tells
/// of them.
#[must_use]
pub fn options(filter: &Filter, wanted: StateSet, detail: Detail, tracing: &Tracing) -> live::Options {
    live::Options {
        tracer: TracerOptions {
            filter: filter.kernel_part(wanted, detail),
            ring_bytes: tracing.ring_bytes,
            ..TracerOptions::default()
        },
        namespaces: filter.namespaces.iter().map(|netns| netns.inode).collect(),
        duration: tracing.duration,
        tick: live::PROMPT_TICK,
        wake: Arc::default(),
        forward_signals_to: None,
        has_children: false,
    }
}

/// Wanted processes and containers that are no longer there, in words. That of a namespace a dump notes itself.
#[must_use]
pub fn gone(filter: &Filter) -> Vec<String> {
    let pids = filter.pids.iter().filter(|&&pid| System.pid(pid).is_err());
    let containers =
        filter.containers.iter().filter(|container| System.container(&container.wanted).is_err());
    pids.map(|pid| format!("process {pid} is no longer there"))
        .chain(containers.map(|container| format!("container {} is no longer there", container.wanted)))
        .collect()
}

/// To be called at the end of a trace: notes what of the filter has vanished meanwhile.
pub fn note_gone(engine: &mut Engine, filter: &Filter) {
    gone(filter).into_iter().for_each(|note| engine.note(note));
}

/// How a trace that ran to its end exits.
#[must_use]
pub fn exit(engine: &Engine, tracing: &Tracing) -> Exit {
    exit_after(&engine.loss(), tracing)
}

/// The same where only the loss is left of it.
#[must_use]
pub fn exit_after(loss: &Loss, tracing: &Tracing) -> Exit {
    if tracing.fail_on_loss && loss.any() { Exit::Loss } else { Exit::Done }
}

/// One paragraph on standard error at the end of a trace whose lines went to standard output.
pub fn write_summary(snapshot: &Snapshot, notes: &[String]) -> std::io::Result<()> {
    let mut err = anstream::stderr().lock();
    let Snapshot { meta, loss, .. } = snapshot;
    writeln!(
        err,
        "{} in {}, {}",
        human::counted(meta.events, "event"),
        human::duration(meta.elapsed_ns()),
        human::counted(meta.connections, "connection"),
    )?;
    if loss.any() {
        writeln!(
            err,
            "LOST: {} without room in the ring, {} skipped runs, {} connections without room in the tables, \
             {} gaps that nobody counted; {} of all events were seen",
            human::count(loss.ring_full),
            human::count(loss.skipped_runs),
            human::count(loss.table_full),
            human::count(loss.vanished),
            human::percent(meta.events, loss.told(meta.events))
        )?;
    }
    snapshot.skipped.iter().try_for_each(|hook| writeln!(err, "not traced: {}: {}", hook.name, hook.why))?;
    drop(err);
    write_notes(notes)
}

/// What could not be seen, on standard error, for outputs that have no place for it.
pub fn write_notes(notes: &[String]) -> std::io::Result<()> {
    let mut err = anstream::stderr().lock();
    notes.iter().try_for_each(|note| writeln!(err, "note: {note}"))
}
