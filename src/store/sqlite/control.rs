//! Reseal's own tables, in the same file as the data: a cursor and the rows it speaks of are one transaction.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::connect::{DatabaseFile, Handle, blocking};
use super::control_rows::{damaged, parameter, read_field, read_plan, read_quarantine, read_range};
use super::control_sql::{
    ADD_RANGE, ADVANCE, CLAIM_PLAN, DIALECT, MIGRATIONS, PLAN_COLUMNS, RAISE_PLANS, RAISE_RANGES, RANGE_COLUMNS,
    RESTART_RANGES, SET_IDENTITY, SET_STATUS, SET_VERSION,
};
use super::error::from_sqlite;
use super::late;
use super::read::to_i64;
use super::transaction::WriteTransaction;
use crate::store::control::{
    Counters, Fence, Interval, LEDGER_SINCE, LateValues, Plan, PlanIdentity, PlanStatus, Range, STATE_VERSION, StoredQuarantine,
};
use crate::store::ledger::{self, Dialect, Field};
use crate::store::value::Key;
use crate::store::{Control, DatabaseIdentity, StoreError};

/// The control tables of one database file.
pub(super) struct SqliteControl {
    handle: Handle,
}

impl SqliteControl {
    pub(super) async fn open(file: DatabaseFile) -> Result<Self, StoreError> {
        let connection = blocking(move || file.open()).await?;
        Ok(Self {
            handle: Handle::new(connection),
        })
    }

    /// Runs `change` in one write transaction.
    async fn write<T, F>(&mut self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.handle
            .run(move |connection| {
                let transaction = WriteTransaction::begin(connection)?;
                let result = change(connection)?;
                transaction.commit()?;
                Ok(result)
            })
            .await
    }
}

#[async_trait]
impl Control for SqliteControl {
    async fn migrate(&mut self) -> Result<(), StoreError> {
        // Looked at first: where there is nothing to do, nothing is written.
        if self.version().await? == Some(STATE_VERSION) && self.identity().await?.id.is_some() {
            return Ok(());
        }
        self.write(|connection| {
            let done = usize::try_from(version(connection)?.unwrap_or(0)).unwrap_or(0);
            for step in MIGRATIONS.iter().skip(done) {
                connection.execute_batch(step).map_err(from_sqlite)?;
            }
            connection
                .execute(SET_VERSION, [STATE_VERSION])
                .and_then(|_| connection.execute(SET_IDENTITY, []))
                .map(drop)
                .map_err(from_sqlite)
        })
        .await
    }

    async fn version(&mut self) -> Result<Option<i64>, StoreError> {
        self.handle.run(version).await
    }

    async fn identity(&mut self) -> Result<DatabaseIdentity, StoreError> {
        self.handle
            .run(|connection| {
                let id = match version(connection)? {
                    None => None,
                    Some(_) => connection
                        .query_row("SELECT value FROM reseal_meta WHERE name = 'database'", [], |row| row.get(0))
                        .optional()
                        .map_err(from_sqlite)?,
                };
                let file = connection.path().and_then(|path| fs::metadata(path).ok());
                Ok(DatabaseIdentity {
                    id,
                    file: file.map(|metadata| metadata.ino()),
                })
            })
            .await
    }

    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn ledger(&mut self, statement: &str, values: &[Field]) -> Result<Vec<ledger::Row>, StoreError> {
        let reads = statement.starts_with("SELECT");
        let (statement, values) = (statement.to_owned(), values.to_vec());
        let run = move |connection: &Connection| {
            let columns = |row: &Row<'_>| (0..row.as_ref().column_count()).map(|at| read_field(row, at)).collect();
            collect(
                connection,
                &statement,
                rusqlite::params_from_iter(values.iter().map(parameter)),
                columns,
            )
        };
        if reads {
            self.handle.run(run).await
        } else {
            self.write(run).await
        }
    }

    async fn plan(&mut self, id: &str) -> Result<Option<Plan>, StoreError> {
        let id = id.to_owned();
        self.handle.run(move |connection| plan(connection, &id)).await
    }

    async fn plans(&mut self) -> Result<Vec<Plan>, StoreError> {
        self.handle
            .run(|connection| {
                let sql = format!("SELECT {PLAN_COLUMNS} FROM reseal_plan ORDER BY created_at DESC, id");
                collect(connection, &sql, [], read_plan)
            })
            .await
    }

