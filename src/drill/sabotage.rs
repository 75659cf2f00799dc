//! Ways to break the tool on purpose, so that tests can see the rehearsal fail with the right sentence. No command line reaches them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::DrillError;
use super::stage::connect;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A reader keeps the first key only, and says that it has the others.
    ReaderWithOldKeyOnly,
    /// A writer goes on sealing with the old key, and says that it does not.
    WriterWithOldKeyOnly,
    /// An instance never follows its keyring, and does not say that it does.
    InstanceLagsBehind,
    /// The values are moved to a key that nobody seals with yet.
    RotateBeforePromote,
    /// The old key is taken from readers while values need it.
    RetireBeforeRotate,
    /// Somebody writes back what he read a while ago, without comparing.
    SwapWithoutComparison,
}

/// Rewrites rows blindly until dropped: what a batch script does that reads a page and updates by primary key.
pub struct BlindRewriter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<rusqlite::Result<()>>>,
}

impl BlindRewriter {
    /// Starts it on a database.
    pub fn start(database: PathBuf) -> Result<Self, DrillError> {
        let stop = Arc::new(AtomicBool::new(false));
        let connection = connect(&database)?;
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let page: Vec<WholeRow> = connection
                    .prepare_cached("SELECT id, name, email, notes, tier FROM customers")?
                    .query_map([], |row| row.try_into())?
                    .collect::<rusqlite::Result<_>>()?;
                thread::sleep(HELD_BACK);
                connection.execute_batch("BEGIN IMMEDIATE")?;
                for row in page {
                    connection
                        .prepare_cached("UPDATE customers SET name = ?2, email = ?3, notes = ?4, tier = ?5 WHERE id = ?1")?
                        .execute(row)?;
                }
                connection.execute_batch("COMMIT")?;
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for BlindRewriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It is meant to do damage; how it ended does not matter.
            let _ = thread.join();
        }
    }
}

/// Id, name, email, notes, tier.
type WholeRow = (i64, String, Vec<u8>, Option<Vec<u8>>, String);

/// Long enough for a write of the application to come between.
const HELD_BACK: Duration = Duration::from_millis(300);
