//! New connections on the four-tuple of a mini that ended early.
//!
//! Why a mini was removed shows in the first transitions of the connection that replaced it. Those of all other
//! connections say nothing that a command about closing connections wants, and they are a third of all
//! transitions: so they pass only for a while after a mini's early end.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tcptrace_common::config::TAKEOVER_NS;

use crate::maps::LAST_EARLY_END;

/// A mini ended early at `now_ns`, or its timer is about to be set again: which of the two shows only afterwards.
#[inline(always)]
pub fn may_follow(now_ns: u64) {
    if let Some(last) = LAST_EARLY_END.get_ptr_mut(0) {
        // SAFETY: within the map and aligned. Which of two CPUs is the last to write makes no difference.
        unsafe { last.write_volatile(now_ns) };
    }
}

/// Whether a mini has ended early a moment ago.
#[inline(always)]
pub fn is_possible() -> bool {
    let Some(last) = LAST_EARLY_END.get_ptr(0) else { return true };
    // SAFETY: within the map and aligned; words are written as a whole.
    let last_ns = unsafe { last.read_volatile() };
    // SAFETY: the helper takes nothing. Most hosts hardly ever get here, and save reading the clock.
    last_ns != 0 && unsafe { bpf_ktime_get_ns() }.saturating_sub(last_ns) < TAKEOVER_NS
}
