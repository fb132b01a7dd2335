//! What was lost and how often each program ran.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::{MapData, MapError, PerCpuArray};
use aya_obj::generated::{bpf_cmd, bpf_prog_info};
use tcptrace_common::counter;

use crate::net::State;
use crate::snapshot::TransitionCount;

/// Totals of the programs' own counters over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records that found no room in the event ring.
    pub ring_full: u64,
    /// Stacks that found no room in the stack ring.
    pub stack_ring_full: u64,
    /// Records given up because a kernel read failed.
    pub read_failed: u64,
    /// Records submitted to the event ring.
    pub submitted: u64,
}

impl Counters {
    pub(super) fn read(map: &PerCpuArray<MapData, u64>) -> io::Result<Self> {
        let total = |slot| total(map, slot);
        Ok(Self {
            ring_full: total(counter::RING_FULL)?,
            stack_ring_full: total(counter::STACK_RING_FULL)?,
            read_failed: total(counter::READ_FAILED)?,
            submitted: total(counter::SUBMITTED)?,
        })
    }
}

/// Transitions that found no room, by kind, those that there were.
pub(super) fn lost_transitions(map: &PerCpuArray<MapData, u64>) -> io::Result<Vec<TransitionCount>> {
    let mut lost = Vec::new();
    for from in State::ALL {
        for to in State::ALL {
            let count = total(map, counter::lost_transition(from.number(), to.number()))?;
            if count > 0 {
                lost.push(TransitionCount { from, to, count });
            }
        }
    }
    Ok(lost)
}

/// A slot, all CPUs together.
fn total(map: &PerCpuArray<MapData, u64>, slot: u32) -> io::Result<u64> {
    let values = map.get(&slot, 0).map_err(io_error)?;
    Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
}

fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        error => io::Error::other(error),
    }
}

/// What the kernel counts about one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProgramCounts {
    /// Runs, and the nanoseconds that they took; both stay 0 while BPF statistics are off.
    pub run_count: u64,
    pub run_time_ns: u64,
    /// Runs skipped because the program would have interrupted itself. Counted since 5.12; raw tracepoints
    /// skip runs only since 6.1, so 0 is true before.
    pub recursion_misses: u64,
}

impl ProgramCounts {
    /// Asks the kernel (BPF_OBJ_GET_INFO_BY_FD). aya's own `ProgramInfo` keeps `recursion_misses` to itself.
    pub fn read(program: BorrowedFd<'_>) -> io::Result<Self> {
        /// The part of `union bpf_attr` that this command takes; the kernel accepts a shorter one.
        #[repr(C)]
        struct InfoByFd {
            bpf_fd: u32,
            info_len: u32,
            info: u64,
        }
        // SAFETY: `bpf_prog_info` is made of integers and arrays of them, for which zeros are a value. Zero
        // lengths and pointers ask for none of the variable-length parts.
        let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
        let mut attr = InfoByFd {
            bpf_fd: program.as_raw_fd().cast_unsigned(),
            info_len: size_of::<bpf_prog_info>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        // SAFETY: `attr` and `info` are live, writable, of the sizes given, and used by nobody else during the
        // call; the kernel writes at most `info_len` bytes to `info` and leaves the rest zero.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                bpf_cmd::BPF_OBJ_GET_INFO_BY_FD as libc::c_long,
                std::ptr::from_mut(&mut attr),
                size_of::<InfoByFd>(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            run_count: info.run_cnt,
            run_time_ns: info.run_time_ns,
            recursion_misses: info.recursion_misses,
        })
    }
}
