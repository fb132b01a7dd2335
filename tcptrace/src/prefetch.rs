//! Hints to the processor about memory that is wanted soon. Where it has no such instruction, or we do not know it, they
//! do nothing.

/// What a processor fetches at once, bytes; a guess where it is not x86.
const LINE: usize = 64;

/// The cache line at an address, which need not be valid.
#[inline]
pub(crate) fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Every 64th of `bytes` bytes: all cache lines that they touch, where they begin with one; else perhaps not the last.
#[inline]
pub(crate) fn lines(at: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(LINE) {
        line(at.wrapping_add(offset));
    }
}
