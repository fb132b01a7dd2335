//! Whether the tracer is alive: written by it at every turn, read by `/healthz` without asking it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::loss::Loss;

/// A tracer that has not turned for so long is stuck: it turns twice a second at least.
const STUCK: Duration = Duration::from_secs(10);

/// The last sign of life.
#[derive(Debug, Default)]
pub struct Pulse {
    last: Mutex<Option<Beat>>,
}

#[derive(Clone, Copy, Debug)]
struct Beat {
    at: Instant,
    events: u64,
    loss: Loss,
}

/// The answer of `/healthz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The programs are attached and their events are read.
    pub healthy: bool,
    /// The programs are attached.
    pub attached: bool,
    /// Time since the tracer's last turn; null before the first.
    pub last_turn_ns: Option<u64>,
    /// Events received.
    pub events: u64,
    /// What was lost. Loss alone is no ill health: it is measured and said.
    pub loss: Loss,
}

impl Pulse {
    /// The tracer turns.
    pub fn beat(&self, at: Instant, events: u64, loss: Loss) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Beat { at, events, loss });
    }

    /// How it is at `now`.
    #[must_use]
    pub fn health(&self, now: Instant) -> Health {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let age = last.map(|beat| now.saturating_duration_since(beat.at));
        Health {
            healthy: age.is_some_and(|age| age < STUCK),
            attached: last.is_some(),
            last_turn_ns: age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            events: last.map_or(0, |beat| beat.events),
            loss: last.map_or(Loss::default(), |beat| beat.loss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracer_that_stands_still_is_not_healthy() {
        let (pulse, now) = (Pulse::default(), Instant::now());
        assert!(!pulse.health(now).attached && !pulse.health(now).healthy);
        pulse.beat(now, 5, Loss { ring_full: 1, ..Loss::default() });
        let health = pulse.health(now + Duration::from_secs(1));
        assert!(health.healthy && health.events == 5 && health.loss.ring_full == 1);
        assert!(!pulse.health(now + STUCK).healthy);
    }
}
