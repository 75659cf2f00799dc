//! The time of a server: cut-offs and marks are taken on it.

use jiff::Timestamp;
use redis::aio::MultiplexedConnection;

use super::connect::RedisServer;
use crate::session::SessionError;

pub(super) async fn server_time(
    server: &RedisServer,
    connection: &mut MultiplexedConnection,
) -> Result<(i64, i64), SessionError> {
    let told: redis::RedisResult<(i64, i64)> = redis::cmd("TIME").query_async(connection).await;
    told.map_err(|error| server.error(&error, "TIME"))
}

/// What TIME answers: seconds and microseconds.
pub(super) fn timestamp(server: &RedisServer, (seconds, microseconds): (i64, i64)) -> Result<Timestamp, SessionError> {
    let nanoseconds = i32::try_from(microseconds * 1000).unwrap_or_default();
    Timestamp::new(seconds, nanoseconds).map_err(|_| SessionError::Server {
        place: server.describe(),
        code: "TIME".to_owned(),
    })
}
