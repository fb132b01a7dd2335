//! TIME_WAITs that begin without a sound.
//!
//! When the peer's FIN reaches a FIN_WAIT2 mini, `tcp_timewait_state_process()` sets the substate to TIME_WAIT
//! and calls `inet_twsk_reschedule()`. That is `mod_timer_pending()`, which moves the timer (cancel, start:
//! two events) only when its new place in the timer wheel differs from the old; otherwise it writes the new
//! expiry into the timer and says nothing (`__mod_timer()`). At the default `tcp_fin_timeout` of 60 s the new
//! timeout equals the old and buckets are 2 s wide at HZ=250 (4 s at 1000): a FIN that comes within a second,
//! as most do, is silent. This is the most common way into TIME_WAIT there is.
//!
//! Three things give it away:
//! - the peer on the same host leaves LAST_ACK, because the mini has acknowledged its FIN: at once, exact;
//! - a `sock_diag` dump shows substate and time left;
//! - the timer's last event carries both as well, at the end. The outcome then comes late, with the time at
//!   which it happened.
//!
//! The last two reckon in jiffies and are up to one jiffy early, so that no TIME_WAIT comes out shorter than it
//! was.

use crate::event::MonoNs;
use crate::net::Flow;

/// `TCP_TIMEWAIT_LEN` of the mainline kernel, seconds.
const TIME_WAIT_SECONDS: u32 = 60;

/// `TCP_TIMEWAIT_LEN`, nanoseconds.
pub(super) const TIME_WAIT_NS: u64 = TIME_WAIT_SECONDS as u64 * 1_000_000_000;

/// What turns a timer's jiffies into moments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Jiffies {
    hz: Option<u32>,
    /// What a TIME_WAIT's timer was last seen to be set to. Some vendors' kernels make it a sysctl.
    time_wait: Option<u32>,
}

impl Jiffies {
    /// HZ of the traced kernel; `None` where it is not known.
    pub(super) fn set_hz(&mut self, hz: Option<u32>) {
        self.hz = hz.filter(|&hz| hz > 0);
    }

    /// HZ of the traced kernel.
    pub(super) fn hz(&self) -> Option<u32> {
        self.hz
    }

    /// A TIME_WAIT's timer was set to this. A tick between the kernel's reckoning and the record makes it one
    /// less.
    pub(super) fn saw_time_wait(&mut self, jiffies: u32) {
        if self.time_wait().is_none_or(|known| known.abs_diff(jiffies) > 1) {
            self.time_wait = Some(jiffies);
        }
    }

    /// What a TIME_WAIT's timer is set to.
    pub(super) fn time_wait(&self) -> Option<u32> {
        self.time_wait.or_else(|| Some(self.hz?.saturating_mul(TIME_WAIT_SECONDS)))
    }

    /// When a timer with so many jiffies left at `at` was last set to TIME_WAIT's full length.
    pub(super) fn set_at(&self, at: MonoNs, left: i32) -> Option<MonoNs> {
        let ran = i64::from(self.time_wait()?) - i64::from(left);
        at.checked_sub(self.ns(u64::try_from(ran).ok()?)?)
    }

    /// Whether two moments that were computed from jiffies differ by more than their rounding.
    pub(super) fn differ(&self, earlier: MonoNs, later: MonoNs) -> bool {
        self.ns(2).is_some_and(|rounding| later.saturating_sub(earlier) > rounding)
    }

    fn ns(&self, jiffies: u64) -> Option<u64> {
        Some(jiffies.checked_mul(1_000_000_000)? / u64::from(self.hz?))
    }
}

/// The same connection seen from its other end.
pub(super) fn other_end(flow: &Flow) -> Flow {
    Flow {
        local: flow.remote,
        remote: flow.local,
        netns: flow.netns,
        local_port: flow.remote_port,
        remote_port: flow.local_port,
    }
}
