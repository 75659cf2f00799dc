//! Columns that could hold sealed values, with a sample of what they hold. Reads only.
//!
//! Large tables are read at [`PLACES`] places, of a bounded number of rows each.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::connect::{DatabaseFile, Handle, blocking};
use super::error::from_sqlite;
use crate::store::ident::{display_ident, quote_ident};
use crate::store::{ColumnSample, SampleLimits, StoreError, TakesSamples};

/// Samples every column of every table; SQLite's types follow the value, so that any column may hold text or bytes.
pub(super) async fn samples(file: DatabaseFile, limits: SampleLimits, take: TakesSamples<'_>) -> Result<(), StoreError> {
    let (connection, tables) = blocking(move || {
        let connection = file.open_query_only()?;
        let tables = tables(&connection)?;
        Ok((connection, tables))
    })
    .await?;
    let mut handle = Handle::new(connection);
    for table in tables {
        let (name, rowid) = (table.name.clone(), table.free_rowid());
        let places = handle.run(move |connection| Ok(places(connection, &name, rowid))).await?;
        for column in table.columns {
            let values = match &places {
                Err(error) => Err(error.to_string()),
                Ok(places) => {
                    let (table, column, places) = (table.name.clone(), column.clone(), places.clone());
                    let read = move |connection: &Connection| Ok(values(connection, &table, &column, rowid, &places, limits));
                    handle.run(read).await?.map_err(|error| error.to_string())
                }
            };
            let sample = ColumnSample {
                table: display_ident(&table.name),
                column,
                values,
            };
            if take(sample).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

struct ScannedTable {
    name: String,
    without_rowid: bool,
    columns: Vec<String>,
}

impl ScannedTable {
    /// The name that the table leaves free for the rowid, if it has one.
    fn free_rowid(&self) -> Option<&'static str> {
        let is_free = |name: &&str| !self.columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        ["rowid", "_rowid_", "oid"]
            .into_iter()
            .find(|name| !self.without_rowid && is_free(name))
    }
}

fn tables(connection: &Connection) -> Result<Vec<ScannedTable>, StoreError> {
    let mut statement = connection
        .prepare(
            "SELECT t.name, t.wr, c.name FROM pragma_table_list t JOIN pragma_table_info(t.name, t.schema) c
              WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.name NOT LIKE 'reseal\\_%' ESCAPE '\\'
              ORDER BY t.name, c.cid",
        )
        .map_err(from_sqlite)?;
    let mut rows = statement.query([]).map_err(from_sqlite)?;
    let mut tables: Vec<ScannedTable> = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        let name: String = row.get(0).map_err(from_sqlite)?;
        let column = row.get(2).map_err(from_sqlite)?;
        match tables.last_mut().filter(|table| table.name == name) {
            Some(table) => table.columns.push(column),
            None => tables.push(ScannedTable {
                name,
                without_rowid: row.get(1).map_err(from_sqlite)?,
                columns: vec![column],
            }),
        }
    }
    Ok(tables)
}

/// First and last rowid of the places at which a table is read; none where rows have no rowid, and all are read until there are enough.
fn places(connection: &Connection, table: &str, rowid: Option<&str>) -> Result<Vec<(i64, i64)>, StoreError> {
    let (Some(rowid), table) = (rowid, quote_ident(table)?) else {
        return Ok(Vec::new());
    };
    // One aggregate each: together they would read the table.
    let ends = format!("SELECT (SELECT min({rowid}) FROM {table}), (SELECT max({rowid}) FROM {table})");
    let ends = connection
        .query_row(&ends, [], |row| {
            Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
        })
        .map_err(from_sqlite)?;
    let (Some(first), Some(last)) = ends else {
        return Ok(Vec::new());
    };
    let step = (i128::from(last) - i128::from(first)) / PLACES + 1;
    let beyond =
        format!("SELECT {rowid} FROM {table} WHERE {rowid} BETWEEN ? AND ? ORDER BY {rowid} LIMIT 1 OFFSET {PLACE_ROWS}");
    let mut beyond = connection.prepare(&beyond).map_err(from_sqlite)?;
    let mut places = Vec::new();
    for place in 0..PLACES {
        let begin = i128::from(first) + place * step;
        let end = (begin + step - 1).min(i128::from(last));
        let (Ok(begin), Ok(end)) = (i64::try_from(begin), i64::try_from(end)) else {
            break;
        };
        let mut found = beyond.query([begin, end]).map_err(from_sqlite)?;
        let end = match found.next().map_err(from_sqlite)? {
            Some(row) => row.get::<_, i64>(0).map_err(from_sqlite)?.saturating_sub(1),
            None => end,
        };
        places.push((begin, end));
    }
    Ok(places)
}

fn values(
    connection: &Connection,
    table: &str,
    column: &str,
    rowid: Option<&str>,
    places: &[(i64, i64)],
    limits: SampleLimits,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let (table, name) = (quote_ident(table)?, quote_ident(column)?);
    let within = match rowid {
        Some(rowid) => format!("{rowid} BETWEEN ? AND ?"),
        None => "? <= ?".to_owned(),
    };
    let sql = format!(
        "SELECT {name} FROM {table} WHERE {within} AND typeof({name}) IN ('text', 'blob') AND octet_length({name}) <= ? LIMIT ?"
    );
    let mut statement = connection.prepare(&sql).map_err(from_sqlite)?;
    let everywhere = [(0, 0)];
    let (places, rows) = match rowid {
        Some(_) => (places, limits.rows.div_ceil(PLACES as usize)),
        None => (&everywhere[..], limits.rows),
    };
    let mut values = Vec::new();
    for (begin, end) in places {
        let mut found = statement
            .query([*begin, *end, limits.value_bytes_max as i64, rows as i64])
            .map_err(from_sqlite)?;
        while let Some(row) = found.next().map_err(from_sqlite)? {
            if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = row.get_ref(0).map_err(from_sqlite)? {
                values.push(bytes.to_vec());
            }
        }
    }
    values.truncate(limits.rows);
    Ok(values)
}

/// Enough to meet values that were written at different times.
const PLACES: i128 = 20;
/// Read at each place, at most. With 20 places, tables of 40,000 rows are read in whole where their rowids follow each other.
const PLACE_ROWS: u32 = 2_000;
