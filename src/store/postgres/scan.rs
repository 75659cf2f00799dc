//! Columns that could hold sealed values, with a sample of what they hold. Reads only.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::error::store_error;
use crate::store::ident::quote_ident;
use crate::store::{ColumnSample, StoreError};

/// Samples every text and bytes column of every table that this user may read, system schemas aside.
pub async fn samples(
    connection: &mut PgConnection,
    rows: usize,
    value_bytes_max: usize,
) -> Result<Vec<ColumnSample>, StoreError> {
    let columns = sqlx::query(
        "SELECT n.nspname::text, c.relname::text, a.attname::text, t.typname = 'bytea'
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_type d ON d.oid = a.atttypid JOIN pg_type t ON t.oid = coalesce(nullif(d.typbasetype, 0), d.oid)
          WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
            AND (t.typname IN ('text', 'varchar', 'bytea', 'citext') OR t.typname = 'bpchar')
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'reseal') AND n.nspname NOT LIKE 'pg\\_%'
            AND has_column_privilege(c.oid, a.attnum, 'SELECT')
          ORDER BY 1, 2, a.attnum",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(store_error)?;
    let mut samples = Vec::new();
    for row in columns {
        let text = |at: usize| row.try_get::<String, _>(at).map_err(store_error);
        let (schema, table, column) = (text(0)?, text(1)?, text(2)?);
        let bytes = row.try_get::<bool, _>(3).map_err(store_error)?;
        let name = quote_ident(&column)?;
        let value = if bytes {
            name.clone()
        } else {
            format!("convert_to({name}::text, 'UTF8')")
        };
        let sql = format!(
            "SELECT {value} FROM {}.{} WHERE {name} IS NOT NULL AND octet_length({name}) <= {value_bytes_max} LIMIT {rows}",
            quote_ident(&schema)?,
            quote_ident(&table)?
        );
        let values = sqlx::query_scalar(AssertSqlSafe(sql))
            .persistent(false)
            .fetch_all(&mut *connection)
            .await
            .map_err(store_error)?;
        samples.push(ColumnSample {
            table: format!("{schema}.{table}"),
            column,
            values,
        });
    }
    Ok(samples)
}
