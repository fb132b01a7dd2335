//! What the live tests share: the program under test, sockets that do one thing, and the kernel's own answers.
//!
//! Every trial runs on a thread inside a network namespace of its own ([`trial::live`]). What `tcptrace` says
//! is compared with what the kernel says by another road ([`truth`]) and with brackets on CLOCK_MONOTONIC around
//! the system calls that began and ended a state ([`clock`]): a dwell must lie between them without tolerance.

pub mod backend;
pub mod binary;
pub mod cgroup;
pub mod clock;
pub mod expect;
pub mod exporter;
pub mod helper;
#[cfg(target_arch = "x86_64")]
pub mod inject;
pub mod leaker;
pub mod nginx;
pub mod prometheus;
pub mod pty;
pub mod sockets;
pub mod spawn;
pub mod terminal;
pub mod traced;
pub mod trial;
pub mod truth;
pub mod web;

/// Where `.ci/run` unpacks programs and packages that are not installed: below the target directory.
#[must_use]
pub fn installed(path: &str) -> std::path::PathBuf {
    // target/PROFILE/deps/PROGRAM
    let target = std::env::current_exe().ok().and_then(|exe| Some(exe.ancestors().nth(3)?.to_owned()));
    target.unwrap_or_default().join(path)
}
