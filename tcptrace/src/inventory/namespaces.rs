//! Network namespaces of the host: finding them, naming them, running code in them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::mountinfo;
use crate::text::escape;

/// Where `ip netns` keeps the namespaces it names.
const IP_NETNS_DIR: &str = "/run/netns";
/// Where docker keeps those of its containers, named by the first digits of a sandbox id.
const DOCKER_NETNS_DIR: &str = "/run/docker/netns";
/// The namespace of the calling thread, which is the process's own as long as nothing but [`within`] moves
/// threads.
const OWN: &str = "/proc/thread-self/ns/net";

/// One network namespace, held open: it cannot vanish while this value lives.
#[derive(Debug)]
pub struct Namespace {
    /// Inode number of its nsfs file: the number that `lsns`, events and filters use.
    pub inode: u32,
    /// Its name in `ip netns`, or docker's sandbox id; escaped, so that it may be shown.
    pub name: Option<String>,
    /// Some process in it, the lowest pid; `None` when only a mount keeps it.
    pub pid: Option<u32>,
    /// It is the one that this program runs in.
    pub is_own: bool,
    file: File,
}

/// All namespaces that could be seen.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// Ordered by inode number, the program's own first.
    pub list: Vec<Namespace>,
    /// What could not be seen, in words.
    pub notes: Vec<String>,
}

impl Namespaces {
    /// Those of these inode numbers; all, when none is given. One that is not there is noted.
    #[must_use]
    pub fn only(mut self, wanted: &[u32]) -> Self {
        if wanted.is_empty() {
            return self;
        }
        // What could not be seen elsewhere has no part in it.
        self.notes.clear();
        self.list.retain(|namespace| wanted.contains(&namespace.inode));
        for gone in
            wanted.iter().filter(|&&inode| !self.list.iter().any(|namespace| namespace.inode == inode))
        {
            self.notes.push(format!("network namespace {gone} is no longer there"));
        }
        self
    }
}

