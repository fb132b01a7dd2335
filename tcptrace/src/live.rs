//! The live loop: ring, ticks, signals, seeding, reconciliation after loss. Concludes nothing itself: what it
//! receives goes into the [`Engine`], and what comes out to the command's [`Handler`].

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::decode::StackSample;
use crate::engine::{Engine, Input, Inventory, KernelLoss};
use crate::event::{Event, MonoNs};
use crate::filter::tells_every_end;
use crate::inventory::diag::{Dump, StateSet};
use crate::inventory::worker::{Answer, Worker};
use crate::inventory::{self, clock, namespaces, owners};
use crate::kernel::confine::{Allow, confine};
use crate::kernel::privileges::Host;
use crate::kernel::{Tracer, TracerOptions};
use crate::outcome::Outcome;
use crate::snapshot::{Program, SkippedHook};

/// How long an event waits in the ring at most where a person or a program reads along, when too few come to
/// wake the reader.
pub const PROMPT_TICK: Duration = Duration::from_millis(100);
/// The same where only the end counts: fewer wake-ups of an idle host.
pub const LAZY_TICK: Duration = Duration::from_millis(400);
/// The same once nothing has happened for [`QUIET_AFTER`]: the first event after that wakes the reader (`ring.rs` of the
/// programs), so that no event waits longer for it, and an idle host is left alone.
const IDLE_TICK: Duration = Duration::from_millis(500);
/// How long nothing has to have happened for that: twice what the programs take for a quiet time, so that whatever comes
/// to a reader that rests does wake it.
const QUIET_AFTER: Duration = Duration::from_secs(2);
/// How often the loss counters are read. Each reading costs a few system calls.
const LOSS_EVERY: Duration = Duration::from_millis(500);
/// Dumps after loss are at least this far apart: on a host that loses events all the time they must not become
/// the load.
const RESYNC_EVERY: Duration = Duration::from_secs(2);

/// How often everything open is looked through for what should have ended long ago.
const DOUBT_EVERY: Duration = Duration::from_secs(30);

/// What a dump is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DumpOf {
    /// Which sockets there are.
    Sockets,
    /// And who holds them: by far the dearer part, for it reads every descriptor of every process.
    Holders,
}

/// What a command does with what comes in.
pub trait Handler {
    /// Here is the thread that may ask the system while tracing: the calling one is about to lose what that
    /// takes.
    fn inventory(&mut self, _worker: &Worker) -> anyhow::Result<()> {
        Ok(())
    }

    /// Tracing has begun: programs are attached.
    fn started(&mut self, _engine: &Engine) -> anyhow::Result<()> {
        Ok(())
    }

    /// A raw event, before the engine gets it.
    fn event(&mut self, _event: &Event) {}

    /// Anything else that the engine is about to be fed: with the events and in their order, this is all that
    /// a recording needs.
    fn input(&mut self, _input: &Input) -> anyhow::Result<()> {
        Ok(())
    }

    /// A user stack, with `--stacks`. May come before or after the event that it belongs to.
    fn stack(&mut self, _stack: &StackSample<'_>) {}

    /// Something was concluded, and the filter wants it.
    fn outcome(&mut self, _outcome: &Outcome) {}

    /// Whether what is open shall be compared with a dump now. Some FIN_WAIT2 minis turn into TIME_WAIT without
    /// any event: a view of what is open should follow a dump. Asked twice a second.
    fn wants_dump(&mut self) -> Option<DumpOf> {
        None
    }

    /// After each batch of events, when [`Options::wake`] is notified, and at least every [`Options::tick`], or twice a
    /// second while nothing happens.
    /// `Break` ends the trace.
    fn turn(&mut self, _engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }
}

/// What to trace, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the kernel side is told.
    pub tracer: TracerOptions,
    /// Network namespaces to dump; empty for all.
    pub namespaces: Vec<u32>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// The longest between two calls of [`Handler::turn`].
    pub tick: Duration,
    /// Asks for a call of [`Handler::turn`] at once: a key was pressed, a client waits.
    pub wake: Arc<Notify>,
    /// SIGINT, SIGTERM and SIGHUP go to this process instead of ending the trace.
    pub forward_signals_to: Option<Pid>,
    /// There are processes to be ended afterwards.
    pub has_children: bool,
}

