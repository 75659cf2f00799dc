//! Faults, done on purpose: today kill -9 of the rotation, in the middle of its work.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::rotation::{Position, Run, Watch};
use super::{Cancel, DrillError};

/// A fault that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// What was done.
    pub name: &'static str,
    /// Seconds after the beginning of the rehearsal.
    pub at_seconds: f64,
    /// What came of it.
    pub outcome: String,
}

/// What became of an attempt to kill.
pub enum Killed {
    /// At this position, with everything up to it committed.
    At(Position),
    /// It had ended before.
    TooLate(Run),
}

/// Kills the rotation once it has committed `rows`.
pub fn kill_after(rows: u64, mut run: Run, watch: &Watch, patience: Duration, cancel: &Cancel) -> Result<Killed, DrillError> {
    let begun = Instant::now();
    loop {
        cancel.check()?;
        if run.is_over()? || begun.elapsed() >= patience {
            return Ok(Killed::TooLate(run));
        }
        if let Some(position) = watch.position()?
            && position.rows >= rows
        {
            run.kill()?;
            // It may have committed once more before the signal came.
            return Ok(Killed::At(watch.position()?.unwrap_or(position)));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Between two batches of the gentle profile.
const LOOK_EVERY: Duration = Duration::from_millis(2);
