//! A "not before" mark in Redis: one script reads the server's clock, compares and writes, so that two writers cannot lower it.

use super::connect::RedisServer;
use crate::session::SessionError;
use crate::session::mark::{MarkOptions, Marked};

/// Raises the field of the hash at `key`.
pub(in crate::session) async fn raise_mark(
    server: &RedisServer,
    key: &str,
    options: &MarkOptions,
) -> Result<Marked, SessionError> {
    let mut outcome = Err(SessionError::Moving);
    // In a cluster one node has the key; the others say that it is elsewhere.
    for node in server.nodes().await? {
        outcome = raise_on(&node, key, options).await;
        if !matches!(outcome, Err(SessionError::Moving)) {
            break;
        }
    }
    outcome
}

async fn raise_on(server: &RedisServer, key: &str, options: &MarkOptions) -> Result<Marked, SessionError> {
    let mut connection = server.connect(None).await?;
    let (scope, name) = options.scope.parts();
    let field = if name.is_empty() {
        scope.to_owned()
    } else {
        format!("{scope}:{name}")
    };
    let told: redis::RedisResult<(i64, i64)> = redis::cmd("TIME").query_async(&mut connection).await;
    let before = super::sweep::timestamp(server, told.map_err(|error| server.error(&error, "TIME"))?)?;
    // Refuses what lies in the future. The clock that counts is read by the script.
    let wanted = options.wanted(before)?;
    let ahead = wanted - before.as_second();
    let absolute = if options.at.is_some() {
        wanted.to_string()
    } else {
        String::new()
    };
    let mut script = redis::cmd("EVAL");
    script.arg(RAISE).arg(1).arg(key).arg(&field).arg(ahead);
    script.arg(absolute).arg(i32::from(options.dry_run));
    let told: redis::RedisResult<(i64, i64, i64, i64)> = script.query_async(&mut connection).await;
    let (seconds, microseconds, previous, not_before) = told.map_err(|error| server.error(&error, "run a script (EVAL)"))?;
    let now = super::sweep::timestamp(server, (seconds, microseconds))?;
    let previous = (previous > 0).then_some(previous);
    Ok(Marked {
        not_before,
        previous,
        now,
    })
}

/// KEYS: the hash. ARGV: the field; seconds from now; or the second itself; whether nothing is written.
const RAISE: &str = r"
local now = redis.call('TIME')
local mark = tonumber(now[1]) + tonumber(ARGV[2])
if ARGV[3] ~= '' then mark = tonumber(ARGV[3]) end
local old = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if not old then return redis.error_reply('MARK the field is no number') end
if mark < old then mark = old end
if ARGV[4] == '0' then redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', mark)) end
return { tonumber(now[1]), tonumber(now[2]), old, mark }
";
