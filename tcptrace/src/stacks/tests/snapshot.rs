//! Registers and stack of a live process by ptrace: what the BPF program would have sent.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tcptrace_common::record::STACK_BYTES;

use crate::decode::{StackReason, StackSample};

#[derive(Clone, Copy)]
struct Registers {
    ip: u64,
    sp: u64,
    fp: u64,
    lr: u64,
}

/// A process that has been stopped for a moment inside a system call.
#[derive(Clone)]
pub struct Snapshot {
    pid: u32,
    registers: Registers,
    stack: Vec<u8>,
}

impl Snapshot {
    pub fn sample(&self) -> StackSample<'_> {
        StackSample {
            reason: StackReason::Eof,
            at: 1,
            sk: 2,
            local_port: 80,
            remote_port: 1024,
            pid: self.pid,
            tid: self.pid,
            ip: self.registers.ip,
            sp: self.registers.sp,
            fp: self.registers.fp,
            lr: self.registers.lr,
            stack: &self.stack,
        }
    }

    pub fn change_stack(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.stack);
    }

    /// Stops the main thread of a process, reads it and lets it go on.
    pub fn take(pid: u32) -> Option<Self> {
        let tid = libc::pid_t::try_from(pid).ok()?;
        ptrace(libc::PTRACE_SEIZE, tid, 0, 0)?;
        ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
        let mut status = 0;
        // SAFETY: `status` is a valid place for waitpid to write to.
        let stopped = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        let registers = (stopped == tid).then(|| registers(tid)).flatten();
        let stack = registers.and_then(|registers| {
            let mut stack = vec![0; STACK_BYTES];
            let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
            let len = memory.read_at(&mut stack, registers.sp).ok()?;
            stack.truncate(len);
            Some(stack)
        });
        ptrace(libc::PTRACE_DETACH, tid, 0, 0)?;
        Some(Self { pid, registers: registers?, stack: stack? })
    }
}

fn ptrace(request: libc::c_uint, tid: libc::pid_t, address: usize, data: usize) -> Option<()> {
    // SAFETY: the requests used here read or write nothing of ours but what `data` points to, which
    // `registers` makes a valid iovec.
    let answer = unsafe { libc::ptrace(request, tid, address, data) };
    if answer == -1 {
        eprintln!("ptrace({request:#x}): {}", std::io::Error::last_os_error());
    }
    (answer != -1).then_some(())
}

fn registers(tid: libc::pid_t) -> Option<Registers> {
    let mut words = [0_u64; 64];
    let mut vector = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
    const NT_PRSTATUS: usize = 1;
    ptrace(libc::PTRACE_GETREGSET, tid, NT_PRSTATUS, &raw mut vector as usize)?;
    // struct user_regs_struct of x86-64, struct user_pt_regs of arm64.
    Some(if cfg!(target_arch = "x86_64") {
        Registers { ip: words[16], sp: words[19], fp: words[4], lr: 0 }
    } else {
        Registers { ip: words[32], sp: words[31], fp: words[29], lr: words[30] }
    })
}

/// A program of a test, built in a directory of its own and ended with it.
pub struct Target {
    child: Child,
    pub directory: tempfile::TempDir,
}

impl Target {
    /// Builds a program from source. `None`, with a word on stderr, where the compiler is not there.
    pub fn build(compiler: &[&str], file: &str, source: &str) -> Option<(tempfile::TempDir, PathBuf)> {
        let directory = tempfile::tempdir().unwrap();
        let source_file = directory.path().join(file);
        std::fs::write(&source_file, source).unwrap();
        let program = directory.path().join("target");
        let built = Command::new(compiler[0])
            .args(&compiler[1..])
            .args([source_file.as_os_str(), "-o".as_ref(), program.as_os_str()])
            .current_dir(directory.path())
            .output();
        match built {
            Ok(output) if output.status.success() => Some((directory, program)),
            Ok(output) => {
                panic!("{compiler:?}: {}", String::from_utf8_lossy(&output.stderr))
            }
            Err(error) => {
                eprintln!("SKIPPED: {}: {error}", compiler[0]);
                None
            }
        }
    }

    /// Starts a program and waits until it says that it is about to block.
    pub fn start(directory: tempfile::TempDir, command: &mut Command) -> Option<Self> {
        // Node leaves a log in the directory that it is started in.
        command.current_dir(directory.path());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                eprintln!("SKIPPED: {command:?}: {error}");
                return None;
            }
        };
        let mut said = [0; 5];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"ready");
        let target = Self { child, directory };
        Self::wait_until_blocked(target.pid());
        Some(target)
    }

    /// Builds and starts.
    pub fn run(compiler: &[&str], file: &str, source: &str) -> Option<Self> {
        let (directory, program) = Self::build(compiler, file, source)?;
        Self::start(directory, &mut Command::new(program))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that a command such as unshare(1) has started.
    pub fn inner_pid(&self) -> Option<u32> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    pub fn program(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::take(self.pid());
        if snapshot.is_none() {
            eprintln!("SKIPPED: ptrace is not permitted here");
        }
        snapshot
    }

    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sleeping inside a system call for two looks in a row.
    pub fn wait_until_blocked(pid: u32) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let path = format!("/proc/{pid}/syscall");
        let mut before = String::new();
        while Instant::now() < deadline {
            let now = std::fs::read_to_string(Path::new(&path)).unwrap_or_default();
            if now == before && !now.starts_with("running") && !now.is_empty() {
                return;
            }
            before = now;
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the program never blocked");
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.end();
        // What JIT compilers wrote for perf.
        let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", self.pid()));
    }
}
