//! A "not before" mark in Redis: one script reads the server's clock, compares and writes, so that two writers cannot lower it.

use redis::aio::MultiplexedConnection;

use super::connect::RedisServer;
use crate::session::SessionError;
use crate::session::mark::{MarkOptions, Marked, SPENT_DROPPED_MAX};

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
    let before = super::clock::timestamp(server, told.map_err(|error| server.error(&error, "TIME"))?)?;
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
    let now = super::clock::timestamp(server, (seconds, microseconds))?;
    if let Some(spent) = options.spent_until(now).filter(|_| !options.dry_run) {
        // The mark stands. A user of the server who may not drop others keeps them.
        let _ = drop_spent(key, spent, &mut connection).await;
    }
    let previous = (previous > 0).then_some(previous);
    Ok(Marked {
        not_before,
        previous,
        now,
    })
}

/// Drops the marks of tenants and users up to this second, each only if nobody has raised it meanwhile.
async fn drop_spent(key: &str, spent: i64, connection: &mut MultiplexedConnection) -> redis::RedisResult<()> {
    let mut cursor = 0_u64;
    for _ in 0..SPENT_DROPPED_MAX / FIELDS_READ {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(key).arg(cursor).arg("COUNT").arg(FIELDS_READ);
        let (next, fields): (u64, Fields) = scan.query_async(connection).await?;
        let is_spent = |mark: &[u8]| {
            let mark = std::str::from_utf8(mark).ok().and_then(|mark| mark.parse::<i64>().ok());
            mark.is_some_and(|mark| mark <= spent)
        };
        let spent_fields = fields.iter().filter(|(field, mark)| field != b"all" && is_spent(mark));
        let spent_fields: Vec<&[u8]> = spent_fields.map(|(field, _)| field.as_slice()).collect();
        for fields in spent_fields.chunks(FIELDS_DROPPED) {
            let mut script = redis::cmd("EVAL");
            script.arg(DROP).arg(1).arg(key).arg(spent).arg(fields);
            script.exec_async(connection).await?;
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    Ok(())
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Fields of one HSCAN, about; a small hash comes whole.
const FIELDS_READ: u32 = 500;

/// Fields of one script: the server does nothing else while it runs.
const FIELDS_DROPPED: usize = 200;

/// KEYS: the hash. ARGV: the second; the fields.
const DROP: &str = r"
for at = 2, #ARGV do
    local mark = tonumber(redis.call('HGET', KEYS[1], ARGV[at]) or '')
    if mark and mark <= tonumber(ARGV[1]) then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return redis.status_reply('OK')
";

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
