//! Which processes belong to the command.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use caps::{Capability, CapsHashSet};

use crate::filter::{Container, Filter, Netns};
use crate::inventory::cgroup::{ProcessCgroup, unified_root};
use crate::kernel::confine::{Allow, confine};
use crate::sandbox::Sandbox;

/// How often /proc is searched for new descendants.
const SEARCH_EVERY: Duration = Duration::from_millis(50);

/// How the command's processes are told from others.
pub enum Members {
    /// Everything in its network namespace.
    Namespace(u32),
    /// By a cgroup v2 of their own, which children inherit.
    Cgroup(Cgroup),
    /// By their parents in /proc.
    Descent(Descent),
}

impl Members {
    /// The most exact way that works here.
    pub fn of(pid: u32, sandbox: Option<&Sandbox>) -> Self {
        if let Some(sandbox) = sandbox {
            return Self::Namespace(sandbox.netns());
        }
        match Cgroup::with(pid) {
            Some(cgroup) => Self::Cgroup(cgroup),
            None => Self::Descent(Descent { pids: vec![pid], searched: None }),
        }
    }

    /// Lets through what is theirs.
    pub fn restrict(&self, filter: &mut Filter) {
        match self {
            Self::Namespace(inode) => {
                filter.namespaces = vec![Netns { wanted: inode.to_string(), inode: *inode }];
            }
            Self::Cgroup(cgroup) => {
                let wanted = "of the command".to_owned();
                filter.containers = vec![Container { wanted, cgroup_ids: vec![cgroup.id] }];
            }
            Self::Descent(descent) => filter.pids.clone_from(&descent.pids),
        }
    }

    /// Looks for processes that were started since; true when there are some.
    pub fn search(&mut self) -> bool {
        match self {
            Self::Namespace(_) | Self::Cgroup(_) => false,
            Self::Descent(descent) => descent.search(),
        }
    }

    /// What could not be told apart, in words.
    pub fn note(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "every socket of the command's own network namespace counts",
            Self::Cgroup(_) => {
                "sockets count by the cgroup that their owner was in; those of unknown owners do not"
            }
            Self::Descent(_) => {
                "no cgroup could be made: sockets count by the descent of their owner; those of unknown owners, \
                 and of processes that lived for less than 50 ms, may be missing"
            }
        }
    }
}

/// A cgroup that goes with this value.
pub struct Cgroup {
    id: u64,
    /// Dropped to have the cgroup removed.
    needed: Option<mpsc::Sender<()>>,
    /// Removes it: tracing gives up what that takes (the root of the hierarchy is writable to nobody, so it needs
    /// CAP_DAC_OVERRIDE), a thread from before keeps it.
    keeper: Option<JoinHandle<()>>,
}

impl Cgroup {
    /// Below our own, with this process in it; `None` where that is not possible.
    fn with(pid: u32) -> Option<Self> {
        let text = fs::read("/proc/self/cgroup").ok()?;
        let own = ProcessCgroup::parse(&text).unified?;
        let own = PathBuf::from(std::ffi::OsString::from(String::from_utf8(own).ok()?));
        let parent = unified_root()?.join(own.strip_prefix("/").ok()?);
        let path = parent.join(format!("tcptrace-run-{}", std::process::id()));
        let (needed, until) = mpsc::channel::<()>();
        fs::create_dir(&path).ok()?;
        let id = fs::metadata(&path).map_or(0, |metadata| metadata.ino());
        let is_in = fs::write(path.join("cgroup.procs"), pid.to_string()).is_ok();
        let keep = {
            let path = path.clone();
            move || {
                let files = Allow { files: true, ..Allow::default() };
                if let Err(error) = confine(&CapsHashSet::from([Capability::CAP_DAC_OVERRIDE]), files) {
                    eprintln!(
                        "tcptrace: warning: the thread that keeps the cgroup keeps its privileges: {error}"
                    );
                }
                // Nothing is ever sent: this is the end of the other side.
                let _ = until.recv();
                remove(&path, &parent);
            }
        };
        let Ok(keeper) = thread::Builder::new().name("cgroup".to_owned()).spawn(keep) else {
            let _ = fs::remove_dir(&path);
            return None;
        };
        let cgroup = Self { id, needed: Some(needed), keeper: Some(keeper) };
        (is_in && id != 0).then_some(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(self.needed.take());
        if let Some(keeper) = self.keeper.take() {
            // A keeper that panicked has said so.
            let _ = keeper.join();
        }
    }
}

/// Processes that outlive the command go back to where it was started.
fn remove(path: &Path, parent: &Path) {
    let mut outcome = Ok(());
    // A process may fork while they are moved, and one that ends takes a moment.
    for _ in 0..100 {
        move_all(path, parent);
        outcome = fs::remove_dir(path);
        match &outcome {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                thread::sleep(Duration::from_millis(5));
            }
            _ => break,
        }
    }
    if let Err(error) = outcome {
        eprintln!("tcptrace: warning: cannot remove the cgroup {}: {error}", path.display());
    }
}

fn move_all(from: &Path, to: &Path) {
    let pids = fs::read_to_string(from.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines() {
        // One that has ended meanwhile is not there to be moved.
        let _ = fs::write(to.join("cgroup.procs"), pid);
    }
}

/// Everything that was seen to descend from the command.
pub struct Descent {
    pids: Vec<u32>,
    searched: Option<Instant>,
}

impl Descent {
    fn search(&mut self) -> bool {
        if self.searched.is_some_and(|searched| searched.elapsed() < SEARCH_EVERY) {
            return false;
        }
        self.searched = Some(Instant::now());
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let parents: HashMap<u32, u32> = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?.1)))
            .collect();
        let before = self.pids.len();
        loop {
            let known = self.pids.len();
            for (pid, parent) in &parents {
                if self.pids.contains(parent) && !self.pids.contains(pid) {
                    self.pids.push(*pid);
                }
            }
            if self.pids.len() == known {
                return known > before;
            }
        }
    }
}

/// State letter and parent of a process; `None` when it is gone.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name before may hold anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The process has let go of its descriptors: it is gone, or waits to be reaped (`do_exit()` runs `exit_files()`
/// before it becomes a zombie).
pub fn has_ended(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}
