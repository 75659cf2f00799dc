//! VACUUM beside a rotation. It hinders neither readers nor writers, but whoever wants to alter the table waits for it, and everybody else
//! behind them: autovacuum makes way then, and so does this.

use std::pin::pin;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};
use tokio::time::{sleep, timeout};

use super::connect::{Server, no_answer};
use super::error::store_error;
use crate::store::survey::{Relation, Survey};
use crate::store::vacuum::{LOOK_EVERY, Vacuum, VacuumOptions, Vacuumed};
use crate::store::{RetryClass, StoreError};

/// Vacuums tables of one server.
pub struct PostgresVacuum {
    server: Server,
    role: String,
    connections: Option<Connections>,
}

struct Connections {
    vacuuming: PgConnection,
    pid: i32,
    watching: PgConnection,
}

/// What the watching connection sees of the other one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sight {
    /// Somebody waits for a lock that it holds.
    is_waited_for: bool,
    /// The server still works on its statement.
    is_active: bool,
}

impl PostgresVacuum {
    /// Nothing is connected yet.
    pub fn new(server: Server, role: String) -> Self {
        Self {
            server,
            role,
            connections: None,
        }
    }

    /// The connections, to be put back once they have answered.
    async fn connected(&mut self) -> Result<Connections, StoreError> {
        match self.connections.take() {
            Some(connections) => Ok(connections),
            None => Connections::open(&self.server, &self.role).await,
        }
    }
}

impl Connections {
    async fn open(server: &Server, role: &str) -> Result<Self, StoreError> {
        let (mut vacuuming, watching) = (server.connect(role).await?, server.connect(role).await?);
        let prepare = async {
            sqlx::raw_sql(SETTINGS).execute(&mut vacuuming).await?;
            // Not on every system. Without it, a VACUUM whose Reseal was killed goes on to its end.
            if let Err(error) = sqlx::raw_sql(NOTICE_DEATH).execute(&mut vacuuming).await {
                tracing::debug!(error = %store_error(error), "the server does not look whether its clients live");
            }
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut vacuuming).await
        };
        let pid = timeout(server.answer_max(), prepare).await;
        Ok(Self {
            pid: pid.map_err(|_| no_answer(server.answer_max()))?.map_err(store_error)?,
            vacuuming,
            watching,
        })
    }

    async fn vacuum(
        &mut self,
        relation: &Relation,
        options: VacuumOptions,
        is_over: &(dyn Fn() -> bool + Sync),
        answer_max: Duration,
    ) -> Result<Vacuumed, StoreError> {
        let Self {
            vacuuming,
            pid,
            watching,
        } = self;
        let pace = format!(
            "SET vacuum_cost_delay = {}",
            if options.gently { COST_DELAY } else { "DEFAULT" }
        );
        let settings = timeout(answer_max, sqlx::raw_sql(AssertSqlSafe(pace)).execute(&mut *vacuuming)).await;
        settings.map_err(|_| no_answer(answer_max))?.map_err(store_error)?;

        let statement = format!(
            "VACUUM (INDEX_CLEANUP {}, TRUNCATE off) {}",
            if options.indexes { "auto" } else { "off" },
            relation.sql_name
        );
        let mut work = pin!(sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *vacuuming));
        let (mut ended, mut idle_since) = (None, None);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome.map_err(store_error),
                () = sleep(LOOK_EVERY) => {}
            }
            let watch = async {
                let sight = look(watching, *pid).await?;
                if ended.is_none() {
                    ended = match (is_over(), sight.is_waited_for) {
                        (true, _) => Some(Vacuumed::Ended),
                        (false, true) => Some(Vacuumed::GaveWay),
                        (false, false) => None,
                    };
                    if ended.is_some() {
                        cancel(watching, *pid).await?;
                    }
                }
                Ok(sight.is_active)
            };
            let is_active = timeout(answer_max, watch)
                .await
                .unwrap_or_else(|_| Err(no_answer(answer_max)))?;
            idle_since = (!is_active).then(|| idle_since.unwrap_or_else(Instant::now));
            if idle_since.is_some_and(|since: Instant| since.elapsed() >= ANSWER_UNDER_WAY_MAX) {
                return Err(StoreError::Disconnected("the answer of VACUUM was lost".to_owned()));
            }
        };
        match (outcome, ended) {
            (Ok(_), _) => Ok(Vacuumed::Done),
            (
                Err(StoreError::Retry {
                    class: RetryClass::StatementTimeout,
                    ..
                }),
                Some(ended),
            ) => Ok(ended),
            (
                Err(StoreError::Retry {
                    class: RetryClass::LockTimeout,
                    ..
                }),
                _,
            ) => Ok(Vacuumed::Busy),
            (Err(error), _) => Err(error),
        }
    }
}

