//! Columns that could hold sealed values, with a sample of what they hold. Reads only.

use rusqlite::types::ValueRef;

use super::connect::DatabaseFile;
use super::error::from_sqlite;
use crate::store::ident::quote_ident;
use crate::store::{ColumnSample, StoreError};

/// Samples every column of every table; SQLite's types follow the value, so that any column may hold text or bytes.
pub(super) fn samples(file: &DatabaseFile, rows: usize, value_bytes_max: usize) -> Result<Vec<ColumnSample>, StoreError> {
    let connection = file.open_query_only()?;
    let mut columns = connection
        .prepare(
            "SELECT t.name, c.name FROM pragma_table_list t JOIN pragma_table_info(t.name, t.schema) c
              WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.name NOT LIKE 'reseal\\_%' ESCAPE '\\'
              ORDER BY t.name, c.cid",
        )
        .map_err(from_sqlite)?;
    let columns: Vec<(String, String)> = columns
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(from_sqlite)?;
    let mut samples = Vec::new();
    for (table, column) in columns {
        let name = quote_ident(&column)?;
        let sql = format!(
            "SELECT {name} FROM {} WHERE typeof({name}) IN ('text', 'blob') AND octet_length({name}) <= ? LIMIT ?",
            quote_ident(&table)?
        );
        let mut statement = connection.prepare(&sql).map_err(from_sqlite)?;
        let values = statement
            .query_map([value_bytes_max as i64, rows as i64], |row| {
                Ok(match row.get_ref(0)? {
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
                    _ => Vec::new(),
                })
            })
            .and_then(Iterator::collect)
            .map_err(from_sqlite)?;
        samples.push(ColumnSample { table, column, values });
    }
    Ok(samples)
}
