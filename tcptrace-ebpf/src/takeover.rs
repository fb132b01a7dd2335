//! New connections on the four-tuple of a mini that ended early.
//!
//! Why a mini was removed shows in the first transitions of the connection that replaced it. Those of all other
//! connections say nothing that a command about closing connections wants, and they are a third of all
//! transitions: so they pass only for a while after a mini's early end.

use aya_ebpf::helpers::generated::bpf_jiffies64;

use crate::{
    config::config,
    maps::{EARLY_END_SLOTS, EARLY_ENDS},
};

/// Slot of the whole host: most hosts have no early end in a long while, and look no further.
const HOST: u32 = 0;

/// A mini ended early, at `jiffies`, or its timer is about to be set again: which of the two shows only afterwards.
#[inline(always)]
pub fn may_follow(netns: u32, jiffies: u64) {
    for slot in [HOST, slot(netns)] {
        if let Some(last) = EARLY_ENDS.get_ptr_mut(slot) {
            // SAFETY: within the map and aligned. Which of two CPUs is the last to write makes no difference.
            unsafe { last.write_volatile(jiffies) };
        }
    }
}

/// Whether a mini ended early a moment ago, anywhere.
#[inline(always)]
pub fn is_possible() -> bool {
    is_recent(HOST)
}

/// Whether one did in this network namespace. A namespace that is given up ends all its minis early, and no other
/// one shall hear more for it.
#[inline(always)]
pub fn is_possible_in(netns: u32) -> bool {
    is_recent(slot(netns))
}

#[inline(always)]
fn slot(netns: u32) -> u32 {
    1 + (netns & (EARLY_END_SLOTS - 1))
}

#[inline(always)]
fn is_recent(slot: u32) -> bool {
    let Some(last) = EARLY_ENDS.get_ptr(slot) else { return true };
    // SAFETY: within the map and aligned; words are written as a whole.
    let last = unsafe { last.read_volatile() };
    // Jiffies are a word of memory, and this is asked of every beginning of a connection; the clock takes longer than all the
    // rest of it. SAFETY: the helper takes nothing.
    last != 0 && unsafe { bpf_jiffies64() }.wrapping_sub(last) < config!(takeover_jiffies)
}
