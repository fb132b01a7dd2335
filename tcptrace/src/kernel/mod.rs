//! Everything that touches the kernel through BPF.

pub mod btf;
pub mod hz;
pub mod offsets;
pub mod symbols;
