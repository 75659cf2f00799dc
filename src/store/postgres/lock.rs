//! One operator a table, and one a keyset: an advisory lock held by a connection of its own, freed by the server when that connection dies.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::connect::Server;
use super::error::store_error;
use super::identity::Met;
use crate::store::{LOCK_ASKED_EVERY, OperatorLock, StoreError};

/// The connection that holds the lock.
pub struct AdvisoryLock {
    connection: PgConnection,
    backend: Backend,
    name: LockName,
    server: Server,
    owner: String,
    met: Met,
}

/// The server's own name for a connection: process ids are used again.
struct Backend {
    pid: i32,
    since: String,
}

/// What is locked: the two halves of the lock's name.
#[derive(Clone, Copy)]
pub struct LockName {
    class: i32,
    object: u32,
}

impl LockName {
    /// The table with this oid.
    pub fn table(oid: u32) -> Self {
        Self {
            class: TABLE_CLASS,
            object: oid,
        }
    }

    /// The rotation of the keyset of this name. Two keysets that share a lock by chance wait for each other, once in 2^32 pairs.
    pub fn keyset(keyset: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, keyset.as_bytes());
        let object = digest
            .as_ref()
            .iter()
            .take(4)
            .fold(0, |number, byte| number << 8 | u32::from(*byte));
        Self {
            class: KEYSET_CLASS,
            object,
        }
    }
}

impl AdvisoryLock {
    /// Takes the lock, or says who has it. With `take_over` the holder's connection is ended first; its
    /// workers are stopped by the fence of the ranges.
    pub async fn take(server: &Server, name: LockName, owner: &str, take_over: bool) -> Result<Self, StoreError> {
        Self::take_after(None, server, name, owner, take_over).await
    }

    async fn take_after(
        lost: Option<&Backend>,
        server: &Server,
        name: LockName,
        owner: &str,
        take_over: bool,
    ) -> Result<Self, StoreError> {
        let (mut connection, met) = server.connect_and_meet(owner).await?;
        if let Some(lost) = lost {
            sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2")
                .bind(lost.pid)
                .bind(&lost.since)
                .fetch_all(&mut connection)
                .await
                .map_err(store_error)?;
        }
        // The server needs a moment to notice that a killed process is gone.
        for attempt in 0..ATTEMPTS {
            let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
                .bind(name.class)
                .bind(name.object.cast_signed())
                .fetch_one(&mut connection)
                .await
                .map_err(store_error)?;
            if taken {
                let backend = sqlx::query("SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()")
                    .fetch_one(&mut connection)
                    .await
                    .map_err(store_error)?;
                return Ok(Self {
                    backend: Backend {
                        pid: backend.try_get(0).map_err(store_error)?,
                        since: backend.try_get(1).map_err(store_error)?,
                    },
                    connection,
                    name,
                    server: server.clone(),
                    owner: owner.to_owned(),
                    met,
                });
            }
            if take_over && attempt == 0 {
                sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::int8::oid AND objid = $2::int8::oid AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
                    .bind(i64::from(name.class))
                    .bind(i64::from(name.object))
                    .fetch_all(&mut connection)
                    .await
                    .map_err(store_error)?;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let holder = sqlx::query("SELECT a.application_name, a.usename::text, a.client_addr::text, a.backend_start::text FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.classid = $1::int8::oid AND l.objid = $2::int8::oid AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1")
            .bind(i64::from(name.class))
            .bind(i64::from(name.object))
            .fetch_optional(&mut connection)
            .await
            .map_err(store_error)?;
        let holder = holder.map_or_else(
            || "somebody".to_owned(),
            |row| {
                let text = |at: usize| row.try_get::<Option<String>, _>(at).ok().flatten();
                format!(
                    "{} (database user {}, from {}, since {})",
                    text(0).unwrap_or_default(),
                    text(1).unwrap_or_default(),
                    text(2).unwrap_or_else(|| "this machine".to_owned()),
                    text(3).unwrap_or_default()
                )
            },
        );
        Err(StoreError::Held { holder })
    }
}

#[async_trait]
impl OperatorLock for AdvisoryLock {
    async fn still_held(&mut self) -> Result<(), StoreError> {
        let held: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND classid = $1::int8::oid AND objid = $2::int8::oid AND granted)",
        )
        .bind(i64::from(self.name.class))
        .bind(i64::from(self.name.object))
        .fetch_one(&mut self.connection)
        .await
        .map_err(store_error)?;
        if !held {
            return Err(StoreError::Superseded);
        }
        // Who answers under the server's name now? A connection to a former primary would go on without a word. Whoever has connected a
        // moment ago has asked, another keeper for example; each connection is a process that the server must start.
        if !self.server.was_met_within(MET_IS_NEWS) {
            match self.server.connect(&self.owner).await {
                Err(other @ StoreError::OtherServer(_)) => return Err(other),
                Ok(connection) => connection.close().await.map_err(store_error)?,
                // The lock is held; that nobody else was let in (too many connections, say) is no reason to lose it.
                Err(_) => {}
            }
        }
        self.server.require_latest(self.met)
    }

    async fn retake(&mut self) -> Result<(), StoreError> {
        *self = Self::take_after(Some(&self.backend), &self.server, self.name, &self.owner, false).await?;
        Ok(())
    }
}

/// "rsl1": the first half of the lock's name; the table's oid is the other.
const TABLE_CLASS: i32 = 0x7273_6c31;
/// "rsl2": the same for keysets; the other half is a digest of the name.
const KEYSET_CLASS: i32 = 0x7273_6c32;
const ATTEMPTS: u32 = 10;
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Another primary is noticed so much later at most. Less than the time between two looks, or a keeper would take its own last one for
/// news.
const MET_IS_NEWS: Duration = LOCK_ASKED_EVERY.checked_div(2).unwrap();
