//! Write transactions, and the wait for their turn.
//!
//! SQLite has one writer, no queue, and a busy handler that looks ten times a second in the end: beside an application that writes all the
//! time it would hardly ever find the moment between two of its transactions. This one looks again every few milliseconds, at random,
//! until the connection's timeout has passed.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rusqlite::Connection;

use super::error::from_sqlite;
use super::holder::holders;
use crate::store::StoreError;

/// A write transaction, taken at once: a transaction that reads first and writes later can fail with BUSY whatever the timeout.
/// Rolls back when it is dropped without [`commit`](Self::commit).
pub(super) struct WriteTransaction<'c> {
    connection: &'c Connection,
    waited: Duration,
}

impl<'c> WriteTransaction<'c> {
    /// Waits for its turn, within the connection's busy timeout.
    pub(super) fn begin(connection: &'c Connection) -> Result<Self, StoreError> {
        let waited = patiently(connection, "BEGIN IMMEDIATE", "another program keeps writing to the file")?;
        Ok(Self { connection, waited })
    }

    /// How long it waited for its turn.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// Outside of WAL mode a commit waits until nobody reads; whoever comes meanwhile has to wait, too, so that its turn comes. On BUSY
    /// the transaction is still open; dropping `self` ends it.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        patiently(
            self.connection,
            "COMMIT",
            "another program keeps reading the file, and its journal mode lets nobody commit meanwhile",
        )
        .map(drop)
    }
}

impl Drop for WriteTransaction<'_> {
    fn drop(&mut self) {
        // After a commit, and after errors on which SQLite itself rolls back, there is nothing left to end.
        if !self.connection.is_autocommit() {
            let _ = run_cached(self.connection, "ROLLBACK");
        }
    }
}

/// Runs a statement as soon as nobody is in its way. Returns how long it waited before.
fn patiently(connection: &Connection, sql: &str, why: &str) -> Result<Duration, StoreError> {
    let patience = busy_timeout(connection)?;
    // SQLite's own handler must not wait inside.
    connection.busy_timeout(Duration::ZERO).map_err(from_sqlite)?;
    let begun = Instant::now();
    let mut waited = Duration::ZERO;
    let outcome = loop {
        match run_cached(connection, sql) {
            Err(StoreError::Retry { .. }) if begun.elapsed() < patience => {
                std::thread::sleep(rand::rng().random_range(POLL_MIN..=POLL_MAX));
                waited = begun.elapsed();
            }
            outcome => break outcome,
        }
    };
    connection.busy_timeout(patience).map_err(from_sqlite)?;
    match outcome {
        Ok(()) => Ok(waited),
        Err(StoreError::Retry { class, code, .. }) => {
            let who = connection.path().and_then(|path| holders(Path::new(path)));
            let message = format!("{why}: {} waited", in_words(patience));
            let message = who.map_or_else(|| message.clone(), |who| format!("{message}, for {who}"));
            Err(StoreError::Retry { class, code, message })
        }
        Err(error) => Err(error),
    }
}

fn busy_timeout(connection: &Connection) -> Result<Duration, StoreError> {
    connection
        .prepare_cached("PRAGMA busy_timeout")
        .and_then(|mut statement| statement.query_row([], |row| row.get::<_, u32>(0)))
        .map(|milliseconds| Duration::from_millis(milliseconds.into()))
        .map_err(from_sqlite)
}

fn run_cached(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .map_err(from_sqlite)
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds => format!("{seconds} s"),
    }
}

/// Between two looks. The pause of a writer that is always busy is a fraction of a millisecond; a look costs microseconds.
const POLL_MIN: Duration = Duration::from_micros(500);
const POLL_MAX: Duration = Duration::from_millis(3);
