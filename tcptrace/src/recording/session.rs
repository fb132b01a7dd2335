//! A recording of a running trace: what comes in, with the names that the footer needs at the end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use super::{Footer, Header, NamedCgroup, NamedNamespace, Recorder, VERSION, Written};
use crate::engine::{Engine, Input};
use crate::event::{Context, Event};
use crate::inventory::cgroup::Cgroups;
use crate::inventory::namespaces;

/// Fed like an engine, and with the same.
#[derive(Debug)]
pub struct Session {
    recorder: Recorder,
    /// Whose names the footer gives.
    cgroups: BTreeSet<u64>,
    /// The first error of writing an event: events come where none can be returned.
    failed: Option<io::Error>,
}

impl Session {
    /// Begins to write to a file that [`super::create`] made, `engine` being at its beginning or in the middle of a
    /// trace. A dump that follows seeds whoever reads the recording.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        path: &Path,
        file: File,
        engine: &Engine,
        namespaces: Vec<NamedNamespace>,
    ) -> io::Result<Self> {
        let meta = engine.meta();
        let header = Header {
            version: VERSION,
            tool_version: meta.tool_version.clone(),
            host: meta.host.clone(),
            kernel: meta.kernel.clone(),
            hz: meta.hz,
            started: meta.now,
            wall: meta.wall,
            sysctls: meta.sysctls.clone(),
            filters: meta.filters.clone(),
            namespaces,
            ..Header::default()
        };
        let recorder = Recorder::start(path, file, &header)?;
        Ok(Self { recorder, cgroups: BTreeSet::new(), failed: None })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.recorder.path()
    }

    /// What was written so far; `file_bytes` is known at the end only.
    #[must_use]
    pub fn written(&self) -> Written {
        self.recorder.written()
    }

    /// Adds an event. An error is told by whatever is called next.
    pub fn event(&mut self, event: &Event) {
        if let Event::State(change) = event
            && let Context::Process(task) = &change.context
            && task.cgroup_id != 0
        {
            self.cgroups.insert(task.cgroup_id);
        }
        if self.failed.is_none() {
            self.failed = self.recorder.event(event).err();
        }
    }

    /// Adds any other input.
    ///
    /// # Errors
    /// What went wrong with the file since the last call.
    pub fn input(&mut self, input: &Input) -> io::Result<()> {
        // The reason is told by the first error; the later ones say only that there is no recorder any more.
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Input::Inventory(inventory) = input {
            self.cgroups.extend(inventory.owners.iter().map(|(_, owner)| owner.cgroup_id));
        }
        self.recorder.input(input)
    }

    /// To be called now and then: what waits for half a second goes to the file.
    ///
    /// # Errors
    /// What went wrong with the file since the last call.
    pub fn turn(&mut self, engine: &Engine) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.recorder.turn(engine.now()),
        }
    }

    /// Writes the footer and waits until everything is in the file.
    ///
    /// # Errors
    /// When the file did not take it.
    pub fn finish(self, engine: &Engine) -> io::Result<Written> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut known = Cgroups::new();
        let now = engine.now();
        let cgroups =
            self.cgroups.iter().filter_map(|&id| Some(NamedCgroup::new(id, &*known.workload(id, now)?)));
        let snapshot = engine.snapshot(&|_| None);
        let footer = Footer {
            ended: now,
            events: 0,
            programs: snapshot.programs,
            lost_transitions: snapshot.lost_transitions,
            skipped: snapshot.skipped,
            cgroups: cgroups.collect(),
        };
        self.recorder.finish(&footer)
    }
}

/// The network namespaces of the running system, for the header.
///
/// # Errors
/// When they cannot be listed.
pub fn namespaces() -> Result<Vec<NamedNamespace>, namespaces::NamespaceError> {
    let named = |namespace: &namespaces::Namespace| NamedNamespace {
        inode: namespace.inode,
        name: namespace.name.clone(),
        pid: namespace.pid,
    };
    Ok(namespaces::all()?.list.iter().map(named).collect())
}
