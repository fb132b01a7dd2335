//! Who did it: the task whose work an event is, or the packet or timer that borrowed its CPU.

use crate::event::{Context, Task};

/// Kernel threads whose work is somebody else's packet or timer, by the beginning of their names: ksoftirqd
/// (`kernel/softirq.c`), threaded NAPI (`napi_kthread_create()`), the timer threads of PREEMPT_RT.
const SOFTIRQ_THREADS: [&[u8]; 3] = [b"ksoftirqd/", b"napi/", b"ktimers/"];

/// How many such threads are remembered. One per CPU and one per network queue: more than any host has.
const MAX_SOFTIRQ_THREADS: usize = 16_384;

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor<'a> {
    /// An application, in a system call or on its way out.
    Application(&'a Task),
    /// A kernel thread that works on its own account, as NFS does, or a kworker that clears a namespace.
    KernelThread(&'a Task),
    /// A packet or a timer.
    Softirq,
    /// The kernel does not tell.
    Unknown,
}

impl<'a> Actor<'a> {
    /// The task, for both kinds of them.
    pub(super) fn task(&self) -> Option<&'a Task> {
        match self {
            Self::Application(task) | Self::KernelThread(task) => Some(task),
            Self::Softirq | Self::Unknown => None,
        }
    }
}

/// [`Actor`] in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Application,
    KernelThread,
    Softirq,
    Unknown,
}

impl From<&Actor<'_>> for By {
    fn from(actor: &Actor<'_>) -> Self {
        match actor {
            Actor::Application(_) => Self::Application,
            Actor::KernelThread(_) => Self::KernelThread,
            Actor::Softirq => Self::Softirq,
            Actor::Unknown => Self::Unknown,
        }
    }
}

/// Tells kernel threads that serve softirqs from those that act for themselves.
///
/// ksoftirqd runs softirqs on a stack of its own, so an event there looks like one in process context. A state
/// change names it; a mini's event carries the thread id alone, and is recognised by a name seen earlier.
#[derive(Clone, Debug, Default)]
pub(super) struct Actors {
    /// Sorted thread ids.
    softirq_threads: Vec<u32>,
}

impl Actors {
    /// Who stands behind a context.
    pub(super) fn of<'a>(&mut self, context: &'a Context) -> Actor<'a> {
        match context {
            Context::Softirq => Actor::Softirq,
            Context::Unknown => Actor::Unknown,
            Context::Process(task) if !task.kthread => Actor::Application(task),
            Context::Process(task) => {
                let known = self.softirq_threads.binary_search(&task.tid);
                if known.is_ok() {
                    return Actor::Softirq;
                }
                let serves_softirqs = SOFTIRQ_THREADS.iter().any(|name| task.comm.bytes().starts_with(name));
                if !serves_softirqs {
                    return Actor::KernelThread(task);
                }
                if let Err(place) = known
                    && self.softirq_threads.len() < MAX_SOFTIRQ_THREADS
                {
                    self.softirq_threads.insert(place, task.tid);
                }
                Actor::Softirq
            }
        }
    }

    /// Whether this thread has turned out to serve softirqs.
    pub(super) fn serves_softirqs(&self, tid: u32) -> bool {
        self.softirq_threads.binary_search(&tid).is_ok()
    }
}
