//! The façade: start, read events, ask what was lost.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use aya_log::EbpfLogger;
use tcptrace_common::config::TAKEOVER_S;
use tcptrace_common::{Config, Filter, Offsets};

use super::counters::{self, Counters, ProgramCounts};
use super::error::StartError;
use super::hz;
use super::load::{self, Loaded, Plan, SkippedHook};
use super::offsets::Layout;
use super::privileges::{Host, NO_MEMLOCK};
use super::ring::Ring;
use super::symbols;
use super::word::SharedWord;
use crate::decode::{self, DecodeError, StackSample};
use crate::event::Event;
use crate::loss::Loss;
use crate::snapshot::TransitionCount;

/// Most events that are handed out together: so many are decoded before the first of them is used. Fewer leave less time
/// for what they will look at to come from memory.
pub const EVENTS_AT_ONCE: usize = 128;

/// What to trace and with how much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracerOptions {
    /// What the programs leave out in the kernel.
    pub filter: Filter,
    /// Size of the event ring in bytes; rounded up to a power of two of pages, 4 KiB to 1 GiB.
    pub ring_bytes: u32,
    /// The programs wake the reader when at least so many bytes wait, or an eighth of the ring, at most once a
    /// millisecond for each CPU. 0 wakes at every event, which costs more than all else.
    pub wakeup_bytes: u32,
    /// Trace minis: the truth about TIME_WAIT and orphaned FIN_WAIT2. Takes the address of tw_timer_handler.
    pub timers: bool,
    /// Use programs at typed tracepoints where the kernel takes them; what they tell is the same.
    pub typed: bool,
    /// Trace end of file told to applications, where the kernel has `sock_recv_length` (6.5).
    pub eof: bool,
    /// Take the user stack at end of file and at connect(), where the kernel allows; implies `eof`.
    pub stacks: bool,
}

impl Default for TracerOptions {
    fn default() -> Self {
        Self {
            filter: Filter::ALL,
            // 80,000 events: 100 ms, the longest that the reader sleeps, at 800,000 events a second, several
            // times what loopback connections on two cores can make.
            ring_bytes: 8 << 20,
            // Some 9,000 events. A batch of 600 costs a fifth more an event, as the reader finds nothing in the caches that
            // the traced load has used meanwhile.
            wakeup_bytes: 1 << 20,
            timers: true,
            typed: true,
            eof: false,
            stacks: false,
        }
    }
}

/// What one call of [`Tracer::next_batch`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchInfo {
    /// Events handed out.
    pub events: usize,
    /// Records that could not be understood; in [`Tracer::loss`] as well.
    pub undecodable: usize,
    /// The ring holds more: call again at once.
    pub more: bool,
}

/// One attached program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Its name.
    pub name: &'static str,
    /// How often it ran; `None` while the kernel does not count (kernel.bpf_stats_enabled).
    pub runs: Option<u64>,
    /// Nanoseconds spent in it, the statistics' own clock reads included; `None` as `runs`.
    pub run_time_ns: Option<u64>,
    /// Runs that the kernel skipped because the program would have interrupted itself.
    pub skipped_runs: u64,
}

/// The attached programs and their rings. Dropping it detaches them.
pub struct Tracer {
    events: Ring,
    stacks: Option<Ring>,
    counters: PerCpuArray<MapData, u64>,
    lost_transitions: PerCpuArray<MapData, u64>,
    reader_knows: SharedWord,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    programs: Vec<&'static str>,
    skipped: Vec<SkippedHook>,
    layout: Layout,
    hz: Option<u32>,
    undecodable: u64,
    first_undecodable: Option<DecodeError>,
    /// Empty between two calls; kept for its memory.
    decoded: Vec<Event>,
    /// Holds programs and links; last, so that the rings go first.
    bpf: Ebpf,
}