/// Why a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Its time was over.
    Duration,
    /// SIGINT, SIGTERM or SIGHUP.
    Signal,
    /// The handler had enough.
    Handler,
}

/// A dump that is being taken on the inventory thread.
type Dumping = Answer<anyhow::Result<Inventory>>;

/// Traces until something ends it, and leaves `engine` with everything that was learned.
///
/// # Errors
/// When tracing cannot start, when the ring fails, or with whatever error the handler returns.
pub async fn run(
    options: &Options,
    engine: &mut Engine,
    handler: &mut impl Handler,
) -> anyhow::Result<EndedBy> {
    // Before anything is attached, so that no signal finds the program half way.
    let mut signals = Signals::new()?;
    let mut tracer = Tracer::start(&options.tracer)?;
    // Each thread has capabilities of its own: this one keeps those that dumps take.
    let worker = Worker::inventory()?;
    handler.inventory(&worker)?;
    // Before any other thread is started.
    let signals_others = options.has_children || options.forward_signals_to.is_some();
    let allow = Allow { signals: signals_others, ..Allow::default() };
    let confined =
        confine(&Host::look().needed_while_tracing(), allow).context("cannot give up privileges")?;
    engine.begin(clock::monotonic_ns());
    if !confined.filtered {
        engine.note(
            "system calls cannot be filtered here: what uid 0 may do without capabilities is kept".to_owned(),
        );
    }
    engine.expect_every_end(tells_every_end(&options.tracer.filter.transitions));
    tell_programs(engine, &tracer)?;
    handler.started(engine)?;
    let started = Instant::now();
    let deadline = options.duration.map(|duration| started + duration);
    let mut dumping = Some(begin_dump(engine, options, &worker, handler, DumpOf::Holders)?);
    let (mut loss_read, mut last_dump, mut doubted, mut last_event) = (started, started, started, started);
    let ended_by = loop {
        let now = Instant::now();
        // Read before the ring is: what is expired must not be later than the last event that was fed.
        let at = clock::monotonic_ns();
        if deadline.is_some_and(|deadline| now >= deadline) {
            break EndedBy::Duration;
        }
        let is_quiet = now - last_event >= QUIET_AFTER;
        let tick = if is_quiet { options.tick.max(IDLE_TICK) } else { options.tick };
        let wait = deadline.map_or(tick, |deadline| tick.min(deadline - now));
        let batch = tokio::select! {
            biased;
            signal = signals.any() => {
                let Some(process) = options.forward_signals_to else { break EndedBy::Signal };
                pass_on(signal, process);
                tracer.next_batch(Duration::ZERO, |events| feed(engine, handler, events)).await
            }
            () = options.wake.notified() => tracer.next_batch(Duration::ZERO, |events| feed(engine, handler, events)).await,
            batch = tracer.next_batch(wait, |events| feed(engine, handler, events)) => batch,
        };
        let batch = batch.context("cannot read the ring buffer")?;
        if batch.events > 0 {
            last_event = now;
        }
        while tracer.drain_stacks(|stack| handler.stack(&stack)) {}
        if !batch.more {
            engine.tick(at, |outcome| handler.outcome(outcome));
            // The ring is empty: every event from before the end of the dump has been fed.
            if dumping.as_ref().is_some_and(Answer::is_ready)
                && let Some(dump) = dumping.take()
            {
                let is_whole = finish_dump(engine, handler, dump).await?;
                tracer.leave_out_what_minis_tell(is_whole && engine.knows_every_socket());
            }
        }
        if now - loss_read >= LOSS_EVERY {
            loss_read = now;
            match read_loss(engine, &tracer, handler) {
                // That passes, and the counters go on counting: whatever was lost is told by the next reading.
                Err(error) if is_for_want_of_descriptors(&error) => {}
                read => read?,
            }
            if !engine.knows_every_socket() {
                tracer.leave_out_what_minis_tell(false);
            }
            if dumping.is_none() && now - last_dump >= RESYNC_EVERY {
                let mending = engine.needs_resync().then_some(DumpOf::Holders);
                let mut doubt = None;
                if now - doubted >= DOUBT_EVERY {
                    doubted = now;
                    doubt = engine.has_doubts().then_some(DumpOf::Sockets);
                }
                if let Some(of) = mending.max(doubt).max(handler.wants_dump()) {
                    last_dump = now;
                    dumping = Some(begin_dump(engine, options, &worker, handler, of)?);
                }
            }
        }
        if handler.turn(engine)?.is_break() {
            break EndedBy::Handler;
        }
    };
    let dump = match dumping {
        Some(dump) => dump,
        None => begin_dump(engine, options, &worker, handler, DumpOf::Sockets)?,
    };
    let mut end = last_dump_and_events(engine, &mut tracer, handler, dump).await?;
    if engine.has_doubts() {
        // One dump alone may have passed over what it does not show.
        let dump = begin_dump(engine, options, &worker, handler, DumpOf::Sockets)?;
        end = last_dump_and_events(engine, &mut tracer, handler, dump).await?;
    }
    finish(engine, &mut tracer, handler, end)?;
    Ok(ended_by)
}

