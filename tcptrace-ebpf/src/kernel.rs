//! Reading kernel memory.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// A read that the kernel refused: the address does not belong to it. Not seen in practice, since every
/// address comes from a tracepoint's own argument.
#[derive(Clone, Copy)]
pub struct ReadFailed {
    /// Offset of the member that was read, in bytes; tells which one it was.
    pub offset: u32,
    /// The negative errno.
    pub error: i32,
}

/// Reads a `T` at `address + offset`. `T` is an integer or an array of integers: any bits are a value.
#[inline(always)]
pub fn read<T: Copy>(address: u64, offset: u32) -> Result<T, ReadFailed> {
    let address = address.wrapping_add(u64::from(offset));
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the destination is as long as said; the helper itself checks the source and fails on a fault.
    let error = unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _)
    };
    if error == 0 {
        // SAFETY: the helper has filled all of it, and any bits are a `T`.
        Ok(unsafe { value.assume_init() })
    } else {
        Err(ReadFailed { offset, error: error as i32 })
    }
}
