//! How large a table is, without reading all of a large one.

use rusqlite::Connection;

use super::catalogue::Table;
use super::error::from_sqlite;
use crate::store::StoreError;

/// How large a table is.
#[derive(Default)]
pub(super) struct Size {
    /// Rows.
    pub(super) rows: u64,
    /// Bytes of the table and its indexes, or of the file.
    pub(super) bytes: u64,
}

impl Size {
    /// Exact where looking is cheap; otherwise from ANALYZE, or from the span of the rowid.
    pub(super) fn estimate(connection: &Connection, table: &Table) -> Result<Self, StoreError> {
        let number = |sql: &str| -> Result<u64, StoreError> {
            let number: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(from_sqlite)?;
            Ok(number.unsigned_abs())
        };
        let pages = number("PRAGMA page_count")?;
        let file_bytes = pages * number("PRAGMA page_size")?;
        if pages <= PAGES_CHEAP {
            let bytes: Option<i64> = connection
                .query_row(
                    "SELECT sum(pgsize) FROM dbstat WHERE aggregate AND name IN \
                     (SELECT name FROM sqlite_schema WHERE tbl_name = ?1 AND type IN ('table', 'index'))",
                    [&table.name],
                    |row| row.get(0),
                )
                .map_err(from_sqlite)?;
            return Ok(Self {
                rows: number(&format!("SELECT count(*) FROM {}", table.sql_name))?,
                bytes: bytes.map_or(file_bytes, i64::unsigned_abs),
            });
        }
        let rows_max = file_bytes / ROW_BYTES_MIN;
        let rows = match analyzed_rows(connection, &table.name)? {
            Some(rows) => rows,
            None if table.without_rowid => rows_max,
            None => span_of_rowid(connection, table)?,
        };
        Ok(Self {
            rows: rows.min(rows_max),
            bytes: file_bytes,
        })
    }
}

fn analyzed_rows(connection: &Connection, table: &str) -> Result<Option<u64>, StoreError> {
    let analyzed: bool = connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'", [], |row| {
            row.get(0)
        })
        .map_err(from_sqlite)?;
    if !analyzed {
        return Ok(None);
    }
    let stat: Option<String> = connection
        .query_row("SELECT max(stat) FROM sqlite_stat1 WHERE tbl = ?1", [table], |row| row.get(0))
        .map_err(from_sqlite)?;
    Ok(stat.and_then(|stat| stat.split(' ').next()?.parse().ok()))
}

fn span_of_rowid(connection: &Connection, table: &Table) -> Result<u64, StoreError> {
    let Some(name) = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| table.column(name).is_none())
    else {
        return Ok(u64::MAX);
    };
    // Two statements: SQLite seeks for a lone min or max, and scans for both.
    let end = |function: &str| -> Result<Option<i64>, StoreError> {
        let sql = format!("SELECT {function}({name}) FROM {}", table.sql_name);
        connection.query_row(&sql, [], |row| row.get(0)).map_err(from_sqlite)
    };
    let (low, high) = (end("min")?, end("max")?);
    Ok(low.zip(high).map_or(0, |(low, high)| high.abs_diff(low).saturating_add(1)))
}

/// 200 MB at the usual page size: counting takes well under a second.
const PAGES_CHEAP: u64 = 50_000;
/// A row holds at least an authenticated ciphertext.
const ROW_BYTES_MIN: u64 = 32;
