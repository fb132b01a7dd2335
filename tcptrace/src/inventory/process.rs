//! What /proc says about a process. Everything is read through one open `/proc/PID`, so that the answers are
//! about one process even when its pid is taken by another meanwhile.

pub(crate) mod parse;
mod table;

use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, readlinkat, statat};

pub use table::ProcessTable;

use super::cgroup::{self, ProcessCgroup, Workload};
use crate::event::Comm;
use crate::text::escape;

/// Bytes read of a command line; the kernel has no limit, a table has.
const MAX_CMDLINE: u64 = 4096;
/// Bytes read of any other file: `cgroup` is the longest, with a path of up to 4096 bytes for each of a dozen
/// hierarchies.
const MAX_FILE: u64 = 64 << 10;

/// A process as /proc showed it. What could not be read is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with the pid it identifies the process.
    pub start_ticks: u64,
    /// Task name of its first thread.
    pub comm: Comm,
    /// Path of the executable, raw, with ` (deleted)` behind where that is so. `None` for kernel threads and
    /// without permission.
    pub exe: Option<Vec<u8>>,
    /// Command line, raw, arguments ended by NUL; the first 4096 bytes. `None` where empty.
    pub cmdline: Option<Vec<u8>>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Descriptors.
    pub fds: Fds,
    /// cgroups, unit, container, pod.
    pub cgroup: ProcessCgroup,
    /// Inode number of its network namespace.
    pub netns: Option<u32>,
}

/// How many descriptors a process has and may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fds {
    /// Open now.
    pub open: Option<u64>,
    /// Soft limit (RLIMIT_NOFILE), where EMFILE comes.
    pub limit: Option<u64>,
}

impl Process {
    /// Reads a process; `None` when there is none of that pid (any more).
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        let (comm, start_ticks) = parse::stat(&read(&dir, "stat", MAX_FILE)?)?;
        let status = read(&dir, "status", MAX_FILE).unwrap_or_default();
        let limits = read(&dir, "limits", MAX_FILE).unwrap_or_default();
        Some(Self {
            pid,
            start_ticks,
            comm,
            exe: readlinkat(&dir, "exe", Vec::new()).ok().map(std::ffi::CString::into_bytes),
            cmdline: read(&dir, "cmdline", MAX_CMDLINE).filter(|bytes| !bytes.is_empty()),
            uid: parse::effective_uid(&status),
            fds: Fds { open: count_fds(&dir), limit: parse::open_files_limit(&limits) },
            cgroup: ProcessCgroup::parse(&read(&dir, "cgroup", MAX_FILE).unwrap_or_default()),
            netns: statat(&dir, "ns/net", AtFlags::empty())
                .ok()
                .and_then(|stat| u32::try_from(stat.st_ino).ok()),
        })
    }

    /// Unit, container and pod.
    #[must_use]
    pub fn workload(&self) -> &Workload {
        &self.cgroup.workload
    }

    /// The executable, escaped.
    #[must_use]
    pub fn exe_shown(&self) -> Option<String> {
        self.exe.as_deref().map(|exe| escape(exe).into_owned())
    }

    /// The command line in one line, escaped, arguments separated by spaces.
    #[must_use]
    pub fn cmdline_shown(&self) -> Option<String> {
        let cmdline = self.cmdline.as_deref()?;
        let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
        let args: Vec<_> = cmdline.split(|&byte| byte == 0).map(escape).collect();
        Some(args.join(" "))
    }
}

/// Name and start of a process: what tells that a pid is still the same process. `None` when it is gone.
#[must_use]
pub fn identity(pid: u32) -> Option<(Comm, u64)> {
    let mut bytes = Vec::with_capacity(512);
    File::open(format!("/proc/{pid}/stat")).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    parse::stat(&bytes)
}

/// Id of a process's cgroup v2, whose hierarchy is mounted at `root`; `None` when the process or its cgroup is
/// gone.
#[must_use]
pub fn cgroup_id(pid: u32, root: &Path) -> Option<u64> {
    let text = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    cgroup::id_of(root, &ProcessCgroup::parse(&text).unified?)
}

/// A file of the process. An error is as good as absence: the process went, or does not show this.
fn read(dir: &OwnedFd, name: &str, limit: u64) -> Option<Vec<u8>> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::with_capacity(1024);
    File::from(file).take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The number of descriptors: the size of the directory since 6.2 (`proc_fd_getattr`), before by counting.
fn count_fds(dir: &OwnedFd) -> Option<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fds = openat(dir, "fd", flags, Mode::empty()).ok()?;
    match rustix::fs::fstat(&fds).ok()?.st_size {
        // Before 6.2 the size is always 0; a process without any descriptor costs a count of nothing.
        0 => {
            let mut buffer = [MaybeUninit::uninit(); 16 << 10];
            let mut entries = RawDir::new(&fds, &mut buffer);
            let mut count = 0;
            while let Some(entry) = entries.next() {
                count += u64::from(entry.ok()?.file_name().to_bytes()[0] != b'.');
            }
            Some(count)
        }
        size => u64::try_from(size).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read_whole() {
        let process = Process::read(std::process::id()).expect("it runs");
        let exe = std::env::current_exe().expect("it has an executable");
        assert_eq!(process.exe_shown().as_deref(), exe.to_str());
        assert_eq!(process.uid, Some(rustix::process::geteuid().as_raw()));
        assert_eq!(identity(process.pid), Some((process.comm, process.start_ticks)));
        assert!(process.cmdline_shown().is_some_and(|line| line.contains("tcptrace")));
        assert!(process.fds.open.is_some_and(|open| open >= 3));
        assert!(process.fds.limit.is_some_and(|limit| limit >= process.fds.open.unwrap_or(0)));
        assert!(process.netns.is_some());
    }

    #[test]
    fn what_does_not_exist_is_none() {
        assert_eq!(Process::read(u32::MAX), None);
        assert_eq!(identity(u32::MAX), None);
    }

    #[test]
    fn hostile_command_lines_are_shown_not_obeyed() {
        let mut process = Process::read(std::process::id()).expect("it runs");
        process.cmdline = Some(b"a\0b c\0\x1b[2J\n\xff\0".to_vec());
        assert_eq!(process.cmdline_shown().as_deref(), Some("a b c \\x1b[2J\\x0a\\xff"));
    }
}
