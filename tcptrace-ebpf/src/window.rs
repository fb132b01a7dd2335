//! Reading several members of a kernel structure at once.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::kernel::{ReadFailed, read};

/// `WORDS` words of a kernel structure, read with one call: a call costs more than the words.
///
/// Which members lie within is known only when the program is loaded. The others are read on their own, and as
/// offsets are constants by then, the verifier removes whichever way is not taken.
pub struct Window<const WORDS: usize> {
    /// Of the structure.
    pub address: u64,
    start: u32,
    words: MaybeUninit<[u64; WORDS]>,
}

impl<const WORDS: usize> Window<WORDS> {
    /// A window on the structure at `address` that begins at the word which holds the member at `offset`.
    /// Nothing is read yet: a value of this size is not moved after it has been filled.
    #[inline(always)]
    pub fn new(address: u64, offset: u32) -> Self {
        Self { address, start: offset & !7, words: MaybeUninit::uninit() }
    }

    /// Reads it.
    #[inline(always)]
    pub fn read(&mut self) -> Result<(), ReadFailed> {
        let source = self.address.wrapping_add(u64::from(self.start));
        // SAFETY: the destination is as long as said; the helper checks the source.
        let error = unsafe {
            bpf_probe_read_kernel(self.words.as_mut_ptr().cast(), WORDS as u32 * 8, source as *const _)
        };
        if error == 0 { Ok(()) } else { Err(ReadFailed { offset: self.start, error: error as i32 }) }
    }

    /// The member at `offset` of the structure. `T` is an integer or an array of integers, and the window filled.
    #[inline(always)]
    pub fn get<T: Copy>(&self, offset: u32) -> Result<T, ReadFailed> {
        if offset >= self.start && offset - self.start <= (WORDS * 8 - size_of::<T>()) as u32 {
            let within = (offset - self.start) as usize;
            // SAFETY: within the window, which the helper has filled. The kernel aligns the member, window and
            // structure begin aligned to 8, and any bits are a `T`.
            Ok(unsafe { self.words.as_ptr().byte_add(within).cast::<T>().read() })
        } else {
            read(self.address, offset)
        }
    }
}
