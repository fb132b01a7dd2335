//! cgroups: the path of a process's, the path behind a cgroup v2 id, and what a path says.

mod workload;

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use workload::{ContainerId, Runtime, Workload};

use super::mountinfo;
use crate::event::MonoNs;

/// Cgroups that are kept: a busy Kubernetes node has some thousands. Beyond it those that exist no longer are
/// forgotten, then nothing new is learned.
const MAX_CGROUPS: usize = 65_536;
/// Levels that are searched: no runtime nests deeper.
const MAX_DEPTH: usize = 32;
/// An id that is not known makes the tree be walked again, but not more often than this.
const WALK_AGAIN_NS: u64 = 1_000_000_000;

/// The cgroups of a process, from `/proc/PID/cgroup`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessCgroup {
    /// Path in the unified hierarchy, raw; `None` where there is none.
    pub unified: Option<Vec<u8>>,
    /// What the most telling of its paths says.
    pub workload: Workload,
}

impl ProcessCgroup {
    /// Lines like `0::/system.slice/x.service`; with cgroup v1 one more per hierarchy, and in a hybrid setup the
    /// unified path may be `/` while a controller's names the container.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut cgroup = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let (Some(hierarchy), Some(_), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            // A process whose cgroup was removed.
            let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
            if hierarchy == b"0" {
                cgroup.unified = Some(path.to_vec());
            }
            let workload = Workload::from_path(path);
            if workload.weight() > cgroup.workload.weight() {
                cgroup.workload = workload;
            }
        }
        cgroup
    }
}

/// Where the unified hierarchy is mounted: the one whose ids the kernel gives for a task. `None` on a pure
/// cgroup v1 system.
#[must_use]
pub fn unified_root() -> Option<PathBuf> {
    let text = fs::read("/proc/self/mountinfo").ok()?;
    mountinfo::mounts(&text).find(|mount| mount.fstype == b"cgroup2").map(|mount| mount.target)
}

/// cgroup v2 id (inode number of its directory) of a path from `/proc/PID/cgroup`.
#[must_use]
pub fn id_of(root: &Path, unified: &[u8]) -> Option<u64> {
    let relative = unified.strip_prefix(b"/")?;
    let path = root.join(std::ffi::OsStr::from_bytes(relative));
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// cgroup v2 id → what runs in it. Learned by walking the tree when an unknown id is asked for.
///
/// An id that was learned stays known after its cgroup is gone, so that a container that has ended can still
/// be named; ids are not reused while the system runs (kernfs counts up).
#[derive(Debug, Default)]
pub struct Cgroups {
    root: Option<PathBuf>,
    known: HashMap<u64, Arc<Workload>>,
    walked: Option<MonoNs>,
}

impl Cgroups {
    /// Finds the mount; reads nothing else yet.
    #[must_use]
    pub fn new() -> Self {
        Self { root: unified_root(), ..Self::default() }
    }

    /// What runs in the cgroup of this id; `None` where that is not known: the cgroup is gone, or cgroup2 is
    /// not mounted here. 0 is no id.
    pub fn workload(&mut self, id: u64, now: MonoNs) -> Option<Arc<Workload>> {
        if id == 0 {
            return None;
        }
        if !self.known.contains_key(&id)
            && self.walked.is_none_or(|walked| now.saturating_sub(walked) >= WALK_AGAIN_NS)
        {
            self.walk();
            self.walked = Some(now);
        }
        self.known.get(&id).cloned()
    }

    /// Learns every cgroup that there is, so that those that end before they are asked for can be named.
    pub fn learn_all(&mut self) {
        self.walk();
    }

    fn walk(&mut self) {
        let Some(root) = self.root.clone() else { return };
        if self.known.len() >= MAX_CGROUPS {
            self.known.clear();
        }
        if let Ok(metadata) = fs::metadata(&root) {
            self.learn(metadata.ino(), b"/");
        }
        self.walk_below(&root, b"", 0);
    }

    /// A cgroup that vanishes meanwhile, or may not be read, is passed over.
    fn walk_below(&mut self, dir: &Path, path: &[u8], depth: usize) {
        if depth == MAX_DEPTH {
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = [path, b"/", entry.file_name().as_bytes()].concat();
                self.learn(entry.ino(), &path);
                self.walk_below(&entry.path(), &path, depth + 1);
            }
        }
    }

    fn learn(&mut self, id: u64, path: &[u8]) {
        if self.known.len() < MAX_CGROUPS {
            self.known.entry(id).or_insert_with(|| Arc::new(Workload::from_path(path)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn the_unified_path_and_the_most_telling_one_are_kept() {
        let unified = ProcessCgroup::parse(b"0::/system.slice/x.service\n");
        assert_eq!(unified.unified.as_deref(), Some(&b"/system.slice/x.service"[..]));
        assert_eq!(unified.workload.unit.as_deref(), Some("x.service"));

        let hybrid = format!("4:memory:/docker/{ID}\n1:name=systemd:/system.slice/docker.service\n0::/\n");
        let hybrid = ProcessCgroup::parse(hybrid.as_bytes());
        assert_eq!(hybrid.unified.as_deref(), Some(&b"/"[..]));
        assert_eq!(hybrid.workload.container.map(|container| container.runtime), Some(Runtime::Docker));

        let deleted = ProcessCgroup::parse(b"0::/system.slice/x.service (deleted)");
        assert_eq!(deleted.workload.unit.as_deref(), Some("x.service"));
        assert_eq!(ProcessCgroup::parse(b"junk\n\n:"), ProcessCgroup::default());
    }

    #[test]
    fn ids_lead_to_paths_and_outlive_their_cgroups() {
        let root = tempfile::tempdir().expect("directory");
        let scope = root.path().join(format!("system.slice/docker-{ID}.scope"));
        fs::create_dir_all(&scope).expect("directory");
        let id = fs::metadata(&scope).expect("metadata").ino();
        assert_eq!(id_of(root.path(), format!("/system.slice/docker-{ID}.scope").as_bytes()), Some(id));
        assert_eq!(id_of(root.path(), b"/no-such"), None);

        let mut cgroups = Cgroups { root: Some(root.path().to_owned()), ..Cgroups::default() };
        assert_eq!(cgroups.workload(0, 1), None);
        let workload = cgroups.workload(id, 1).expect("known");
        assert_eq!(workload.container.as_ref().map(|container| container.id.as_str()), Some(ID));
        fs::remove_dir(&scope).expect("removed");
        assert!(cgroups.workload(id, 2).is_some());

        // A new one is found, but not by walking at every question.
        let later = root.path().join("system.slice/late.service");
        fs::create_dir(&later).expect("directory");
        let id = fs::metadata(&later).expect("metadata").ino();
        let known = |workload: Option<Arc<Workload>>| workload.and_then(|workload| workload.unit.clone());
        assert!(id != 0);
        cgroups.known.remove(&id);
        assert_eq!(known(cgroups.workload(id, WALK_AGAIN_NS)), None);
        assert_eq!(known(cgroups.workload(id, WALK_AGAIN_NS + 1)).as_deref(), Some("late.service"));
    }

    #[test]
    fn without_cgroup2_nothing_is_known() {
        let mut cgroups = Cgroups::default();
        assert_eq!(cgroups.workload(7, 1), None);
    }
}
