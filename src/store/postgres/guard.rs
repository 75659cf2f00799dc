//! Guards as triggers, and their proof as a CHECK constraint.
//!
//! A CHECK constraint alone would not do while rows are still to be rotated: it is evaluated for every update of a row, whichever
//! columns that changes. A trigger can compare with the old row. Its condition stands in WHEN, so that its function is only called to
//! refuse. At the end the constraint is added without a scan, validated beside the application, and removed with the triggers.

use std::fmt::Write as _;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::error::store_error;
use crate::store::StoreError;
use crate::store::guard::{Guard, GuardSpec, GuardedColumn, Guards};
use crate::store::ident::quote_ident;
use crate::store::survey::{Column, ColumnClass, Survey};

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
    async fn change(&mut self, sql: &str) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await.map_err(store_error)?;
        for part in [DDL_SETTINGS, sql] {
            sqlx::raw_sql(AssertSqlSafe(part))
                .execute(&mut *transaction)
                .await
                .map_err(store_error)?;
        }
        transaction.commit().await.map_err(store_error)
    }

    async fn table(&mut self, table: u32) -> Result<Table, StoreError> {
        let row = sqlx::query(
            "SELECT n.nspname::text, c.relname::text, c.relkind = 'p' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.oid = $1::int8::oid",
        )
        .bind(i64::from(table))
        .fetch_one(&mut self.connection)
        .await
        .map_err(store_error)?;
        let name = |at: usize| row.try_get::<String, _>(at).map_err(store_error);
        Ok(Table {
            sql_name: format!("{}.{}", quote_ident(&name(0)?)?, quote_ident(&name(1)?)?),
            partitioned: row.try_get(2).map_err(store_error)?,
        })
    }

    /// The functions that triggers call, before any lock on a table is asked for.
    async fn make_functions(&mut self) -> Result<(), StoreError> {
        let there: bool = sqlx::query_scalar("SELECT to_regnamespace('reseal') IS NOT NULL")
            .fetch_one(&mut self.connection)
            .await
            .map_err(store_error)?;
        let schema = if there { "" } else { "CREATE SCHEMA IF NOT EXISTS reseal;" };
        self.change(&format!("{LOCK_FUNCTIONS}; {schema} {FUNCTIONS}")).await
    }

    /// Names of the triggers and constraints of a plan on the table.
    async fn parts(&mut self, table: u32, plan: &str) -> Result<Parts, StoreError> {
        let rows = sqlx::query(
            "SELECT true, tgname::text, tgenabled <> 'D' FROM pg_trigger
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
    /// Triggers that nobody has disabled.
    in_force: usize,
    constraints: Vec<String>,
}

struct Table {
    sql_name: String,
    partitioned: bool,
}

#[async_trait]
impl Guards for PostgresGuards {
    async fn put_up(&mut self, survey: &Survey, spec: &GuardSpec) -> Result<(), StoreError> {
        let table = self.table(survey.table_id).await?;
        let parts = self.parts(survey.table_id, &spec.plan).await?;
        let wanted = spec.columns.len() * if table.partitioned { 3 } else { 2 };
        if parts.in_force == wanted && parts.constraints.is_empty() {
            return Ok(());
        }
        self.make_functions().await?;
        self.change(&standing(&table, survey, spec, &parts.constraints)?).await
    }

    async fn prove(&mut self, survey: &Survey, spec: &GuardSpec) -> Result<bool, StoreError> {
        let table = self.table(survey.table_id).await?;
        let parts = self.parts(survey.table_id, &spec.plan).await?;
        let (mut sql, mut names) = (String::new(), Vec::new());
        for guarded in &spec.columns {
            let name = format!("{}{}", constraint_prefix(&spec.plan), guarded.column);
            if !parts.constraints.contains(&name) {
                let column = &survey.values[guarded.column];
                let refused = begins(column, &column.sql_name, &guarded.beginnings);
                // What the constraint says to a stale writer quotes the row: the triggers speak first.
                push_triggers(&mut sql, &table, column, &spec.plan, guarded, Arrival::Before);
                let _ = write!(
                    sql,
                    "ALTER TABLE {} ADD CONSTRAINT {} CHECK (NOT ({refused})) NOT VALID;",
                    table.sql_name,
                    quote_ident(&name)?
                );
            }
            names.push(name);
        }
        if !sql.is_empty() {
            self.make_functions().await?;
            self.change(&sql).await?;
        }
        for name in &names {
            let validate = format!(
                "{VALIDATE_SETTINGS}; ALTER TABLE {} VALIDATE CONSTRAINT {}",
                table.sql_name,
                quote_ident(name)?
            );
            match self.change(&validate).await {
                Ok(()) => {}
                Err(StoreError::Row { .. }) => {
                    self.change(&standing(&table, survey, spec, &names)?).await?;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn take_away(&mut self, table_id: u32, plan: &str) -> Result<(), StoreError> {
        let table = self.table(table_id).await?;
        let parts = self.parts(table_id, plan).await?;
        let mut sql = String::new();
        for name in &parts.constraints {
            let _ = write!(
                sql,
                "ALTER TABLE {} DROP CONSTRAINT IF EXISTS {};",
                table.sql_name,
                quote_ident(name)?
            );
        }
        for name in &parts.triggers {
            let _ = write!(sql, "DROP TRIGGER IF EXISTS {} ON {};", quote_ident(name)?, table.sql_name);
        }
        if !sql.is_empty() {
            self.change(&sql).await?;
        }
        for function in [REFUSE, LET_MOVE] {
            match self.change(&format!("DROP FUNCTION IF EXISTS {function}")).await {
                // Other guards call it, or it is another user's: then it stays.
                Ok(()) | Err(StoreError::Retry { .. } | StoreError::Statement { .. } | StoreError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<Vec<Guard>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.oid::int8, n.nspname || '.' || c.relname, g.plan, bool_or(g.proof) FROM (
                 SELECT tgrelid AS relation, substring(tgname FROM '^zz_reseal_guard_([0-9a-f]+)_') AS plan, false AS proof
                   FROM pg_trigger WHERE tgparentid = 0 AND starts_with(tgname::text, 'zz_reseal_guard_')
                 UNION ALL
                 SELECT conrelid, substring(conname FROM '^reseal_guard_([0-9a-f]+)_'), true
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
                    proof: row.try_get(3).map_err(store_error)?,
                })
            })
            .collect()
    }
}

/// When the insertion of a row is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// Before it happens.
    Before,
    /// When it has happened: what `ON CONFLICT DO UPDATE` proposes and does not insert is then never looked at.
    After,
}

/// The statements that leave a guard standing while rows are rotated, and none of these constraints: under them, rows that are still to
/// be rotated could not be updated.
fn standing(table: &Table, survey: &Survey, spec: &GuardSpec, constraints: &[String]) -> Result<String, StoreError> {
    let mut sql = String::new();
    for name in constraints {
        let _ = write!(
            sql,
            "ALTER TABLE {} DROP CONSTRAINT IF EXISTS {};",
            table.sql_name,
            quote_ident(name)?
        );
    }
    // A row that moves to another partition announces itself right before it arrives there.
    let arrival = if table.partitioned { Arrival::Before } else { Arrival::After };
    for guarded in &spec.columns {
        push_triggers(&mut sql, table, &survey.values[guarded.column], &spec.plan, guarded, arrival);
    }
    Ok(sql)
}

/// The triggers of one column. They come after the application's own, which may still change the value.
fn push_triggers(sql: &mut String, table: &Table, column: &Column, plan: &str, guarded: &GuardedColumn, arrival: Arrival) {
    let (name, number) = (&column.sql_name, guarded.column);
    let prefix = trigger_prefix(plan);
    let new = format!("NEW.{name}");
    let refused = begins(column, &new, &guarded.beginnings);
    let changed = format!(
        "{} IS DISTINCT FROM {}",
        exact(column, &new),
        exact(column, &format!("OLD.{name}"))
    );
    let refuse = format!(
        "EXECUTE FUNCTION {}({}, {})",
        REFUSE.trim_end_matches("()"),
        literal(&guarded.message),
        literal(&guarded.hint)
    );
    // In a partitioned table an update may move a row to another partition, where it arrives as an insert: an old row that moves as it
    // is announces itself, for this transaction.
    let passing = format!("{PASSING}{number}");
    let mark = format!("hashtextextended({new}::text, 0)::text");
    let arriving = if table.partitioned {
        format!("({refused}) AND current_setting('{passing}', true) IS DISTINCT FROM {mark}")
    } else {
        refused.clone()
    };
    let table = &table.sql_name;
    let when = match arrival {
        Arrival::Before => "BEFORE",
        Arrival::After => "AFTER",
    };
    let _ = write!(
        sql,
        "CREATE OR REPLACE TRIGGER {prefix}{number}_insert {when} INSERT ON {table} FOR EACH ROW WHEN ({arriving}) {refuse};
         CREATE OR REPLACE TRIGGER {prefix}{number}_update BEFORE UPDATE ON {table} FOR EACH ROW
           WHEN ({changed} AND ({refused})) {refuse};"
    );
    if arriving != refused {
        let _ = write!(
            sql,
            "CREATE OR REPLACE TRIGGER {prefix}{number}_move BEFORE UPDATE ON {table} FOR EACH ROW
               WHEN (NOT ({changed}) AND ({refused})) EXECUTE FUNCTION {}({}, {});",
            LET_MOVE.trim_end_matches("()"),
            literal(&passing),
            literal(&column.name)
        );
    }
}

/// SQL that says whether a value begins with one of these.
fn begins(column: &Column, value: &str, beginnings: &[Vec<u8>]) -> String {
    let each: Vec<String> = beginnings
        .iter()
        .map(|beginning| {
            if column.class == ColumnClass::Bytes {
                let digits: String = beginning.iter().map(|byte| format!("{byte:02x}")).collect();
                format!(
                    "substring({value}::bytea FROM 1 FOR {}) = decode('{digits}', 'hex')",
                    beginning.len()
                )
            } else {
                format!(
                    "left({}, {}) = {}",
                    exact(column, value),
                    beginning.len(),
                    literal(&String::from_utf8_lossy(beginning))
                )
            }
        })
        .collect();
    each.join(" OR ")
}

/// A value of which two are equal only if their bytes are.
fn exact(column: &Column, value: &str) -> String {
    match column.class {
        ColumnClass::Bytes => value.to_owned(),
        _ => format!("{value}::text COLLATE \"C\""),
    }
}

/// A string literal that no setting reads in another way.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Last in the alphabet, which is the order in which triggers fire.
fn trigger_prefix(plan: &str) -> String {
    format!("zz_reseal_guard_{plan}_")
}

fn constraint_prefix(plan: &str) -> String {
    format!("reseal_guard_{plan}_")
}

const REFUSE: &str = "reseal.refuse_old_key()";
const LET_MOVE: &str = "reseal.let_old_row_move()";
/// A setting of the transaction, followed by the column's number.
const PASSING: &str = "reseal.passing_";

/// A writer that comes while we wait for a lock queues behind us, and a table with partitions is many locks: the one is short, and all
/// of them together have an end.
const DDL_SETTINGS: &str = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '2s'";
/// Validation reads the whole table, and hinders neither readers nor writers.
const VALIDATE_SETTINGS: &str = "SET LOCAL statement_timeout = '6h'";

/// "rsl0", as for the control tables: two first runs at once.
const LOCK_FUNCTIONS: &str = "SELECT pg_advisory_xact_lock(1920166960, 0)";

const FUNCTIONS: &str = "
    CREATE OR REPLACE FUNCTION reseal.refuse_old_key() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = TG_ARGV[0], HINT = TG_ARGV[1],
            SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END $body$;
    CREATE OR REPLACE FUNCTION reseal.let_old_row_move() RETURNS trigger LANGUAGE plpgsql AS $body$
    DECLARE mark text;
    BEGIN
        EXECUTE format('SELECT hashtextextended(($1).%I::text, 0)::text', TG_ARGV[1]) INTO mark USING NEW;
        PERFORM set_config(TG_ARGV[0], mark, true);
        RETURN NEW;
    END $body$;
";
