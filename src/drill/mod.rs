//! A rehearsal: a database full of customers, an application that reads and writes all along, a rotation with a kill in its middle,
//! and a verdict.
//!
//! ```text
//! stage ─► load ─► before │ introduce ─► promote ─► re-encrypt (kill -9, again) ─► verify ─► retire │ after ─► inspect ─► verdict
//! ```
//!
//! What is read is compared with a model of what was written, kept outside the database: a stale, lost, resurrected or wrong value is
//! counted, not only an error. The rotation is `reseal rotate` in a process of its own.

mod customer;
mod error;
mod inspect;
mod latency;
mod load;
mod model;
mod nemesis;
mod reader;
mod rehearsal;
mod report;
mod rotation;
mod sabotage;
mod stage;
mod tally;
mod told;
mod verdict;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;

pub use customer::{Content, Customer};
pub use error::DrillError;
pub use latency::{Percentiles, Windows};
pub use model::{Deviation, Model, Moment};
pub use nemesis::Fault;
pub use rehearsal::run;
pub use report::{LatencyReport, Phase, Report};
pub use sabotage::Sabotage;
pub use told::{outline, told};
pub use verdict::{Finding, Verdict};

/// How large a rehearsal is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Customers in the table at the beginning.
    pub rows: u32,
    /// Reading instances.
    pub readers: usize,
    /// Writing instances.
    pub writers: usize,
    /// Time of undisturbed traffic, half of it before the rotation and half after.
    pub duration: Duration,
    /// Repeats customers and traffic.
    pub seed: u64,
    /// Whether the folder stays.
    pub keep: bool,
    /// The `reseal` program, which the rotation runs.
    pub program: PathBuf,
    /// Tells the time that keys and values are marked with.
    pub now: fn() -> Timestamp,
    /// Breaks something on purpose: for tests of the rehearsal itself.
    pub sabotage: Option<Sabotage>,
}

/// A request to end a rehearsal early. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// An error if somebody asked.
    pub fn check(&self) -> Result<(), DrillError> {
        if self.0.load(Ordering::SeqCst) {
            Err(DrillError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Sleeps, or ends early with an error if somebody asks.
    pub fn sleep(&self, time: Duration) -> Result<(), DrillError> {
        let until = std::time::Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NOTICED_WITHIN));
        }
    }
}

/// A person who presses Ctrl-C waits no longer than this.
const NOTICED_WITHIN: Duration = Duration::from_millis(50);
