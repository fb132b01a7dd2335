//! Names in filters, resolved on the running system.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::filter::{Resolver, Unresolved};
use crate::inventory::cgroup::{self, Workload};
use crate::inventory::namespaces;

/// Levels of cgroups that are searched: no runtime nests deeper.
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
        let root = cgroup::unified_root().ok_or_else(|| {
            Unresolved(
                "cgroup2 is not mounted here, so containers cannot be told apart; --netns can".to_owned(),
            )
        })?;
        let mut found = Found { id, cgroup_ids: Vec::new(), containers: BTreeSet::new() };
        found.search(&root, b"", false, 0);
        let mut containers = found.containers.iter();
        match (containers.next(), containers.next()) {
            (None, _) => Err(Unresolved(format!(
                "no container or pod whose id begins with {id:?} has a cgroup below {}",
                root.display()
            ))),
            (Some(_), None) => Ok(found.cgroup_ids),
            (Some(first), Some(second)) => {
                Err(Unresolved(format!("{id:?} could be {first} or {second}; give more of the id")))
            }
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

struct Found<'a> {
    id: &'a str,
    cgroup_ids: Vec<u64>,
    containers: BTreeSet<String>,
}

impl Found<'_> {
    /// Takes the cgroups of the container or pod and everything below them: what runs inside may make its own.
    /// A cgroup that vanishes meanwhile, or may not be read, has no part in it.
    fn search(&mut self, dir: &Path, path: &[u8], inside: bool, depth: usize) {
        let wanted = if inside { None } else { self.wanted(&Workload::from_path(path)) };
        let inside = inside || wanted.is_some();
        self.containers.extend(wanted);
        if inside && let Ok(metadata) = fs::metadata(dir) {
            self.cgroup_ids.push(metadata.ino());
        }
        if depth == MAX_DEPTH {
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = [path, b"/", entry.file_name().as_bytes()].concat();
                self.search(&entry.path(), &path, inside, depth + 1);
            }
        }
    }

    /// The id, if it is the one: of a container by its beginning, of a pod likewise.
    fn wanted(&self, workload: &Workload) -> Option<String> {
        let container = workload.container.as_ref().map(|container| container.id.as_str());
        [container, workload.pod.as_deref()]
            .into_iter()
            .flatten()
            .find(|full| full.starts_with(self.id))
            .map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_container_is_its_cgroup_and_what_is_below() {
        let root = tempfile::tempdir().unwrap();
        let scope = root.path().join(format!("system.slice/docker-{ID}.scope"));
        fs::create_dir_all(scope.join("init.scope")).unwrap();
        fs::create_dir_all(root.path().join("user.slice")).unwrap();
        let search = |id| {
            let mut found = Found { id, cgroup_ids: Vec::new(), containers: BTreeSet::new() };
            found.search(root.path(), b"", false, 0);
            (found.cgroup_ids, found.containers.into_iter().collect::<Vec<_>>())
        };
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(
            search(&ID[..12]),
            (vec![inode(&scope), inode(&scope.join("init.scope"))], vec![ID.to_owned()])
        );
        assert_eq!(search("abc"), (vec![], vec![]));
    }

    #[test]
    fn names_that_stand_for_nothing_are_named() {
        let error = System.netns("no-such-namespace").unwrap_err().to_string();
        assert!(error.contains("\"no-such-namespace\""), "{error}");
        assert!(System.container("ffffffffffff").is_err());
    }

    #[test]
    fn processes_exist_or_are_named() {
        assert_eq!(System.pid(std::process::id()), Ok(()));
        assert_eq!(System.pid(u32::MAX).unwrap_err().to_string(), "no process 4294967295");
    }
}
