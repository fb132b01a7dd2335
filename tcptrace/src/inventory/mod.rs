//! What the kernel and /proc can be asked without BPF: sockets, namespaces, holders, sysctls.

pub mod diag;