    async fn claim_plan(&mut self, identity: &PlanIdentity, owner: &str) -> Result<Plan, StoreError> {
        let (identity, owner) = (identity.clone(), owner.to_owned());
        self.write(move |connection| {
            let PlanIdentity {
                id,
                table,
                columns,
                from,
                to,
            } = &identity;
            let claim = (id, table, columns, from, to, &owner, PlanStatus::Running.as_str());
            connection.execute(RAISE_PLANS, [table]).map_err(from_sqlite)?;
            for other in plans_of(connection, table)? {
                if identity.undoes(&other.identity) {
                    begin_afresh(connection, &other.identity.id, other.status)?;
                }
            }
            connection
                .execute(CLAIM_PLAN, claim)
                .and_then(|_| connection.execute(RAISE_RANGES, [table]))
                .map_err(from_sqlite)?;
            plan(connection, id)?.ok_or_else(|| damaged("a plan that was just written is missing"))
        })
        .await
    }

    async fn add_ranges(&mut self, plan: &Plan, intervals: &[Interval]) -> Result<(), StoreError> {
        let (plan, intervals) = (plan.clone(), intervals.to_vec());
        self.write(move |connection| {
            check_generation(connection, &plan)?;
            let mut statement = connection.prepare(ADD_RANGE).map_err(from_sqlite)?;
            for interval in &intervals {
                let after = interval.after.as_ref().map(Key::as_bytes);
                let upto = interval.upto.as_ref().map(Key::as_bytes);
                statement
                    .execute((&plan.identity.id, &interval.relation, after, upto, plan.generation))
                    .map_err(from_sqlite)?;
            }
            Ok(())
        })
        .await
    }

    async fn ranges(&mut self, plan: &str) -> Result<Vec<Range>, StoreError> {
        let plan = plan.to_owned();
        self.handle
            .run(move |connection| {
                let sql = format!("SELECT {RANGE_COLUMNS} FROM reseal_range WHERE plan = ?1 ORDER BY id");
                collect(connection, &sql, [&plan], read_range)
            })
            .await
    }

    async fn range(&mut self, plan: &str, range: i64) -> Result<Option<Range>, StoreError> {
        let plan = plan.to_owned();
        self.handle
            .run(move |connection| {
                let sql = format!("SELECT {RANGE_COLUMNS} FROM reseal_range WHERE plan = ?1 AND id = ?2");
                Ok(collect(connection, &sql, (&plan, range), read_range)?.pop())
            })
            .await
    }

    async fn set_status(&mut self, plan: &Plan, status: PlanStatus) -> Result<(), StoreError> {
        let plan = plan.clone();
        self.write(move |connection| {
            check_generation(connection, &plan)?;
            connection
                .execute(SET_STATUS, (&plan.identity.id, status.as_str()))
                .map(drop)
                .map_err(from_sqlite)
        })
        .await
    }

    async fn restart(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let plan = plan.clone();
        self.write(move |connection| {
            check_generation(connection, &plan)?;
            begin_afresh(connection, &plan.identity.id, PlanStatus::Running)
        })
        .await
    }

    async fn quarantine(&mut self, plan: &str, most: usize) -> Result<Vec<StoredQuarantine>, StoreError> {
        let plan = plan.to_owned();
        self.handle
            .run(move |connection| {
                let sql = "SELECT relation, row_key, column_index, reason FROM reseal_quarantine WHERE plan = ?1 \
                           ORDER BY relation, row_key, column_index LIMIT ?2";
                collect(connection, sql, (&plan, to_i64(most as u64)), read_quarantine)
            })
            .await
    }

    async fn quarantined(&mut self, plan: &str, reason: Option<&str>) -> Result<u64, StoreError> {
        let (plan, reason) = (plan.to_owned(), reason.map(str::to_owned));
        self.handle
            .run(move |connection| {
                let sql = "SELECT count(*) FROM reseal_quarantine WHERE plan = ?1 AND (?2 IS NULL OR reason = ?2)";
                let count = collect(connection, sql, (&plan, &reason), |row| {
                    row.get::<_, i64>(0).map_err(from_sqlite)
                })?;
                Ok(count.first().map_or(0, |count| count.unsigned_abs()))
            })
            .await
    }

    async fn clear_quarantine(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let plan = plan.clone();
        self.write(move |connection| {
            check_generation(connection, &plan)?;
            connection
                .execute("DELETE FROM reseal_quarantine WHERE plan = ?1", [&plan.identity.id])
                .map(drop)
                .map_err(from_sqlite)
        })
        .await
    }

