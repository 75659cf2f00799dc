//! Late values in the control tables: recorded with the batch that met them, and listed.

use rusqlite::{Connection, Row};

use super::control::collect;
use super::control_rows::{damaged, field, read_key};
use super::control_sql::{LATE, SELECT_LATE};
use super::error::from_sqlite;
use super::read::to_i64;
use crate::store::StoreError;
use crate::store::control::{LateValues, StoredLate};
use crate::store::page::Late;

/// Records late values within a batch's transaction.
pub(super) fn record(connection: &Connection, plan: &str, relation: &str, late: &[Late]) -> Result<(), StoreError> {
    for value in late {
        connection
            .prepare_cached(LATE)
            .and_then(|mut statement| statement.execute((plan, relation, value.key.as_bytes(), to_i64(value.column as u64))))
            .map_err(from_sqlite)?;
    }
    Ok(())
}

/// The late values of a plan, at most `listed` of them one by one.
pub(super) fn list(connection: &Connection, plan: &str, listed: usize) -> Result<LateValues, StoreError> {
    let total: i64 = connection
        .query_row("SELECT count(*) FROM reseal_late_value WHERE plan = ?1", [plan], |row| {
            row.get(0)
        })
        .map_err(from_sqlite)?;
    let values = collect(connection, SELECT_LATE, (plan, to_i64(listed as u64)), read_late)?;
    Ok(LateValues {
        values,
        total: total.unsigned_abs(),
    })
}

fn read_late(row: &Row<'_>) -> Result<StoredLate, StoreError> {
    Ok(StoredLate {
        relation: field(row, "relation")?,
        value: Late {
            key: read_key(&field::<Vec<u8>>(row, "row_key")?)?,
            column: usize::try_from(field::<i64>(row, "column_index")?).map_err(|_| damaged("a column number is negative"))?,
        },
        seen_at: field(row, "seen_at")?,
        last_seen_at: field(row, "last_seen_at")?,
    })
}
