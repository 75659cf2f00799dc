//! Connections: options, the settings of every session, and a description without credentials.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::error::store_error;
use super::identity::{Acquaintance, Met};
use crate::store::StoreError;

/// How to reach a server. Holds the password; `Debug` is not derived.
#[derive(Clone)]
pub struct Server {
    options: PgConnectOptions,
    description: String,
    answer_max: Duration,
    /// Shared by all clones: whoever connects must meet the same server.
    acquaintance: Acquaintance,
}

impl Server {
    /// Parses a `postgres://` URL. A server that is not local is only spoken to over verified TLS, unless the URL says otherwise.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let mut options = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Refused("the database URL is not a valid postgres:// URL".to_owned()))?;
        let says_tls = url.contains("sslmode=") || url.contains("ssl-mode=");
        let local = options.get_socket().is_some() || is_local(options.get_host());
        if !local && !says_tls {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let description = format!(
            "PostgreSQL database {} on {place} as {}",
            options.get_database().unwrap_or(options.get_username()),
            options.get_username()
        );
        Ok(Self {
            options: options.disable_statement_logging(),
            description,
            answer_max: ANSWER_MAX,
            acquaintance: Acquaintance::default(),
        })
    }

    /// How long an answer is waited for.
    pub fn answer_max(&self) -> Duration {
        self.answer_max
    }

    /// Waits for an answer otherwise than 60 s.
    pub fn set_answer_max(&mut self, answer_max: Duration) {
        self.answer_max = answer_max;
    }

    /// The server without credentials.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Opens a connection with the settings that every statement of ours relies on.
    pub async fn connect(&self, role: &str) -> Result<PgConnection, StoreError> {
        self.connect_and_meet(role).await.map(|(connection, _)| connection)
    }

    /// Fails when a server that follows the one behind this connection was met meanwhile: a failover.
    pub fn require_latest(&self, met: Met) -> Result<(), StoreError> {
        if self.acquaintance.is_outlived(met) {
            return Err(StoreError::Disconnected(
                "another server is the primary now; this connection leads to the former one".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether a connection was made, and its server asked who it is, within this time.
    pub fn was_met_within(&self, time: Duration) -> bool {
        self.acquaintance.is_from_within(time)
    }

    /// Grows with every failover that was noticed.
    pub fn era(&self) -> u64 {
        self.acquaintance.latest().into()
    }

    /// The same, and which server it leads to.
    pub async fn connect_and_meet(&self, role: &str) -> Result<(PgConnection, Met), StoreError> {
        let unreachable = |message: String| StoreError::Unreachable {
            database: self.description.clone(),
            message,
        };
        let options = self.options.clone().application_name(role);
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await;
        let mut connection = match attempt {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(match store_error(error) {
                    StoreError::Refused(message) => StoreError::Unusable {
                        database: self.description.clone(),
                        message,
                    },
                    other => unreachable(other.to_string()),
                });
            }
            Err(_) => return Err(unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        };
        let greeting = async {
            let set = sqlx::raw_sql(SESSION_SETTINGS).execute(&mut connection).await;
            set.map_err(store_error)?;
            self.acquaintance.meet(&mut connection).await
        };
        match tokio::time::timeout(self.answer_max, greeting).await {
            Ok(greeted) => greeted.map(|met| (connection, met)),
            Err(_) => Err(no_answer(self.answer_max)),
        }
    }

    /// A connection whose commits reach the disk a moment after they were answered, where [`settle`](Self::settle) can later make all
    /// of them durable. A crash of the server may undo the last of them, each whole, rows with their cursor: they are done again.
    pub async fn connect_worker(&self, role: &str) -> Result<(PgConnection, Met), StoreError> {
        let (mut connection, met) = self.connect_and_meet(role).await?;
        if can_settle(&mut connection).await? {
            sqlx::raw_sql("SET synchronous_commit = off")
                .execute(&mut connection)
                .await
                .map_err(store_error)?;
        }
        Ok((connection, met))
    }

    /// Waits until every commit so far, of whatever connection, is as durable as this database makes commits: a commit that waits for
    /// its place in the log waits for everything before it.
    pub async fn settle(&self, role: &str) -> Result<(), StoreError> {
        let mut connection = self.connect(role).await?;
        if !can_settle(&mut connection).await? {
            return Ok(());
        }
        // A record in the log that changes nothing. Stronger settings than `on` (remote_apply) stay.
        sqlx::raw_sql(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
             SELECT pg_logical_emit_message(true, 'reseal', 'settled')",
        )
        .execute(&mut connection)
        .await
        .map(drop)
        .map_err(store_error)
    }
}

async fn can_settle(connection: &mut PgConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT coalesce(has_function_privilege(to_regprocedure('pg_logical_emit_message(boolean, text, text)')::oid, 'EXECUTE'), false)",
    )
    .fetch_one(connection)
    .await
    .map_err(store_error)
}

/// What a connection without an answer is.
pub fn no_answer(waited: Duration) -> StoreError {
    StoreError::Disconnected(format!("no answer within {} s", waited.as_secs()))
}

fn is_local(host: &str) -> bool {
    host.starts_with('/') || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Twice what the server itself allows a statement (`statement_timeout`).
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// * `row_security = off`: a policy that would hide rows makes the statement fail instead of shortening the count.
/// * `lock_timeout`: we step back for the application; below `statement_timeout`, or it would be pointless.
/// * planner switches: batches follow the key's index and the row addresses that we send; a plan that scans the table for a batch
///   would cost the square of the table. A plan made anew would copy the arrays of a batch into itself.
const SESSION_SETTINGS: &str = "
    SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET row_security = off;
    SET lock_timeout = '500ms';
    SET statement_timeout = '30s';
    SET idle_in_transaction_session_timeout = '10s';
    SET idle_session_timeout = 0;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET jit = off;
    SET plan_cache_mode = force_generic_plan;
    SET max_parallel_workers_per_gather = 0;
";

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> Option<PgSslMode> {
        Server::parse(url).ok().map(|server| server.options.get_ssl_mode())
    }

    #[test]
    fn a_server_elsewhere_is_spoken_to_over_verified_tls_unless_the_url_says_otherwise() {
        let verified = |url| matches!(mode(url), Some(PgSslMode::VerifyFull));
        assert!(verified("postgres://app@db.example.org/app"));
        assert!(verified("postgres://app@192.0.2.7:5433/app"));
        assert!(!verified("postgres://app@127.0.0.1/app"));
        assert!(!verified("postgres://app@localhost/app?host=/run/postgresql"));
        assert!(matches!(
            mode("postgres://app@db.example.org/app?sslmode=require"),
            Some(PgSslMode::Require)
        ));
    }
}
