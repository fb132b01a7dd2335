//! Evenly spaced work.

use std::thread;
use std::time::{Duration, Instant};

/// An iterator that yields `count` times, at most `rate` times a second. Where the machine falls behind, the
/// missed turns are dropped rather than made up for in a burst.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
    left: u64,
}

impl Pace {
    /// `rate` is per second and above 0.
    pub(super) fn new(rate: f64, count: u64) -> Self {
        Self { interval: Duration::from_secs_f64(1.0 / rate), next: Instant::now(), left: count }
    }
}

impl Iterator for Pace {
    type Item = ();

    fn next(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        let now = Instant::now();
        if self.next > now {
            thread::sleep(self.next - now);
            self.next += self.interval;
        } else {
            self.next = now + self.interval;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_as_often_as_asked_and_not_faster() {
        let start = Instant::now();
        assert_eq!(Pace::new(200.0, 5).count(), 5);
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
