//! An instance of the application: a process of its own, with its own copy of the keyring file, that reads or writes until the drill
//! tells it to stop or is gone.

mod arrivals;
mod reader;
mod seat;
mod writer;

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::customer::CabinetError;
use super::sabotage::Sabotage;
use super::table::{Place, TableError};
use crate::app::{FollowError, ReportError};
use crate::key::KeyringError;
use crate::store::StoreError;

use self::seat::Seat;

/// What an instance is told when it starts. Holds the database's password: no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Assignment {
    /// Its name: `reader-0`.
    pub name: String,
    /// How its connection is called at the server.
    pub role: String,
    /// What it does.
    pub work: Work,
    /// The table.
    pub place: Place,
    /// Its copy of the keyring file.
    pub keyring: PathBuf,
    /// The keyset of its columns.
    pub keyset: String,
    /// The age identity that opens it.
    pub identity: PathBuf,
    /// Where it tells what it does.
    pub journal: PathBuf,
    /// Seeds its traffic.
    pub seed: u64,
    /// Operations that are due each second, on average.
    pub per_second: f64,
    /// Broken on purpose.
    pub sabotage: Option<Sabotage>,
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Point reads and pages.
    Read,
    /// Inserts, updates and deletes of the rows that leave the remainder `number`.
    Write {
        /// Which of the writers it is.
        number: i64,
        /// How many there are.
        writers: i64,
        /// A row that its predecessor was writing when it died.
        unconfirmed: Option<i64>,
    },
}

/// Why an instance ended.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Its assignment did not come, or its journal could not be written.
    #[error("the drill's files")]
    Io(#[from] io::Error),
    /// Its assignment is none.
    #[error("not an assignment of a drill")]
    Assignment(#[from] serde_json::Error),
    /// The keyring file.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The keyring cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The keyring does not serve the columns.
    #[error(transparent)]
    Cabinet(#[from] CabinetError),
    /// It cannot report which keys it uses.
    #[error("reporting: {0}")]
    Report(#[from] ReportError),
    /// It cannot report on purpose.
    #[error("reporting: {0}")]
    Boast(#[from] StoreError),
    /// The database, before there was anything to read or write.
    #[error("the database: {0}")]
    Table(#[from] TableError),
}

/// Works until standard input ends. The first line there is the assignment.
pub fn run() -> Result<(), InstanceError> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let assignment: Assignment = serde_json::from_str(&line)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::Builder::new().name("stop".to_owned()).spawn(move || {
        // Nothing more is ever sent: the end of it is the sign.
        let _ = io::stdin().read(&mut [0]);
        stopped.store(true, Ordering::SeqCst);
        thread::sleep(STOPPED_WITHIN);
        // The present operation hangs; nobody waits for it any more.
        std::process::exit(1);
    })?;
    let seat = Seat::take(&assignment, stop)?;
    match assignment.work {
        Work::Read => reader::Reader::new(seat, &assignment).run(),
        Work::Write {
            number,
            writers,
            unconfirmed,
        } => writer::Writer::new(seat, &assignment, number, writers)?.run(unconfirmed),
    }
}

/// Longer than the longest that a lost connection is waited for.
const STOPPED_WITHIN: Duration = Duration::from_secs(45);
