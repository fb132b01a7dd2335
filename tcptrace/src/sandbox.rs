//! A private network namespace: loopback, sysctls of its own, and processes that end with it.
//!
//! A long-lived thread is born into the namespace and starts every process that shall live there. Children
//! ask for a signal at the death of that thread (`PR_SET_PDEATHSIG`, see [`end_with_parent`]), so dropping the
//! [`Sandbox`], a crash and even SIGKILL of this process leave nothing behind: the processes die, and the
//! namespace goes with its last user. Nothing of the host is touched: sysctls under `net.` are written from
//! inside, where the kernel resolves them to the namespace's own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::text;

/// Why a sandbox could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// `unshare(CLONE_NEWNET)` failed.
    #[error("cannot create a network namespace: {source}; {}", hint(.source))]
    Unshare {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The loopback device stayed down.
    #[error("cannot bring up the loopback device of the private network namespace: {source}")]
    Loopback {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The thread, or its handle on the namespace, could not be made.
    #[error("cannot {what}: {source}")]
    Thread {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A sysctl of the namespace could not be read or written.
    #[error("cannot {what} {name} in the private network namespace: {source}")]
    Sysctl {
        /// Read or set.
        what: &'static str,
        /// Dotted name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Only `net.` is private to a network namespace.
    #[error("{name:?} is not a sysctl of a network namespace (net.…)")]
    ForeignSysctl {
        /// The name as given.
        name: String,
    },
    /// A program could not be started.
    #[error("cannot start {program} in the private network namespace: {source}")]
    Spawn {
        /// What.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The thread that holds the namespace is no longer there.
    #[error("the thread that holds the private network namespace has ended")]
    Gone,
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::PERM) => "it needs CAP_SYS_ADMIN: run as root",
        Some(rustix::io::Errno::NOSPC) => "the limit user.max_net_namespaces is reached",
        Some(rustix::io::Errno::INVAL) => "the kernel is built without CONFIG_NET_NS",
        _ => "see unshare(2)",
    }
}

struct SpawnRequest {
    command: Command,
    answer: mpsc::SyncSender<io::Result<Child>>,
}

/// A private network namespace with its loopback up. Dropping it kills the processes started in it.
#[derive(Debug)]
pub struct Sandbox {
    /// `None` only while dropping.
    requests: Option<mpsc::Sender<SpawnRequest>>,
    keeper: Option<JoinHandle<()>>,
    namespace: File,
    netns: u32,
}

impl Sandbox {
    /// Makes the namespace. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// When the kernel refuses; the text says what is missing.
    pub fn new() -> Result<Self, SandboxError> {
        let (requests, inbox) = mpsc::channel::<SpawnRequest>();
        let (ready, made) = mpsc::sync_channel(1);
        let keeper = thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || {
                let outcome = enter_new_namespace();
                let inside = outcome.is_ok();
                // The other end waits for exactly this answer.
                let _ = ready.send(outcome);
                if inside {
                    for SpawnRequest { mut command, answer } in inbox {
                        let _ = answer.send(command.spawn());
                    }
                }
            })
            .map_err(|source| SandboxError::Thread { what: "start a thread", source })?;
        let namespace = made.recv().map_err(|_| SandboxError::Gone)??;
        let netns = inode(&namespace)?;
        Ok(Self { requests: Some(requests), keeper: Some(keeper), namespace, netns })
    }

    /// The namespace's number, as `--netns` takes it and `/proc/PID/ns/net` shows it.
    #[must_use]
    pub fn netns(&self) -> u32 {
        self.netns
    }

    /// Gives the loopback device another address, for traffic that the kernel shall not take for loopback
    /// (`tcp_twsk_unique()` looks at addresses).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_address(&self, address: Ipv4Addr) -> Result<(), SandboxError> {
        self.enter(move || add_loopback_address(address))?.map_err(|source| SandboxError::Loopback { source })
    }

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets it opens and processes it starts
    /// belong to the namespace; processes that shall end with the sandbox are started by [`Sandbox::spawn`].
    ///
    /// # Errors
    /// When the thread cannot be started or moved into the namespace. A panic of `work` is passed on.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, SandboxError> {
        thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
                    |errno| SandboxError::Thread {
                        what: "enter the private network namespace",
                        source: errno.into(),
                    },
                )?;
                Ok(work())
            };
            let thread = thread::Builder::new()
                .name(thread::current().name().unwrap_or("sandbox").to_owned())
                .spawn_scoped(scope, inside)
                .map_err(|source| SandboxError::Thread { what: "start a thread", source })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `command` inside; its parent thread is the sandbox's own. Only a program that asks for
    /// [`end_with_parent`] ends with the sandbox: [`command_that_ends_with_parent`] wraps one that does not.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Child, SandboxError> {
        let program = text::escape(command.get_program().as_encoded_bytes()).into_owned();
        let (answer, outcome) = mpsc::sync_channel(1);
        let requests = self.requests.as_ref().ok_or(SandboxError::Gone)?;
        requests.send(SpawnRequest { command, answer }).map_err(|_| SandboxError::Gone)?;
        outcome
            .recv()
            .map_err(|_| SandboxError::Gone)?
            .map_err(|source| SandboxError::Spawn { program, source })
    }

    /// A sysctl's value inside.
    ///
    /// # Errors
    /// When it is not one of `net.`, does not exist in this namespace or cannot be read.
    pub fn sysctl(&self, name: &str) -> Result<String, SandboxError> {
        let path = sysctl_path(name)?;
        self.enter(move || fs::read_to_string(path))?
            .map(|value| value.trim_end().to_owned())
            .map_err(|source| SandboxError::Sysctl { what: "read", name: name.to_owned(), source })
    }

    /// Sets a sysctl inside.
    ///
    /// # Errors
    /// When it is not one of `net.`, does not exist in this namespace or refuses the value.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), SandboxError> {
        let path = sysctl_path(name)?;
        self.enter(move || fs::write(path, value))?.map_err(|source| SandboxError::Sysctl {
            what: "set",
            name: name.to_owned(),
            source,
        })
    }
}