impl Tracer {
    /// Checks privileges, learns the kernel's layout, loads and attaches. To be called in a tokio runtime with
    /// I/O and time enabled, which is where the rings are waited for.
    ///
    /// # Errors
    /// When something is missing or refused; [`StartError::advice`] says what to do.
    pub fn start(options: &TracerOptions) -> Result<Self, StartError> {
        let host = Host::look();
        let missing = host.missing(options.timers);
        if !missing.is_empty() {
            return Err(StartError::Missing(missing));
        }
        let loader = load::Loader::begin();
        let layout = Layout::of_running_kernel()?;
        // An address that no timer has, where minis are not traced.
        let tw_timer_handler = if options.timers { symbols::tw_timer_handler()? } else { 0 };
        if host.older_than(NO_MEMLOCK) {
            load::lift_memlock();
        }
        let config = Config {
            tw_timer_handler,
            wakeup_bytes: options.wakeup_bytes.min(options.ring_bytes / 8).into(),
            thread_size: u64::from(layout.thread_size),
            takeover_jiffies: hz::jiffies(TAKEOVER_S),
            offsets: layout.offsets,
            filter: options.filter,
            stacks: options.stacks.into(),
        };
        let plan = Plan {
            ring_bytes: options.ring_bytes,
            timers: options.timers,
            typed: options.typed.then_some(layout.tracepoints),
            eof: options.eof,
            stacks: options.stacks,
        };
        Self::attach(load::load(&mut loader.ready(), load::OBJECT, &config, &plan)?, layout)
    }

    fn attach(loaded: Loaded, layout: Layout) -> Result<Self, StartError> {
        let Loaded { bpf, events, stacks, counters, lost_transitions, reader_knows, log, programs, skipped } =
            loaded;
        Ok(Self {
            events: Ring::new(events).map_err(StartError::Ring)?,
            stacks: stacks.map(Ring::new).transpose().map_err(StartError::Ring)?,
            counters,
            lost_transitions,
            reader_knows,
            log,
            programs,
            skipped,
            layout,
            hz: hz::hz(),
            undecodable: 0,
            first_undecodable: None,
            decoded: Vec::with_capacity(EVENTS_AT_ONCE),
            bpf,
        })
    }

    /// Waits until the programs ask to be read or `max_wait` has passed, then hands out a bounded batch of
    /// events in the order of the ring, at most [`EVENTS_AT_ONCE`] at a time. Allocates nothing. Can be cancelled without
    /// loss.
    ///
    /// # Errors
    /// When the ring can no longer be waited for.
    pub async fn next_batch(
        &mut self,
        max_wait: Duration,
        mut on_events: impl FnMut(&[Event]),
    ) -> io::Result<BatchInfo> {
        let mut info = BatchInfo::default();
        let mut first_error = None;
        let decoded = &mut self.decoded;
        let mut hand_out = |decoded: &mut Vec<Event>| {
            info.events += decoded.len();
            on_events(decoded);
            decoded.clear();
        };
        let drained = self.events.next_batch(max_wait, |record| match decode::event(record) {
            Ok(event) => {
                decoded.push(event);
                if decoded.len() == EVENTS_AT_ONCE {
                    hand_out(decoded);
                }
            }
            Err(error) => {
                info.undecodable += 1;
                first_error.get_or_insert(error);
            }
        });
        let more = drained.await?.more;
        if !decoded.is_empty() {
            hand_out(decoded);
        }
        info.more = more;
        self.note_undecodable(info.undecodable, first_error);
        if let Some(log) = &mut self.log {
            log.flush();
        }
        Ok(info)
    }

