//! What the live tests share: the program under test, sockets that do one thing, and the kernel's own answers.
//!
//! Every trial runs on a thread inside a network namespace of its own ([`trial::live`]). What `tcptrace` says
//! is compared with what the kernel says by another road ([`truth`]) and with brackets on CLOCK_MONOTONIC around
//! the system calls that began and ended a state ([`clock`]): a dwell must lie between them without tolerance.

pub mod binary;
pub mod clock;
pub mod expect;
pub mod exporter;
pub mod helper;
pub mod leaker;
pub mod prometheus;
pub mod sockets;
pub mod spawn;
pub mod traced;
pub mod trial;
pub mod truth;
pub mod web;
