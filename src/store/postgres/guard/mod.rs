//! Guards as triggers, and their proof as a CHECK constraint.
//!
//! A CHECK constraint alone would not do while rows are still to be rotated: it is evaluated for every update of a row, whichever
//! columns that changes. A trigger can compare with the old row. Its condition stands in WHEN, so that its function is only called to
//! refuse. At the end the constraint is added without a scan, validated beside the application, and removed with the triggers.

mod statements;

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use self::statements::{FUNCTIONS, Table, constraint_name, constraint_prefix, standing, trigger_prefix, unproved, without};
use super::error::store_error;
use crate::store::StoreError;
use crate::store::guard::{Guard, GuardSpec, Guards};
use crate::store::ident::quote_ident;
use crate::store::survey::Survey;

/// A connection for guards.
pub struct PostgresGuards {
    connection: PgConnection,
}

impl PostgresGuards {
    /// Uses this connection.
    pub fn new(connection: PgConnection) -> Self {
        Self { connection }
    }

    /// Runs statements as one transaction that waits for no lock longer than [`DDL_SETTINGS`] say.
    async fn change(&mut self, sql: &[&str]) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await.map_err(store_error)?;
        for part in [DDL_SETTINGS].iter().chain(sql) {
            sqlx::raw_sql(AssertSqlSafe(*part))
                .execute(&mut *transaction)
                .await
                .map_err(store_error)?;
        }
        transaction.commit().await.map_err(store_error)
    }

    /// The same, with the functions that triggers call made first where they are missing: nobody takes them away in between.
    async fn change_with_functions(&mut self, sql: &str) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await.map_err(store_error)?;
        for part in [DDL_SETTINGS, LOCK_FUNCTIONS] {
            sqlx::raw_sql(part).execute(&mut *transaction).await.map_err(store_error)?;
        }
        let mut missing = Vec::new();
        let there = "SELECT to_regnamespace('reseal') IS NOT NULL";
        if !sqlx::query_scalar(there)
            .fetch_one(&mut *transaction)
            .await
            .map_err(store_error)?
        {
            missing.push("CREATE SCHEMA reseal");
        }
        for (function, text) in FUNCTIONS {
            let there = sqlx::query_scalar("SELECT to_regprocedure($1) IS NOT NULL").bind(function);
            if !there.fetch_one(&mut *transaction).await.map_err(store_error)? {
                missing.push(text);
            }
        }
        for part in missing.into_iter().chain([sql]) {
            sqlx::raw_sql(AssertSqlSafe(part))
                .execute(&mut *transaction)
                .await
                .map_err(store_error)?;
        }
        transaction.commit().await.map_err(store_error)
    }

    /// `None` when it was dropped.
    async fn table(&mut self, table: u32) -> Result<Option<Table>, StoreError> {
        let row = sqlx::query(
            "SELECT n.nspname::text, c.relname::text, c.relkind = 'p' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.oid = $1::int8::oid",
        )
        .bind(i64::from(table))
        .fetch_optional(&mut self.connection)
        .await
        .map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        let name = |at: usize| row.try_get::<String, _>(at).map_err(store_error);
        Ok(Some(Table {
            sql_name: format!("{}.{}", quote_ident(&name(0)?)?, quote_ident(&name(1)?)?),
            partitioned: row.try_get(2).map_err(store_error)?,
        }))
    }

    async fn surveyed(&mut self, survey: &Survey) -> Result<Table, StoreError> {
        let table = self.table(survey.table_id).await?;
        table.ok_or_else(|| StoreError::Vanished(survey.table.clone()))
    }

    /// Names of the triggers and constraints of a plan on the table.
    async fn parts(&mut self, table: u32, plan: &str) -> Result<Parts, StoreError> {
        let rows = sqlx::query(
            "SELECT true, tgname::text, tgenabled IN ('O', 'A') FROM pg_trigger
              WHERE tgrelid = $1::int8::oid AND starts_with(tgname::text, $2) AND tgparentid = 0
             UNION ALL
             SELECT false, conname::text, true FROM pg_constraint WHERE conrelid = $1::int8::oid AND starts_with(conname::text, $3)",
        )
        .bind(i64::from(table))
        .bind(trigger_prefix(plan))
        .bind(constraint_prefix(plan))
        .fetch_all(&mut self.connection)
        .await
        .map_err(store_error)?;
        let mut parts = Parts::default();
        for row in rows {
            let name: String = row.try_get(1).map_err(store_error)?;
            if row.try_get(0).map_err(store_error)? {
                parts.in_force += usize::from(row.try_get::<bool, _>(2).map_err(store_error)?);
                parts.triggers.push(name);
            } else {
                parts.constraints.push(name);
            }
        }
        Ok(parts)
    }
}

/// What stands of a guard.
#[derive(Default)]
struct Parts {
    triggers: Vec<String>,
    /// Triggers that nobody has disabled or kept for replication.
    in_force: usize,
    constraints: Vec<String>,
}