impl AsFd for Sandbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(keeper) = self.keeper.take() {
            // A keeper that panicked has nothing more to release.
            let _ = keeper.join();
        }
    }
}

/// A command that runs `program` by way of this binary's hidden `__exec`, which asks for the death signal
/// first: for programs that do not know of sandboxes.
///
/// # Errors
/// When the path of this binary cannot be found.
pub fn command_that_ends_with_parent(program: impl AsRef<OsStr>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("__exec").arg(std::process::id().to_string()).arg("--").arg(program);
    Ok(command)
}

/// Becomes `program` after [`end_with_parent`]; returns only when that failed. The other half of
/// [`command_that_ends_with_parent`].
#[must_use]
pub fn exec_ending_with_parent<S: AsRef<OsStr>>(parent: u32, program: &[S]) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    let Some((name, args)) = program.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no program given");
    };
    if let Err(error) = end_with_parent(parent) {
        return error;
    }
    Command::new(name).args(args).exec()
}

/// Asks the kernel to kill this process when the thread that started it ends, and ends at once when that has
/// already happened (`parent` is the process that should still be there).
///
/// # Errors
/// When the kernel refuses, or the parent is gone already.
pub fn end_with_parent(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The signal is sent at the moment of death only: a parent that died before the call is seen here.
    let present =
        rustix::process::getppid().map(Pid::as_raw_nonzero).and_then(|pid| u32::try_from(pid.get()).ok());
    if present == Some(parent) {
        Ok(())
    } else {
        Err(io::Error::other(format!("the process that started this one ({parent}) has ended")))
    }
}

fn enter_new_namespace() -> Result<File, SandboxError> {
    // SAFETY: only CLONE_FILES endangers memory or I/O safety (the thread would stop sharing descriptors);
    // NEWNET changes nothing but the network namespace of the calling thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|errno| SandboxError::Unshare { source: errno.into() })?;
    bring_loopback_up().map_err(|source| SandboxError::Loopback { source })?;
    File::open("/proc/thread-self/ns/net")
        .map_err(|source| SandboxError::Thread { what: "open /proc/thread-self/ns/net", source })
}

fn inode(namespace: &File) -> Result<u32, SandboxError> {
    let what = "read the number of the private network namespace";
    let metadata = namespace.metadata().map_err(|source| SandboxError::Thread { what, source })?;
    u32::try_from(metadata.ino())
        .map_err(|error| SandboxError::Thread { what, source: io::Error::other(error) })
}

/// `lo` is the first device of every namespace.
const LOOPBACK_INDEX: i32 = 1;

/// `RTM_NEWLINK` with IFF_UP: struct ifinfomsg { family, pad, type, index, flags, change }.
fn bring_loopback_up() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const IFF_UP: u32 = 1;
    let mut body = Vec::with_capacity(16);
    body.extend([0; 4]);
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    ask_rtnetlink(RTM_NEWLINK, 0, &body)
}

/// `RTM_NEWADDR` on `lo`: struct ifaddrmsg { family, prefixlen, flags, scope, index }, then IFA_LOCAL.
fn add_loopback_address(address: Ipv4Addr) -> io::Result<()> {
    const RTM_NEWADDR: u16 = 20;
    const NLM_F_CREATE_EXCL: u16 = 0x600;
    const IFA_LOCAL: u16 = 2;
    let mut body = Vec::with_capacity(16);
    body.extend([libc::AF_INET as u8, 32, 0, 0]);
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body.extend(8_u16.to_ne_bytes());
    body.extend(IFA_LOCAL.to_ne_bytes());
    body.extend(address.octets());
    ask_rtnetlink(RTM_NEWADDR, NLM_F_CREATE_EXCL, &body)
}

/// One request to rtnetlink in the calling thread's namespace, and its acknowledgement.
fn ask_rtnetlink(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
    const NLM_F_REQUEST_ACK: u16 = 0x5;
    const NLMSG_ERROR: u16 = 2;
    const HEADER: usize = 16;

    // struct nlmsghdr { len, type, flags, seq, pid }.
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST_ACK | flags).to_ne_bytes());
    request.extend(1_u32.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(body);

    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("unexpected answer from rtnetlink")),
    }
}

/// Dotted name to file. Refuses what is not private to a network namespace, so that a sandbox can never
/// change the host.
fn sysctl_path(name: &str) -> Result<PathBuf, SandboxError> {
    let foreign = || SandboxError::ForeignSysctl { name: name.to_owned() };
    let rest = name.strip_prefix("net.").ok_or_else(foreign)?;
    if rest.is_empty() || rest.contains(['/', '\0']) || rest.split('.').any(str::is_empty) {
        return Err(foreign());
    }
    Ok(PathBuf::from("/proc/sys/net").join(rest.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sysctls_of_the_namespace_have_a_path() {
        let path = |name| sysctl_path(name).ok();
        assert_eq!(
            path("net.ipv4.tcp_fin_timeout"),
            Some(PathBuf::from("/proc/sys/net/ipv4/tcp_fin_timeout"))
        );
        for name in
            ["kernel.panic", "net.", "net", "net..ipv4", "net.ipv4/../../kernel/panic", "net.a..b", ""]
        {
            assert_eq!(path(name), None, "{name}");
        }
    }
}
