//! cgroups named as container runtimes name theirs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tcptrace::inventory::cgroup::unified_root;

/// A cgroup and those above it that were made for it. Dropping it moves what is left in it to the root and removes
/// them.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    path: PathBuf,
    /// cgroup v2 id.
    pub id: u64,
}

impl Cgroup {
    /// Makes one; `None` where the system lets nobody make any.
    #[must_use]
    pub fn make(relative: &str) -> Option<Self> {
        let root = unified_root()?;
        let path = root.join(relative);
        fs::create_dir_all(&path).ok()?;
        let id = fs::metadata(&path).ok()?.ino();
        Some(Self { root, path, id })
    }

    /// Moves a process into it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&self, pid: u32) -> Result<()> {
        let procs = self.path.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).with_context(|| procs.display().to_string())
    }

    /// Removes it now: its processes must have ended.
    ///
    /// # Errors
    /// When it is not empty.
    pub fn remove(&self) -> Result<()> {
        // A process that was killed may take a moment to leave.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return Ok(());
            }
            crate::clock::sleep_ms(20);
        }
        Ok(fs::remove_dir(&self.path)?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for pid in fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(self.root.join("cgroup.procs"), pid);
        }
        let mut path: &Path = &self.path;
        // Up to the first that has something else in it.
        while path != self.root {
            if path.exists() && fs::remove_dir(path).is_err() {
                break;
            }
            let Some(parent) = path.parent() else { break };
            path = parent;
        }
    }
}
