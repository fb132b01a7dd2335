//! What the kernel and /proc can be asked without BPF: sockets, namespaces, holders, sysctls.

pub mod cgroup;
pub mod clock;
pub mod counters;
pub mod diag;
mod dump;
pub mod holders;
pub(crate) mod mountinfo;
pub mod namespaces;
pub mod owners;
pub mod process;
pub mod slab;
pub mod sysctl;
pub mod worker;

pub use dump::{DumpError, dump_all, dump_one, dump_these, list_these};
