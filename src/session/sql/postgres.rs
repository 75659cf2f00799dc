//! PostgreSQL.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::SessionTable;
use super::statement::{Condition, Dialect, Names, Statements};
use super::table::TableLayout;
use crate::store::StoreError;
use crate::store::ident::quote_ident;
use crate::store::postgres::{connect, store_error};

pub(super) struct PostgresTable {
    connection: PgConnection,
    statements: Statements,
}

impl PostgresTable {
    pub(super) async fn open(url: &str, layout: &TableLayout, condition: Condition) -> Result<Self, StoreError> {
        let mut connection = connect(url, "reseal sessions").await?;
        let names = resolve(&mut connection, layout).await?;
        let statements = Statements::new(Dialect::Postgres, &names, &condition);
        Ok(Self { connection, statements })
    }
}

#[async_trait]
impl SessionTable for PostgresTable {
    async fn snapshot(&mut self) -> Result<(Timestamp, u64), StoreError> {
        let Self { connection, statements } = self;
        let mut transaction = connection.begin().await.map_err(store_error)?;
        sqlx::raw_sql(AssertSqlSafe(statements.make.as_str()))
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        let now: i64 = sqlx::query_scalar(NOW)
            .fetch_one(&mut *transaction)
            .await
            .map_err(store_error)?;
        let mut fill = sqlx::query(AssertSqlSafe(statements.fill.as_str()));
        for value in &statements.values {
            fill = fill.bind(value);
        }
        let rows = fill.execute(&mut *transaction).await.map_err(store_error)?.rows_affected();
        sqlx::raw_sql("CREATE UNIQUE INDEX reseal_sessions_n ON reseal_sessions (n); ANALYZE reseal_sessions")
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        Ok((time(now)?, rows))
    }

    async fn keys(&mut self, from: u64, to: u64) -> Result<Vec<(u64, String)>, StoreError> {
        let keys = sqlx::query_as(AssertSqlSafe(self.statements.keys.as_str()));
        let keys: Vec<(i64, String)> = keys
            .bind(limit(from))
            .bind(limit(to))
            .fetch_all(&mut self.connection)
            .await
            .map_err(store_error)?;
        Ok(keys.into_iter().map(|(number, key)| (number.unsigned_abs(), key)).collect())
    }

    async fn spare(&mut self, numbers: &[u64]) -> Result<(), StoreError> {
        let numbers: Vec<i64> = numbers.iter().copied().map(limit).collect();
        sqlx::query("DELETE FROM pg_temp.reseal_sessions WHERE n = ANY($1)")
            .bind(numbers)
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn end(&mut self, from: u64, to: u64) -> Result<u64, StoreError> {
        let end = sqlx::query(AssertSqlSafe(self.statements.end.as_str()))
            .bind(limit(from))
            .bind(limit(to));
        Ok(end.execute(&mut self.connection).await.map_err(store_error)?.rows_affected())
    }

    async fn left(&mut self) -> Result<u64, StoreError> {
        let left = sqlx::query_scalar(AssertSqlSafe(self.statements.left.as_str()));
        let left: i64 = left.fetch_one(&mut self.connection).await.map_err(store_error)?;
        Ok(u64::try_from(left).unwrap_or_default())
    }

    async fn between_batches(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn present(&mut self) -> Result<(Timestamp, u64), StoreError> {
        let now: i64 = sqlx::query_scalar(NOW)
            .fetch_one(&mut self.connection)
            .await
            .map_err(store_error)?;
        let mut present = sqlx::query_scalar(AssertSqlSafe(self.statements.present.as_str()));
        for value in &self.statements.values {
            present = present.bind(value);
        }
        let present: i64 = present.fetch_one(&mut self.connection).await.map_err(store_error)?;
        Ok((time(now)?, u64::try_from(present).unwrap_or_default()))
    }
}

fn time(milliseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| StoreError::State("the server's clock is out of range".to_owned()))
}

fn limit(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The table and its columns as the catalogue spells them.
async fn resolve(connection: &mut PgConnection, layout: &TableLayout) -> Result<Names, StoreError> {
    let parts: Result<Vec<_>, _> = layout.table.split('.').map(quote_ident).collect();
    let typed = parts?.join(".");
    let found = "SELECT c.oid::bigint, quote_ident(n.nspname) || '.' || quote_ident(c.relname)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p')";
    let found: Option<(i64, String)> = sqlx::query_as(found)
        .bind(&typed)
        .fetch_optional(&mut *connection)
        .await
        .map_err(store_error)?;
    let (oid, table) = found.ok_or_else(|| StoreError::Refused(format!("there is no table {}", layout.table)))?;
    let columns = "SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped";
    let columns: Vec<String> = sqlx::query_scalar(columns)
        .bind(oid)
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?;
    let names = Names::resolve(table, layout, |name| columns.iter().find(|column| *column == name).cloned())?;
    let unique = "SELECT count(*) FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = $1::bigint::oid AND i.indisunique AND i.indpred IS NULL AND i.indnkeyatts = 1 AND a.attname = $2";
    let unique: i64 = sqlx::query_scalar(unique)
        .bind(oid)
        .bind(&layout.key)
        .fetch_one(&mut *connection)
        .await
        .map_err(store_error)?;
    if unique == 0 {
        return Err(StoreError::Refused(format!(
            "column {} of {} is not unique: it does not identify a session",
            layout.key, layout.table
        )));
    }
    Ok(names)
}

/// The server's clock, in milliseconds since 1970.
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
