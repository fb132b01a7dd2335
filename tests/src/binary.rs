//! The binary under test.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::spawn;

/// `TCPTRACE_BIN` where it is set, else the workspace's debug build, brought up to date first.
///
/// # Panics
/// When it cannot be built.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os("TCPTRACE_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--package", "tcptrace", "--bin", "tcptrace"])
        .args(["--message-format", "json-render-diagnostics"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable")
}

/// A copy where everybody may run it, which goes with the directory.
///
/// # Errors
/// When it cannot be made.
pub fn copy_for_everybody() -> anyhow::Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let copy = dir.path().join("tcptrace");
    // By another process: a descriptor open for writing, inherited by some other trial's child, would make the
    // copy "busy".
    anyhow::ensure!(spawn::start(Command::new("cp").arg(path()).arg(&copy))?.wait()?.success());
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok((dir, copy))
}
