//! Threads that keep the privileges that a certain kind of work takes, so that no other thread has to.
//!
//! Linux gives capabilities to threads, not processes. A tracer asks again while it runs, after loss and for
//! every view that shows holders; it may have files to write at its end. The thread that reads the ring, draws, or
//! answers HTTP requests has no business with what that takes.

use std::io;
use std::pin::Pin;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll};
use std::thread;

use caps::CapsHashSet;
use tokio::sync::oneshot;

use crate::kernel::confine::{Allow, ConfineError, confine};
use crate::kernel::privileges::needed_for_inventory;

/// A worker that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// It could not give up the other privileges.
    #[error("a thread cannot give up privileges: {0}")]
    Confine(#[from] ConfineError),
    /// The thread ended before it answered: it panicked.
    #[error("a thread has ended before it answered")]
    Gone,
}

/// A handle on the thread; clones are handles on the same. The thread ends with the last of them.
#[derive(Clone, Debug)]
pub struct Worker {
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Worker {
    /// Starts the thread that asks the system: it enters namespaces and looks into other users' processes.
    pub fn inventory() -> Result<Self, WorkerError> {
        let allow = Allow { namespaces: true, ..Allow::default() };
        Self::start("inventory", needed_for_inventory(), allow)
    }

    /// Starts the thread that makes files, and is the only one that can.
    pub fn files(keep: CapsHashSet) -> Result<Self, WorkerError> {
        Self::start("files", keep, Allow { files: true, ..Allow::default() })
    }

    /// Starts a thread. To be called before the calling thread gives up its privileges: the new one has at most
    /// those. Of them it keeps what it needs and drops the rest.
    fn start(name: &str, keep: CapsHashSet, allow: Allow) -> Result<Self, WorkerError> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::sync_channel(1);
        let work = move || {
            let confined = confine(&keep, allow);
            let failed = confined.is_err();
            // Nobody waits any more: then there will be no jobs either.
            let _ = ready.send(confined);
            if !failed {
                todo.into_iter().for_each(|job| job());
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(work).map_err(WorkerError::Thread)?;
        started.recv().map_err(|_| WorkerError::Gone)??;
        Ok(Self { jobs })
    }

    /// Runs `job` on the thread, after those asked for before.
    pub fn ask<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
        let (answer, receiver) = oneshot::channel();
        // The answer is not waited for any more, or the thread has ended: the other side sees it either way.
        let run = move || drop(answer.send(job()));
        let _ = self.jobs.send(Box::new(run));
        Answer { receiver }
    }
}

/// An answer that is being worked out. Awaiting it gives an error only if the thread has ended.
#[derive(Debug)]
pub struct Answer<T> {
    receiver: oneshot::Receiver<T>,
}

impl<T> Answer<T> {
    /// True when awaiting it would not wait.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.receiver.is_empty() || self.receiver.is_terminated()
    }

    /// The answer, once it is there. To be asked until it has given one.
    pub fn take(&mut self) -> Option<Result<T, WorkerError>> {
        match self.receiver.try_recv() {
            Ok(answer) => Some(Ok(answer)),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(WorkerError::Gone)),
        }
    }

    /// Waits, outside of any async context.
    pub fn wait(self) -> Result<T, WorkerError> {
        self.receiver.blocking_recv().map_err(|_| WorkerError::Gone)
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, WorkerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(|answer| answer.map_err(|_| WorkerError::Gone))
    }
}

#[cfg(test)]
mod tests {
    use caps::CapSet;

    use super::*;

    #[test]
    fn jobs_run_in_turn_and_with_no_more_privileges_than_they_need() {
        let worker = Worker::inventory().expect("started");
        let first = worker.ask(|| thread::current().name().map(str::to_owned));
        assert_eq!(first.wait().expect("answered").as_deref(), Some("inventory"));
        let kept = worker.ask(|| caps::read(None, CapSet::Permitted)).wait().expect("answered");
        let needed = needed_for_inventory();
        assert!(kept.expect("readable").is_subset(&needed));
    }

    #[test]
    fn only_the_thread_for_files_makes_files() {
        let dir = tempfile::tempdir().expect("directory");
        let make = |worker: Worker, name| {
            let path = dir.path().join(name);
            worker.ask(move || std::fs::write(path, "x")).wait().expect("answered")
        };
        let files = Worker::files(CapsHashSet::new()).expect("started");
        make(files, "made").expect("written");
        let refused = make(Worker::inventory().expect("started"), "not made").expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn an_answer_says_when_it_is_there() {
        let worker = Worker::inventory().expect("started");
        let (go, gate) = mpsc::channel::<()>();
        let answer = worker.ask(move || gate.recv().is_ok());
        assert!(!answer.is_ready());
        go.send(()).expect("waiting");
        // The one after it was answered, so this one was.
        worker.ask(|| ()).wait().expect("answered");
        assert!(answer.is_ready());
        assert!(answer.wait().expect("answered"));
    }

    #[test]
    fn a_panic_is_an_error_not_a_hang() {
        let worker = Worker::inventory().expect("started");
        let lost = worker.ask(|| -> u8 { panic!("on purpose") });
        assert!(matches!(lost.wait(), Err(WorkerError::Gone)));
        let after = worker.ask(|| 1);
        assert!(matches!(after.wait(), Err(WorkerError::Gone)));
    }
}
