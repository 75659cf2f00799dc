//! Whether anybody has written to the file, told by SQLite itself: `PRAGMA data_version` of a connection changes whenever another one has
//! committed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::connect::DatabaseFile;
use super::error::from_sqlite;
use crate::store::StoreError;

/// Counts how often the file was found changed. Blocks.
pub(super) struct Watch {
    file: DatabaseFile,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Its numbers mean nothing to another connection.
    connection: Option<(Connection, i64)>,
    changes: u64,
}

impl Watch {
    /// Nothing is opened yet.
    pub(super) fn new(file: DatabaseFile) -> Self {
        Self {
            file,
            seen: Mutex::default(),
        }
    }

    /// Changes found so far. As long as the number stays the same, the file holds what it held.
    pub(super) fn changes(&self) -> Result<u64, StoreError> {
        self.look(&mut self.seen())
    }

    /// Whether no change has been found since there were so many. What is known is not asked again: a look may have to wait.
    pub(super) fn has_stayed_at(&self, changes: u64) -> Result<bool, StoreError> {
        let mut seen = self.seen();
        Ok(seen.changes == changes && self.look(&mut seen)? == changes)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, seen: &mut Seen) -> Result<u64, StoreError> {
        let (connection, before) = match seen.connection.take() {
            Some((connection, version)) => (connection, Some(version)),
            None => (self.file.open_query_only()?, None),
        };
        // What happens while nobody looks counts as a change.
        seen.changes += 1;
        let now = connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map_err(from_sqlite)?;
        if before == Some(now) {
            seen.changes -= 1;
        }
        seen.connection = Some((connection, now));
        Ok(seen.changes)
    }
}
