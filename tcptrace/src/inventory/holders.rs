//! Who holds a socket: inode → every process and descriptor, from `/proc/PID/fd`.
//!
//! Socket inodes are unique on the host, whatever the network namespace. A socket without inode is not in the
//! hands of any process: not accepted yet, or closed already.

use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;

use super::namespaces::pids;

/// Threads that search: beyond a few they wait for each other in the kernel, and this tool is a guest.
const MAX_THREADS: usize = 4;
/// Below this many processes one thread is as fast.
const PROCESSES_FOR_THREADS: usize = 64;
/// Processes that a thread takes at a time: small, because one process may have as many descriptors as all
/// others together.
const CHUNK: usize = 8;
/// Directory entries are read in pieces of this many bytes; an entry of `/proc/PID/fd` takes 24 to 32.
const DIRENT_BYTES: usize = 16 << 10;
/// Room for `socket:[18446744073709551615]`; what is longer is no socket.
const LINK_BYTES: usize = 32;
/// Inode number of the initial pid namespace (PROC_PID_INIT_INO).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A descriptor that refers to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// Process id. Threads share their process's descriptors and are not listed.
    pub pid: u32,
    /// Descriptor number in that process.
    pub fd: u32,
}

/// What a search for holders found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    by_inode: FxHashMap<u64, Vec<Holder>>,
    /// Processes whose descriptors could not be read, ascending.
    pub denied: Vec<u32>,
    /// Processes that were looked at.
    pub processes: usize,
    /// Descriptors that were looked at.
    pub fds: usize,
    /// False when there may be processes that cannot be seen from here: this program runs in a pid namespace
    /// of its own.
    pub sees_all_processes: bool,
}

/// From a list of inodes and holders, in any order.
impl FromIterator<(u64, Holder)> for Holders {
    fn from_iter<I: IntoIterator<Item = (u64, Holder)>>(list: I) -> Self {
        let mut holders = Self { sees_all_processes: true, ..Self::default() };
        for (inode, holder) in list {
            holders.by_inode.entry(inode).or_default().push(holder);
        }
        holders.sort();
        holders
    }
}

impl Holders {
    /// Every holder of a socket, by pid and descriptor; several after fork() or dup().
    #[must_use]
    pub fn of(&self, inode: u64) -> &[Holder] {
        self.by_inode.get(&inode).map_or(&[], Vec::as_slice)
    }

    /// Inodes that have holders, in no particular order.
    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        self.by_inode.keys().copied()
    }

    /// Every holder of every socket, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = Holder> {
        self.by_inode.values().flatten().copied()
    }

    /// Everybody was looked at: a socket that exists and has no holder is really in nobody's descriptor
    /// table. It is in flight over a UNIX socket (SCM_RIGHTS), or registered with io_uring.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.denied.is_empty() && self.sees_all_processes
    }

    /// What could not be seen, in words.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let [first, ..] = self.denied[..] {
            let (count, be) = (self.denied.len(), if self.denied.len() == 1 { "" } else { "es" });
            notes.push(format!(
                "the descriptors of {count} process{be} could not be read, the first is {first} (needs \
                 CAP_SYS_PTRACE, and more where a security module says so): sockets of theirs have no owner here"
            ));
        }
        if !self.sees_all_processes {
            notes.push(
                "this runs in a pid namespace of its own: sockets of processes outside it have no owner here"
                    .to_owned(),
            );
        }
        notes
    }

    fn sort(&mut self) {
        for found in self.by_inode.values_mut() {
            found.sort_unstable();
            found.dedup();
        }
    }

    fn merge(&mut self, other: Self) {
        for (inode, holders) in other.by_inode {
            self.by_inode.entry(inode).or_default().extend(holders);
        }
        self.denied.extend(other.denied);
        self.processes += other.processes;
        self.fds += other.fds;
    }
}

/// Finds every holder of the sockets in `wanted`.
///
/// Sockets that pass from one process to another meanwhile can be missed: what was not found is looked for
/// once more, unless a process refused to be looked at. One that was closed since it was listed is not found either; ask `sock_diag` again before
/// saying that nobody holds it. 100,000 descriptors of 2,000 processes take about 0.2 s on two cores.
#[must_use]
pub fn find(wanted: &FxHashSet<u64>) -> Holders {
    let mut holders = Holders::default();
    if !wanted.is_empty() {
        holders = search(wanted);
        let missing: FxHashSet<u64> =
            wanted.iter().copied().filter(|&inode| holders.of(inode).is_empty()).collect();
        // Where some processes may not be looked at, they are the likelier answer and no second look tells.
        if !missing.is_empty() && holders.denied.is_empty() {
            let Holders { by_inode, .. } = search(&missing);
            holders.by_inode.extend(by_inode);
        }
    }
    holders.sees_all_processes = sees_all_processes();
    holders.sort();
    holders.denied.sort_unstable();
    holders
}

