//! The thread that reads and sets sysctls of one network namespace.
//!
//! A thread of its own, because it must be inside the namespace, and because the one that traces gives up its
//! privileges when tracing begins. It also removes the journal, when everything is as it was.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::thread;

use caps::{Capability, CapsHashSet};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::journal::Entry;
use crate::inventory::sysctl;
use crate::kernel::confine::{Allow, confine};

/// A sysctl that could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum SetterError {
    /// The thread could not be started, or not enter the namespace.
    #[error("cannot enter the network namespace to set sysctls in it: {0}")]
    Enter(io::Error),
    /// Not a sysctl of a network namespace.
    #[error("{0:?} is not a sysctl of a network namespace: their names begin with net.")]
    Foreign(String),
    /// The kernel has no such sysctl.
    #[error("this kernel has no sysctl {0}")]
    Absent(String),
    /// It could not be read.
    #[error("cannot read {name}: {error}")]
    Read {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// It could not be set.
    #[error("cannot set {name} to {value:?}: {error}")]
    Write {
        /// Its name.
        name: String,
        /// The value.
        value: String,
        /// Why.
        error: io::Error,
    },
    /// The journal is still there.
    #[error("cannot remove the journal of the experiment: {0}")]
    Journal(io::Error),
    /// The thread has ended: it panicked.
    #[error("the thread that sets sysctls has ended")]
    Gone,
}

enum Request {
    Read(String, SyncSender<Result<String, SetterError>>),
    Write(String, String, SyncSender<Result<(), SetterError>>),
    Check(String, SyncSender<Result<(), SetterError>>),
    Forget(Entry, SyncSender<Result<(), SetterError>>),
}

/// What writing below /proc/sys/net takes: CAP_NET_ADMIN for another than root (`net_ctl_permissions()`); some
/// handlers ask for CAP_SYS_ADMIN (`proc_dointvec_minmax_bpf_enable()`); the journal's directory is root's.
const CAPABILITIES: [Capability; 3] =
    [Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN, Capability::CAP_DAC_OVERRIDE];

/// A handle on the thread, which ends with it.
#[derive(Debug)]
pub struct Setter {
    requests: Sender<Request>,
}

impl Setter {
    /// Starts the thread inside `namespace`. To be called while the privileges are still there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn start(namespace: &impl AsFd) -> Result<Self, SetterError> {
        let namespace = namespace.as_fd().try_clone_to_owned().map_err(SetterError::Enter)?;
        let (requests, inbox) = mpsc::channel::<Request>();
        let (ready, started) = mpsc::sync_channel(1);
        let work = move || {
            let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(io::Error::from)
                .and_then(|()| {
                    let files = Allow { files: true, ..Allow::default() };
                    confine(&CapsHashSet::from(CAPABILITIES), files).map_err(io::Error::other)
                });
            let inside = entered.is_ok();
            // The other end waits for exactly this answer.
            let _ = ready.send(entered);
            if inside {
                for request in inbox {
                    // Whoever asked may have given up.
                    match request {
                        Request::Read(name, answer) => drop(answer.send(read(&name))),
                        Request::Write(name, value, answer) => drop(answer.send(write(&name, &value))),
                        Request::Check(name, answer) => drop(answer.send(check(&name))),
                        Request::Forget(entry, answer) => {
                            drop(answer.send(entry.remove().map_err(SetterError::Journal)));
                        }
                    }
                }
            }
        };
        thread::Builder::new().name("sysctl".to_owned()).spawn(work).map_err(SetterError::Enter)?;
        let entered = started.recv().map_err(|_| SetterError::Gone)?;
        entered.map_err(SetterError::Enter)?;
        Ok(Self { requests })
    }

    /// The present value.
    ///
    /// # Errors
    /// When it is absent, unreadable, or no sysctl of a network namespace.
    pub fn read(&self, name: &str) -> Result<String, SetterError> {
        self.ask(|answer| Request::Read(name.to_owned(), answer))
    }

    /// Sets a value, and makes sure that the kernel took it.
    ///
    /// # Errors
    /// When the kernel refuses the value.
    pub fn write(&self, name: &str, value: &str) -> Result<(), SetterError> {
        self.ask(|answer| Request::Write(name.to_owned(), value.to_owned(), answer))
    }

    /// Makes sure that it could be set, without setting it.
    ///
    /// # Errors
    /// As [`Setter::write`].
    pub fn check(&self, name: &str) -> Result<(), SetterError> {
        self.ask(|answer| Request::Check(name.to_owned(), answer))
    }

    /// Removes the journal: everything is as it was.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn forget(&self, entry: Entry) -> Result<(), SetterError> {
        self.ask(|answer| Request::Forget(entry, answer))
    }

    fn ask<T>(
        &self,
        request: impl FnOnce(SyncSender<Result<T, SetterError>>) -> Request,
    ) -> Result<T, SetterError> {
        let (answer, outcome) = mpsc::sync_channel(1);
        self.requests.send(request(answer)).map_err(|_| SetterError::Gone)?;
        outcome.recv().map_err(|_| SetterError::Gone)?
    }
}

/// The file, which the kernel resolves to the namespace of the thread that opens it.
fn path(name: &str) -> Result<PathBuf, SetterError> {
    let path = sysctl::path(name).filter(|_| name.starts_with("net."));
    path.ok_or_else(|| SetterError::Foreign(name.to_owned()))
}

fn read(name: &str) -> Result<String, SetterError> {
    match fs::read_to_string(path(name)?) {
        Ok(value) => Ok(plain(&value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SetterError::Absent(name.to_owned())),
        Err(error) => Err(SetterError::Read { name: name.to_owned(), error }),
    }
}

fn write(name: &str, value: &str) -> Result<(), SetterError> {
    let failed = |error| SetterError::Write { name: name.to_owned(), value: value.to_owned(), error };
    let path = path(name)?;
    // Not created where absent: /proc has no new files, but the error would say so in other words.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SetterError::Absent(name.to_owned()),
            _ => failed(error),
        })?;
    let taken = read(name)?;
    if taken == plain(value) {
        return Ok(());
    }
    // Some are rounded or clamped, which must not go unnoticed.
    Err(failed(io::Error::other(format!("the kernel made it {taken:?}"))))
}

fn check(name: &str) -> Result<(), SetterError> {
    let value = read(name)?;
    fs::OpenOptions::new().write(true).open(path(name)?).map(drop).map_err(|error| SetterError::Write {
        name: name.to_owned(),
        value,
        error,
    })
}

/// One space between numbers, none around them.
fn plain(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}
