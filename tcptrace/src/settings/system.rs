//! Names in filters, resolved on the running system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::filter::{Resolver, Unresolved};
use crate::inventory::namespaces;

/// Length of a container's full id in docker, containerd, CRI-O and podman.
const CONTAINER_ID_LEN: usize = 64;
/// Levels of cgroups that are searched: cgroup.max.depth has no lower default, but no runtime nests deeper.
const MAX_DEPTH: usize = 32;

/// The running system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Resolver for System {
    fn netns(&self, wanted: &str) -> Result<u32, Unresolved> {
        namespaces::resolve(wanted)
            .map(|namespace| namespace.inode)
            .map_err(|error| Unresolved(error.to_string()))
    }

    fn container(&self, id: &str) -> Result<Vec<u64>, Unresolved> {
        let root = cgroup2_root()?;
        let mut found = Found { id, cgroup_ids: Vec::new(), names: Vec::new() };
        found.search(&root, false, 0);
        found.names.sort();
        found.names.dedup();
        match found.names.as_slice() {
            [] => Err(Unresolved(format!(
                "no container whose id begins with {id:?}: no cgroup below {} is named so",
                root.display()
            ))),
            [_] => Ok(found.cgroup_ids),
            several => Err(Unresolved(format!(
                "{id:?} is the beginning of {} container ids, among them {} and {}",
                several.len(),
                several[0],
                several[1]
            ))),
        }
    }

    fn pid(&self, pid: u32) -> Result<(), Unresolved> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| {
            Unresolved(match error.kind() {
                io::ErrorKind::NotFound => format!("no process {pid}"),
                _ => format!("cannot look for process {pid}: {error}"),
            })
        })?;
        let process = status
            .lines()
            .find_map(|line| line.strip_prefix("Tgid:"))
            .and_then(|tgid| tgid.trim().parse::<u32>().ok());
        match process {
            // Sockets belong to processes; a thread's id would never match.
            Some(process) if process != pid => {
                Err(Unresolved(format!("{pid} is a thread of process {process}; give the process")))
            }
            _ => Ok(()),
        }
    }
}

/// Where the unified hierarchy is mounted: the one whose ids the kernel gives for a task.
fn cgroup2_root() -> Result<PathBuf, Unresolved> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Unresolved(format!("cannot read /proc/self/mountinfo: {error}")))?;
    parse_cgroup2_root(&mounts).ok_or_else(|| {
        Unresolved("cgroup2 is not mounted here, so containers cannot be told apart; --netns can".to_owned())
    })
}

/// A line like `30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw`.
fn parse_cgroup2_root(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        source.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

struct Found<'a> {
    id: &'a str,
    cgroup_ids: Vec<u64>,
    names: Vec<String>,
}

impl Found<'_> {
    /// Takes the cgroups of the container and everything below them: what runs inside may make its own.
    /// A cgroup that vanishes meanwhile, or may not be read, has no part in it.
    fn search(&mut self, dir: &Path, inside: bool, depth: usize) {
        if inside && let Ok(metadata) = fs::metadata(dir) {
            self.cgroup_ids.push(metadata.ino());
        }
        if depth == MAX_DEPTH {
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let full_id = container_id(&entry.file_name().to_string_lossy());
            let is_wanted = full_id.is_some_and(|full_id| {
                let wanted = full_id.starts_with(self.id);
                if wanted {
                    self.names.push(full_id);
                }
                wanted
            });
            self.search(&entry.path(), inside || is_wanted, depth + 1);
        }
    }
}

/// The container id in a cgroup's name: 64 hexadecimal digits, bare or as in `docker-<id>.scope`.
fn container_id(name: &str) -> Option<String> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .find(|part| part.len() == CONTAINER_ID_LEN && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn container_ids_are_found_in_the_names_that_runtimes_give() {
        for name in [
            ID.to_owned(),
            format!("docker-{ID}.scope"),
            format!("cri-containerd-{ID}.scope"),
            format!("crio-{ID}.scope"),
            format!("libpod-{ID}.scope"),
            format!("system.slice:docker:{ID}"),
        ] {
            assert_eq!(container_id(&name).as_deref(), Some(ID), "{name}");
        }
        assert_eq!(container_id("system.slice"), None);
        assert_eq!(container_id(&format!("docker-{}.scope", &ID[1..])), None);
    }

    #[test]
    fn a_container_is_its_cgroup_and_what_is_below() {
        let root = tempfile::tempdir().unwrap();
        let scope = root.path().join(format!("system.slice/docker-{ID}.scope"));
        fs::create_dir_all(scope.join("init.scope")).unwrap();
        fs::create_dir_all(root.path().join("user.slice")).unwrap();
        let mut found = Found { id: &ID[..12], cgroup_ids: Vec::new(), names: Vec::new() };
        found.search(root.path(), false, 0);
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(found.cgroup_ids, [inode(&scope), inode(&scope.join("init.scope"))]);
        assert_eq!(found.names, [ID]);
    }

    #[test]
    fn the_unified_hierarchy_is_found_among_mounts() {
        let hybrid = "31 29 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      30 29 0:26 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_cgroup2_root(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(parse_cgroup2_root("1 2 0:3 / / rw - ext4 /dev/vda rw"), None);
    }

    #[test]
    fn processes_exist_or_are_named() {
        assert_eq!(System.pid(std::process::id()), Ok(()));
        assert_eq!(System.pid(u32::MAX).unwrap_err().to_string(), "no process 4294967295");
    }
}