#[async_trait]
impl Guards for PostgresGuards {
    async fn require_possible(&mut self, survey: &Survey) -> Result<(), StoreError> {
        let refusal: Option<String> = sqlx::query_scalar(
            "SELECT CASE
                 WHEN EXISTS (SELECT 1 FROM pg_class c WHERE NOT pg_has_role(c.relowner, 'USAGE')
                               AND (c.oid = $1::int8::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::int8::oid::regclass))))
                   THEN 'only the owner of the table and of all its partitions can guard it'
                 WHEN NOT CASE WHEN to_regnamespace('reseal') IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                               ELSE has_schema_privilege('reseal', 'CREATE') END
                   THEN 'this user may not create the functions of a guard (schema reseal)'
             END",
        )
        .bind(i64::from(survey.table_id))
        .fetch_one(&mut self.connection)
        .await
        .map_err(store_error)?;
        refusal.map_or(Ok(()), |why| {
            Err(StoreError::Refused(format!(
                "{}: {why}; grant that, or run without --guard",
                survey.table
            )))
        })
    }

    async fn put_up(&mut self, survey: &Survey, spec: &GuardSpec) -> Result<(), StoreError> {
        let table = self.surveyed(survey).await?;
        let parts = self.parts(survey.table_id, &spec.plan).await?;
        let wanted = spec.columns.len() * if table.partitioned { 3 } else { 2 };
        if parts.in_force == wanted && parts.constraints.is_empty() {
            return Ok(());
        }
        self.change_with_functions(&standing(&table, survey, spec, &parts.constraints)?)
            .await
    }

    async fn prove(&mut self, survey: &Survey, spec: &GuardSpec) -> Result<bool, StoreError> {
        let table = self.surveyed(survey).await?;
        let parts = self.parts(survey.table_id, &spec.plan).await?;
        let names: Vec<String> = spec
            .columns
            .iter()
            .map(|guarded| constraint_name(&spec.plan, guarded))
            .collect();
        let mut sql = String::new();
        for (guarded, name) in spec.columns.iter().zip(&names) {
            if !parts.constraints.contains(name) {
                sql.push_str(&unproved(&table, survey, &spec.plan, guarded)?);
            }
        }
        if !sql.is_empty() {
            self.change_with_functions(&sql).await?;
        }
        for name in &names {
            let validate = format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", table.sql_name, quote_ident(name)?);
            match self.change(&[VALIDATE_SETTINGS, &validate]).await {
                Ok(()) => {}
                Err(StoreError::Row { .. }) => {
                    self.change_with_functions(&standing(&table, survey, spec, &names)?).await?;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn take_away(&mut self, table_id: u32, plan: &str) -> Result<(), StoreError> {
        if let Some(table) = self.table(table_id).await? {
            let parts = self.parts(table_id, plan).await?;
            let sql = without(&table, &parts.constraints, &parts.triggers)?;
            if !sql.is_empty() {
                self.change(&[&sql]).await?;
            }
        }
        for (function, _) in FUNCTIONS {
            match self
                .change(&[LOCK_FUNCTIONS, &format!("DROP FUNCTION IF EXISTS {function}")])
                .await
            {
                // Other guards call it, or it is another user's, or there is no schema: then it stays.
                Ok(()) | Err(StoreError::Retry { .. } | StoreError::Statement { .. } | StoreError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<Vec<Guard>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.oid::int8, n.nspname || '.' || c.relname, g.plan, bool_or(g.proof), coalesce(string_agg(DISTINCT g.keys, ','), '') FROM (
                 SELECT tgrelid AS relation, substring(tgname FROM '^zz_reseal_guard_([0-9a-f]+)_') AS plan, false AS proof,
                        CASE WHEN tgname ~ '_update$' THEN split_part(encode(tgargs, 'escape'), '\\000', 1) END AS keys
                   FROM pg_trigger WHERE tgparentid = 0 AND starts_with(tgname::text, 'zz_reseal_guard_')
                 UNION ALL
                 SELECT conrelid, substring(conname FROM '^reseal_guard_([0-9a-f]+)_'), true, NULL
                   FROM pg_constraint WHERE contype = 'c' AND coninhcount = 0 AND starts_with(conname::text, 'reseal_guard_')) g
               JOIN pg_class c ON c.oid = g.relation JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE g.plan IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 2, 3",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| {
                Ok(Guard {
                    table_id: u32::try_from(row.try_get::<i64, _>(0).map_err(store_error)?).unwrap_or(0),
                    table: row.try_get(1).map_err(store_error)?,
                    plan: row.try_get(2).map_err(store_error)?,
                    refuses: refused_keys(&row.try_get::<String, _>(4).map_err(store_error)?),
                    proof: row.try_get(3).map_err(store_error)?,
                })
            })
            .collect()
    }
}

/// The keys in the first argument of a guard's triggers, each once.
pub(super) fn refused_keys(listed: &str) -> Vec<String> {
    let keys: BTreeSet<&str> = listed.split(',').filter(|key| !key.is_empty()).collect();
    keys.into_iter().map(str::to_owned).collect()
}

/// A writer that comes while we wait for a lock queues behind us, and a table with partitions is many locks: the one is short, and all
/// of them together have an end.
const DDL_SETTINGS: &str = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '2s'";
/// Validation reads the whole table, and hinders neither readers nor writers.
const VALIDATE_SETTINGS: &str = "SET LOCAL statement_timeout = '6h'";

/// "rsl0", as for the control tables: two first runs at once.
const LOCK_FUNCTIONS: &str = "SELECT pg_advisory_xact_lock(1920166960, 0)";
