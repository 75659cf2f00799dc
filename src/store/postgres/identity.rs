//! Which server answers. After a failover the former primary may still take writes, and under the same name: whatever it says is out of
//! date, and what is written to it is lost.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::store_error;
use crate::store::StoreError;

/// The server that the connections of a store have met, and the latest timeline of it.
#[derive(Debug, Clone, Default)]
pub struct Acquaintance {
    known: Arc<Mutex<Option<Identity>>>,
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
    /// Compares the server behind a new connection with the one that was met first. A connection stays with its server, so that once is
    /// enough; a server that does not tell who it is (some services hide it) is taken for the same.
    pub async fn meet(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let answer = sqlx::raw_sql(WHO).fetch_one(connection).await;
        let row = match answer.map_err(store_error) {
            Ok(row) => row,
            Err(StoreError::Refused(_) | StoreError::Statement { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (cluster, timeline): (String, Option<String>) =
            (row.try_get(0).map_err(store_error)?, row.try_get(1).map_err(store_error)?);
        let timeline = timeline.and_then(|digits| u32::from_str_radix(&digits, 16).ok());
        self.compare(Identity { cluster, timeline })
    }

    fn compare(&self, met: Identity) -> Result<(), StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.as_mut() else {
            *known = Some(met);
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
                Ok(())
            }
        }
    }
}

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
}
