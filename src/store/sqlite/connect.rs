//! Opening the file, and running SQLite's blocking calls where they may block.
//!
//! The file is never created, and its journal mode is never changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::from_sqlite;
use crate::store::StoreError;

/// The database file as it is opened: always by its canonical path, so that lock and journal stand beside the real file.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseFile {
    pub(super) path: PathBuf,
    pub(super) busy_timeout: Duration,
}

impl DatabaseFile {
    /// Finds the file; a missing one is an error.
    pub(crate) fn find(path: &Path) -> Result<Self, StoreError> {
        let unusable = |message: String| StoreError::Unusable {
            database: format!("sqlite:{}", path.display()),
            message,
        };
        let canonical = fs::canonicalize(path).map_err(|error| unusable(error.to_string()))?;
        let metadata = fs::metadata(&canonical).map_err(|error| unusable(error.to_string()))?;
        if !metadata.is_file() {
            return Err(unusable("not a regular file".to_owned()));
        }
        Ok(Self {
            path: canonical,
            busy_timeout: BUSY_TIMEOUT,
        })
    }

    /// How many names lead to the file. With more than one, two programs may use different journals for it, and corrupt it.
    pub(super) fn names(&self) -> Result<u64, StoreError> {
        fs::metadata(&self.path)
            .map(|metadata| metadata.nlink())
            .map_err(|error| StoreError::Disconnected(error.to_string()))
    }

    /// A connection for reading and writing; SQLite itself falls back to reading where the file may not be written.
    pub(crate) fn open(&self) -> Result<Connection, StoreError> {
        // Without URI and CREATE: a path is a path, and a file that went away is not made anew. A connection is used by one thread
        // at a time, which rusqlite's types enforce, so that SQLite need not take a mutex for each call.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(|error| match from_sqlite(error) {
            StoreError::Unreachable { message, .. } => self.unreachable(message),
            other => other,
        })?;
        connection.busy_timeout(self.busy_timeout).map_err(from_sqlite)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        // One plan for a statement, whatever is bound to it: our plans are forced by name, and SQLite would otherwise prepare every
        // statement with a bound LIMIT anew each time.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(from_sqlite)?;
        // A setting of this connection only. An UPDATE that calls functions keeps the old pages until it ends; in a file they would be
        // old ciphertext in one more place, and a fifth of the time.
        connection.pragma_update(None, "temp_store", "MEMORY").map_err(from_sqlite)?;
        // The first read finds out whether this is a database at all.
        connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
            .map_err(from_sqlite)?;
        Ok(connection)
    }

    /// In WAL mode, lets this connection's commits reach the disk later: a power cut may undo the last of them, whole, and they are
    /// done again. [`settle`](Self::settle) makes them durable before anything is called finished. Elsewhere every commit is synced.
    pub(crate) fn sync_less(&self, connection: &Connection) -> Result<(), StoreError> {
        if has_log(connection)? {
            connection.pragma_update(None, "synchronous", "NORMAL").map_err(from_sqlite)?;
        }
        Ok(())
    }

    /// Syncs the write-ahead log, if there is one.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let mut log = self.path.as_os_str().to_owned();
        log.push("-wal");
        // SQLite keeps no lock on this file that closing it again could drop.
        match fs::File::open(&log).and_then(|file| file.sync_all()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::Storage {
                code: "fsync".to_owned(),
                message: error.kind().to_string(),
            }),
        }
    }

    /// A connection that cannot write, whatever it is asked. Opened like any other, because only a writer can roll back a hot
    /// journal or make the shared memory of a WAL.
    pub(super) fn open_query_only(&self) -> Result<Connection, StoreError> {
        let connection = self.open()?;
        connection.pragma_update(None, "query_only", true).map_err(from_sqlite)?;
        Ok(connection)
    }

    fn unreachable(&self, message: String) -> StoreError {
        StoreError::Unreachable {
            database: format!("sqlite:{}", self.path.display()),
            message,
        }
    }
}

/// Whether the database is in WAL mode, where readers are in nobody's way.
pub(super) fn has_log(connection: &Connection) -> Result<bool, StoreError> {
    connection
        .pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))
        .map(|mode| mode.eq_ignore_ascii_case("wal"))
        .map_err(from_sqlite)
}

/// A connection that moves to the blocking pool for each call and comes back. A call that is cancelled takes it along: what it was
/// doing runs to its end, and the next call is told to reconnect.
pub(super) struct Handle {
    connection: Option<Connection>,
}

impl Handle {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection: Some(connection),
        }
    }

    /// Fails when a cancelled call has the connection.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.connection.as_ref().map(drop).ok_or_else(cancelled)
    }

    /// Runs `work` with the connection.
    pub(super) async fn run<T, F>(&mut self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let Some(connection) = self.connection.take() else {
            return Err(cancelled());
        };
        let (connection, result) = blocking(move || {
            let result = work(&connection);
            Ok((connection, result))
        })
        .await?;
        self.connection = Some(connection);
        result
    }
}

fn cancelled() -> StoreError {
    StoreError::Disconnected("the call before this one was cancelled".to_owned())
}

/// Runs `work` on the blocking pool. A panic inside is a panic outside.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Disconnected("the program is shutting down".to_owned())),
        },
    }
}

/// Longer than any transaction of ours; applications commonly wait 5 s.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A session alternates between about a dozen statements.
const STATEMENTS_CACHED: usize = 32;
