//! The address of a kernel function, asked for by a BPF program: a binary search in the kernel, where a reader of
//! /proc/kallsyms has the kernel format a hundred thousand lines, 70 ms of work.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_func_id, bpf_prog_type};

/// `BPF_F_SLEEPABLE`, which the kernel demands of programs that are called like a system call.
const SLEEPABLE: u32 = 1 << 4;

/// The address of `symbol`; `None` where the kernel does not say it in this way (it is asked since 5.16, and who asks
/// needs CAP_BPF and CAP_SYSLOG) or has no symbol of exactly this name. Modules' symbols count, too.
pub(super) fn address(symbol: &str) -> Option<u64> {
    let program = load(&instructions(symbol)?).ok()?;
    run(&program).ok().filter(|&address| address != 0)
}

/// A program that calls `bpf_kallsyms_lookup_name()` and leaves the address in its context; `None` for a name that does
/// not fit on its stack.
fn instructions(symbol: &str) -> Option<Vec<u64>> {
    const MAX_BYTES: usize = 256;
    // Operation codes of `include/uapi/linux/bpf.h`, BPF_ALU64 or 64 bits wide.
    const MOVE: u8 = 0xbf;
    const MOVE_CONSTANT: u8 = 0xb7;
    const ADD_CONSTANT: u8 = 0x07;
    const LOAD_CONSTANT: u8 = 0x18;
    const LOAD: u8 = 0x79;
    const STORE: u8 = 0x7b;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    // Registers: arguments, what calls do not change, the frame.
    const ARGUMENT: [u8; 4] = [1, 2, 3, 4];
    const CONTEXT: u8 = 6;
    const FRAME: u8 = 10;

    let mut name = [symbol.as_bytes(), b"\0"].concat();
    let bytes = i32::try_from(name.len()).ok()?;
    name.resize(name.len().next_multiple_of(8), 0);
    if symbol.contains('\0') || name.len() > MAX_BYTES {
        return None;
    }
    let result = -8_i16;
    let start = result - i16::try_from(name.len()).ok()?;

    let mut program = vec![instruction(MOVE, CONTEXT, ARGUMENT[0], 0, 0)];
    for (word, at) in name.chunks_exact(8).zip((start..).step_by(8)) {
        let half = |at: usize| i32::from_ne_bytes([word[at], word[at + 1], word[at + 2], word[at + 3]]);
        program.push(instruction(LOAD_CONSTANT, ARGUMENT[1], 0, 0, half(0)));
        program.push(instruction(0, 0, 0, 0, half(4)));
        program.push(instruction(STORE, FRAME, ARGUMENT[1], at, 0));
    }
    program.extend([
        instruction(MOVE_CONSTANT, ARGUMENT[1], 0, 0, 0),
        instruction(STORE, FRAME, ARGUMENT[1], result, 0),
        // The name, its length with the NUL, no flags, and where the address goes.
        instruction(MOVE, ARGUMENT[0], FRAME, 0, 0),
        instruction(ADD_CONSTANT, ARGUMENT[0], 0, 0, start.into()),
        instruction(MOVE_CONSTANT, ARGUMENT[1], 0, 0, bytes),
        instruction(MOVE_CONSTANT, ARGUMENT[2], 0, 0, 0),
        instruction(MOVE, ARGUMENT[3], FRAME, 0, 0),
        instruction(ADD_CONSTANT, ARGUMENT[3], 0, 0, result.into()),
        instruction(CALL, 0, 0, 0, bpf_func_id::BPF_FUNC_kallsyms_lookup_name as i32),
        instruction(LOAD, ARGUMENT[0], FRAME, result, 0),
        instruction(STORE, CONTEXT, ARGUMENT[0], 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    Some(program)
}

/// `struct bpf_insn`.
fn instruction(code: u8, to: u8, from: u8, offset: i16, constant: i32) -> u64 {
    let ([o0, o1], [c0, c1, c2, c3]) = (offset.to_ne_bytes(), constant.to_ne_bytes());
    u64::from_ne_bytes([code, to | from << 4, o0, o1, c0, c1, c2, c3])
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that this command takes; the kernel accepts a shorter one.
    #[repr(C)]
    struct ProgLoad {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
    }
    let license = c"Dual MIT/GPL";
    let mut attr = ProgLoad {
        prog_type: bpf_prog_type::BPF_PROG_TYPE_SYSCALL as u32,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: SLEEPABLE,
    };
    // SAFETY: the kernel reads `insn_cnt` instructions and a string, both live during the call, and keeps neither.
    let fd = unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)? };
    // SAFETY: the descriptor has just been made for this process, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs the program once; the word that it leaves in its context.
fn run(program: &OwnedFd) -> io::Result<u64> {
    /// As `ProgLoad`.
    #[repr(C)]
    struct TestRun {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
    }
    let mut context = 0_u64;
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        retval: 0,
        data_size_in: 0,
        data_size_out: 0,
        data_in: 0,
        data_out: 0,
        repeat: 0,
        duration: 0,
        ctx_size_in: size_of::<u64>() as u32,
        ctx_size_out: 0,
        ctx_in: &raw mut context as u64,
        ctx_out: 0,
    };
    // SAFETY: `context` is live, writable and of the size given; the kernel copies it in and back out
    // (`bpf_prog_test_run_syscall`).
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)? };
    Ok(context)
}

/// bpf(2).
///
/// # Safety
/// `attr` is what `command` takes, and what it points to is valid for the call.
unsafe fn bpf<T>(command: bpf_cmd, attr: &mut T) -> io::Result<i32> {
    // SAFETY: as promised; `attr` is live and of the size given.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attr), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::privileges::Host;
    use crate::kernel::symbols;

    #[test]
    fn the_kernel_answers_what_its_list_says() {
        let missing = Host::look().missing(true);
        if !missing.is_empty() {
            eprintln!("skipped: {missing:?}");
            return;
        }
        // Kernels before 5.16 cannot be asked, and compilers may have given the function a suffix.
        if let Some(address) = address(symbols::TW_TIMER_HANDLER) {
            assert_eq!(address, symbols::listed(symbols::TW_TIMER_HANDLER).unwrap());
        }
        assert_eq!(address("a_function_that_no_kernel_has"), None);
    }

    #[test]
    fn names_that_do_not_fit_are_not_asked_for() {
        assert_eq!(instructions(&"x".repeat(256)), None);
        assert_eq!(instructions("a\0b"), None);
        // One word of name, with the NUL.
        assert_eq!(instructions("1234567").unwrap().len(), 1 + 3 + 12);
        assert_eq!(instructions("12345678").unwrap().len(), 1 + 6 + 12);
    }
}
