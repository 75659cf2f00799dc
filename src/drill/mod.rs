//! A rehearsal: a table full of customers, an application of several processes that read and write all along, a rotation by the real
//! commands, faults on purpose, and a verdict.
//!
//! ```text
//! stage ─► fleet ─► before │ reseal rotate: introduce ─► promote ─► re-encrypt ─► verify ─► retire │ after ─► inspect ─► verdict
//!             │ journals
//!             ▼
//!          checker: model of what was written, judgement of what was read
//! ```
//!
//! What is read is compared with a model of what was written, kept outside the database: a stale, lost, resurrected or wrong value is
//! counted, not only an error.

mod checker;
mod clock;
mod customer;
mod disk;
mod error;
mod failure;
mod faults;
mod fleet;
mod inspect;
mod instance;
mod janitor;
mod journal;
mod latency;
mod logins;
mod model;
mod nemesis;
mod operator;
mod probe;
mod process;
mod proxy;
mod rehearsal;
mod report;
mod room;
mod sabotage;
mod stage;
mod staging;
mod table;
mod tally;
mod told;
mod verdict;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use error::DrillError;
pub use faults::{FaultKind, Faults};
pub use latency::{Percentiles, Point, Windows};
pub use logins::LoginReport;
pub use nemesis::Fault;
pub use probe::ProbeReport;
pub use process::{Part, PartError};
pub use rehearsal::run;
pub use report::{LatencyReport, Phase, RatioReport, Report};
pub use sabotage::Sabotage;
pub use staging::{Staging, StagingReport, rehearse, told_of_staging};
pub use table::TableError;
pub use told::{outline, told};
pub use verdict::{Finding, Thresholds, Verdict};

use crate::rotation::profile::Profile;

/// How large a rehearsal is, and how hard. Holds the database's password: no `Debug`.
#[derive(Clone)]
pub struct Settings {
    /// The PostgreSQL database whose scratch schema it takes place in; `None` for an SQLite file.
    pub postgres: Option<String>,
    /// Customers in the table at the beginning.
    pub rows: u32,
    /// Reading instances.
    pub readers: usize,
    /// Writing instances.
    pub writers: usize,
    /// Reads that are due in each reading instance each second, on average.
    pub reads_per_second: f64,
    /// Writes that are due in each writing instance each second, on average.
    pub writes_per_second: f64,
    /// Time of undisturbed traffic, half of it before the rotation and half after.
    pub duration: Duration,
    /// Whether it rehearses that a key has leaked: sessions of before end, and the old key is compromised.
    pub compromised: bool,
    /// A Redis server that holds the sessions of the rehearsal; `None` for a table beside the customers.
    pub redis: Option<String>,
    /// How much of the database's time the rotation may take.
    pub profile: Profile,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// What fails the rehearsal.
    pub thresholds: Thresholds,
    /// Commands and URLs that must succeed all along.
    pub probes: Vec<String>,
    /// Variables of the environment that probes do not get.
    pub hidden_variables: Vec<String>,
    /// Repeats customers, traffic and faults.
    pub seed: u64,
    /// Whether everything stays.
    pub keep: bool,
    /// The `reseal` program, which instances and commands run.
    pub program: PathBuf,
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