    async fn late(&mut self, plan: &str, listed: usize) -> Result<LateValues, StoreError> {
        let plan = plan.to_owned();
        self.handle
            .run(move |connection| {
                // Tables of an older version, which a command that only reads leaves as they are.
                if version(connection)?.is_none_or(|version| version < LEDGER_SINCE) {
                    return Ok(LateValues::default());
                }
                late::list(connection, &plan, listed)
            })
            .await
    }

    async fn now(&mut self) -> Result<String, StoreError> {
        self.handle
            .run(|connection| {
                connection
                    .query_row("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", [], |row| row.get(0))
                    .map_err(from_sqlite)
            })
            .await
    }
}

/// Moves a range within a batch's transaction.
pub(super) fn advance(
    connection: &Connection,
    fence: &Fence,
    cursor: Option<&[u8]>,
    done: bool,
    counters: Counters,
) -> Result<(), StoreError> {
    let changed = connection
        .prepare_cached(ADVANCE)
        .and_then(|mut statement| {
            statement.execute((
                &fence.plan,
                fence.range,
                fence.epoch,
                cursor,
                done,
                to_i64(counters.rows_scanned),
                to_i64(counters.values_reencrypted),
                to_i64(counters.rows_reencrypted),
                to_i64(counters.values_already_current),
                to_i64(counters.values_null),
                to_i64(counters.lost_races),
            ))
        })
        .map_err(from_sqlite)?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Superseded) }
}

/// The version of the tables, `None` without tables. A newer one is refused, whoever asks.
fn version(connection: &Connection) -> Result<Option<i64>, StoreError> {
    if !has_table(connection, "reseal_meta")? {
        return Ok(None);
    }
    let version = connection
        .query_row(
            "SELECT CAST(value AS INTEGER) FROM reseal_meta WHERE name = 'version'",
            [],
            |row| row.get::<_, Option<i64>>(0),
        )
        .optional()
        .map_err(from_sqlite)?
        .flatten();
    match version {
        Some(version @ 1..=STATE_VERSION) => Ok(Some(version)),
        Some(version) if version > STATE_VERSION => Err(StoreError::State(format!(
            "the state in this database has version {version}, this reseal knows {STATE_VERSION}: use the newer reseal"
        ))),
        _ => Err(damaged("the version in reseal_meta is missing or not a number")),
    }
}

fn has_table(connection: &Connection, name: &str) -> Result<bool, StoreError> {
    connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            [name],
            |row| row.get(0),
        )
        .map_err(from_sqlite)
}

fn check_generation(connection: &Connection, plan: &Plan) -> Result<(), StoreError> {
    let current = connection
        .prepare_cached("SELECT 1 FROM reseal_plan WHERE id = ?1 AND generation = ?2")
        .and_then(|mut statement| statement.exists((&plan.identity.id, plan.generation)))
        .map_err(from_sqlite)?;
    if current { Ok(()) } else { Err(StoreError::Superseded) }
}

fn plan(connection: &Connection, id: &str) -> Result<Option<Plan>, StoreError> {
    let sql = format!("SELECT {PLAN_COLUMNS} FROM reseal_plan WHERE id = ?1");
    Ok(collect(connection, &sql, [id], read_plan)?.pop())
}

fn plans_of(connection: &Connection, table: &str) -> Result<Vec<Plan>, StoreError> {
    let sql = format!("SELECT {PLAN_COLUMNS} FROM reseal_plan WHERE table_name = ?1");
    collect(connection, &sql, [table], read_plan)
}

/// Whatever was worked through is due again; the counters stay. That a plan `was` verified stays on record.
fn begin_afresh(connection: &Connection, plan: &str, was: PlanStatus) -> Result<(), StoreError> {
    connection.execute(RESTART_RANGES, [plan]).map_err(from_sqlite)?;
    if was == PlanStatus::Verified {
        return Ok(());
    }
    connection
        .execute(SET_STATUS, (plan, PlanStatus::Running.as_str()))
        .map(drop)
        .map_err(from_sqlite)
}

/// The rows of a statement, if the tables are there and understood.
pub(super) fn collect<T, P: rusqlite::Params>(
    connection: &Connection,
    sql: &str,
    parameters: P,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    version(connection)?.ok_or_else(|| StoreError::State("there is no state of reseal in this database".to_owned()))?;
    let mut statement = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let mut rows = statement.query(parameters).map_err(from_sqlite)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        found.push(read(row)?);
    }
    Ok(found)
}
