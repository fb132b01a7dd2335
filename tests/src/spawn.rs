//! Starting processes.
//!
//! A child has copies of this process's descriptors until exec() closes them. A socket that is closed here in that
//! moment lives on in the child and is closed there: at another time, by another process, and tcptrace says so,
//! rightly. So a process counts as started once it has let go of them.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Starts a process and waits until it has let go of this process's descriptors.
///
/// # Errors
/// When it cannot be started.
pub fn start(command: &mut Command) -> io::Result<Child> {
    let mut child = command.spawn()?;
    // The child begins as a copy of the calling thread.
    let own = fs::read_to_string("/proc/thread-self/comm").ok();
    // exec() renames the task after it has marked the descriptors for closing (`begin_new_exec()`). Started from a
    // test of the same name nothing changes, so the time is limited.
    for _ in 0..50 {
        if child.try_wait()?.is_some() || comm(child.id()) != own {
            break;
        }
        sleep(Duration::from_millis(1));
    }
    sleep(Duration::from_millis(1));
    Ok(child)
}

/// Starts a program that says nothing, and that ends with the calling thread.
///
/// # Errors
/// When it cannot be started.
pub fn quiet(program: &Path, args: &[&str]) -> io::Result<Child> {
    quiet_by(&[], program, args)
}

/// The same with further arguments of `setpriv`.
///
/// # Errors
/// When it cannot be started.
pub fn quiet_by(setpriv: &[&str], program: &Path, args: &[&str]) -> io::Result<Child> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(setpriv).arg(program).args(args);
    start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

fn comm(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}
