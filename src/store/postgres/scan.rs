//! Columns that could hold sealed values, with a sample of what they hold. Reads only.
//!
//! However large a table is and however few rows have a value: no statement reads more than [`PAGES`] pages of it, or a little more.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::connect::no_answer;
use super::error::store_error;
use crate::store::ident::quote_ident;
use crate::store::{ColumnSample, SampleLimits, StoreError, TakesSamples};

/// Samples every text and bytes column of every table and materialised view that this user may read, system schemas aside.
pub async fn samples(
    connection: PgConnection,
    answer_max: Duration,
    limits: SampleLimits,
    take: TakesSamples<'_>,
) -> Result<(), StoreError> {
    let mut scan = Scan {
        connection,
        answer_max,
        limits,
    };
    let columns = scan.columns().await?;
    // Columns of a table follow each other.
    let mut share = (0, Ok(WHOLE));
    for column in columns {
        if share.0 != column.table_id {
            share = (column.table_id, readable(scan.share(column.table_id).await)?);
        }
        let values = match &share.1 {
            Ok(percent) => readable(scan.values(&column, *percent).await)?,
            Err(why) => Err(why.clone()),
        };
        let sample = ColumnSample {
            table: format!("{}.{}", column.schema, column.table),
            column: column.name,
            values,
        };
        if take(sample).is_break() {
            break;
        }
    }
    Ok(())
}

/// What became of a statement about one column: only a lost connection ends the scan.
fn readable<T>(outcome: Result<T, StoreError>) -> Result<Result<T, String>, StoreError> {
    match outcome {
        Err(error @ (StoreError::Disconnected(_) | StoreError::Unreachable { .. })) => Err(error),
        outcome => Ok(outcome.map_err(|error| error.to_string())),
    }
}

struct Scan {
    connection: PgConnection,
    answer_max: Duration,
    limits: SampleLimits,
}

struct ScannedColumn {
    table_id: i64,
    schema: String,
    table: String,
    /// Whether the rows are in other tables: partitions.
    is_parent: bool,
    name: String,
    is_bytes: bool,
}

impl Scan {
    async fn columns(&mut self) -> Result<Vec<ScannedColumn>, StoreError> {
        let asked = sqlx::query(
            "SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind = 'p', a.attname::text, t.typname = 'bytea'
               FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_type d ON d.oid = a.atttypid JOIN pg_type t ON t.oid = coalesce(nullif(d.typbasetype, 0), d.oid)
              WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND c.relispopulated AND a.attnum > 0 AND NOT a.attisdropped
                AND (t.typname IN ('text', 'varchar', 'bytea', 'citext') OR t.typname = 'bpchar')
                AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'reseal') AND n.nspname NOT LIKE 'pg\\_%'
                AND has_column_privilege(c.oid, a.attnum, 'SELECT')
              ORDER BY 2, 3, a.attnum",
        )
        .fetch_all(&mut self.connection);
        let rows = answered(self.answer_max, asked).await?;
        rows.iter()
            .map(|row| {
                Ok(ScannedColumn {
                    table_id: row.try_get(0).map_err(store_error)?,
                    schema: row.try_get(1).map_err(store_error)?,
                    table: row.try_get(2).map_err(store_error)?,
                    is_parent: row.try_get(3).map_err(store_error)?,
                    name: row.try_get(4).map_err(store_error)?,
                    is_bytes: row.try_get(5).map_err(store_error)?,
                })
            })
            .collect()
    }

    /// How much of a table is read, in percent of its pages; of all partitions together, where it has any.
    async fn share(&mut self, table_id: i64) -> Result<f64, StoreError> {
        let asked = sqlx::query_scalar::<_, i64>(
            "SELECT (coalesce(sum(pg_relation_size(relid)), 0) / current_setting('block_size')::int8)::int8
               FROM (SELECT relid FROM pg_partition_tree($1::int8::oid::regclass) WHERE isleaf UNION SELECT $1::int8::oid::regclass) AS parts",
        )
        .bind(table_id)
        .fetch_one(&mut self.connection);
        let pages = answered(self.answer_max, asked).await?;
        Ok((PAGES * WHOLE / pages.max(1) as f64).min(WHOLE))
    }

    /// Values are chosen before any of them is fetched from where large ones lie. The same pages are read for each column of a table:
    /// after the first they are in memory.
    async fn values(&mut self, column: &ScannedColumn, percent: f64) -> Result<Vec<Vec<u8>>, StoreError> {
        let SampleLimits { rows, value_bytes_max } = self.limits;
        let name = quote_ident(&column.name)?;
        let only = if column.is_parent { "" } else { "ONLY " };
        let (schema, table) = (quote_ident(&column.schema)?, quote_ident(&column.table)?);
        let value = if column.is_bytes {
            "value"
        } else {
            "convert_to(value::text, 'UTF8')"
        };
        let sql = format!(
            "SELECT {value} FROM (
               SELECT {name} AS value FROM {only}{schema}.{table} TABLESAMPLE SYSTEM ({percent:.6}) REPEATABLE (pg_backend_pid())
                WHERE {name} IS NOT NULL AND octet_length({name}) <= {value_bytes_max} ORDER BY random() LIMIT {rows}) AS sampled"
        );
        let asked = sqlx::query_scalar(AssertSqlSafe(sql))
            .persistent(false)
            .fetch_all(&mut self.connection);
        answered(self.answer_max, asked).await
    }
}

async fn answered<T>(answer_max: Duration, asked: impl Future<Output = sqlx::Result<T>>) -> Result<T, StoreError> {
    match tokio::time::timeout(answer_max, asked).await {
        Ok(answer) => answer.map_err(store_error),
        Err(_) => Err(no_answer(answer_max)),
    }
}

const WHOLE: f64 = 100.0;

/// 16 MiB with pages of the usual size: tables up to that are read in whole, of larger ones about so much. Read from a cold disk one by
/// one they take seconds.
const PAGES: f64 = 2_000.0;
