//! Rows of the control tables as their types. A field that is not what was written was edited by hand.

use rusqlite::Row;
use rusqlite::types::Value;

use super::error::from_sqlite;
use crate::store::StoreError;
use crate::store::control::{Counters, Interval, Plan, PlanIdentity, PlanStatus, Range, StoredQuarantine};
use crate::store::ledger::Field;
use crate::store::page::Quarantined;
use crate::store::value::Key;

pub(super) fn read_plan(row: &Row<'_>) -> Result<Plan, StoreError> {
    let status: String = field(row, "status")?;
    Ok(Plan {
        identity: PlanIdentity {
            id: field(row, "id")?,
            table: field(row, "table_name")?,
            columns: field(row, "column_names")?,
            from: field(row, "from_keys")?,
            to: field(row, "to_key")?,
        },
        generation: field(row, "generation")?,
        status: PlanStatus::parse(&status).ok_or_else(|| damaged("a plan has an unknown status"))?,
        owner: field(row, "owner")?,
        created_at: field(row, "created_at")?,
        updated_at: field(row, "updated_at")?,
    })
}

pub(super) fn read_range(row: &Row<'_>) -> Result<Range, StoreError> {
    let key = |name| -> Result<Option<Key>, StoreError> {
        field::<Option<Vec<u8>>>(row, name)?.map(|bytes| read_key(&bytes)).transpose()
    };
    let count = |name| -> Result<u64, StoreError> {
        u64::try_from(field::<i64>(row, name)?).map_err(|_| damaged("a counter is negative"))
    };
    Ok(Range {
        id: field(row, "id")?,
        interval: Interval {
            relation: field(row, "relation")?,
            after: key("after_key")?,
            upto: key("upto_key")?,
        },
        cursor: key("cursor_key")?,
        epoch: field(row, "epoch")?,
        done: field(row, "done")?,
        counters: Counters {
            rows_scanned: count("rows_scanned")?,
            values_reencrypted: count("values_reencrypted")?,
            rows_reencrypted: count("rows_reencrypted")?,
            values_already_current: count("values_already_current")?,
            values_null: count("values_null")?,
            lost_races: count("lost_races")?,
        },
    })
}

pub(super) fn read_quarantine(row: &Row<'_>) -> Result<StoredQuarantine, StoreError> {
    Ok(StoredQuarantine {
        relation: field(row, "relation")?,
        entry: Quarantined {
            key: read_key(&field::<Vec<u8>>(row, "row_key")?)?,
            column: usize::try_from(field::<i64>(row, "column_index")?).map_err(|_| damaged("a column number is negative"))?,
            reason: field(row, "reason")?,
        },
    })
}

pub(super) fn parameter(field: &Field) -> Value {
    match field.clone() {
        Field::Int(Some(number)) => Value::Integer(number),
        Field::Text(Some(text)) => Value::Text(text),
        Field::Int(None) | Field::Text(None) => Value::Null,
    }
}

pub(super) fn read_field(row: &Row<'_>, at: usize) -> Result<Field, StoreError> {
    match row.get::<_, Value>(at).map_err(from_sqlite)? {
        Value::Null => Ok(Field::Int(None)),
        Value::Integer(number) => Ok(Field::Int(Some(number))),
        Value::Text(text) => Ok(Field::Text(Some(text))),
        Value::Real(_) | Value::Blob(_) => Err(damaged("a field is neither a number nor a text")),
    }
}

pub(super) fn read_key(bytes: &[u8]) -> Result<Key, StoreError> {
    Key::from_bytes(bytes).map_err(|error| StoreError::State(error.to_string()))
}

/// A field of a control table; one of another type was edited by hand.
pub(super) fn field<T: rusqlite::types::FromSql>(row: &Row<'_>, name: &str) -> Result<T, StoreError> {
    row.get(name).map_err(|error| match error {
        rusqlite::Error::SqliteFailure(..) => from_sqlite(error),
        _ => damaged(&format!("the field {name} is not what reseal wrote")),
    })
}

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::State(format!("the state in this database is damaged: {what}"))
}
