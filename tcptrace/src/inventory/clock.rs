//! The clocks that the rest of the program must not read: the pure parts get their time from here through
//! events and dumps.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::event::MonoNs;

/// Nanoseconds in a second.
const SECOND_NS: i128 = 1_000_000_000;

/// Now on the host's CLOCK_MONOTONIC: the clock of `bpf_ktime_get_ns()`. It stands still while the machine sleeps.
#[must_use]
pub fn monotonic_ns() -> MonoNs {
    u64::try_from(host_monotonic()).unwrap_or(0)
}

/// In a time namespace of its own a process is shown another CLOCK_MONOTONIC than the host's.
fn host_monotonic() -> i128 {
    static OFFSET_NS: OnceLock<i128> = OnceLock::new();
    let offset_ns = OFFSET_NS.get_or_init(|| {
        // Not there on kernels without time namespaces.
        fs::read_to_string("/proc/self/timens_offsets")
            .ok()
            .and_then(|text| monotonic_offset(&text))
            .unwrap_or(0)
    });
    nanoseconds(clock_gettime(ClockId::Monotonic)) - offset_ns
}

/// The line `monotonic SECONDS NANOSECONDS` of `/proc/PID/timens_offsets` (time_namespaces(7)).
fn monotonic_offset(text: &str) -> Option<i128> {
    let line = text.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i128>);
    Some(numbers.next()?.ok()? * SECOND_NS + numbers.next()?.ok()?)
}

/// Processor's time that the calling thread has taken so far.
#[must_use]
pub fn thread_cpu() -> Duration {
    let ns = nanoseconds(clock_gettime(ClockId::ThreadCPUTime));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

/// Now on CLOCK_BOOTTIME: the clock of a process's start time in `/proc/PID/stat`, both of which are shown to a
/// process as its time namespace has them. It runs on while the machine sleeps.
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
        let before = host_monotonic();
        let real = nanoseconds(clock_gettime(ClockId::Realtime));
        let after = host_monotonic();
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
    fn offsets_of_a_time_namespace() {
        assert_eq!(monotonic_offset("monotonic           0         0\nboottime 5 0\n"), Some(0));
        assert_eq!(monotonic_offset("monotonic  86400 7\nboottime 0 0\n"), Some(86_400 * SECOND_NS + 7));
        // Earlier than the host by a second and a half: seconds may be negative, nanoseconds are not.
        assert_eq!(monotonic_offset("monotonic -2 500000000\n"), Some(-3 * SECOND_NS / 2));
        assert_eq!(monotonic_offset(""), None);
    }

    #[test]
    fn offset_and_monotonic_give_the_date() {
        let ours = i128::from(monotonic_ns()) + i128::from(realtime_offset_ns());
        let theirs = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as i128;
        assert!((theirs - ours).abs() < SECOND_NS, "{ours} is not {theirs}");
        assert!(boottime_ns() >= monotonic_ns() / 2);
    }
}
