//! When operations are due: at random, at a steady rate, whether or not the database keeps up.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::ChaCha20Rng;

/// Operations, one due after the other.
pub(super) struct Arrivals {
    due: Instant,
    mean: Duration,
}

impl Arrivals {
    /// `per_second` of them on average; so many that none waits for its time are as many as the database takes.
    pub(super) fn new(per_second: f64, now: Instant) -> Self {
        Self {
            due: now,
            mean: Duration::from_secs_f64(1.0 / per_second.max(RATE_MIN)),
        }
    }

    /// When the next operation is due, and how long until then.
    pub(super) fn next(&mut self, rng: &mut ChaCha20Rng) -> Option<Duration> {
        let uniform: f64 = rng.random_range(f64::EPSILON..1.0);
        self.due += self.mean.mul_f64(-uniform.ln());
        let now = Instant::now();
        let early = self.due.checked_duration_since(now);
        if early.is_none() && now.duration_since(self.due) > BACKLOG_MAX {
            self.due = now - BACKLOG_MAX;
        }
        early
    }

    /// When its latency begins: now, or the moment that it was due if the operation before it took so long that it had to wait.
    /// Otherwise a pause of the database would count once instead of once for everybody who waited.
    pub(super) fn begins(&self) -> Instant {
        self.due.min(Instant::now())
    }
}

/// Once a minute is hardly traffic.
const RATE_MIN: f64 = 1.0 / 60.0;
/// An application has so many users waiting and not more: after a longer pause the rest has gone away.
const BACKLOG_MAX: Duration = Duration::from_secs(2);