fn sees_all_processes() -> bool {
    // Unreadable means an ancient kernel or no /proc: nothing can be promised then.
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE)
}

fn search(wanted: &FxHashSet<u64>) -> Holders {
    let pids = pids();
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_THREADS);
    let next = AtomicUsize::new(0);
    if threads == 1 || pids.len() < PROCESSES_FOR_THREADS {
        return Searcher::new(wanted).take_from(&pids, &next);
    }
    thread::scope(|scope| {
        // A thread that cannot be started is one less: this one does its share.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| {
                let work = || Searcher::new(wanted).take_from(&pids, &next);
                thread::Builder::new().name("holders".to_owned()).spawn_scoped(scope, work).ok()
            })
            .collect();
        let mut holders = Searcher::new(wanted).take_from(&pids, &next);
        for other in others {
            match other.join() {
                Ok(found) => holders.merge(found),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        holders
    })
}

struct Searcher<'a> {
    wanted: &'a FxHashSet<u64>,
    found: Holders,
    dirents: Vec<u8>,
}

impl<'a> Searcher<'a> {
    fn new(wanted: &'a FxHashSet<u64>) -> Self {
        Self { wanted, found: Holders::default(), dirents: Vec::with_capacity(DIRENT_BYTES) }
    }

    fn take_from(mut self, pids: &[u32], next: &AtomicUsize) -> Holders {
        loop {
            let begin = next.fetch_add(CHUNK, Ordering::Relaxed);
            let Some(rest) = pids.get(begin..).filter(|rest| !rest.is_empty()) else { return self.found };
            rest.iter().take(CHUNK).for_each(|&pid| self.process(pid));
        }
    }

    fn process(&mut self, pid: u32) {
        self.found.processes += 1;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let result = openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty())
            .and_then(|dir| self.descriptors(pid, &dir));
        // Anything else means that the process went, or its descriptors did: normal.
        if let Err(Errno::ACCESS | Errno::PERM) = result {
            self.found.denied.push(pid);
        }
    }

    fn descriptors(&mut self, pid: u32, dir: &OwnedFd) -> Result<(), Errno> {
        let Self { wanted, found, dirents } = self;
        let mut entries = RawDir::new(dir, dirents.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(fd) = decimal(entry.file_name().to_bytes()) else { continue };
            found.fds += 1;
            let mut link = [MaybeUninit::uninit(); LINK_BYTES];
            // The link itself, never what it leads to: that may hang (NFS).
            let target = match readlinkat_raw(dir, entry.file_name(), &mut link) {
                Ok((target, _)) => target,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            if let Some(inode) = socket_inode(target).filter(|inode| wanted.contains(inode)) {
                found.by_inode.entry(inode).or_default().push(Holder { pid, fd });
            }
        }
        Ok(())
    }
}

/// `socket:[12345]`, as `sockfs_dname` writes it.
fn socket_inode(link: &[u8]) -> Option<u64> {
    decimal(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
}

fn decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn links_of_sockets_are_told_from_others() {
        assert_eq!(socket_inode(b"socket:[18446744073709551615]"), Some(u64::MAX));
        for other in
            [&b"socket:[12"[..], b"socket:[]", b"pipe:[12]", b"/tmp/socket:[12]", b"socket:[1x]", b""]
        {
            assert_eq!(socket_inode(other), None);
        }
    }

    #[test]
    fn every_descriptor_of_ours_is_found_once() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        let copy = socket.try_clone().expect("dup");
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let inode = fs::metadata(path).expect("own descriptor").ino();
        let holders = find(&FxHashSet::from_iter([inode, u64::MAX]));
        let pid = std::process::id();
        let mut ours: Vec<_> =
            [&socket, &copy].map(|socket| Holder { pid, fd: socket.as_raw_fd() as u32 }).into();
        ours.sort_unstable();
        assert_eq!(holders.of(inode), ours);
        assert!(holders.of(u64::MAX).is_empty());
        assert!(holders.processes > 0 && holders.fds > 1);
    }

    #[test]
    fn what_was_not_seen_is_said() {
        assert!(Holders { sees_all_processes: true, ..Holders::default() }.notes().is_empty());
        let some = Holders { denied: vec![7, 9], ..Holders::default() };
        assert!(!some.is_complete());
        let notes = some.notes().join("\n");
        assert!(notes.contains("2 processes") && notes.contains('7') && notes.contains("pid namespace"));
    }

    #[test]
    fn nothing_wanted_costs_nothing() {
        assert_eq!(find(&FxHashSet::default()).processes, 0);
    }
}
