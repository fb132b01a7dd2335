//! The load-time constants.

use tcptrace_common::Config;

/// Filled in by the loader before the programs are verified.
// SAFETY: `Config` is made of integers, for which all zeros is a value.
#[unsafe(no_mangle)]
pub static CONFIG: Config = unsafe { core::mem::zeroed() };

/// One field of [`CONFIG`], for example `config!(offsets.skc_family)`.
///
/// A volatile read, because the compiler would otherwise put the zeros above in its place. The map behind
/// `.rodata` is frozen when the programs are verified, so the verifier knows the value (`bpf_map_is_rdonly`)
/// and removes the branches that it rules out.
macro_rules! config {
    ($($field:ident).+) => {
        // SAFETY: a reference to a field of a static, valid and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::config::CONFIG.$($field).+) }
    };
}
pub(crate) use config;
