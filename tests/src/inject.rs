//! System calls made inside another process, one thread at a time: what a running program may still do is found by
//! doing it there.
//!
//! A thread that waits in a system call stands behind a `syscall` instruction. It is stopped, its registers are
//! exchanged for those of another call, that one instruction is executed again, and everything is put back
//! (`ptrace(2)`). A call that the kernel restarts goes on as if nothing had been.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use libc::{c_int, c_long, pid_t, user_regs_struct};

/// `0f 05`
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Bytes below the stack pointer that belong to the running function (System V ABI), and room.
const RED_ZONE: u64 = 1024;
/// Stops before the instruction, of a signal each, that are borne.
const MAX_STOPS: usize = 16;

/// Threads of a process with their names.
///
/// # Errors
/// When the process has ended.
pub fn threads(pid: u32) -> Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let tid = path.file_name().and_then(|name| name.to_str()).context("a thread's id")?.parse()?;
        found.push((tid, fs::read_to_string(path.join("comm"))?.trim_end().to_owned()));
    }
    found.sort_unstable();
    Ok(found)
}

/// A stopped thread. It goes on, as it was, when this is dropped.
#[derive(Debug)]
pub struct Stopped {
    tid: pid_t,
    memory: File,
    before: user_regs_struct,
    syscall: u64,
    free: u64,
    overwritten: Vec<(u64, Vec<u8>)>,
    /// Signals that came meanwhile.
    held: RefCell<Vec<c_int>>,
}

impl Stopped {
    /// Stops a thread that waits for something.
    ///
    /// # Errors
    /// When it cannot be traced, or does not wait in a system call.
    pub fn new(tid: u32) -> Result<Self> {
        let tid = pid_t::try_from(tid)?;
        let memory = File::options().read(true).write(true).open(format!("/proc/{tid}/mem"))?;
        trace(libc::PTRACE_SEIZE, tid, 0).context("cannot trace the thread")?;
        let stopped = trace(libc::PTRACE_INTERRUPT, tid, 0).and_then(|()| wait_for_stop(tid));
        let registers = stopped.and_then(|_| registers(tid));
        let before = match registers {
            Ok(registers) => registers,
            Err(error) => {
                let _ = trace(libc::PTRACE_DETACH, tid, 0);
                return Err(error.into());
            }
        };
        let syscall = before.rip.wrapping_sub(SYSCALL.len() as u64);
        // Below the red zone, at a multiple of 16.
        let free = (before.rsp - RED_ZONE) & !15;
        let stopped =
            Self { tid, memory, before, syscall, free, overwritten: Vec::new(), held: RefCell::default() };
        let mut code = [0; 2];
        stopped.memory.read_exact_at(&mut code, syscall)?;
        ensure!(code == SYSCALL, "the thread {tid} does not wait in a system call");
        Ok(stopped)
    }

    /// Puts bytes into its memory, until it goes on; their address.
    ///
    /// # Errors
    /// When its stack is not there.
    pub fn put(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = (self.free - bytes.len() as u64) & !15;
        let mut before = vec![0; bytes.len()];
        self.memory.read_exact_at(&mut before, at)?;
        self.memory.write_all_at(bytes, at)?;
        self.overwritten.push((at, before));
        self.free = at;
        Ok(at)
    }

    /// The same with a path.
    ///
    /// # Errors
    /// When its stack is not there.
    pub fn put_path(&mut self, path: &str) -> Result<u64> {
        self.put(&[path.as_bytes(), b"\0"].concat())
    }

    /// Makes a system call; the error is its errno.
    ///
    /// # Errors
    /// When the thread could not be made to.
    pub fn call(&self, number: c_long, arguments: [u64; 5]) -> Result<Result<u64, c_int>> {
        let [rdi, rsi, rdx, r10, r8] = arguments;
        let rax = u64::try_from(number)?;
        // No call is to be restarted: `orig_rax` would be its number.
        let orig_rax = u64::MAX;
        let rip = self.syscall;
        set_registers(
            self.tid,
            &user_regs_struct { rax, orig_rax, rip, rdi, rsi, rdx, r10, r8, ..self.before },
        )?;
        let after = self.step()?;
        let result = after.rax.cast_signed();
        Ok(match result {
            -4095..0 => Err(c_int::try_from(-result)?),
            _ => Ok(after.rax),
        })
    }

    /// Executes the one instruction; the registers after it.
    ///
    /// A signal that comes stops the thread before it. It waits until the thread goes on.
    fn step(&self) -> Result<user_regs_struct> {
        let mut stops = Vec::new();
        while stops.len() < MAX_STOPS {
            trace(libc::PTRACE_SINGLESTEP, self.tid, 0)?;
            let status = wait_for_stop(self.tid)?;
            let after = registers(self.tid)?;
            if after.rip == self.before.rip {
                return Ok(after);
            }
            stops.push(format!("{status:#x} at {:#x}", after.rip));
            ensure!(after.rip == self.syscall, "stopped elsewhere than at {:#x}: {stops:?}", self.syscall);
            let signal = libc::WSTOPSIG(status);
            if status >> 16 == 0 && signal != libc::SIGTRAP {
                self.held.borrow_mut().push(signal);
            }
        }
        bail!("the instruction at {:#x} was not executed: {stops:?}", self.syscall)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for (at, bytes) in self.overwritten.iter().rev() {
            let _ = self.memory.write_all_at(bytes, *at);
        }
        let _ = set_registers(self.tid, &self.before);
        let _ = trace(libc::PTRACE_DETACH, self.tid, 0);
        for signal in self.held.take() {
            // SAFETY: takes numbers only.
            unsafe { libc::syscall(libc::SYS_tkill, self.tid, signal) };
        }
    }
}

fn trace(request: libc::c_uint, tid: pid_t, data: usize) -> io::Result<()> {
    // SAFETY: none of the requests that are made here takes an address in this process by `data`, but those of
    // registers, which give that of a whole `user_regs_struct`.
    let outcome = unsafe { libc::ptrace(request, tid, 0_usize, data) };
    if outcome == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn registers(tid: pid_t) -> io::Result<user_regs_struct> {
    let mut registers = MaybeUninit::<user_regs_struct>::uninit();
    trace(libc::PTRACE_GETREGS, tid, registers.as_mut_ptr().addr())?;
    // SAFETY: the kernel has filled it in.
    Ok(unsafe { registers.assume_init() })
}

fn set_registers(tid: pid_t, registers: &user_regs_struct) -> io::Result<()> {
    trace(libc::PTRACE_SETREGS, tid, (&raw const *registers).addr())
}

/// Its status, as `waitpid` gives it.
fn wait_for_stop(tid: pid_t) -> io::Result<c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is there to be written to.
        if unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) } == tid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if libc::WIFSTOPPED(status) {
        return Ok(status);
    }
    Err(io::Error::other(format!("the thread {tid} has ended (status {status:#x})")))
}

/// Stops a thread of this name; a busy one is waited for.
///
/// # Errors
/// When it never waits.
pub fn stop(tid: u32) -> Result<Stopped> {
    let mut last = None;
    for _ in 0..200 {
        match Stopped::new(tid) {
            Ok(stopped) => return Ok(stopped),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    match last {
        Some(error) => Err(error),
        None => bail!("not tried"),
    }
}
