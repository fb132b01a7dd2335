//! The allocator: the system's, with huge pages for what is large.
//!
//! Large are the tables of connections alone, and every event goes to some place in them that nobody has touched
//! for a while. With pages of 4 KiB the processor has to look up most of these places first, which in a virtual machine takes
//! longer than the look at the row: a seventh of the collector's time with half a million TIME_WAITs.

use std::alloc::{GlobalAlloc, Layout, System};

/// Smaller ones stay as they are: 4 MiB are 26,000 TIME_WAITs, before which the memory of a quiet host must not grow
/// by rounding.
const LARGE: usize = 4 << 20;
/// What an address and a length have to be multiples of for `madvise`, bytes: no page of Linux is larger.
const PAGE: usize = 64 << 10;

/// See the module.
pub struct HugePages;

/// Asks for huge pages in the whole pages of a block. It costs time where they cannot be had, and nothing else.
fn advise(at: *mut u8, bytes: usize) {
    if at.is_null() || bytes < LARGE {
        return;
    }
    let skipped = at.align_offset(PAGE);
    let whole = bytes.saturating_sub(skipped) / PAGE * PAGE;
    // SAFETY: within the block, which is ours, and advice changes no content.
    unsafe { libc::madvise(at.wrapping_add(skipped).cast(), whole, libc::MADV_HUGEPAGE) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised to this one.
        let at = unsafe { System.alloc(layout) };
        advise(at, layout.size());
        at
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised to this one.
        let at = unsafe { System.alloc_zeroed(layout) };
        advise(at, layout.size());
        at
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as promised to this one.
        let at = unsafe { System.realloc(at, layout, new_size) };
        advise(at, new_size);
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised to this one.
        unsafe { System.dealloc(at, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is large and lies at will keeps its content when it grows, and is advised of in whole pages.
    #[test]
    fn a_large_block_grows_with_its_content() {
        let layout = Layout::from_size_align(LARGE + 3, 8).expect("a layout");
        // SAFETY: the layout is not empty, and each block is used within its bounds and given back once.
        unsafe {
            let at = HugePages.alloc_zeroed(layout);
            assert!(!at.is_null());
            assert_eq!(at.add(LARGE + 2).read(), 0);
            at.add(LARGE + 2).write(7);
            let at = HugePages.realloc(at, layout, 3 * LARGE);
            assert_eq!(at.add(LARGE + 2).read(), 7);
            let smaps = std::fs::read_to_string("/proc/self/smaps").expect("readable");
            let inside = at as usize + LARGE;
            let holds_it = |line: &str| {
                let (begin, end) = line.split_once(' ').map(|(range, _)| range)?.split_once('-')?;
                let (begin, end) =
                    (usize::from_str_radix(begin, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
                Some(begin <= inside && inside < end)
            };
            let of_it = smaps.lines().skip_while(|line| holds_it(line) != Some(true));
            let flags = of_it.into_iter().find(|line| line.starts_with("VmFlags:")).expect("flags");
            // A kernel that has none refuses the advice.
            let has_any = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
            assert_eq!(flags.split_whitespace().any(|flag| flag == "hg"), has_any, "{flags}");
            HugePages.dealloc(at, Layout::from_size_align(3 * LARGE, 8).expect("a layout"));
        }
    }
}
