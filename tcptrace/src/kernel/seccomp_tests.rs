use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::*;

/// Runs `work` on a thread that is filtered; the filter goes with it.
fn filtered<T: Send + 'static>(allow: Allow, work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        assert!(restrict(allow).unwrap(), "every kernel that tests run on has seccomp");
        work()
    })
    .join()
    .unwrap()
}

fn errno<T>(outcome: io::Result<T>) -> i32 {
    outcome.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

/// A system call with arguments that change nothing should it get through.
fn harmless(call: c_long, arguments: [c_long; 3]) -> i32 {
    // SAFETY: the arguments are numbers that no call takes for an address that it may write to.
    let outcome = unsafe { libc::syscall(call, arguments[0], arguments[1], arguments[2]) };
    errno(if outcome == -1 { Err(io::Error::last_os_error()) } else { Ok(()) })
}

#[test]
fn files_can_be_read_and_not_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    fs::write(&old, "old").unwrap();
    let paths = (old.clone(), new.clone());
    let refused = filtered(Allow::default(), move || {
        let (old, new) = paths;
        assert_eq!(fs::read(&old).unwrap(), b"old");
        [
            errno(OpenOptions::new().write(true).open(&old)),
            errno(OpenOptions::new().read(true).append(true).open(&old)),
            errno(OpenOptions::new().read(true).write(true).open("/dev/null")),
            errno(File::create(&new)),
            errno(fs::rename(&old, &new)),
            errno(fs::remove_file(&old)),
            errno(fs::create_dir(&new)),
            errno(fs::hard_link(&old, &new)),
            errno(std::os::unix::fs::symlink(&old, &new)),
            errno(fs::set_permissions(&old, fs::Permissions::from_mode(0o777))),
            errno(std::os::unix::fs::chown(&old, Some(1), None)),
            errno(
                rustix::fs::openat2(
                    rustix::fs::CWD,
                    &old,
                    rustix::fs::OFlags::RDONLY,
                    rustix::fs::Mode::empty(),
                    rustix::fs::ResolveFlags::empty(),
                )
                .map_err(io::Error::from),
            ),
        ]
    });
    assert_eq!(refused, [libc::EPERM; 12]);
    assert_eq!(fs::read(&old).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // And the one thread that may, can.
    filtered(Allow { files: true, ..Allow::default() }, move || fs::write(new, "new")).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn what_a_thread_is_allowed_it_can_do_and_nothing_else() {
    let openat2 = |allow| {
        filtered(allow, || {
            let flags = rustix::fs::OFlags::PATH;
            let none = (rustix::fs::Mode::empty(), rustix::fs::ResolveFlags::empty());
            rustix::fs::openat2(rustix::fs::CWD, "/", flags, none.0, none.1).map(drop)
        })
    };
    assert_eq!(openat2(Allow::default()), Err(rustix::io::Errno::PERM));
    assert_eq!(openat2(Allow { openat2: true, ..Allow::default() }), Ok(()));
    // -1 is no descriptor, and 0x7fff_ffff no process.
    let setns = |allow| filtered(allow, || harmless(libc::SYS_setns, [-1, 0, 0]));
    assert_eq!(setns(Allow::default()), libc::EPERM);
    assert_eq!(setns(Allow { namespaces: true, ..Allow::default() }), libc::EBADF);
    let kill = |allow| filtered(allow, || harmless(libc::SYS_kill, [0x7fff_ffff, 0, 0]));
    assert_eq!(kill(Allow::default()), libc::EPERM);
    assert_eq!(kill(Allow { signals: true, ..Allow::default() }), libc::ESRCH);
}

#[test]
fn no_program_is_started_loaded_or_traced() {
    filtered(Allow { files: true, namespaces: true, openat2: true, signals: true }, || {
        let exec = Command::new("/proc/self/exe").stdin(Stdio::null()).spawn();
        assert_eq!(errno(exec), libc::EPERM);
        // BPF_PROG_LOAD, BPF_MAP_CREATE, BPF_RAW_TRACEPOINT_OPEN, BPF_LINK_CREATE, BPF_MAP_UPDATE_ELEM, and one that no kernel has.
        for command in [5, 0, 17, 28, 2, 9999] {
            assert_eq!(harmless(libc::SYS_bpf, [command, 0, 0]), libc::EPERM, "bpf({command})");
        }
        // What is allowed gets through: there is nothing at address 0.
        for command in BPF_READ {
            assert_ne!(harmless(libc::SYS_bpf, [(*command).into(), 0, 0]), libc::EPERM, "bpf({command})");
        }
        for &call in NEVER {
            assert_eq!(harmless(call, [-1, 0, 0]), libc::EPERM, "call {call}");
        }
        // One's own threads may be told to abort; 0 is no signal.
        let own = c_long::from(std::process::id() as i32);
        assert_eq!(harmless(libc::SYS_tgkill, [own, own, 0]), 0);
        assert_eq!(harmless(libc::SYS_tgkill, [1, 1, 0]), libc::EPERM);
        assert_eq!(harmless(libc::SYS_kill, [0, 0, 0]), 0);
        assert_eq!(harmless(libc::SYS_prlimit64, [1, 0, 0]), libc::EPERM);
        assert_ne!(harmless(libc::SYS_prlimit64, [0, 0, 0]), libc::EPERM);
    });
}

#[test]
fn nobody_is_talked_to_but_the_kernel() {
    filtered(Allow::default(), || {
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_PACKET, libc::AF_ALG] {
            assert_eq!(harmless(libc::SYS_socket, [family.into(), libc::SOCK_DGRAM.into(), 0]), libc::EPERM);
        }
        let netlink = |protocol: i32| {
            harmless(libc::SYS_socket, [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), protocol.into()])
        };
        assert_eq!(netlink(libc::NETLINK_SOCK_DIAG), 0);
        assert_eq!(netlink(libc::NETLINK_ROUTE), libc::EPERM);
        // -1 is no descriptor: whatever gets through says so.
        for request in [libc::TIOCSTI as c_long, TIOCLINUX.into()] {
            assert_eq!(harmless(libc::SYS_ioctl, [-1, request, 0]), libc::EPERM);
        }
        assert_eq!(harmless(libc::SYS_ioctl, [-1, libc::TCGETS as c_long, 0]), libc::EBADF);
    });
}

/// Every jump of the program ends inside it, and every path in an answer; the kernel checks the same.
#[test]
fn the_largest_program_fits_the_kernels_limit() {
    let program = program(1, &rules(Allow::default()));
    assert!(program.len() < 4096, "BPF_MAXINSNS");
    assert_eq!(program.last().unwrap().k, libc::SECCOMP_RET_ALLOW);
}
