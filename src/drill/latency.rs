//! Latencies before, during and after the rotation.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::RngExt as _;
use rand::rngs::ChaCha20Rng;
use serde::Serialize;

/// Which part of the rehearsal an operation falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Undisturbed.
    Before,
    /// From the introduction of the new key to the retirement of the old one.
    During,
    /// Undisturbed again.
    After,
}

/// Latencies of one kind of operation, for each window.
#[derive(Clone)]
pub struct Latencies {
    windows: [Histogram<u64>; 3],
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of all operations were faster.
    pub p50: f64,
    /// All but one in a hundred were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// Percentiles of all windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Windows {
    /// Undisturbed.
    pub before: Percentiles,
    /// While keys changed and values moved.
    pub during: Percentiles,
    /// Undisturbed again.
    pub after: Percentiles,
}

impl Latencies {
    /// Nothing measured yet.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        let empty = Histogram::new_with_bounds(1, MICROSECONDS_MAX, SIGNIFICANT_DIGITS)?;
        Ok(Self {
            windows: [empty.clone(), empty.clone(), empty],
        })
    }

    /// Adds an operation.
    pub fn record(&mut self, window: Window, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.windows[window as usize].saturating_record(microseconds.max(1));
    }

    /// Adds what another thread measured.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.windows.iter_mut().zip(&other.windows) {
            // Equal bounds: `new` makes no others.
            let _ = mine.add(theirs);
        }
    }

    /// The percentiles.
    pub fn windows(&self) -> Windows {
        let [before, during, after] = [0, 1, 2].map(|window| percentiles(&self.windows[window]));
        Windows { before, during, after }
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let milliseconds = |microseconds: u64| microseconds as f64 / 1000.0;
    Percentiles {
        p50: milliseconds(histogram.value_at_quantile(0.50)),
        p99: milliseconds(histogram.value_at_quantile(0.99)),
        max: milliseconds(histogram.max()),
    }
}

/// When operations are due: at random, at a steady rate, whether or not the database keeps up.
pub struct Arrivals {
    due: Instant,
    mean: Duration,
}

impl Arrivals {
    /// `per_second` of them on average.
    pub fn new(per_second: f64, now: Instant) -> Self {
        Self {
            due: now,
            mean: Duration::from_secs_f64(1.0 / per_second),
        }
    }

    /// Waits for the next operation and returns when its latency begins: now, or the moment that it was due if the operation before it
    /// took so long that it had to wait. Otherwise a pause of the database would count once instead of once for everybody who waited.
    pub fn wait(&mut self, rng: &mut ChaCha20Rng) -> Instant {
        let uniform: f64 = rng.random_range(f64::EPSILON..1.0);
        self.due += self.mean.mul_f64(-uniform.ln());
        match self.due.checked_duration_since(Instant::now()) {
            Some(early) => {
                std::thread::sleep(early);
                Instant::now()
            }
            None => self.due,
        }
    }
}

/// Longer waits count as this long: ten minutes, far beyond every timeout.
const MICROSECONDS_MAX: u64 = 600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
