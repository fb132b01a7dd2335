//! Names in filters, resolved as they were on the host of a recording.

use std::path::Path;

use crate::filter::{Resolver, Unresolved};
use crate::recording::{Ending, Header, NamedCgroup, NamedNamespace, Reader};

/// The host that a recording was made on.
#[derive(Clone, Debug, Default)]
pub struct RecordedHost {
    namespaces: Vec<NamedNamespace>,
    cgroups: Vec<NamedCgroup>,
    recording: String,
}

impl RecordedHost {
    /// Knows what the header says: enough but for containers.
    #[must_use]
    pub fn of_header(path: &Path, header: &Header) -> Self {
        Self {
            namespaces: header.namespaces.clone(),
            cgroups: Vec::new(),
            recording: crate::text::escape(path.as_os_str().as_encoded_bytes()).into_owned(),
        }
    }

    /// Adds what the footer says, which takes reading the whole file: only for filters that ask for containers.
    pub fn read_cgroups(&mut self, mut reader: Reader) {
        while reader.next_input().is_some() {}
        if let Some(Ending::Complete(footer)) = reader.ending() {
            self.cgroups.clone_from(&footer.cgroups);
        }
    }

    /// Sets what the footer said.
    pub fn set_cgroups(&mut self, cgroups: Vec<NamedCgroup>) {
        self.cgroups = cgroups;
    }

    /// Names the container of a cgroup v2 id.
    #[must_use]
    pub fn container_of(&self, cgroup_id: u64) -> Option<String> {
        self.cgroups.iter().find(|cgroup| cgroup.id == cgroup_id)?.container.clone()
    }
}

impl Resolver for RecordedHost {
    fn netns(&self, wanted: &str) -> Result<u32, Unresolved> {
        let number = wanted.parse::<u32>().ok();
        let by = |fits: &dyn Fn(&NamedNamespace) -> bool| self.namespaces.iter().find(|known| fits(known));
        by(&|known| known.name.as_deref() == Some(wanted))
            .or_else(|| by(&|known| Some(known.inode) == number))
            .or_else(|| by(&|known| number.is_some() && known.pid == number))
            .map(|known| known.inode)
            // A namespace that came after the header was written.
            .or(number.filter(|&number| number >= FIRST_NAMESPACE_INODE))
            .ok_or_else(|| {
                Unresolved(format!("no network namespace {wanted:?} in the recording {}", self.recording))
            })
    }

    fn container(&self, id: &str) -> Result<Vec<u64>, Unresolved> {
        let fits = |cgroup: &&NamedCgroup| {
            let begins = |known: &Option<String>| known.as_deref().is_some_and(|known| known.starts_with(id));
            begins(&cgroup.container) || begins(&cgroup.pod)
        };
        let found: Vec<u64> = self.cgroups.iter().filter(fits).map(|cgroup| cgroup.id).collect();
        if found.is_empty() {
            return Err(Unresolved(format!(
                "no container whose id begins with {id:?} owns a connection in the recording {}",
                self.recording
            )));
        }
        Ok(found)
    }

    fn pid(&self, _pid: u32) -> Result<(), Unresolved> {
        // A recording has no list of processes: one that owns nothing matches nothing.
        Ok(())
    }
}

/// Inode numbers of namespaces are given out from here (`PROC_DYNAMIC_FIRST` in the kernel's `proc_ns.h`).
const FIRST_NAMESPACE_INODE: u32 = 0xf000_0000;
