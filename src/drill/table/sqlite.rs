//! The table in an SQLite file.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql, params_from_iter};

use super::{Cell, Dialect, Parameter, Session, TableError};

pub(super) const DIALECT: Dialect = Dialect {
    parameter: '?',
    begin: "BEGIN IMMEDIATE",
    for_update: "",
};

/// A connection as an application opens one.
pub(super) struct SqliteSession {
    connection: Connection,
}

impl SqliteSession {
    pub(super) fn open(path: &Path) -> Result<Self, TableError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Self { connection })
    }
}

impl Session for SqliteSession {
    fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Vec<Cell>>, TableError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let columns = statement.column_count();
        let rows = statement.query_map(params_from_iter(parameters), |row| {
            (0..columns)
                .map(|at| {
                    Ok(match row.get_ref(at)? {
                        ValueRef::Integer(value) => Cell::Integer(value),
                        ValueRef::Text(bytes) => Cell::Text(String::from_utf8_lossy(bytes).into_owned()),
                        ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
                        // The table has no REAL column.
                        ValueRef::Null | ValueRef::Real(_) => Cell::Null,
                    })
                })
                .collect()
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn execute(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, TableError> {
        let changed = self.connection.prepare_cached(sql)?.execute(params_from_iter(parameters))?;
        Ok(changed as u64)
    }

    fn command(&mut self, sql: &str) -> Result<(), TableError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn renew(&mut self) -> Result<(), TableError> {
        // There is no connection to lose, and what a dead process had not committed is not there.
        Ok(())
    }
}

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Integer(value) => ValueRef::Integer(value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Bytes(None) => ValueRef::Null,
        }))
    }
}

impl From<rusqlite::Error> for TableError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A new file with the empty tables in it.
pub fn create(path: &Path, table: &str, logins: &str) -> Result<(), TableError> {
    let connection = Connection::open(path)?;
    // WAL, as a server with readers beside its writer sets it up.
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email BLOB NOT NULL, notes BLOB, tier TEXT NOT NULL);
         CREATE TABLE {logins} (id TEXT PRIMARY KEY, customer INTEGER NOT NULL);"
    ))?;
    Ok(())
}

/// What applications commonly set.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
