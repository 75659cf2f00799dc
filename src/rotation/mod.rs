//! The main job: take a table of sealed values from one key to another while an application reads and writes it, and prove it.
//!
//! ```text
//! prepare ─► plan ─► lock, claim ─► re-encrypt (ranges) ─► sweep until two are clean ─► verify ─► verified
//! ```
//!
//! [`protocol`] is the rotation of a whole keyset around it: keys introduced, promoted and retired, with gates between.
//!
//! This is the only place where keys, formats and databases meet. Whatever stops a run — a signal, kill -9, a lost connection, a
//! full disk — the same call continues it: cursors are committed with the rows they speak of.

mod ahead;
mod batch;
mod binding;
pub mod census;
mod crew;
pub mod detect;
pub mod error;
pub mod guard;
mod hold;
mod isolate;
mod judge;
pub mod keyed;
mod lag;
mod late;
mod outcome;
mod overseer;
mod own;
mod pace;
mod passes;
mod phases;
pub mod plan;
pub mod preflight;
pub mod profile;
pub mod progress;
pub mod protocol;
mod range;
pub mod recipe;
mod recognise;
mod retry;
mod rewriter;
mod run;
mod shared;
pub mod throttle;
mod vacuum;

use std::time::Duration;

pub use error::RotationError;
pub use outcome::{RotationReport, VerifyReport};
pub use passes::AWAY_MAX_DEFAULT;
pub(crate) use retry::{Before, answered, patiently};
pub use rewriter::OnUnreadable;
pub use run::{rotate, verify};
pub use vacuum::VacuumReport;

use crate::store::WorkerLimits;
use profile::{Profile, Task};
use recipe::Recipe;

/// What to rotate, and how.
pub struct Job {
    /// The table, as the operator typed it.
    pub table: String,
    /// Restricts the rows.
    pub filter: Option<String>,
    /// Columns, formats and keys.
    pub recipe: Recipe,
    /// The rest.
    pub options: Options,
}

/// How to go about it. The default is what suits a production database.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections; the store proposes a number.
    pub workers: Option<usize>,
    /// Rows of a batch; found by measurement otherwise.
    pub batch_rows: Option<usize>,
    /// How gently.
    pub profile: Profile,
    /// What values that cannot be read do.
    pub on_unreadable: OnUnreadable,
    /// Whether progress is kept in the database.
    pub state: bool,
    /// Whether to wrest the table from a holder that hangs.
    pub take_over: bool,
    /// How this run names itself to others.
    pub owner: String,
    /// Whether the old key is in other hands: what appears under it late is quarantined instead of re-encrypted.
    pub compromised: bool,
    /// Whether the database is to refuse new values under the old key meanwhile.
    pub guard: Guarding,
    /// Batches wait while a replica is further behind than this.
    pub max_replica_lag: Option<Duration>,
    /// Whether the table is vacuumed beside the rotation.
    pub vacuum: bool,
    /// Whether a key is left with readers while a replica has not replayed the last values that were moved from it.
    pub replica_check: bool,
    /// Findings that the operator has accepted by name.
    pub accepted: Vec<String>,
    /// Larger values are quarantined unread, bytes.
    pub value_bytes_max: u64,
    /// How long a server may be away in one go.
    pub away_max: Duration,
    /// How long a transaction that the application has had open since before the run is waited for; then the run ends.
    pub outlast_max: Duration,
}

impl Options {
    /// How many connections are to work at once; SQLite writes over one, however many are wished for.
    fn workers_wished(&self, proposed: WorkerLimits) -> usize {
        let share = self.profile.limits(Task::Rewrite, proposed.max == 1).workers_share;
        let unsaid = ((proposed.default as f64 * share) as usize).max(1);
        self.workers.unwrap_or(unsaid)
    }
}

/// What a run does about the database guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarding {
    /// One that an earlier run of the same rotation has left is gone on with, and taken away in the end.
    IfItStands,
    /// It is put up before the first write, and taken away in the end.
    Wanted,
    /// Whoever calls sees to it: several tables are guarded together.
    ByCaller,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: None,
            batch_rows: None,
            profile: Profile::default(),
            on_unreadable: OnUnreadable::default(),
            state: true,
            take_over: false,
            owner: "reseal".to_owned(),
            compromised: false,
            guard: Guarding::IfItStands,
            max_replica_lag: None,
            vacuum: false,
            replica_check: true,
            accepted: Vec::new(),
            value_bytes_max: VALUE_BYTES_MAX_DEFAULT,
            away_max: AWAY_MAX_DEFAULT,
            outlast_max: protocol::GATE_TIMEOUT_DEFAULT,
        }
    }
}

/// Four workers with one such value each still fit into a small container.
pub const VALUE_BYTES_MAX_DEFAULT: u64 = 16 << 20;
