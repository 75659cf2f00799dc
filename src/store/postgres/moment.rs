//! Moments of a PostgreSQL table. Every version of a row bears the transaction that wrote it; whatever a later statement sees and an
//! earlier one did not, was written by a transaction that the earlier one's snapshot held for unfinished or had not met yet.

use sqlx::postgres::PgConnection;

use super::error::store_error;
use super::survey;
use crate::store::{Moment, StoreError};

/// Now.
pub async fn now(connection: &mut PgConnection, table: u32) -> Result<Moment, StoreError> {
    let oldest: i64 = sqlx::query_scalar("SELECT txid_snapshot_xmin(txid_current_snapshot())")
        .fetch_one(&mut *connection)
        .await
        .map_err(store_error)?;
    let relations = survey::relations(connection, table).await?;
    Ok(Moment {
        position: oldest.unsigned_abs(),
        relations: relations
            .into_iter()
            .map(|relation| (relation.oid, relation.sql_name))
            .collect(),
    })
}
