//! Which server answers. After a failover the former primary may still take writes, and under the same name: whatever it says is out of
//! date, and what is written to it is lost.
//!
//! A connection stays with its server, so that asking once is enough; but the world may change around it. Every connection is therefore
//! held against the latest timeline that any connection has met, before each batch, which costs nothing; and somebody connects anew
//! every few seconds to see who answers now (the keeper of the operator's lock).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::store_error;
use crate::store::{DatabaseIdentity, StoreError};

/// The server that the connections of a store have met, and the latest timeline of it.
#[derive(Debug, Clone, Default)]
pub struct Acquaintance {
    known: Arc<Mutex<Option<Known>>>,
    /// The latest timeline met, 0 before any: what is compared before each batch.
    latest: Arc<AtomicU32>,
}

/// The timeline of the server behind one connection; 0 where the server did not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met(u32);

/// Who was met, and when last.
#[derive(Debug)]
struct Known {
    identity: Identity,
    met_at: Instant,
}

/// PostgreSQL's own names for a cluster and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    /// Drawn when the cluster was made; copies have the same one.
    cluster: String,
    /// Grows with every promotion. `None` on a standby, which follows whatever comes.
    timeline: Option<u32>,
}

impl Acquaintance {
    /// Compares the server behind a new connection with the one that was met first. A server that does not tell who it is (some services
    /// hide it) is taken for the same.
    pub async fn meet(&self, connection: &mut PgConnection) -> Result<Met, StoreError> {
        let answer = sqlx::raw_sql(WHO).fetch_one(connection).await;
        let row = match answer.map_err(store_error) {
            Ok(row) => row,
            Err(StoreError::Refused(_) | StoreError::Statement { .. }) => return Ok(Met(0)),
            Err(error) => return Err(error),
        };
        let (cluster, timeline): (String, Option<String>) =
            (row.try_get(0).map_err(store_error)?, row.try_get(1).map_err(store_error)?);
        let timeline = timeline.and_then(|digits| u32::from_str_radix(&digits, 16).ok());
        self.compare(Identity { cluster, timeline })?;
        Ok(Met(timeline.unwrap_or(0)))
    }

    /// Whether another server has been met that follows the one behind this connection.
    pub fn is_outlived(&self, met: Met) -> bool {
        met.0 != 0 && met.0 < self.latest()
    }

    /// Whether a connection led to the server that is known within this time. One that did not tell is no news.
    pub fn is_from_within(&self, time: Duration) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| known.met_at.elapsed() < time)
    }

    /// The latest timeline that was met.
    pub fn latest(&self) -> u32 {
        self.latest.load(Ordering::Acquire)
    }

    fn compare(&self, met: Identity) -> Result<(), StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Known { identity: known, met_at }) = known.as_mut() else {
            self.latest.fetch_max(met.timeline.unwrap_or(0), Ordering::AcqRel);
            *known = Some(Known {
                identity: met,
                met_at: Instant::now(),
            });
            return Ok(());
        };
        if known.cluster != met.cluster {
            return Err(StoreError::OtherServer(format!(
                "cluster {} answers where {} answered before",
                met.cluster, known.cluster
            )));
        }
        match (known.timeline, met.timeline) {
            (Some(before), Some(now)) if now < before => Err(StoreError::OtherServer(format!(
                "a server on timeline {now} answers after one on timeline {before}: a former primary"
            ))),
            (before, now) => {
                known.timeline = now.or(before);
                *met_at = Instant::now();
                self.latest.fetch_max(now.unwrap_or(0), Ordering::AcqRel);
                Ok(())
            }
        }
    }
}

/// Which database this is: the same after a promotion and from a physical backup, another one after a dump was restored.
pub async fn of(connection: &mut PgConnection) -> Result<DatabaseIdentity, StoreError> {
    let told = sqlx::query_scalar::<_, String>(WHICH).fetch_one(connection).await;
    let id = match told.map_err(store_error) {
        Ok(id) => Some(format!("postgresql:{id}")),
        Err(StoreError::Refused(_) | StoreError::Statement { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(DatabaseIdentity { id, file: None })
}

const WHICH: &str = "SELECT system_identifier || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())
    FROM pg_control_system()";

/// The timeline is that of the log being written now; the control file would tell it only after the first checkpoint.
const WHO: &str = "SELECT (SELECT system_identifier::text FROM pg_control_system()),
    CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: &str, timeline: Option<u32>) -> Identity {
        Identity {
            cluster: cluster.to_owned(),
            timeline,
        }
    }

    #[test]
    fn a_promotion_is_followed_and_its_loser_is_not() {
        let met = Acquaintance::default();
        for timeline in [Some(1), Some(1), None, Some(2)] {
            assert!(met.compare(identity("a", timeline)).is_ok());
        }
        for (cluster, timeline) in [("a", Some(1)), ("b", Some(2)), ("b", Some(3)), ("b", None)] {
            assert!(matches!(
                met.compare(identity(cluster, timeline)),
                Err(StoreError::OtherServer(_))
            ));
        }
        assert!(met.compare(identity("a", Some(3))).is_ok());
    }

    #[test]
    fn a_promotion_outlives_the_connections_of_before() {
        let met = Acquaintance::default();
        assert!(met.compare(identity("a", Some(4))).is_ok());
        assert!(!met.is_outlived(Met(4)));
        assert!(met.compare(identity("a", None)).is_ok());
        assert!(!met.is_outlived(Met(4)), "a standby is no successor");
        assert!(met.compare(identity("a", Some(5))).is_ok());
        assert!(met.is_outlived(Met(4)));
        assert!(!met.is_outlived(Met(5)));
        assert!(!met.is_outlived(Met(0)), "who does not tell is taken for the same");
    }

    #[test]
    fn who_was_met_a_moment_ago_is_known_and_another_server_tells_nothing_of_it() {
        let met = Acquaintance::default();
        assert!(!met.is_from_within(Duration::MAX), "nobody was met");
        let minute = Duration::from_secs(60);
        for (next, is_known) in [
            (identity("a", Some(2)), true),
            (identity("b", Some(2)), false),
            (identity("a", Some(1)), false),
        ] {
            if let Some(known) = met.known.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                known.met_at = Instant::now().checked_sub(2 * minute).unwrap_or(known.met_at);
            }
            let _ = met.compare(next);
            assert_eq!(met.is_from_within(minute), is_known);
        }
        assert!(met.compare(identity("a", None)).is_ok());
        assert!(met.is_from_within(minute));
    }
}
