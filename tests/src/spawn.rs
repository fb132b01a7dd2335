//! Starting processes while other trials close sockets.
//!
//! A child has copies of this process's descriptors until exec() closes them. A socket that is closed here in that
//! moment lives on in the child and is closed there: at another time, by another process, and tcptrace says so,
//! rightly. So nothing is started while a close is timed.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};
use std::thread::sleep;
use std::time::Duration;

static STARTING: RwLock<()> = RwLock::new(());

/// Starts a process and waits until it has let go of this process's descriptors.
///
/// # Errors
/// When it cannot be started.
pub fn start(command: &mut Command) -> io::Result<Child> {
    let _alone = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let mut child = command.spawn()?;
    let own = comm(std::process::id());
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
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program).args(args);
    start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Does `work` while no process is being started.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _together = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

fn comm(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}
