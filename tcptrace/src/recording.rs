//! Recordings: everything that the engine was fed, in a file that outlives the moment.
//!
//! A text line per input, appended and flushed at least once a second; with a name that ends in `.zst` the
//! lines are compressed, each flush ending a zstd block, so that a file cut off anywhere can be read up to the
//! cut. The first line is the [`Header`], the last of a recording that ended in good order the [`Footer`].
//! Events, which are nearly all of it, are arrays whose columns the header names (see `row`); everything else
//! is an object with a `record` key.
//!
//! Replaying a recording feeds the engine the same inputs in the same order, and the engine knows no other
//! time than theirs: figures come out equal to the live ones.

mod reader;
pub(crate) mod row;
pub mod session;
mod writer;

use serde::{Deserialize, Serialize};

pub use reader::{Ending, ReadError, Reader};
pub use session::Session;
pub use writer::{Recorder, Written, create};

use crate::engine::{Inventory, KernelLoss};
use crate::event::MonoNs;
use crate::inventory::cgroup::Workload;
use crate::snapshot::{Program, SkippedHook, Sysctls, TransitionCount, WallClock};

/// Version of the format: readers refuse a newer one. Additions that an old reader may ignore do not count.
pub const VERSION: u32 = 1;

/// The first line: where, when and with what the recording was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    /// Version of the tool.
    pub tool_version: String,
    /// Host name; `None` where not known.
    pub host: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// CONFIG_HZ; `None` where not known.
    pub hz: Option<u32>,
    /// When tracing began.
    pub started: MonoNs,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC: turns the recording's moments into dates.
    pub wall: WallClock,
    /// Sysctls that bear on dwells, per namespace that was looked at.
    #[serde(default)]
    pub sysctls: Vec<Sysctls>,
    /// The filters in force, in option syntax: events that they exclude in the kernel are not in the file.
    pub filters: String,
    /// Network namespaces at the start, so that names still mean something.
    #[serde(default)]
    pub namespaces: Vec<NamedNamespace>,
    /// What the columns of the event rows are.
    #[serde(default)]
    pub columns: row::Columns,
}

/// A network namespace of the recorded host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedNamespace {
    /// Inode number.
    pub inode: u32,
    /// Its name in `ip netns`, escaped.
    pub name: Option<String>,
    /// A process in it.
    pub pid: Option<u32>,
}

/// What a cgroup of the recorded host was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedCgroup {
    /// cgroup v2 id.
    pub id: u64,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
    /// Kubernetes pod uid.
    pub pod: Option<String>,
}

impl NamedCgroup {
    /// Of a cgroup that was looked up.
    #[must_use]
    pub fn new(id: u64, workload: &Workload) -> Self {
        Self {
            id,
            unit: workload.unit.clone(),
            container: workload.container.as_ref().map(|container| container.id.clone()),
            pod: workload.pod.clone(),
        }
    }
}

/// The last line of a recording that ended in good order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Footer {
    /// When tracing ended.
    pub ended: MonoNs,
    /// Events in the file.
    pub events: u64,
    /// The BPF programs.
    #[serde(default)]
    pub programs: Vec<Program>,
    /// Transitions that found no room in the ring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_transitions: Vec<TransitionCount>,
    /// Hooks that were not traced.
    #[serde(default)]
    pub skipped: Vec<SkippedHook>,
    /// cgroups of the owners.
    #[serde(default)]
    pub cgroups: Vec<NamedCgroup>,
}

/// Every line that is not an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line {
    Header(Header),
    InventoryBegins { at: MonoNs },
    Inventory(Inventory),
    Loss(KernelLoss),
    Tick { at: MonoNs },
    Footer(Footer),
}
