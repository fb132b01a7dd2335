//! Why 60 s reads as 60.0 to 62.05 s: how much later than asked the kernel's timer wheel fires.
//!
//! `timer_list` timers stand in a wheel of levels, each eight times coarser than the one below
//! (`kernel/time/timer.c`: `LVL_CLK_SHIFT` 3, 64 buckets a level). `calc_wheel_index()` puts a timer into the
//! lowest level that reaches far enough: level n when `expires - clk < LVL_START(n + 1)`, where `LVL_START(n)`
//! is `63 << 3(n - 1)`. `calc_index()` then rounds the expiry *up* to the next bucket,
//! `(expires >> 3n) + 1`, so that a timer is never early, and late by more than 0 and at most 8ⁿ jiffies.
//! Timers are not moved to a finer level as they come closer. The wheel has worked so since Linux 4.8.

use crate::snapshot::Timeout;

/// `LVL_CLK_SHIFT`: a level's buckets are 2³ times as wide as those of the level below.
const LEVEL_SHIFT: u32 = 3;
/// `LVL_SIZE - 1`: buckets of a level that can be reached from now.
const REACH: u64 = 63;

/// Levels of the wheel (`LVL_DEPTH`): 9 when HZ > 100, else 8.
const fn levels(hz: u32) -> u32 {
    if hz > 100 { 9 } else { 8 }
}

/// The width of the bucket that a timer with this timeout stands in, in jiffies: what it may be late by.
///
/// Timeouts beyond the wheel (`WHEEL_TIMEOUT_MAX`, 12 days or more) are cut to it by the kernel; no TCP timer
/// comes near.
#[must_use]
pub fn granularity_jiffies(timeout_jiffies: u32, hz: u32) -> u32 {
    let level = (0..levels(hz) - 1).find(|n| u64::from(timeout_jiffies) < REACH << (LEVEL_SHIFT * n));
    1 << (LEVEL_SHIFT * level.unwrap_or(levels(hz) - 1))
}

/// How long a timer takes that was asked for a number of jiffies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What was asked for, nanoseconds: the timer's base timeout. It takes longer than this, always.
    pub base_ns: u64,
    /// At the latest this, nanoseconds, plus the time until the softirq runs.
    pub latest_ns: u64,
    /// One jiffy, nanoseconds.
    pub jiffy_ns: u64,
}

impl Expected {
    /// The range for a timeout in jiffies at HZ ticks a second. `None` for an HZ of 0.
    #[must_use]
    pub fn of(timeout_jiffies: u32, hz: u32) -> Option<Self> {
        let jiffy_ns = 1_000_000_000_u64.checked_div(hz.into())?;
        // Multiplied before divided: a jiffy of 1/300 s has no whole number of nanoseconds.
        let ns = |jiffies: u64| jiffies * 1_000_000_000 / u64::from(hz);
        let base = u64::from(timeout_jiffies);
        let latest = base + u64::from(granularity_jiffies(timeout_jiffies, hz));
        Some(Self { base_ns: ns(base), latest_ns: ns(latest), jiffy_ns })
    }

    /// The range for the timeout that most timers of a kind were started with.
    #[must_use]
    pub fn of_most(timeout: &Timeout, hz: u32) -> Option<Self> {
        Self::of(timeout.most_common_jiffies, hz)
    }

    /// Whether a measured time lies within the range. One jiffy of slack at either end: the kernel counts from
    /// `jiffies`, which stands still while interrupts are off, and fires from a softirq, which may have to wait.
    #[must_use]
    pub fn covers(&self, ns: u64) -> bool {
        (self.base_ns.saturating_sub(self.jiffy_ns)..=self.latest_ns + self.jiffy_ns).contains(&ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `calc_index()` as the kernel writes it: where a timer that expires at `expires` fires.
    fn fires_at(expires: u64, level: u32) -> u64 {
        ((expires >> (LEVEL_SHIFT * level)) + 1) << (LEVEL_SHIFT * level)
    }

    #[test]
    fn sixty_seconds_at_every_hz() {
        for (hz, late, latest_ns) in [
            (100, 512, 65_120_000_000),
            (250, 512, 62_048_000_000),
            (300, 512, 61_706_666_666),
            (1000, 4096, 64_096_000_000),
        ] {
            assert_eq!(granularity_jiffies(60 * hz, hz), late, "HZ {hz}");
            let expected = Expected::of(60 * hz, hz).unwrap();
            assert_eq!((expected.base_ns, expected.latest_ns), (60_000_000_000, latest_ns), "HZ {hz}");
        }
    }

    #[test]
    fn short_timeouts_stand_in_finer_levels() {
        // The limits of the levels: 63, 504, 4032, 32256 jiffies.
        for (timeout, late) in
            [(1, 1), (62, 1), (63, 8), (503, 8), (504, 64), (4031, 64), (4032, 512), (32256, 4096)]
        {
            assert_eq!(granularity_jiffies(timeout, 250), late, "{timeout} jiffies");
        }
    }

    #[test]
    fn no_level_beyond_the_wheel() {
        assert_eq!(granularity_jiffies(u32::MAX, 100), 1 << 21);
        assert_eq!(granularity_jiffies(u32::MAX, 1000), 1 << 24);
        assert_eq!(Expected::of(1, 0), None);
    }

    #[test]
    fn covers_what_the_wheel_does_wherever_the_timer_starts() {
        let (hz, timeout, level) = (250, 15_000, 3);
        let expected = Expected::of(timeout, hz).unwrap();
        for clk in 1_000_000..1_001_024_u64 {
            let lasts_jiffies = fires_at(clk + u64::from(timeout), level) - clk;
            assert!(expected.covers(lasts_jiffies * expected.jiffy_ns), "{lasts_jiffies} jiffies from {clk}");
        }
        assert!(!expected.covers(59_900_000_000) && !expected.covers(62_100_000_000));
    }
}