async fn look(watching: &mut PgConnection, pid: i32) -> Result<Sight, StoreError> {
    let row = sqlx::query(SIGHT).bind(pid).fetch_one(watching).await.map_err(store_error)?;
    Ok(Sight {
        is_waited_for: row.try_get(0).map_err(store_error)?,
        is_active: row.try_get(1).map_err(store_error)?,
    })
}

async fn cancel(watching: &mut PgConnection, pid: i32) -> Result<(), StoreError> {
    let cancelled = sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(watching).await;
    cancelled.map(drop).map_err(store_error)
}

#[async_trait]
impl Vacuum for PostgresVacuum {
    async fn forbidden(&mut self, survey: &Survey) -> Result<Option<String>, StoreError> {
        let mut connections = self.connected().await?;
        let table: Option<String> = sqlx::query_scalar(FORBIDDEN)
            .bind(i64::from(survey.table_id))
            .fetch_optional(&mut connections.watching)
            .await
            .map_err(store_error)?;
        self.connections = Some(connections);
        Ok(table.map(|table| format!("only the owner of {} may vacuum it", table.escape_debug())))
    }

    async fn bytes(&mut self, survey: &Survey) -> Result<u64, StoreError> {
        let mut connections = self.connected().await?;
        let bytes: i64 = sqlx::query_scalar(BYTES)
            .bind(i64::from(survey.table_id))
            .fetch_one(&mut connections.watching)
            .await
            .map_err(store_error)?;
        self.connections = Some(connections);
        Ok(bytes.unsigned_abs())
    }

    async fn vacuum(
        &mut self,
        relation: &Relation,
        options: VacuumOptions,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vacuumed, StoreError> {
        let mut connections = self.connected().await?;
        let vacuumed = connections
            .vacuum(relation, options, is_over, self.server.answer_max())
            .await?;
        self.connections = Some(connections);
        Ok(vacuumed)
    }
}

/// What stands of a partition is vacuumed as it is: a lock that is not free at once is left to whoever holds it, and no lock is held that
/// would hinder readers or writers.
const SETTINGS: &str = "SET lock_timeout = '100ms'; SET statement_timeout = '6h'";
/// As often as the server is to look whether its client lives.
const NOTICE_DEATH: &str = "SET client_connection_check_interval = '1s'";
/// The server has ended its statement, and the answer may take so much longer.
const ANSWER_UNDER_WAY_MAX: Duration = Duration::from_secs(10);
/// As autovacuum rests.
const COST_DELAY: &str = "'2ms'";

/// Who waits for a lock stands in `pg_locks`, which every user may read as a whole.
const SIGHT: &str = "
    SELECT EXISTS (SELECT 1 FROM pg_locks held JOIN pg_locks wanted USING (database, relation)
                    WHERE held.pid = $1 AND held.granted AND held.mode = 'ShareUpdateExclusiveLock'
                      AND wanted.locktype = 'relation' AND NOT wanted.granted AND wanted.pid <> $1),
           EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active')";

const BYTES: &str = "
    SELECT coalesce(sum(pg_table_size(c.oid)), 0)::int8 FROM pg_class c
     WHERE c.oid = $1::int8::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::int8::oid::regclass))";

/// As the server decides it: the owner of the table or of the database, or whoever was granted it (17 and later).
const FORBIDDEN: &str = "
    SELECT c.oid::regclass::text FROM pg_class c
     WHERE (c.oid = $1::int8::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::int8::oid::regclass)))
       AND NOT pg_has_role(c.relowner, 'USAGE')
       AND NOT (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database())
       AND NOT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END
     LIMIT 1";
