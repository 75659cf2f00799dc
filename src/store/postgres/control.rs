//! The control tables in schema `reseal`.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::control_rows::{damaged, fields_of, key, plan_of, range_of};
use super::control_sql::{DIALECT, MIGRATION_LOCK, MIGRATIONS, SELECT_PLAN, SELECT_RANGE};
use super::error::store_error;
use super::{claim, identity, late};
use crate::store::control::{
    Interval, LEDGER_SINCE, LateValues, Plan, PlanIdentity, PlanStatus, Range, STATE_VERSION, StoredQuarantine,
};
use crate::store::ledger::{self, Dialect, Field};
use crate::store::page::Quarantined;
use crate::store::value::Key;
use crate::store::{Control, DatabaseIdentity, StoreError};

/// A connection for plans, ranges and quarantine.
pub struct PostgresControl {
    connection: PgConnection,
}

impl PostgresControl {
    /// Uses this connection.
    pub fn new(connection: PgConnection) -> Self {
        Self { connection }
    }

    /// Refuses tables that this build does not understand, before anything is read from them or written to them.
    async fn check_version(&mut self) -> Result<i64, StoreError> {
        stored_version(&mut self.connection).await
    }
}

async fn stored_version(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let stored: Option<String> = sqlx::query_scalar("SELECT value FROM reseal.meta WHERE name = 'version'")
        .fetch_optional(connection)
        .await
        .map_err(store_error)?;
    let version = stored.as_deref().map(str::parse::<i64>);
    match version {
        Some(Ok(version @ 1..=STATE_VERSION)) => Ok(version),
        Some(Ok(version)) if version > STATE_VERSION => Err(StoreError::State(format!(
            "the progress tables in this database have version {version}, written by a newer reseal; this one knows {STATE_VERSION}: upgrade it"
        ))),
        Some(_) | None => Err(StoreError::State(
            "the progress tables in this database are damaged: they do not say their version".to_owned(),
        )),
    }
}

async fn tables_exist(connection: &mut PgConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT to_regclass('reseal.meta') IS NOT NULL")
        .fetch_one(connection)
        .await
        .map_err(store_error)
}