/// A namespace that cannot be found or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// Not a name, not an inode number, not a pid.
    #[error(
        "no network namespace {0:?}: neither a name in /run/netns, nor the inode number of one, nor a pid"
    )]
    NotFound(String),
    /// A file that stands for a namespace cannot be opened.
    #[error("cannot open network namespace {path}: {error}")]
    Open {
        /// The file, escaped.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// setns() failed.
    #[error("cannot enter network namespace {inode}: {error} (needs CAP_SYS_ADMIN)")]
    Enter {
        /// Its inode number.
        inode: u32,
        /// Why.
        error: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread to enter network namespace {inode}: {error}")]
    Thread {
        /// Its inode number.
        inode: u32,
        /// Why.
        error: io::Error,
    },
}

impl Namespace {
    /// Opens the nsfs file at `path`.
    fn open(path: &Path) -> Result<Self, NamespaceError> {
        let open = || {
            let file = File::open(path)?;
            let inode = file.metadata()?.ino();
            Ok((file, u32::try_from(inode).map_err(io::Error::other)?))
        };
        let failed = |error| NamespaceError::Open { path: escape(path.as_os_str().as_bytes()).into(), error };
        let (file, inode) = open().map_err(failed)?;
        Ok(Self { inode, name: None, pid: None, is_own: false, file })
    }

    /// The namespace that this program runs in.
    pub fn own() -> Result<Self, NamespaceError> {
        Ok(Self { is_own: true, ..Self::open(Path::new(OWN))? })
    }

    /// The namespace of a process.
    pub fn of_pid(pid: u32) -> Result<Self, NamespaceError> {
        Ok(Self { pid: Some(pid), ..Self::open(&process_path(pid))? })
    }

    /// The name where there is one, else the number.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.inode.to_string())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn process_path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// Every network namespace that a process is in or a mount keeps.
///
/// Not found are those that only an open descriptor or a socket keeps, or a thread other than its process's
/// first. A process or a namespace that vanishes while this looks is normal and not mentioned.
pub fn all() -> Result<Namespaces, NamespaceError> {
    let own = Namespace::own()?;
    let mut notes = Vec::new();
    let mut found: BTreeMap<u32, Namespace> = BTreeMap::from([(own.inode, own)]);
    let mut denied = 0_usize;
    for pid in pids() {
        match namespace_inode(pid) {
            Ok(inode) => {
                let known = found.get_mut(&inode);
                if let Some(namespace) = known {
                    namespace.pid.get_or_insert(pid);
                } else if let Ok(namespace) = Namespace::of_pid(pid) {
                    // It may have moved between the two looks: the open file says where it is.
                    found.entry(namespace.inode).or_insert(namespace);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied += 1,
            Err(_) => {}
        }
    }
    if denied > 0 {
        let es = if denied == 1 { "" } else { "es" };
        notes.push(format!(
            "the network namespace of {denied} process{es} could not be read (needs CAP_SYS_PTRACE, and more \
             where a security module says so): sockets of a namespace that only they are in are not seen"
        ));
    }
    for (path, inode) in mounts() {
        if found.contains_key(&inode) {
            continue;
        }
        match Namespace::open(&path) {
            Ok(namespace) => {
                found.entry(namespace.inode).or_insert(namespace);
            }
            Err(NamespaceError::Open { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => notes.push(error.to_string()),
        }
    }
    let mut names = names();
    for namespace in found.values_mut() {
        namespace.name = names.remove(&namespace.inode);
    }
    let mut list: Vec<_> = found.into_values().collect();
    list.sort_by_key(|namespace| (!namespace.is_own, namespace.inode));
    Ok(Namespaces { list, notes })
}

/// Finds the namespace that a filter names: a name, an inode number or a pid, in this order.
pub fn resolve(wanted: &str) -> Result<Namespace, NamespaceError> {
    let mut all = all()?.list;
    let number = wanted.parse::<u32>().ok();
    let position = all
        .iter()
        .position(|namespace| namespace.name.as_deref() == Some(wanted))
        .or_else(|| all.iter().position(|namespace| Some(namespace.inode) == number));
    if let Some(position) = position {
        return Ok(all.swap_remove(position));
    }
    let not_found = || NamespaceError::NotFound(wanted.to_owned());
    match Namespace::of_pid(number.filter(|&pid| pid > 0).ok_or_else(not_found)?) {
        Ok(namespace) => {
            let known = all.into_iter().find(|known| known.inode == namespace.inode);
            Ok(Namespace { pid: namespace.pid, ..known.unwrap_or(namespace) })
        }
        Err(NamespaceError::Open { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            Err(not_found())
        }
        Err(error) => Err(error),
    }
}

/// Runs `work` with `namespace` as the network namespace, on a thread of its own that ends with it: the
/// calling thread never moves. In the program's own namespace no privilege is needed.
pub fn within<T: Send>(namespace: &Namespace, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    on_thread(namespace.inode, || {
        enter(namespace)?;
        Ok(work())
    })
}

/// Runs `work` on one thread in each of `namespaces` in turn. The result of a namespace that cannot be
/// entered is the error.
pub fn within_each<T: Send>(
    namespaces: &[Namespace],
    mut work: impl FnMut(&Namespace) -> T + Send,
) -> Result<Vec<Result<T, NamespaceError>>, NamespaceError> {
    let Some(first) = namespaces.first() else { return Ok(Vec::new()) };
    on_thread(first.inode, move || {
        let mut moved = false;
        let each = |namespace: &Namespace| {
            if moved || !namespace.is_own {
                enter_always(namespace)?;
                moved = true;
            }
            Ok(work(namespace))
        };
        Ok(namespaces.iter().map(each).collect())
    })
}

fn on_thread<T: Send>(
    inode: u32,
    work: impl FnOnce() -> Result<T, NamespaceError> + Send,
) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| NamespaceError::Thread { inode, error })?;
        match handle.join() {
            Ok(result) => result,
            // The panic is the caller's: it happened in the work that was handed in.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Moves the calling thread, unless it is there already.
fn enter(namespace: &Namespace) -> Result<(), NamespaceError> {
    if namespace.is_own { Ok(()) } else { enter_always(namespace) }
}

fn enter_always(namespace: &Namespace) -> Result<(), NamespaceError> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| NamespaceError::Enter { inode: namespace.inode, error: error.into() })
}

/// Inode number of a process's network namespace, without opening it.
fn namespace_inode(pid: u32) -> io::Result<u32> {
    let inode = fs::metadata(process_path(pid))?.ino();
    u32::try_from(inode).map_err(io::Error::other)
}

/// Every pid, ascending. Empty when /proc cannot be read: callers then find nothing, and say so elsewhere.
pub(super) fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// Files that keep a network namespace by being mounted, with its inode number.
fn mounts() -> Vec<(PathBuf, u32)> {
    fs::read("/proc/self/mountinfo").map(|text| network_mounts(&text)).unwrap_or_default()
}

fn network_mounts(mountinfo: &[u8]) -> Vec<(PathBuf, u32)> {
    let inode = |root: &[u8]| {
        std::str::from_utf8(root.strip_prefix(b"net:[")?.strip_suffix(b"]")?).ok()?.parse().ok()
    };
    mountinfo::mounts(mountinfo).filter_map(|mount| Some((mount.target, inode(mount.root)?))).collect()
}

/// Inode number → name, of all namespaces that `ip netns` or docker named. A name in `ip netns` wins.
fn names() -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for dir in [DOCKER_NETNS_DIR, IP_NETNS_DIR] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            // A name whose namespace was not mounted yet, or no longer, is an empty file of another filesystem:
            // its inode number may equal that of a namespace by accident.
            if let Ok(namespace) = Namespace::open(&entry.path())
                && is_nsfs(&namespace)
            {
                names.insert(namespace.inode, escape(entry.file_name().as_bytes()).into_owned());
            }
        }
    }
    names
}

fn is_nsfs(namespace: &Namespace) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::fstatfs(namespace).is_ok_and(|stat| stat.f_type as u64 == NSFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_network_namespaces_are_found() {
        let text = b"62 31 0:4 net:[4026532208] /run/netns/a rw - nsfs nsfs rw\n\
            63 31 0:4 mnt:[4026532209] /run/x rw - nsfs nsfs rw\n\
            64 31 0:4 net:[x] /y rw - nsfs nsfs rw\n";
        assert_eq!(network_mounts(text), [(PathBuf::from("/run/netns/a"), 4_026_532_208)]);
    }

    #[test]
    fn own_namespace_is_found_and_entered_without_privileges() {
        let own = Namespace::own().expect("own namespace");
        let all = all().expect("all namespaces");
        assert_eq!(all.list[0].inode, own.inode);
        assert!(all.list[0].is_own);
        let seen = within(&own, || Namespace::own().expect("own namespace").inode).expect("entered");
        assert_eq!(seen, own.inode);
        assert_eq!(resolve(&own.inode.to_string()).expect("resolved").inode, own.inode);
        assert_eq!(resolve(&std::process::id().to_string()).expect("resolved").inode, own.inode);
    }

    #[test]
    fn what_does_not_exist_is_named() {
        for wanted in ["no-such-namespace", "0", "4294967295", ""] {
            let error = resolve(wanted).expect_err("must not resolve");
            assert!(error.to_string().contains(&format!("{wanted:?}")), "{error}");
        }
    }
}
