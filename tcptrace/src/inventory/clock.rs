//! The clocks that the rest of the program must not read: the pure parts get their time from here through
//! events and dumps.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::event::MonoNs;

/// Nanoseconds in a second.
const SECOND_NS: i128 = 1_000_000_000;

/// Now on CLOCK_MONOTONIC: the clock of `bpf_ktime_get_ns()`. It stands still while the machine sleeps.
#[must_use]
pub fn monotonic_ns() -> MonoNs {
    u64::try_from(nanoseconds(clock_gettime(ClockId::Monotonic))).unwrap_or(0)
}

/// Now on CLOCK_BOOTTIME: the clock of a process's start time in `/proc/PID/stat`. It runs on while the
/// machine sleeps.
#[must_use]
pub fn boottime_ns() -> u64 {
    u64::try_from(nanoseconds(clock_gettime(ClockId::Boottime))).unwrap_or(0)
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, in nanoseconds: what turns an event's time into a date.
///
/// Changes when the date is set or the machine sleeps; ask again from time to time. The monotonic clock is
/// read before and after and the narrowest of a few readings is taken, so that being scheduled away between
/// the two clocks does not shift dates: typically within 100 ns.
#[must_use]
pub fn realtime_offset_ns() -> i64 {
    let reading = || {
        let before = nanoseconds(clock_gettime(ClockId::Monotonic));
        let real = nanoseconds(clock_gettime(ClockId::Realtime));
        let after = nanoseconds(clock_gettime(ClockId::Monotonic));
        (after - before, real - (before + after) / 2)
    };
    let (_, offset) = (0..5).map(|_| reading()).min().unwrap_or_default();
    i64::try_from(offset).unwrap_or(0)
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * SECOND_NS + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn offset_and_monotonic_give_the_date() {
        let ours = i128::from(monotonic_ns()) + i128::from(realtime_offset_ns());
        let theirs = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as i128;
        assert!((theirs - ours).abs() < SECOND_NS, "{ours} is not {theirs}");
        assert!(boottime_ns() >= monotonic_ns() / 2);
    }
}
