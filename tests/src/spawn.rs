//! Starting processes.
//!
//! A child has copies of this process's descriptors until exec() closes them. A socket that is closed here in that
//! moment lives on in the child and is closed there: at another time, by another process, and tcptrace says so,
//! rightly. So a process counts as started once it has let go of them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context as _;

use crate::binary;

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

/// The uid and gid of an ordinary user that exists everywhere.
pub const NOBODY: u32 = 65534;

/// Arguments of `setpriv` for [`NOBODY`] with these capabilities (`CAP_…`) and no
/// others.
///
/// # Errors
/// When a name is none.
pub fn nobody_with<S: AsRef<str>>(capabilities: &[S]) -> anyhow::Result<Vec<String>> {
    let mut only = "-all".to_owned();
    for name in capabilities {
        let name = name.as_ref();
        let name = name.strip_prefix("CAP_").with_context(|| format!("no capability: {name}"))?;
        only.push_str(",+");
        only.push_str(&name.to_lowercase());
    }
    let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={only}"));
    let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
    Ok([user, sets].concat())
}

/// Starts `sh` on a script in a mount namespace that goes with it: what it mounts is nobody else's. `$0` is tcptrace,
/// the arguments follow; what it says is kept. `None`, and said, where there is no `unshare`.
///
/// # Errors
/// When it cannot be started.
pub fn with_own_mounts<S: AsRef<OsStr>>(script: &str, args: &[S]) -> io::Result<Option<Child>> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--fork", "--kill-child", "sh", "-euc", script]).arg(binary::path()).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match start(&mut command) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("skipped: no unshare (util-linux)");
            Ok(None)
        }
        child => child.map(Some),
    }
}

fn comm(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}
