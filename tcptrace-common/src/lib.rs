//! Wire types shared by the BPF programs and the collector.
//!
//! Only integers cross the boundary: no enum, no bool, no `Option`. Padding is a named field, sizes and
//! offsets are asserted at compile time, and user space converts fallibly (`tcptrace::decode`). Addresses
//! and remote ports stay in network byte order until they are shown.
//!
//! Every record begins with `kind`, so that a reader can tell them apart before it knows their size.
#![no_std]

pub mod config;
pub mod counter;
pub mod record;
pub mod state;

pub use config::{Config, Filter, Offsets};
pub use record::{EofRecord, ExpireRecord, MiniRecord, StackRecord, StateRecord};
