//! bpf(2), as far as the benchmarks need it: the kernel's statistics of programs, and a program that does nothing.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_ENABLE_STATS: libc::c_long = 32;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u64 = 17;

/// The kernel counts runs and time of all programs while this is open. It ends with this process, whatever happens, which
/// the sysctl would not.
pub fn enable_stats() -> Result<OwnedFd> {
    // BPF_STATS_RUN_TIME is 0.
    let mut attr = [0_u64; 1];
    // SAFETY: the command takes one integer.
    unsafe { bpf(BPF_ENABLE_STATS, &mut attr) }.context("the kernel does not count the time of BPF programs")
}

/// A program that returns 0 at once, attached for as long as it is open.
#[derive(Debug)]
pub struct Empty {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// Attaches it to this tracepoint.
    pub fn attach(tracepoint: &str) -> Result<Self> {
        // r0 = 0; exit.
        let instructions = [0xb7_u64, 0x95];
        let license = c"GPL";
        let mut attr = [0_u64; 6];
        attr[0] = BPF_PROG_TYPE_RAW_TRACEPOINT | (instructions.len() as u64) << 32;
        attr[1] = instructions.as_ptr() as u64;
        attr[2] = license.as_ptr() as u64;
        // SAFETY: instructions and licence are live and of the size given; the kernel keeps neither.
        let program = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }.context("cannot load an empty program")?;
        let name = CString::new(tracepoint)?;
        let mut attr = [name.as_ptr() as u64, u64::from(program.as_raw_fd().cast_unsigned())];
        // SAFETY: the name is a live string, which the kernel copies.
        let link = unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &mut attr) }
            .with_context(|| format!("cannot attach an empty program to {tracepoint}"))?;
        Ok(Self { program, _link: link })
    }

    /// What the kernel counted of it.
    pub fn runs(&self) -> Result<Runs> {
        of_descriptor("self", self.program.as_raw_fd())?.context("no statistics of a program")
    }
}

/// What the kernel counted of a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// Its id.
    pub id: u64,
    /// Runs.
    pub count: u64,
    /// Time spent in them, nanoseconds, the two clock reads that measure it included.
    pub time_ns: u64,
}

/// The programs that a process has attached to raw tracepoints: the tracepoint's name and what was counted.
pub fn attached(pid: u32) -> Result<Vec<(String, Runs)>> {
    let (mut programs, mut links) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).context("the process is gone")? {
        let Some(descriptor) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        programs.extend(of_descriptor(&pid.to_string(), descriptor)?);
        // Only links have a tracepoint's name.
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
        if let (Some(name), Some(id)) = (field(&info, "tp_name"), field(&info, "prog_id")) {
            links.push((name.to_owned(), id.parse::<u64>()?));
        }
    }
    let of = |id: u64| programs.iter().find(|runs: &&Runs| runs.id == id).copied();
    Ok(links.into_iter().filter_map(|(name, id)| Some((name, of(id)?))).collect())
}

/// What was counted of the program that a descriptor stands for; `None` where it stands for something else.
fn of_descriptor(pid: &str, descriptor: RawFd) -> Result<Option<Runs>> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
    let number = |name: &str| field(&info, name).map(str::parse::<u64>).transpose();
    let (Some(id), Some(time_ns), Some(count)) =
        (number("prog_id")?, number("run_time_ns")?, number("run_cnt")?)
    else {
        return Ok(None);
    };
    Ok(Some(Runs { id, count, time_ns }))
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// # Safety
/// `attr` is what `command` takes, and what it points to is valid for the call.
unsafe fn bpf(command: libc::c_long, attr: &mut [u64]) -> io::Result<OwnedFd> {
    // SAFETY: as promised; the kernel reads no more than the size given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val::<[u64]>(attr)) };
    let descriptor = RawFd::try_from(result).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
