//! Whether a connection keeps its session. A pooler in transaction mode gives each transaction another one: settings, prepared statements
//! and the operator's lock would be somebody else's, silently.

use rand::RngExt as _;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};
use tokio::time::timeout;

use super::connect::Server;
use super::error::store_error;
use crate::store::StoreError;

/// Fails with [`StoreError::Pooled`] where connections do not keep their sessions. Two connections are enough to see it: while the one
/// is inside a transaction, the other looks for a setting that it has made before. A direct connection finds it; a pooler has to give
/// it another session, or to make it wait.
///
/// The simple protocol only: prepared statements may be among what is lost.
pub async fn require_sessions(server: &Server, role: &str) -> Result<(), StoreError> {
    let mark = format!("{:016x}", rand::rng().random::<u64>());
    let mut first = server.connect(role).await?;
    let mut second = server.connect(role).await?;
    run(&mut first, format!("SET reseal.session_mark = '{mark}'")).await?;
    // A pooler that hands out its sessions in turn is seen without the other connection.
    for _ in 0..2 {
        expect(&mut first, &mark).await?;
    }
    run(&mut second, "BEGIN; SELECT 1".to_owned()).await?;
    match timeout(server.answer_max().min(WAIT_FOR_SESSION_MAX), expect(&mut first, &mark)).await {
        Ok(found) => found?,
        Err(_) => return Err(pooled("a connection waited for the transaction of another")),
    }
    run(&mut second, "ROLLBACK".to_owned()).await
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), StoreError> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    done.map(drop).map_err(store_error)
}

async fn expect(connection: &mut PgConnection, mark: &str) -> Result<(), StoreError> {
    let row = sqlx::raw_sql("SELECT current_setting('reseal.session_mark', true)")
        .fetch_one(connection)
        .await
        .map_err(store_error)?;
    let found: Option<String> = row.try_get(0).map_err(store_error)?;
    if found.as_deref() == Some(mark) {
        Ok(())
    } else {
        Err(pooled("a setting of this connection was gone one statement later"))
    }
}

fn pooled(why: &str) -> StoreError {
    StoreError::Pooled(why.to_owned())
}

/// Far longer than an answer from a session of one's own takes.
const WAIT_FOR_SESSION_MAX: std::time::Duration = std::time::Duration::from_secs(5);