/// Feeds what still waits in the ring, and a last dump: it shows the TIME_WAITs that began in silence, which would be
/// given as open FIN_WAIT2s otherwise (see [`crate::tracker`]). Says when that was.
async fn last_dump_and_events(
    engine: &mut Engine,
    tracer: &mut Tracer,
    handler: &mut impl Handler,
    dump: Dumping,
) -> anyhow::Result<MonoNs> {
    let patience = Instant::now() + LAST_DUMP_PATIENCE;
    while !dump.is_ready() && Instant::now() < patience {
        let batch = tracer.next_batch(LAST_DUMP_POLL, |events| feed(engine, handler, events));
        batch.await.context("cannot read the ring buffer")?;
    }
    let end = clock::monotonic_ns();
    // Bounded: events after the end are read, too, while others keep writing.
    for _ in 0..MAX_FINAL_BATCHES {
        let batch = tracer.next_batch(Duration::ZERO, |events| {
            for event in events.iter().filter(|event| event.at() <= end) {
                feed(engine, handler, std::slice::from_ref(event));
            }
        });
        if !batch.await.context("cannot read the ring buffer")?.more {
            break;
        }
    }
    if dump.is_ready() {
        finish_dump(engine, handler, dump).await?;
    } else {
        engine.note("the last look at the open sockets took too long and was given up".to_owned());
    }
    Ok(end)
}

/// Reads the loss a last time, and concludes.
fn finish(
    engine: &mut Engine,
    tracer: &mut Tracer,
    handler: &mut impl Handler,
    end: MonoNs,
) -> anyhow::Result<()> {
    while tracer.drain_stacks(|stack| handler.stack(&stack)) {}
    read_loss(engine, tracer, handler)?;
    supply(engine, handler, &Input::Tick { at: end })?;
    engine.finish(|outcome| handler.outcome(outcome));
    tell_programs(engine, tracer)
}

fn tell_programs(engine: &mut Engine, tracer: &Tracer) -> anyhow::Result<()> {
    let programs = tracer.programs().context("cannot ask the kernel about the BPF programs")?;
    let programs =
        programs.iter().map(|program| Program { name: program.name.to_owned(), runs: program.runs });
    let skipped = tracer.skipped_hooks().iter();
    let skipped = skipped.map(|hook| SkippedHook { name: hook.name.to_owned(), why: hook.why.clone() });
    engine.set_programs(programs.collect(), skipped.collect());
    Ok(())
}

/// How long the end of a trace waits for the last dump: a million sockets take half a second.
const LAST_DUMP_PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks whether the dump has come.
const LAST_DUMP_POLL: Duration = Duration::from_millis(5);
/// Batches read at most after the end: far more than a full ring holds.
const MAX_FINAL_BATCHES: usize = 1 << 12;

