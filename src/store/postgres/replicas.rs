//! Lag of physical replicas, from `pg_stat_replication` and from a memory of where the primary was when.
//!
//! The server's own `replay_lag` stands still while a replica replays nothing. The position of the primary at each look is therefore
//! kept: a replica lags at least as long as the primary has been beyond the position that the replica has replayed.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::connect::{Server, no_answer};
use super::error::store_error;
use crate::store::StoreError;
use crate::store::ident::quote_ident;
use crate::store::replicas::{Behind, Lag, Left, Replica, ReplicaWatch};

/// Watches the replicas of one server.
pub struct PostgresReplicas {
    server: Server,
    role: String,
    connection: Option<PgConnection>,
    track: Track,
    /// How many replicas of each name have been seen at once.
    seen: BTreeMap<String, usize>,
}

impl PostgresReplicas {
    /// Nothing is connected yet.
    pub fn new(server: Server, role: String) -> Self {
        Self {
            server,
            role,
            connection: None,
            track: Track::default(),
            seen: BTreeMap::new(),
        }
    }

    /// Asks within [`ANSWER_MAX`]. After an error the next question connects again.
    async fn ask(&mut self, sql: &'static str, position: Option<i64>) -> Result<Vec<PgRow>, StoreError> {
        let connected = self.connection.take();
        let attempt = async {
            let mut connection = match connected {
                Some(connection) => connection,
                None => self.server.connect(&self.role).await?,
            };
            let mut query = sqlx::query(sql);
            if let Some(position) = position {
                query = query.bind(position);
            }
            let rows = query.fetch_all(&mut connection).await.map_err(store_error)?;
            Ok::<_, StoreError>((rows, connection))
        };
        let answer = tokio::time::timeout(ANSWER_MAX, attempt).await;
        let (rows, connection) = answer.unwrap_or_else(|_| Err(no_answer(ANSWER_MAX)))?;
        self.connection = Some(connection);
        Ok(rows)
    }

    /// Remembers who follows, and gives the names of those that did and do not any more.
    fn missing(&mut self, present: &BTreeMap<String, usize>) -> Vec<String> {
        for (name, count) in present {
            let most = self.seen.entry(name.clone()).or_default();
            *most = (*most).max(*count);
        }
        let gone = |(name, most): (&String, &usize)| {
            let here = present.get(name).copied().unwrap_or_default();
            std::iter::repeat_n(name.clone(), most.saturating_sub(here))
        };
        self.seen.iter().flat_map(gone).collect()
    }
}

#[async_trait]
impl ReplicaWatch for PostgresReplicas {
    async fn look(&mut self) -> Result<Vec<Replica>, StoreError> {
        let rows = self.ask(LOOK, None).await?;
        let now = Instant::now();
        let mut replicas = Vec::new();
        let mut present: BTreeMap<String, usize> = BTreeMap::new();
        for row in &rows {
            let primary: i64 = row.try_get(0).map_err(store_error)?;
            self.track.primary_at(now, primary);
            let Some(seen) = Seen::of(row)? else { continue };
            // One that is hidden goes by another name than when it is not.
            if !seen.is_hidden {
                *present.entry(seen.name.clone()).or_default() += 1;
            }
            let lag = match (seen.is_hidden, seen.replayed) {
                (true, _) => Lag::Hidden,
                (false, None) => Lag::Away,
                (false, Some(position)) => Lag::Is(self.track.lag(now, position, seen.told)),
            };
            replicas.push(Replica { name: seen.name, lag });
        }
        let away = self.missing(&present).into_iter();
        replicas.extend(away.map(|name| Replica { name, lag: Lag::Away }));
        Ok(replicas)
    }

    async fn forbidden(&mut self) -> Result<Option<String>, StoreError> {
        let rows = self.ask(MAY_LOOK, None).await?;
        let row = rows.first().ok_or_else(|| StoreError::Disconnected("no answer".to_owned()))?;
        let (user, may): (String, bool) = (row.try_get(0).map_err(store_error)?, row.try_get(1).map_err(store_error)?);
        match may {
            true => Ok(None),
            false => Ok(Some(format!("GRANT pg_monitor TO {}", quote_ident(&user)?))),
        }
    }

    async fn position(&mut self) -> Result<i64, StoreError> {
        let rows = self.ask("SELECT (pg_current_wal_flush_lsn() - '0/0')::int8", None).await?;
        let row = rows
            .first()
            .ok_or_else(|| StoreError::Disconnected("no position".to_owned()))?;
        row.try_get(0).map_err(store_error)
    }

    async fn behind(&mut self, position: i64) -> Result<Vec<Behind>, StoreError> {
        let mut behind = Vec::new();
        let mut present: BTreeMap<String, usize> = BTreeMap::new();
        for row in self.ask(LOOK, None).await? {
            let Some(seen) = Seen::of(&row)? else { continue };
            // One that is hidden goes by another name than when it is not.
            if !seen.is_hidden {
                *present.entry(seen.name.clone()).or_default() += 1;
            }
            let left = match (seen.is_hidden, seen.replayed) {
                (true, _) => Left::Hidden,
                (false, None) => Left::Away,
                (false, Some(replayed)) if replayed < position => Left::Bytes(position.saturating_sub(replayed).unsigned_abs()),
                (false, Some(_)) => continue,
            };
            behind.push(Behind { name: seen.name, left });
        }
        let mut away = self.missing(&present);
        for row in self.ask(SLOTS, Some(position)).await? {
            away.push(row.try_get(0).map_err(store_error)?);
        }
        behind.extend(away.into_iter().map(|name| Behind { name, left: Left::Away }));
        Ok(behind)
    }

