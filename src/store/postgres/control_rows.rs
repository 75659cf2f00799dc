//! Rows of the control tables, as they are read.

use sqlx::postgres::PgRow;
use sqlx::{Column as _, Row as _, TypeInfo as _};

use super::error::store_error;
use crate::store::StoreError;
use crate::store::control::{Counters, Interval, Plan, PlanIdentity, PlanStatus, Range};
use crate::store::ledger::{self, Field};
use crate::store::value::Key;

/// Statements of the ledger answer with numbers and texts only.
pub(super) fn fields_of(row: &PgRow) -> Result<ledger::Row, StoreError> {
    (0..row.len())
        .map(|at| match row.column(at).type_info().name() {
            "INT8" => row.try_get(at).map(Field::Int),
            _ => row.try_get(at).map(Field::Text),
        })
        .collect::<Result<_, _>>()
        .map_err(store_error)
}

/// A row of plans.
pub(super) fn plan_of(row: &PgRow) -> Result<Plan, StoreError> {
    let status: String = row.try_get(6).map_err(store_error)?;
    Ok(Plan {
        identity: PlanIdentity {
            id: row.try_get(0).map_err(store_error)?,
            table: row.try_get(1).map_err(store_error)?,
            columns: row.try_get(2).map_err(store_error)?,
            from: row.try_get(3).map_err(store_error)?,
            to: row.try_get(4).map_err(store_error)?,
        },
        generation: row.try_get(5).map_err(store_error)?,
        status: PlanStatus::parse(&status)
            .ok_or_else(|| StoreError::State(format!("plan with unknown status {}", status.escape_debug())))?,
        owner: row.try_get(7).map_err(store_error)?,
        created_at: row.try_get(8).map_err(store_error)?,
        updated_at: row.try_get(9).map_err(store_error)?,
    })
}

/// A row of ranges.
pub(super) fn range_of(row: &PgRow) -> Result<Range, StoreError> {
    let bytes = |at: usize| row.try_get::<Option<Vec<u8>>, _>(at).map_err(store_error);
    let count = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs).map_err(store_error);
    Ok(Range {
        id: row.try_get(0).map_err(store_error)?,
        interval: Interval {
            relation: row.try_get(1).map_err(store_error)?,
            after: key(bytes(2)?)?,
            upto: key(bytes(3)?)?,
        },
        cursor: key(bytes(4)?)?,
        epoch: row.try_get(5).map_err(store_error)?,
        done: row.try_get(6).map_err(store_error)?,
        counters: Counters {
            rows_scanned: count(7)?,
            values_reencrypted: count(8)?,
            rows_reencrypted: count(9)?,
            // While a page is being written, its values are taken off before they are met.
            values_already_current: row.try_get::<i64, _>(10).map_err(store_error)?.max(0).unsigned_abs(),
            values_null: count(11)?,
            lost_races: count(12)?,
        },
    })
}

/// A stored key, where there is one.
pub(super) fn key(bytes: Option<Vec<u8>>) -> Result<Option<Key>, StoreError> {
    bytes
        .map(|bytes| Key::from_bytes(&bytes).map_err(|error| StoreError::State(error.to_string())))
        .transpose()
}

/// What does not read as it was written.
pub(super) fn damaged() -> StoreError {
    StoreError::State("an entry of the control tables is damaged".to_owned())
}
