//! CLOCK_MONOTONIC: the clock of the kernel's timestamps, so that brackets need no tolerance.

use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, as `mono_ns` in the output.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// An instant known to lie between two readings of the clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Not before.
    pub after_ns: u64,
    /// Not later.
    pub before_ns: u64,
}

/// Does `work` and says when it happened: for what the kernel does before the system call returns, at this end of
/// the connection.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Moment, T) {
    let after_ns = now_ns();
    let result = work();
    (Moment { after_ns, before_ns: now_ns() }, result)
}

/// Does `work` and waits until `seen`, and says when what is seen happened: for what the other end takes in.
/// Loopback mostly delivers before the sender's system call returns, but on a busy machine ksoftirqd does it, later.
///
/// # Errors
/// When it is not seen within five seconds, or `work` fails.
pub fn until<T>(
    work: impl FnOnce() -> anyhow::Result<T>,
    what: &str,
    mut seen: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<(Moment, T)> {
    let after_ns = now_ns();
    let result = work()?;
    while !seen()? {
        anyhow::ensure!(now_ns() < after_ns + 5_000_000_000, "not within 5 s: {what}");
        sleep_ms(1);
    }
    Ok((Moment { after_ns, before_ns: now_ns() }, result))
}

/// Least and most nanoseconds between two moments.
#[must_use]
pub fn between(begin: Moment, end: Moment) -> std::ops::RangeInclusive<u64> {
    end.after_ns.saturating_sub(begin.before_ns)..=end.before_ns.saturating_sub(begin.after_ns)
}

/// Sleeps.
pub fn sleep_ms(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// Polls until `done`, at most `limit`.
///
/// # Errors
/// When the time is over; the text names `what`.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = now_ns() + u64::try_from(limit.as_nanos())?;
    while !done() {
        anyhow::ensure!(now_ns() < deadline, "not within {limit:?}: {what}");
        sleep_ms(10);
    }
    Ok(())
}