    /// Hands out the stacks that wait, a bounded batch without waiting; true when there are more. Stacks
    /// belong to events by `sk` and `at` and may come before or after them.
    pub fn drain_stacks(&mut self, mut on_stack: impl FnMut(StackSample<'_>)) -> bool {
        let Some(ring) = &mut self.stacks else { return false };
        let mut undecodable = 0;
        let mut first_error = None;
        let drained = ring.drain(|record| match decode::stack(record) {
            Ok(sample) => on_stack(sample),
            Err(error) => {
                undecodable += 1;
                first_error.get_or_insert(error);
            }
        });
        self.note_undecodable(undecodable, first_error);
        drained.more
    }

    /// Says whether whoever gets the events knows every socket and misses no event: then the programs leave out the CLOSE
    /// that follows on FIN_WAIT2 where a mini has begun, as [`Tracker`](crate::tracker::Tracker) takes that from the mini. At
    /// the start they tell all.
    pub fn leave_out_what_minis_tell(&mut self, yes: bool) {
        self.reader_knows.set(yes.into());
    }

    fn note_undecodable(&mut self, count: usize, first: Option<DecodeError>) {
        self.undecodable += count as u64;
        if self.first_undecodable.is_none() {
            self.first_undecodable = first;
        }
    }

    /// What the kernel side lost since the start: the part of [`Loss`] that this knows; `table_full` and
    /// `resyncs` are 0.
    ///
    /// # Errors
    /// When the kernel does not tell, which must not be taken for no loss.
    pub fn loss(&self) -> io::Result<Loss> {
        let counters = self.counters()?;
        let mut skipped_runs = 0;
        for (name, counts) in self.program_counts() {
            // The stacks of connect() and of sends are taken in process context, which copies much and is then
            // interrupted by softirqs: the run that is skipped would have had nothing to do.
            if ![load::CONNECT_STACK_NAME, load::SEND_STACK_NAME].contains(&name) {
                skipped_runs += counts?.recursion_misses;
            }
        }
        Ok(Loss {
            ring_full: counters.ring_full + counters.read_failed + self.undecodable,
            skipped_runs,
            ..Loss::default()
        })
    }

    /// The transitions of full sockets that found no room in the ring, by kind: exact, whatever became of the events.
    /// Asks for each kind, so it is for when something was lost.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn lost_transitions(&self) -> io::Result<Vec<TransitionCount>> {
        counters::lost_transitions(&self.lost_transitions)
    }

    /// The programs' own counters.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn counters(&self) -> io::Result<Counters> {
        Counters::read(&self.counters)
    }

    /// The attached programs and how often they ran.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn programs(&self) -> io::Result<Vec<ProgramStats>> {
        let enabled = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled");
        let enabled = enabled.is_ok_and(|text| text.trim() == "1");
        self.program_counts()
            .map(|(name, counts)| {
                let counts = counts?;
                // Counting can also be on without the sysctl, while some process holds BPF_ENABLE_STATS.
                let counted = enabled || counts.run_count > 0;
                Ok(ProgramStats {
                    name,
                    runs: counted.then_some(counts.run_count),
                    run_time_ns: counted.then_some(counts.run_time_ns),
                    skipped_runs: counts.recursion_misses,
                })
            })
            .collect()
    }

    fn program_counts(&self) -> impl Iterator<Item = (&'static str, io::Result<ProgramCounts>)> {
        self.programs.iter().map(|&name| {
            let program = self.bpf.program(name).and_then(|program| program.fd().ok());
            let counts = program.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
            (name, counts.and_then(|fd| ProgramCounts::read(fd.as_fd())))
        })
    }

    /// Hooks that were asked for and that this kernel does not take.
    #[must_use]
    pub fn skipped_hooks(&self) -> &[SkippedHook] {
        &self.skipped
    }

    /// Why the first record that could not be understood could not.
    #[must_use]
    pub fn first_undecodable(&self) -> Option<DecodeError> {
        self.first_undecodable
    }

    /// Member offsets of the running kernel.
    #[must_use]
    pub fn offsets(&self) -> &Offsets {
        &self.layout.offsets
    }

    /// Jiffies per second of the running kernel.
    #[must_use]
    pub fn hz(&self) -> Option<u32> {
        self.hz
    }
}

#[cfg(test)]
#[path = "tracer_tests.rs"]
mod tests;
