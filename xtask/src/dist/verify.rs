//! Installs the package into an empty root, runs what is in it, and removes it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{Release, output};

/// Where dpkg keeps its own files.
const ADMIN: &str = "var/lib/dpkg";

/// Fails unless the package installs with nothing else there, its program runs there, and nothing is left of it.
pub fn verify(package: &Path, release: &Release) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "installing a package into a root of its own needs root");
    let dir = TempDir::new().context("cannot make a temporary directory")?;
    let root = dir.path();
    for place in ["updates", "info"] {
        fs::create_dir_all(root.join(ADMIN).join(place)).context("cannot make dpkg's directories")?;
    }
    fs::write(root.join(ADMIN).join("status"), "").context("cannot make dpkg's list of packages")?;
    let dpkg = |action: &str, what: &Path| {
        let mut option = std::ffi::OsString::from("--root=");
        option.push(root);
        output(Command::new("dpkg").arg(option).arg(action).arg(what))
    };

    dpkg("--install", package)?;
    let run = |args: &[&str]| output(Command::new("chroot").arg(root).arg("/usr/bin/tcptrace").args(args));
    let version = run(&["--version"])?;
    ensure!(version.trim() == format!("tcptrace {}", release.version), "it says that it is {version}");
    // What needs files of its own, and the BPF object that it carries.
    run(&["--schema"])?;
    let installed = files(root)?;
    for wanted in
        ["usr/bin/tcptrace", "usr/share/man/man1/tcptrace.1.gz", "usr/lib/systemd/system/tcptrace.service"]
    {
        ensure!(installed.contains(&root.join(wanted)), "{wanted} was not installed");
    }
    dpkg("--purge", Path::new("tcptrace"))?;
    let left = files(root)?;
    ensure!(left.is_empty(), "removing it has left {left:?}");
    println!("installed {} files into an empty root, ran there, left nothing", installed.len());
    Ok(())
}

/// Every file but dpkg's own.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry.context("cannot list")?.path();
            if path == root.join(ADMIN) {
                continue;
            }
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}
