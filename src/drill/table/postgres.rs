//! The table in a PostgreSQL database: in a schema that is made for the rehearsal and goes with it.

use std::future::Future;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Column as _, Postgres, Row as _, TypeInfo as _, ValueRef as _};
use tokio::runtime::{Builder, Runtime};

use super::{Cell, Dialect, Parameter, Session, TableError};
use crate::store::StoreError;
use crate::store::postgres::{connect, store_error};

pub(super) const DIALECT: Dialect = Dialect {
    parameter: '$',
    begin: "BEGIN",
    for_update: " FOR UPDATE",
};

/// A connection as an application opens one.
pub(super) struct PostgresSession {
    runtime: Runtime,
    connection: PgConnection,
    url: String,
    role: String,
}

/// The schema of a rehearsal.
pub struct Scratch {
    runtime: Runtime,
    connection: PgConnection,
    /// Its name.
    schema: String,
}

impl PostgresSession {
    pub(super) fn open(url: &str, role: &str) -> Result<Self, TableError> {
        let runtime = runtime()?;
        let connection = within(&runtime, alone(url, role))?;
        Ok(Self {
            runtime,
            connection,
            url: url.to_owned(),
            role: role.to_owned(),
        })
    }
}

impl Session for PostgresSession {
    fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Vec<Cell>>, TableError> {
        let query = bind(sql, parameters);
        let rows = within(&self.runtime, async {
            query.fetch_all(&mut self.connection).await.map_err(store_error)
        })?;
        rows.iter().map(cells).collect()
    }

    fn execute(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, TableError> {
        let query = bind(sql, parameters);
        within(&self.runtime, async {
            let done = query.execute(&mut self.connection).await.map_err(store_error)?;
            Ok(done.rows_affected())
        })
    }

    fn command(&mut self, sql: &str) -> Result<(), TableError> {
        within(&self.runtime, run(&mut self.connection, sql))
    }

    fn renew(&mut self) -> Result<(), TableError> {
        self.connection = within(&self.runtime, alone(&self.url, &self.role))?;
        Ok(())
    }
}

impl Scratch {
    /// Connects; makes nothing yet.
    pub fn connect(url: &str, role: &str, schema: String) -> Result<Self, TableError> {
        let runtime = runtime()?;
        let connection = within(&runtime, connect(url, role))?;
        Ok(Self {
            runtime,
            connection,
            schema,
        })
    }

    /// Whether the database has the schema of Reseal's own tables.
    pub fn has_control_schema(&mut self) -> Result<bool, TableError> {
        let sql = "SELECT to_regnamespace('reseal') IS NOT NULL";
        within(&self.runtime, async {
            sqlx::query_scalar(sql)
                .fetch_one(&mut self.connection)
                .await
                .map_err(store_error)
        })
    }

    /// Makes the schema with the empty tables; the name of that of the customers, as it stands in statements.
    pub fn create(&mut self) -> Result<String, TableError> {
        let schema = &self.schema;
        let sql = format!(
            "CREATE SCHEMA {schema};
             COMMENT ON SCHEMA {schema} IS 'A rehearsal by reseal drill. Invented customers; may be dropped.';
             CREATE TABLE {schema}.customers (
                 id BIGINT PRIMARY KEY, name TEXT NOT NULL, email BYTEA NOT NULL, notes BYTEA, tier TEXT NOT NULL);
             CREATE TABLE {schema}.logins (id TEXT PRIMARY KEY, customer BIGINT NOT NULL);"
        );
        within(&self.runtime, run(&mut self.connection, &sql))?;
        Ok(format!("{schema}.customers"))
    }

    /// Ends every connection whose name begins like this, and waits until they are gone.
    pub fn end_connections(&mut self, prefix: &str) -> Result<(), TableError> {
        let pattern = format!("{prefix}%");
        within(&self.runtime, end_sessions(&mut self.connection, &pattern))
    }

