//! Stacks resolved on a thread of their own: reading other people's files can take as long as a disk, or a
//! FUSE file system, likes, and must not hold up the reader of the rings.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use caps::{Capability, CapsHashSet};
use rustc_hash::FxHashMap;

use super::resolver::{Limits, Stacks};
use super::stack::{Note, Stack};
use crate::decode::{StackReason, StackSample};
use crate::event::MonoNs;
use crate::kernel::confine::{Allow, confine};

/// Samples that wait for the worker, 16 KiB each: 4 MiB. More are dropped and counted.
const WAITING: usize = 256;

/// Results that wait to be taken; the worker pauses when there are more.
const RESULTS: usize = 4096;

/// Processes that are not looked at again because a file of theirs could not be parsed.
const MAX_GIVEN_UP: usize = 256;

/// What the worker's thread keeps: to read /proc/PID/{maps,mem,auxv} (`ptrace_may_access`), to open the files
/// of other users, and to follow /proc/PID/map_files (`proc_map_files_follow_link`; before 5.9 that took
/// CAP_SYS_ADMIN, and the path in the process's root is used instead).
pub const CAPABILITIES: [Capability; 3] =
    [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_CHECKPOINT_RESTORE];

/// A stack with the event that it belongs to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Why the stack was taken.
    pub reason: StackReason,
    /// When; equal to that of the event.
    pub at: MonoNs,
    /// Address of the socket.
    pub sk: u64,
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// What was found.
    pub stack: Arc<Stack>,
}

/// The thread and the queues to and from it.
pub struct Worker {
    input: SyncSender<Owned>,
    output: Receiver<Resolved>,
    thread: JoinHandle<()>,
    dropped: u64,
}

/// A sample that has left the ring.
struct Owned {
    head: StackSample<'static>,
    stack: Box<[u8]>,
}

impl Worker {
    /// Starts the thread, which at once gives up every privilege but [`CAPABILITIES`]. Call it before the
    /// calling thread gives up its own: a thread inherits what there is when it starts.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(limits: Limits) -> std::io::Result<Self> {
        let (input, samples) = sync_channel(WAITING);
        let (results, output) = sync_channel(RESULTS);
        let thread = std::thread::Builder::new()
            .name("stacks".to_owned())
            .spawn(move || serve(limits, &samples, &results))?;
        Ok(Self { input, output, thread, dropped: 0 })
    }

    /// Hands a sample over without waiting; false when the queue is full and the sample was dropped.
    pub fn submit(&mut self, sample: &StackSample<'_>) -> bool {
        let owned = Owned { head: StackSample { stack: &[], ..*sample }, stack: sample.stack.into() };
        let taken = match self.input.try_send(owned) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        };
        self.dropped += u64::from(!taken);
        taken
    }

    /// What has been resolved since the last call, without waiting.
    pub fn drain(&self) -> impl Iterator<Item = Resolved> {
        self.output.try_iter()
    }

    /// Samples that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Waits for what has been handed over, at most this long. A thread that is stuck in a file system is left
    /// to the end of the program.
    #[must_use]
    pub fn finish(self, patience: Duration) -> Vec<Resolved> {
        let Self { input, output, thread, .. } = self;
        drop(input);
        let deadline = Instant::now() + patience;
        let mut rest = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match output.recv_timeout(left) {
                Ok(resolved) => rest.push(resolved),
                Err(RecvTimeoutError::Timeout) => return rest,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // It has let go of its end of the queue and is about to return.
        let _ = thread.join();
        rest
    }
}

fn serve(limits: Limits, samples: &Receiver<Owned>, results: &SyncSender<Resolved>) {
    // Paths of containers are followed below their root, which is openat2()'s to do.
    let allow = Allow { openat2: true, ..Allow::default() };
    if let Err(error) = confine(&CapsHashSet::from(CAPABILITIES), allow) {
        log::warn!("the thread that resolves stacks cannot give up privileges: {error}");
    }
    let mut stacks = Stacks::new(limits);
    let mut given_up: FxHashMap<u32, Arc<Stack>> = FxHashMap::default();
    for Owned { head, stack } in samples {
        let sample = StackSample { stack: &stack, ..head };
        // Programs' files are parsed here, by crates that promise not to panic. Should one do so, the stacks of
        // one process are lost, not the trace.
        let stack = given_up.get(&head.pid).cloned().unwrap_or_else(|| {
            let resolved = catch_unwind(AssertUnwindSafe(|| stacks.resolve(&sample)));
            resolved.unwrap_or_else(|panic| {
                stacks = Stacks::new(limits);
                let broken = Arc::new(broken(&*panic));
                if given_up.len() < MAX_GIVEN_UP {
                    given_up.insert(head.pid, broken.clone());
                }
                broken
            })
        });
        let StackSample { reason, at, sk, pid, tid, .. } = head;
        if results.send(Resolved { reason, at, sk, pid, tid, stack }).is_err() {
            return;
        }
    }
}

fn broken(panic: &(dyn Any + Send)) -> Stack {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let why = crate::text::escape(text.unwrap_or("unknown").as_bytes()).into_owned();
    Stack {
        frames: Vec::new(),
        truncated: true,
        note: Some(Note::NotFollowed(format!("a file on the stack could not be parsed: {why}"))),
    }
}