fn feed(engine: &mut Engine, handler: &mut impl Handler, events: &[Event]) {
    engine.fetch(events);
    for event in events {
        handler.event(event);
        engine.event(event, |outcome| handler.outcome(outcome));
    }
}

/// Feeds anything but an event.
fn supply(engine: &mut Engine, handler: &mut impl Handler, input: &Input) -> anyhow::Result<()> {
    handler.input(input)?;
    engine.feed(input, |outcome| handler.outcome(outcome));
    Ok(())
}

fn begin_dump(
    engine: &mut Engine,
    options: &Options,
    worker: &Worker,
    handler: &mut impl Handler,
    of: DumpOf,
) -> anyhow::Result<Dumping> {
    supply(engine, handler, &Input::InventoryBegins { at: clock::monotonic_ns() })?;
    let namespaces = options.namespaces.clone();
    Ok(worker.ask(move || take_inventory(&namespaces, of)))
}

/// Every socket of these namespaces (of all, where none is named) and, where asked for, one holder of each.
fn take_inventory(wanted: &[u32], of: DumpOf) -> anyhow::Result<Inventory> {
    let found = namespaces::all()?.only(wanted);
    let mut dump = inventory::dump_these(&found.list, StateSet::ALL)?;
    dump.notes.extend(found.notes);
    let mut owners = Vec::new();
    if of == DumpOf::Holders {
        owners.extend(owners::of_dump(&mut dump));
    }
    owners.sort_unstable_by_key(|&(inode, _)| inode);
    Ok(Inventory { dump, owners })
}

/// Feeds a dump; false when it failed.
async fn finish_dump(engine: &mut Engine, handler: &mut impl Handler, dump: Dumping) -> anyhow::Result<bool> {
    let (inventory, is_whole) = match dump.await? {
        Ok(inventory) => (inventory, true),
        // Without the dump the figures of new connections are as true as with it.
        Err(error) => {
            let why = format!("sockets older than the trace are not shown: the dump failed: {error:#}");
            let dump = Dump { notes: vec![why], ..Dump::default() };
            (Inventory { dump, ..Inventory::default() }, false)
        }
    };
    supply(engine, handler, &Input::Inventory(inventory))?;
    Ok(is_whole)
}

fn read_loss(engine: &mut Engine, tracer: &Tracer, handler: &mut impl Handler) -> anyhow::Result<()> {
    let loss = tracer.loss().context("cannot read the loss counters")?;
    let loss = KernelLoss { ring_full: loss.ring_full, skipped_runs: loss.skipped_runs };
    // Only news is news: a recording shall not fill with zeros.
    if loss.ring_full != engine.kernel_loss().ring_full {
        let lost = tracer.lost_transitions().context("cannot read the counters of lost transitions")?;
        engine.set_lost_transitions(lost);
    }
    if loss != engine.kernel_loss() || engine.has_unsettled_gaps() {
        supply(engine, handler, &Input::Loss(loss))?;
    }
    Ok(())
}

/// Reading a map that has a value for each CPU takes a file of /sys (how many CPUs there may be), and a host where
/// something leaks descriptors may have none left: of all hosts one that is to be traced.
fn is_for_want_of_descriptors(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    matches!(errno, Some(libc::EMFILE | libc::ENFILE))
}

/// The signals that end a trace in good order.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn any(&mut self) -> rustix::process::Signal {
        use rustix::process::Signal;
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

/// A terminal sends SIGINT and SIGHUP to its whole foreground process group: the process has them already.
fn pass_on(signal: rustix::process::Signal, process: Pid) {
    let has_terminal = std::fs::File::open("/dev/tty").is_ok();
    if signal == rustix::process::Signal::TERM || !has_terminal {
        // It may have ended meanwhile; or it has become another user's, which takes CAP_KILL.
        if let Err(error) = rustix::process::kill_process(process, signal)
            && error != rustix::io::Errno::SRCH
        {
            eprintln!("tcptrace: warning: cannot pass a signal on to the command: {error}");
        }
    }
}
