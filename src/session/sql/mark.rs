//! A "not before" mark in a table: one row for each scope, raised in one transaction on the database's clock.

use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, TransactionBehavior, params};
use sqlx::{AssertSqlSafe, Connection};

use crate::session::SessionError;
use crate::session::mark::{MarkOptions, Marked, SPENT_DROPPED_MAX};
use crate::store::StoreError;
use crate::store::ident::quote_ident;
use crate::store::postgres::{connect as connect_postgres, store_error};
use crate::store::sqlite::{blocking, connect as connect_sqlite, from_sqlite};

/// Raises the row of a scope in `table`, which is made when it is not there.
pub(in crate::session) async fn raise_mark(url: &str, table: &str, options: &MarkOptions) -> Result<Marked, SessionError> {
    let quoted: Result<Vec<_>, _> = table.split('.').map(quote_ident).collect();
    let table = quoted?.join(".");
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        raise_in_sqlite(path, table, options.clone()).await
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        raise_in_postgres(url, &table, options).await
    } else {
        Err(SessionError::Refused(
            "marks are kept in sqlite: and postgres:// databases".to_owned(),
        ))
    }
}

async fn raise_in_postgres(url: &str, table: &str, options: &MarkOptions) -> Result<Marked, SessionError> {
    let (scope, name) = options.scope.parts();
    let mut connection = connect_postgres(url, "reseal sessions").await?;
    let exists: bool = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1) IS NOT NULL")
        .bind(table)
        .fetch_one(&mut connection)
        .await
        .map_err(store_error)?;
    let mut transaction = connection.begin().await.map_err(store_error)?;
    if !exists && !options.dry_run {
        // IF NOT EXISTS alone lets two that make it at once collide in the catalogue.
        sqlx::query("SELECT pg_catalog.pg_advisory_xact_lock($1)")
            .bind(MAKING)
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        sqlx::raw_sql(AssertSqlSafe(make(table)))
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
    }
    let previous: Option<i64> = if exists {
        // Held until the commit: whoever raises it at the same time waits, and sees what is set here.
        sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT not_before FROM {table} WHERE scope = $1 AND name = $2 FOR UPDATE"
        )))
        .bind(scope)
        .bind(name)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(store_error)?
    } else {
        None
    };
    let now: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .fetch_one(&mut *transaction)
        .await
        .map_err(store_error)?;
    let now = time(now)?;
    let wanted = options.wanted(now)?;
    if options.dry_run {
        let not_before = wanted.max(previous.unwrap_or_default());
        return Ok(Marked {
            not_before,
            previous,
            now,
        });
    }
    let not_before: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "INSERT INTO {table} AS m (scope, name, not_before) VALUES ($1, $2, $3)
         ON CONFLICT (scope, name) DO UPDATE SET not_before = greatest(m.not_before, excluded.not_before)
         RETURNING m.not_before"
    )))
    .bind(scope)
    .bind(name)
    .bind(wanted)
    .fetch_one(&mut *transaction)
    .await
    .map_err(store_error)?;
    transaction.commit().await.map_err(store_error)?;
    if let Some(spent) = options.spent_until(now) {
        // A mark that somebody is raising is left alone, and nobody waits for it.
        let drop_spent = format!(
            "DELETE FROM {table} WHERE ctid = ANY (ARRAY (
                 SELECT ctid FROM {table} WHERE scope <> 'all' AND not_before <= $1 LIMIT {SPENT_DROPPED_MAX} FOR UPDATE SKIP LOCKED))"
        );
        // The mark stands. A user of the database who may not drop others keeps them.
        let _ = sqlx::query(AssertSqlSafe(drop_spent))
            .bind(spent)
            .execute(&mut connection)
            .await;
    }
    Ok(Marked {
        not_before,
        previous,
        now,
    })
}

async fn raise_in_sqlite(path: PathBuf, table: String, options: MarkOptions) -> Result<Marked, SessionError> {
    let marked = blocking(move || {
        let mut connection = connect_sqlite(&path)?;
        raise_on(&mut connection, &table, &options)
    });
    marked.await?
}

/// The outer result is the database's; the inner one says that the mark was refused.
fn raise_on(
    connection: &mut rusqlite::Connection,
    table: &str,
    options: &MarkOptions,
) -> Result<Result<Marked, SessionError>, StoreError> {
    let (scope, name) = options.scope.parts();
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(from_sqlite)?;
    // Rolled back with everything else when it is only looked at.
    transaction.execute_batch(&make(table)).map_err(from_sqlite)?;
    let previous: Option<i64> = transaction
        .query_row(
            &format!("SELECT not_before FROM {table} WHERE scope = ?1 AND name = ?2"),
            params![scope, name],
            |row| row.get(0),
        )
        .optional()
        .map_err(from_sqlite)?;
    let now: i64 = transaction
        .query_row("SELECT CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER)", [], |row| {
            row.get(0)
        })
        .map_err(from_sqlite)?;
    let now = time(now)?;
    let wanted = match options.wanted(now) {
        Ok(wanted) => wanted,
        Err(refused) => return Ok(Err(refused)),
    };
    let not_before = wanted.max(previous.unwrap_or_default());
    if !options.dry_run {
        transaction
            .execute(
                &format!(
                    "INSERT INTO {table} (scope, name, not_before) VALUES (?1, ?2, ?3)
                     ON CONFLICT (scope, name) DO UPDATE SET not_before = max(not_before, excluded.not_before)"
                ),
                params![scope, name, not_before],
            )
            .map_err(from_sqlite)?;
        if let Some(spent) = options.spent_until(now) {
            let drop_spent = format!(
                "DELETE FROM {table} WHERE (scope, name) IN (
                     SELECT scope, name FROM {table} WHERE scope <> 'all' AND not_before <= ?1 LIMIT {SPENT_DROPPED_MAX})"
            );
            transaction.execute(&drop_spent, [spent]).map_err(from_sqlite)?;
        }
        transaction.commit().map_err(from_sqlite)?;
    }
    Ok(Ok(Marked {
        not_before,
        previous,
        now,
    }))
}

fn make(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (
             scope text NOT NULL, name text NOT NULL, not_before bigint NOT NULL, PRIMARY KEY (scope, name))"
    )
}

fn time(milliseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| StoreError::State("the server's clock is out of range".to_owned()))
}

/// The advisory lock of whoever makes the table: "not-befo", as PostgreSQL counts.
const MAKING: i64 = i64::from_be_bytes(*b"not-befo");
