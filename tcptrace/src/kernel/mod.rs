//! Everything that touches the kernel through BPF. [`Tracer`] is the whole of it for the rest of the program.

pub mod btf;
pub mod confine;
mod counters;
mod error;
pub mod hz;
mod load;
mod lookup;
pub mod offsets;
pub mod privileges;
pub mod probe;
mod ring;
#[cfg_attr(
    not(any(
        all(target_arch = "x86_64", target_pointer_width = "64"),
        all(target_arch = "aarch64", target_endian = "little")
    )),
    path = "seccomp_elsewhere.rs"
)]
mod seccomp;
pub mod symbols;
pub mod tracepoints;
mod tracer;
mod word;

pub use counters::Counters;
pub use error::StartError;
pub use load::{SkippedHook, is_typed};
pub use tracer::{BatchInfo, EVENTS_AT_ONCE, ProgramStats, Tracer, TracerOptions};
