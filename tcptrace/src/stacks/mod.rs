//! The line of code: user stacks from BPF records to functions, files and lines (`--stacks`).
//!
//! ```text
//! record ─► walk (registers, copied stack, .eh_frame) ─► capture ─► symbols, perf maps ─► stack ─► site
//! ```
//!
//! The kernel side copies registers and the top of the user stack when an application is told end of file on a
//! socket in CLOSE_WAIT, or calls connect(). [`Stacks`] does the rest; [`Worker`] does it on a thread of its
//! own, so that no process's files can hold up the reader of the ring. It reads /proc and the files that
//! processes map, as root: everything in them is other people's, checked and bounded.
//!
//! What a stack cannot show: a function whose last act is the call itself has no frame any more (tail call), and
//! the line of its caller stands in its place. Perf maps give the line where a JavaScript function begins, and
//! for Python the file only. Node reads and connects from its event loop, when none of the application's
//! functions run.

mod coverage;
pub(crate) mod elf;
mod epilogue;
pub mod frame;
pub(crate) mod jit_name;
pub(crate) mod maps;
mod memo;
mod module;
mod modules;
pub(crate) mod perf_map;
mod process;
mod resolver;
mod role;
#[cfg(target_arch = "x86_64")]
mod scan;
pub mod site;
pub mod stack;
mod symbolise;
mod unwind;
mod v8;
pub mod worker;

pub use frame::{Frame, Role};
pub use process::ProcessError;
pub use resolver::{Capture, Limits, Stacks};
pub use site::{Site, SiteId, Sites};
pub use stack::{Note, Stack};
pub use worker::{Resolved, Worker};

#[cfg(test)]
mod tests;
