//! Late values in the control tables: recorded with the batch that met them, and listed.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::control::rfc3339;
use super::control_rows::{damaged, key};
use super::error::store_error;
use crate::store::StoreError;
use crate::store::control::{LateValues, StoredLate};
use crate::store::page::Late;

/// Records late values in the transaction of the batch that met them. A value that was seen before is only seen again.
pub(super) async fn record(connection: &mut PgConnection, plan: &str, relation: &str, late: &[Late]) -> Result<(), StoreError> {
    let keys: Vec<&[u8]> = late.iter().map(|value| value.key.as_bytes()).collect();
    let columns: Vec<i32> = late
        .iter()
        .map(|value| i32::try_from(value.column).unwrap_or(i32::MAX))
        .collect();
    sqlx::query(
        "INSERT INTO reseal.late_value AS l (plan_id, relation, row_key, value_column)
         SELECT $1, $2, unnest($3::bytea[]), unnest($4::int4[])
         ON CONFLICT (plan_id, relation, row_key, value_column) DO UPDATE SET last_seen_at = excluded.last_seen_at",
    )
    .bind(plan)
    .bind(relation)
    .bind(keys)
    .bind(columns)
    .execute(connection)
    .await
    .map(drop)
    .map_err(store_error)
}

/// The late values of a plan, at most `listed` of them one by one.
pub(super) async fn list(connection: &mut PgConnection, plan: &str, listed: usize) -> Result<LateValues, StoreError> {
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM reseal.late_value WHERE plan_id = $1")
        .bind(plan)
        .fetch_one(&mut *connection)
        .await
        .map_err(store_error)?;
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT relation, row_key, value_column, {}, {} FROM reseal.late_value WHERE plan_id = $1
          ORDER BY seen_at, relation, row_key, value_column LIMIT $2",
        rfc3339("seen_at"),
        rfc3339("last_seen_at")
    )))
    .bind(plan)
    .bind(i64::try_from(listed).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    let values = rows.iter().map(late_of).collect::<Result<_, _>>()?;
    Ok(LateValues {
        values,
        total: total.unsigned_abs(),
    })
}

fn late_of(row: &PgRow) -> Result<StoredLate, StoreError> {
    Ok(StoredLate {
        relation: row.try_get(0).map_err(store_error)?,
        value: Late {
            key: key(row.try_get::<Option<Vec<u8>>, _>(1).map_err(store_error)?)?.ok_or_else(damaged)?,
            column: usize::try_from(row.try_get::<i32, _>(2).map_err(store_error)?).map_err(|_| damaged())?,
        },
        seen_at: row.try_get(3).map_err(store_error)?,
        last_seen_at: row.try_get(4).map_err(store_error)?,
    })
}
