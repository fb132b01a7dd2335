//! A filter of system calls for a thread that has given up its privileges: what uid 0 alone still allows.
//!
//! Capabilities are not all that root has. Its files are its own: without any capability a process of uid 0 may still
//! rewrite /etc/passwd, or replace a program that others run. So the calls that change the system are refused: opening
//! files for writing and changing directories, starting programs, loading BPF programs and modules, tracing and
//! signalling other processes, mounting, entering namespaces, and talking to the services of the host, which do for uid 0
//! whatever it asks. What a thread must do later, it is allowed ([`Allow`]).
//!
//! It is a list of what is refused, not of what is allowed: the latter differs between C libraries and their versions,
//! and a call that was forgotten would end a trace. What asks by a pointer cannot be looked at (`openat2()`, `io_uring`)
//! and is refused whole.
//!
//! It costs next to nothing: for a call that is never refused, whatever its arguments, the kernel knows so in advance
//! since 5.11 (`seccomp_cache_check_allow()`), and the filter is not run.

use std::io;
use std::mem::offset_of;

use libc::{c_long, seccomp_data, sock_filter, sock_fprog};

use super::confine::Allow;

/// What the filter says about a system call.
enum Rule {
    /// Refused.
    Never(c_long),
    /// Refused when an argument has one of these bits.
    Without { call: c_long, argument: usize, bits: u32 },
    /// Refused unless an argument is one of these. Kernel and filter both take its lower half.
    Only { call: c_long, argument: usize, values: &'static [u32] },
    /// Refused when an argument is one of these.
    Not { call: c_long, argument: usize, values: &'static [u32] },
    /// Refused unless these arguments are all what stands beside their numbers.
    Exactly { call: c_long, arguments: &'static [(usize, u32)] },
    /// Refused unless an argument is this process's id.
    Own { call: c_long },
}

/// `AUDIT_ARCH_*` of this program: a call made through another architecture's entry has other numbers.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };
/// `__X32_SYSCALL_BIT`: the third set of numbers on x86-64, where it is built in. No number on aarch64 is as large.
const X32: u32 = 0x4000_0000;

/// Commands of bpf(2): reading one's own maps, and asking about what one has a descriptor of.
const BPF_READ: &[u32] = &[BPF_MAP_LOOKUP_ELEM, BPF_MAP_GET_NEXT_KEY, BPF_OBJ_GET_INFO_BY_FD];
const BPF_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_MAP_GET_NEXT_KEY: u32 = 4;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;

/// Requests of ioctl() that put characters into a terminal as if they had been typed, for the shell to read afterwards.
const TYPES_FOR_THE_USER: &[u32] = &[libc::TIOCSTI as u32, TIOCLINUX];
const TIOCLINUX: u32 = 0x541C;

/// Flags of open() that may change something: O_WRONLY, O_RDWR, and both of them, which is for ioctl() alone.
const WRITES: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u32;

/// Calls that nothing here needs once it traces, in the order of what they would do.
const NEVER: &[c_long] = &[
    // Other programs, other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    libc::SYS_process_madvise,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    // What processes of this user share.
    libc::SYS_msgctl,
    libc::SYS_semctl,
    libc::SYS_shmctl,
    libc::SYS_mq_unlink,
    // The kernel.
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    // Calls by another road, past this filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The tree of files, and namespaces.
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// `fchmodat2()`, of Linux 6.6. The crate's lists for aarch64 do not name it, nor, those for musl, the next one.
const FCHMODAT2: c_long = 452;
/// `kexec_file_load()`.
const KEXEC_FILE_LOAD: c_long = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// Calls that change directories and what belongs to a file.
const FILES: &[c_long] = &[
    libc::SYS_truncate,
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    libc::SYS_renameat,
];

/// The same under the names that only older architectures have.
#[cfg(target_arch = "x86_64")]
const OLD_FILES: &[c_long] = &[
    libc::SYS_creat,
    libc::SYS_mknod,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_FILES: &[c_long] = &[];

fn rules(allow: Allow) -> Vec<Rule> {
    let mut rules = vec![
        Rule::Only { call: libc::SYS_bpf, argument: 0, values: BPF_READ },
        // abort() and raise() are signals to oneself.
        Rule::Own { call: libc::SYS_tgkill },
        // Of oneself, which is how the C library asks for the size of a stack.
        Rule::Only { call: libc::SYS_prlimit64, argument: 0, values: &[0] },
        // Sockets of `sock_diag`. Whoever else listens, the init system or a container engine on AF_UNIX, is not reached;
        // what was open before remains so.
        Rule::Exactly {
            call: libc::SYS_socket,
            arguments: &[(0, libc::AF_NETLINK as u32), (2, libc::NETLINK_SOCK_DIAG as u32)],
        },
        Rule::Not { call: libc::SYS_ioctl, argument: 1, values: TYPES_FOR_THE_USER },
    ];
    rules.extend(NEVER.iter().copied().map(Rule::Never));
    if !allow.signals {
        // 0 is the own process group, which Ctrl-Z on the full screen stops.
        rules.push(Rule::Only { call: libc::SYS_kill, argument: 0, values: &[0] });
        rules.push(Rule::Never(libc::SYS_pidfd_send_signal));
    }
    if !allow.namespaces {
        rules.push(Rule::Never(libc::SYS_setns));
    }
    if !allow.files {
        rules.push(Rule::Without { call: libc::SYS_openat, argument: 2, bits: WRITES });
        #[cfg(target_arch = "x86_64")]
        rules.push(Rule::Without { call: libc::SYS_open, argument: 1, bits: WRITES });
        rules.extend(FILES.iter().chain(OLD_FILES).copied().map(Rule::Never));
    }
    if !allow.files && !allow.openat2 {
        rules.push(Rule::Never(libc::SYS_openat2));
    }
    rules
}

/// Filters what the calling thread, and those that it starts, may ask of the kernel; there is no way back. False where
/// this kernel or a sandbox around it allows no such filters. The thread must have `no_new_privs`.
pub(super) fn restrict(allow: Allow) -> io::Result<bool> {
    /// Without it kernels before 5.16 would slow the whole thread down by a mitigation (`spec_store_bypass_disable`)
    /// that is meant for code of strangers.
    const SPEC_ALLOW: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let mut program = program(std::process::id(), &rules(allow));
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the instructions, `len` of which stand at `filter`, before it returns.
    let outcome = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, SPEC_ALLOW, &raw const program)
    };
    if outcome == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Built without CONFIG_SECCOMP, or without CONFIG_SECCOMP_FILTER; or a sandbox around this process has a filter
        // that refuses to be joined by another. Neither is a reason not to trace.
        Some(libc::ENOSYS | libc::EINVAL | libc::EPERM | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Instructions of classic BPF.
mod op {
    pub const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    pub const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    pub const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    pub const IF_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    pub const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
}

/// An instruction; `yes` and `no` say how many instructions a test passes over.
fn instruction(op: u32, k: u32, yes: usize, no: usize) -> sock_filter {
    let short = |distance: usize| u8::try_from(distance).expect("blocks are shorter than 256 instructions");
    sock_filter { code: u16::try_from(op).expect("sixteen bits"), jt: short(yes), jf: short(no), k }
}

fn load(offset: usize) -> sock_filter {
    instruction(op::LOAD, u32::try_from(offset).expect("a small structure"), 0, 0)
}

/// Lower half of an argument: both architectures are little-endian.
fn load_argument(number: usize) -> sock_filter {
    load(offset_of!(seccomp_data, args) + number * size_of::<u64>())
}

fn allow() -> sock_filter {
    instruction(op::RETURN, libc::SECCOMP_RET_ALLOW, 0, 0)
}

fn refuse() -> sock_filter {
    instruction(op::RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0)
}

fn program(own_pid: u32, rules: &[Rule]) -> Vec<sock_filter> {
    let mut program = vec![
        load(offset_of!(seccomp_data, arch)),
        instruction(op::IF_EQUAL, ARCHITECTURE, 1, 0),
        instruction(op::RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        load(offset_of!(seccomp_data, nr)),
        instruction(op::IF_AT_LEAST, X32, 0, 1),
        refuse(),
    ];
    for rule in rules {
        let (call, block) = match *rule {
            Rule::Never(call) => (call, vec![refuse()]),
            Rule::Without { call, argument, bits } => {
                let test = instruction(op::IF_BITS, bits, 0, 1);
                (call, vec![load_argument(argument), test, refuse(), allow()])
            }
            Rule::Only { call, argument, values } => (call, choose(argument, values, allow(), refuse())),
            Rule::Not { call, argument, values } => (call, choose(argument, values, refuse(), allow())),
            Rule::Exactly { call, arguments } => (call, exactly(arguments)),
            Rule::Own { call } => (call, choose(0, &[own_pid], allow(), refuse())),
        };
        // Each block ends in an answer: the number of the call is still loaded for the next rule.
        let call = u32::try_from(call).expect("numbers of calls are small");
        program.push(instruction(op::IF_EQUAL, call, 0, block.len()));
        program.extend(block);
    }
    program.push(allow());
    program
}

/// One answer where an argument is one of these, another where it is none.
fn choose(argument: usize, values: &[u32], found: sock_filter, not_found: sock_filter) -> Vec<sock_filter> {
    let mut block = vec![load_argument(argument)];
    for (index, &value) in values.iter().enumerate() {
        block.push(instruction(op::IF_EQUAL, value, values.len() - index, 0));
    }
    block.extend([not_found, found]);
    block
}

/// Allows only what is the same in all these arguments.
fn exactly(arguments: &[(usize, u32)]) -> Vec<sock_filter> {
    let mut block = Vec::new();
    for (index, &(argument, value)) in arguments.iter().enumerate() {
        // Two instructions for each argument that is still to come, then the answer that allows.
        let to_the_end = 2 * (arguments.len() - index - 1) + 1;
        block.extend([load_argument(argument), instruction(op::IF_EQUAL, value, 0, to_the_end)]);
    }
    block.extend([allow(), refuse()]);
    block
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