#[async_trait]
impl Control for PostgresControl {
    async fn migrate(&mut self) -> Result<(), StoreError> {
        if self.version().await? == Some(STATE_VERSION) {
            return Ok(());
        }
        let mut transaction = self.connection.begin().await.map_err(store_error)?;
        // Two first runs at once: the second waits, and then finds everything there.
        sqlx::query("SELECT pg_advisory_xact_lock($1, 0)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        let done = match tables_exist(&mut transaction).await? {
            true => usize::try_from(stored_version(&mut transaction).await?).unwrap_or(0),
            false => 0,
        };
        for step in MIGRATIONS.iter().skip(done) {
            sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(|error| match store_error(error) {
                StoreError::Refused(reason) => StoreError::Refused(format!(
                    "cannot create the tables that hold progress (schema reseal): {reason}; grant CREATE on the database, or run with --no-state"
                )),
                other => other,
            })?;
        }
        sqlx::query("INSERT INTO reseal.meta (name, value) VALUES ('version', $1) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value")
            .bind(STATE_VERSION.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await.map_err(store_error)
    }

    async fn version(&mut self) -> Result<Option<i64>, StoreError> {
        if tables_exist(&mut self.connection).await? {
            Ok(Some(self.check_version().await?))
        } else {
            Ok(None)
        }
    }

    async fn identity(&mut self) -> Result<DatabaseIdentity, StoreError> {
        identity::of(&mut self.connection).await
    }

    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn ledger(&mut self, statement: &str, values: &[Field]) -> Result<Vec<ledger::Row>, StoreError> {
        self.check_version().await?;
        let mut query = sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()));
        for value in values {
            query = match value {
                Field::Int(number) => query.bind(*number),
                Field::Text(text) => query.bind(text.clone()),
            };
        }
        let rows = query.fetch_all(&mut self.connection).await.map_err(store_error)?;
        rows.iter().map(fields_of).collect()
    }

    async fn plan(&mut self, id: &str) -> Result<Option<Plan>, StoreError> {
        self.check_version().await?;
        sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT_PLAN} WHERE id = $1")))
            .bind(id)
            .fetch_optional(&mut self.connection)
            .await
            .map_err(store_error)?
            .map(|row| plan_of(&row))
            .transpose()
    }

    async fn plans(&mut self) -> Result<Vec<Plan>, StoreError> {
        self.check_version().await?;
        sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT_PLAN} ORDER BY updated_at DESC")))
            .fetch_all(&mut self.connection)
            .await
            .map_err(store_error)?
            .iter()
            .map(plan_of)
            .collect()
    }

    async fn claim_plan(&mut self, identity: &PlanIdentity, owner: &str) -> Result<Plan, StoreError> {
        self.check_version().await?;
        let mut transaction = self.connection.begin().await.map_err(store_error)?;
        let claimed = claim::claim(&mut transaction, identity, owner).await?;
        transaction.commit().await.map_err(store_error)?;
        claimed.ok_or_else(|| StoreError::State("the plan vanished while it was being claimed".to_owned()))
    }

    async fn add_ranges(&mut self, plan: &Plan, intervals: &[Interval]) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await.map_err(store_error)?;
        require_current(&mut transaction, plan).await?;
        let first: i64 = sqlx::query_scalar("SELECT coalesce(max(id) + 1, 0) FROM reseal.range WHERE plan_id = $1")
            .bind(&plan.identity.id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(store_error)?;
        for (id, interval) in (first..).zip(intervals) {
            sqlx::query("INSERT INTO reseal.range (plan_id, id, relation, lo, hi, epoch) VALUES ($1, $2, $3, $4, $5, $6)")
                .bind(&plan.identity.id)
                .bind(id)
                .bind(&interval.relation)
                .bind(interval.after.as_ref().map(Key::as_bytes))
                .bind(interval.upto.as_ref().map(Key::as_bytes))
                .bind(plan.generation)
                .execute(&mut *transaction)
                .await
                .map_err(store_error)?;
        }
        transaction.commit().await.map_err(store_error)
    }

    async fn ranges(&mut self, plan: &str) -> Result<Vec<Range>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT_RANGE} WHERE plan_id = $1 ORDER BY id")))
            .bind(plan)
            .fetch_all(&mut self.connection)
            .await
            .map_err(store_error)?
            .iter()
            .map(range_of)
            .collect()
    }

    async fn range(&mut self, plan: &str, range: i64) -> Result<Option<Range>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT_RANGE} WHERE plan_id = $1 AND id = $2")))
            .bind(plan)
            .bind(range)
            .fetch_optional(&mut self.connection)
            .await
            .map_err(store_error)?
            .map(|row| range_of(&row))
            .transpose()
    }

    async fn set_status(&mut self, plan: &Plan, status: PlanStatus) -> Result<(), StoreError> {
        let done =
            sqlx::query("UPDATE reseal.plan SET status = $3, updated_at = clock_timestamp() WHERE id = $1 AND generation = $2")
                .bind(&plan.identity.id)
                .bind(plan.generation)
                .bind(status.as_str())
                .execute(&mut self.connection)
                .await
                .map_err(store_error)?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Superseded)
        }
    }

    async fn restart(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await.map_err(store_error)?;
        require_current(&mut transaction, plan).await?;
        claim::begin_afresh(&mut transaction, &plan.identity.id, PlanStatus::Running).await?;
        transaction.commit().await.map_err(store_error)
    }

    async fn quarantine(&mut self, plan: &str, most: usize) -> Result<Vec<StoredQuarantine>, StoreError> {
        let rows = sqlx::query(
            "SELECT relation, row_key, value_column, reason FROM reseal.quarantine WHERE plan_id = $1 ORDER BY relation, seen_at, row_key LIMIT $2",
        )
        .bind(plan)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut self.connection)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| {
                Ok(StoredQuarantine {
                    relation: row.try_get(0).map_err(store_error)?,
                    entry: Quarantined {
                        key: key(row.try_get::<Option<Vec<u8>>, _>(1).map_err(store_error)?)?.ok_or_else(damaged)?,
                        column: usize::try_from(row.try_get::<i32, _>(2).map_err(store_error)?).map_err(|_| damaged())?,
                        reason: row.try_get(3).map_err(store_error)?,
                    },
                })
            })
            .collect()
    }

    async fn quarantined(&mut self, plan: &str, reason: Option<&str>) -> Result<u64, StoreError> {
        sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM reseal.quarantine WHERE plan_id = $1 AND ($2 IS NULL OR reason = $2)",
        )
        .bind(plan)
        .bind(reason)
        .fetch_one(&mut self.connection)
        .await
        .map(i64::unsigned_abs)
        .map_err(store_error)
    }

    async fn clear_quarantine(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await.map_err(store_error)?;
        require_current(&mut transaction, plan).await?;
        sqlx::query("DELETE FROM reseal.quarantine WHERE plan_id = $1")
            .bind(&plan.identity.id)
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await.map_err(store_error)
    }

    async fn late(&mut self, plan: &str, listed: usize) -> Result<LateValues, StoreError> {
        // Tables of an older version, which a command that only reads leaves as they are.
        if self.check_version().await? < LEDGER_SINCE {
            return Ok(LateValues::default());
        }
        late::list(&mut self.connection, plan, listed).await
    }

    async fn now(&mut self) -> Result<String, StoreError> {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT {}", rfc3339("clock_timestamp()"))))
            .fetch_one(&mut self.connection)
            .await
            .map_err(store_error)
    }
}

/// SQL for a time as RFC 3339 in UTC, to the millisecond.
pub(super) fn rfc3339(time: &str) -> String {
    format!("to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
}

/// Locks the plan for this transaction, and fails when somebody else has claimed it since.
async fn require_current(connection: &mut PgConnection, plan: &Plan) -> Result<(), StoreError> {
    let current: Option<i64> = sqlx::query_scalar("SELECT generation FROM reseal.plan WHERE id = $1 FOR UPDATE")
        .bind(&plan.identity.id)
        .fetch_optional(connection)
        .await
        .map_err(store_error)?;
    if current == Some(plan.generation) {
        Ok(())
    } else {
        Err(StoreError::Superseded)
    }
}