    fn rest(&mut self) {
        self.connection = None;
    }
}

/// A replica in the server's view.
struct Seen {
    name: String,
    replayed: Option<i64>,
    /// What the server says of its lag itself, milliseconds.
    told: Option<i64>,
    is_hidden: bool,
}

impl Seen {
    /// `None` for the primary's own row, which is there without replicas, too.
    fn of(row: &PgRow) -> Result<Option<Self>, StoreError> {
        let Some(name) = row.try_get::<Option<String>, _>(1).map_err(store_error)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            name,
            replayed: row.try_get(2).map_err(store_error)?,
            told: row.try_get(3).map_err(store_error)?,
            is_hidden: row.try_get(4).map_err(store_error)?,
        }))
    }
}

/// Where the primary was when. Positions are bytes of WAL.
#[derive(Default)]
struct Track(VecDeque<(Instant, i64)>);

impl Track {
    fn primary_at(&mut self, now: Instant, position: i64) {
        if self.0.back().is_none_or(|(_, last)| *last < position) {
            self.0.push_back((now, position));
            if self.0.len() > TRACK_MAX {
                self.0.pop_front();
            }
        }
    }

    /// The lag of a replica that has replayed up to `position`, given what the server says itself, milliseconds.
    fn lag(&self, now: Instant, position: i64, told: Option<i64>) -> Duration {
        // The first look at which the primary was already beyond it.
        let Some((since, _)) = self.0.iter().find(|(_, primary)| *primary > position) else {
            return Duration::ZERO;
        };
        let told = Duration::from_millis(told.unwrap_or(0).max(0).unsigned_abs());
        now.duration_since(*since).max(told)
    }
}

/// A row for each physical replica, and one for the primary alone. What pg_basebackup and pg_receivewal follow with replays nothing; a
/// walsender of which no state is told is one that this user may not look at. Whoever writes the log and replays none of it (an archive) is
/// no replica that anybody reads.
const LOOK: &str = "
    SELECT (p.position - '0/0')::int8, r.name, (r.replay_lsn - '0/0')::int8, r.told, r.state IS NULL
      FROM (SELECT pg_current_wal_lsn() AS position) p
      LEFT JOIN (SELECT coalesce(nullif(s.application_name, ''), 'walsender ' || s.pid) || coalesce(' at ' || host(s.client_addr), '') AS name,
                        s.state, s.replay_lsn, (extract(epoch FROM s.replay_lag) * 1000)::int8 AS told
                   FROM pg_stat_replication s LEFT JOIN pg_replication_slots slot ON slot.active_pid = s.pid
                  WHERE slot.slot_type IS DISTINCT FROM 'logical' AND coalesce(s.application_name, '') NOT IN ('pg_receivewal', 'pg_basebackup')
                    AND NOT (s.write_lsn IS NOT NULL AND s.replay_lsn IS NULL)
                    AND (s.state IS NULL OR s.state IN ('startup', 'catchup', 'streaming'))) r ON true";
/// The server hides what it says of walsenders from whoever has not this role's privileges; pg_monitor has them.
const MAY_LOOK: &str = "SELECT current_user::text, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')";
/// Physical replicas that are away, for which the server keeps its log, and which may come back.
const SLOTS: &str = "
    SELECT 'slot ' || slot_name FROM pg_replication_slots
     WHERE slot_type = 'physical' AND NOT active AND NOT temporary AND wal_status IS DISTINCT FROM 'lost' AND restart_lsn - '0/0' < $1::int8";
/// A look reads two small views.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// An hour of looks, once a second.
const TRACK_MAX: usize = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_stands_still_lags_more_and_more_and_one_that_has_caught_up_does_not() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut track = Track::default();
        for (second, position) in [(0, 100), (1, 200), (2, 200), (3, 300)] {
            track.primary_at(at(second), position);
        }
        let lag = |position, told| track.lag(at(5), position, told).as_secs();
        assert_eq!(
            lag(300, Some(9_000)),
            0,
            "what the server says of a replica that has caught up is old"
        );
        assert_eq!(lag(299, None), 2);
        assert_eq!(lag(200, None), 2);
        assert_eq!(lag(199, None), 4);
        assert_eq!(lag(50, None), 5);
        assert_eq!(lag(299, Some(3_000)), 3);
        assert_eq!(lag(299, Some(1_000)), 2);
    }

    #[test]
    fn the_memory_is_bounded() {
        let begun = Instant::now();
        let mut track = Track::default();
        for second in 0..2 * TRACK_MAX as u64 {
            track.primary_at(begun + Duration::from_secs(second), second as i64);
        }
        assert_eq!(track.0.len(), TRACK_MAX);
    }
}
