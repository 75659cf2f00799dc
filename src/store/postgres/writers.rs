//! Transactions under way that hold a lock for writing on the table, prepared ones among them. A transaction takes that lock before it
//! writes its first row, and keeps it to its end.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::store_error;
use super::survey;
use crate::store::{OpenWriter, StoreError};

/// Those of others, with what is known of whose they are.
pub async fn open(connection: &mut PgConnection, table: u32) -> Result<Vec<OpenWriter>, StoreError> {
    let mut oids = vec![sqlx::postgres::types::Oid(table)];
    let relations = survey::relations(connection, table).await?;
    oids.extend(relations.iter().map(|relation| sqlx::postgres::types::Oid(relation.oid)));
    let rows = sqlx::query(WRITERS)
        .bind(oids)
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    let writer = |row: &sqlx::postgres::PgRow| -> Result<OpenWriter, sqlx::Error> {
        Ok(OpenWriter {
            id: row.try_get(0)?,
            whose: row.try_get(1)?,
        })
    };
    rows.iter().map(writer).collect::<Result<_, _>>().map_err(store_error)
}

/// A prepared transaction has no process; its virtual transaction is `-1/` and its number.
const WRITERS: &str = "SELECT DISTINCT l.virtualtransaction,
       coalesce('prepared transaction ' || quote_literal(p.gid),
                'process ' || l.pid || coalesce(' (' || nullif(concat_ws(', ', nullif(a.application_name, ''), a.usename), '') || ')', ''))
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND p.transaction::text = split_part(l.virtualtransaction, '/', 2)
 WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY($1)
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
   AND l.pid IS DISTINCT FROM pg_backend_pid()";