    /// Removes the schema, and what Reseal noted about its table and about `keyset`. `with_control` also removes Reseal's own schema,
    /// if nothing else is noted in it: for a rehearsal that found none.
    pub fn drop(&mut self, keyset: &str, with_control: bool) -> Result<(), TableError> {
        let schema = self.schema.clone();
        let connection = &mut self.connection;
        within(&self.runtime, async {
            run(connection, "SET lock_timeout = '10s'").await?;
            run(connection, &format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await?;
            // The last of the tables to be made.
            let noted: bool = sqlx::query_scalar("SELECT to_regclass('reseal.rotation') IS NOT NULL")
                .fetch_one(&mut *connection)
                .await
                .map_err(store_error)?;
            if !noted {
                return Ok(());
            }
            for statement in [
                "DELETE FROM reseal.instance WHERE keyset = $1",
                "DELETE FROM reseal.rotation WHERE keyset = $1",
            ] {
                let deletion = sqlx::query(statement).bind(keyset);
                deletion.execute(&mut *connection).await.map_err(store_error)?;
            }
            sqlx::query("DELETE FROM reseal.plan WHERE table_name LIKE $1 || '.%' OR table_name LIKE '\"' || $1 || '\".%'")
                .bind(&schema)
                .execute(&mut *connection)
                .await
                .map_err(store_error)?;
            if with_control {
                run(connection, DROP_CONTROL).await?;
            }
            Ok(())
        })
    }
}

/// A new connection, the only one of its name: an earlier one may still be at work for a process that died, or behind a connection
/// that was cut.
async fn alone(url: &str, role: &str) -> Result<PgConnection, StoreError> {
    let mut connection = connect(url, role).await?;
    // An application has the server's settings, not those of a rotation.
    run(&mut connection, "RESET ALL").await?;
    end_sessions(&mut connection, role).await?;
    Ok(connection)
}

async fn end_sessions(connection: &mut PgConnection, pattern: &str) -> Result<(), StoreError> {
    let until = Instant::now() + ENDED_WITHIN;
    loop {
        let left: i64 = sqlx::query_scalar(END_SESSIONS)
            .bind(pattern)
            .fetch_one(&mut *connection)
            .await
            .map_err(store_error)?;
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(StoreError::Disconnected("an earlier connection does not end".to_owned()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(())
}

fn bind<'q>(sql: &str, parameters: &[Parameter<'q>]) -> Query<'q, Postgres, PgArguments> {
    let query = sqlx::query(AssertSqlSafe(sql));
    parameters.iter().fold(query, |query, parameter| match *parameter {
        Parameter::Integer(value) => query.bind(value),
        Parameter::Text(text) => query.bind(text),
        Parameter::Bytes(bytes) => query.bind(bytes),
    })
}

fn cells(row: &PgRow) -> Result<Vec<Cell>, TableError> {
    let cell = |at: usize| -> sqlx::Result<Cell> {
        if row.try_get_raw(at)?.is_null() {
            return Ok(Cell::Null);
        }
        Ok(match row.column(at).type_info().name() {
            "INT8" => Cell::Integer(row.try_get(at)?),
            "BYTEA" => Cell::Bytes(row.try_get(at)?),
            _ => Cell::Text(row.try_get(at)?),
        })
    };
    let cells: sqlx::Result<Vec<Cell>> = (0..row.len()).map(cell).collect();
    cells.map_err(|error| store_error(error).into())
}

fn runtime() -> Result<Runtime, TableError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| TableError::Refused(error.to_string()))
}

/// Runs it to its end; a server that does not answer is as good as one that is gone.
fn within<T>(runtime: &Runtime, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, TableError> {
    let outcome = runtime.block_on(async { tokio::time::timeout(ANSWERED_WITHIN, work).await });
    match outcome {
        Ok(outcome) => outcome.map_err(TableError::from),
        Err(_) => Err(TableError::Lost(format!("no answer within {} s", ANSWERED_WITHIN.as_secs()))),
    }
}

impl From<StoreError> for TableError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unusable { .. } => Self::Unusable(error.to_string()),
            _ if error.wants_reconnect() => Self::Lost(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// The schema of the rehearsal of this name.
pub fn schema_name(name: &str) -> String {
    format!("reseal_drill_{name}")
}

/// The statement is sent again until nothing is left: ending takes the server a moment. Other people's connections have other names,
/// and other users' cannot be ended.
const END_SESSIONS: &str = "
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE $1 AND datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()";

/// Under the lock that a rotation takes to make these tables, and never when anything is noted in them.
const DROP_CONTROL: &str = "
    DO $$ BEGIN
        PERFORM pg_advisory_xact_lock(x'72736c30'::int, 0);
        LOCK TABLE reseal.plan, reseal.instance, reseal.rotation IN ACCESS EXCLUSIVE MODE;
        IF NOT EXISTS (SELECT FROM reseal.plan) AND NOT EXISTS (SELECT FROM reseal.instance)
            AND NOT EXISTS (SELECT FROM reseal.rotation) THEN
            DROP SCHEMA reseal CASCADE;
        END IF;
    END $$";

const ENDED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Longer than any lock that a rotation holds, and than a pause on purpose.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
