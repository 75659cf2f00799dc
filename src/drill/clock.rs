//! The one clock of a rehearsal: all processes of one machine read the same, and nobody can set it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment, in nanoseconds since the machine was started.
pub type Moment = u64;

/// Now.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    // Neither is negative on this clock.
    time.tv_sec.unsigned_abs() * NANOSECONDS + time.tv_nsec.unsigned_abs()
}

/// The seconds from one moment to a later one.
pub fn seconds_between(from: Moment, to: Moment) -> f64 {
    to.saturating_sub(from) as f64 / NANOSECONDS as f64
}

/// This time in the unit of moments.
pub fn nanoseconds(time: Duration) -> Moment {
    Moment::try_from(time.as_nanos()).unwrap_or(Moment::MAX)
}

const NANOSECONDS: u64 = 1_000_000_000;
