//! Processes whose files and pids are not ours, as in a container: mount and pid namespaces of their own.

use std::process::Command;

use caps::{Capability, CapsHashSet};

use super::snapshot::{Snapshot, Target};
use super::{C, JAVASCRIPT, LEAKY_C, assert_frames, resolve_in, site};
use crate::kernel::confine::{Allow, confine};

/// Runs a shell script in namespaces of its own. `None` where these cannot be made.
fn contained(directory: tempfile::TempDir, script: &str) -> Option<(Target, Snapshot)> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script]);
    command.env("FILES", directory.path());
    let possible = Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no mount and pid namespaces can be made here");
        return None;
    }
    let target = Target::start(directory, &mut command)?;
    let pid = target.inner_pid()?;
    Target::wait_until_blocked(pid);
    let snapshot = Snapshot::take(pid);
    if snapshot.is_none() {
        eprintln!("SKIPPED: ptrace is not permitted here");
    }
    Some((target, snapshot?))
}

/// A program on a file system that only it can see.
const HIDDEN: &str = "mount -t tmpfs none /mnt; cp $FILES/target /mnt/target; exec /mnt/target";

#[test]
fn a_program_that_only_its_container_sees_is_named() {
    let Some((directory, _)) = Target::build(&["gcc", "-O2", "-g"], "leaky.c", C) else { return };
    let Some((_target, snapshot)) = contained(directory, HIDDEN) else { return };
    assert!(!std::path::Path::new("/mnt/target").exists());
    assert_frames(&site(&resolve_in(&snapshot)), &LEAKY_C);
}

#[test]
fn without_the_privilege_for_map_files_the_path_in_the_container_is_used() {
    let Some((directory, _)) = Target::build(&["gcc", "-O2", "-g"], "leaky.c", C) else { return };
    let Some((_target, snapshot)) = contained(directory, HIDDEN) else { return };
    let confined = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let keep = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
                confine(&CapsHashSet::from(keep), Allow { openat2: true, ..Allow::default() }).unwrap();
                resolve_in(&snapshot)
            })
            .join()
            .unwrap()
    });
    assert_frames(&site(&confined), &LEAKY_C);
}

#[test]
fn a_perf_map_is_found_in_the_containers_tmp_under_its_own_pid() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("app.js"), JAVASCRIPT).unwrap();
    let script =
        "SCRIPT=$(cat $FILES/app.js); mount -t tmpfs none /tmp; exec node --perf-basic-prof -e \"$SCRIPT\"";
    let Some((_target, snapshot)) = contained(directory, script) else { return };
    let stack = resolve_in(&snapshot);
    assert_frames(&site(&stack)[..2], &["leakyRead at [eval]:2", "serve at [eval]:5"]);
}
