//! Spring Session's indexed repository: a hash for each session, a key that expires for it, and sets that index them.
//!
//! Members of the sets are session ids, written plainly, in JSON quotes, or as serialized Java strings: the id is their end.

use std::collections::HashSet;

use redis::Pipeline;

use super::sweep::{SCAN_COUNT, Sweep};
use crate::session::{Glob, SessionError};

/// The keys of one user's sessions, by the principal index.
pub(super) async fn sessions_of(sweep: &mut Sweep<'_>, namespace: &str, user: &str) -> Result<Vec<Vec<u8>>, SessionError> {
    let set = format!("{namespace}:index:{PRINCIPAL_INDEX}:{user}");
    let members = members(sweep, set.as_bytes()).await?;
    let ids: HashSet<Vec<u8>> = members
        .iter()
        .filter_map(|member| id_of(member))
        .map(<[u8]>::to_vec)
        .collect();
    let mut keys = Vec::with_capacity(ids.len());
    for id in ids {
        let key = session_key(namespace, &id);
        let exists: redis::RedisResult<bool> = redis::cmd("EXISTS").arg(&key).query_async(&mut sweep.connection).await;
        if exists.map_err(|error| sweep.server.error(&error, "EXISTS"))? {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// Removes the keys that stand beside sessions.
pub(super) async fn unlink_companions(sweep: &mut Sweep<'_>, namespace: &str, keys: &[Vec<u8>]) -> Result<u64, SessionError> {
    let prefix = format!("{namespace}:sessions:");
    let mut pipeline = Pipeline::with_capacity(keys.len());
    for key in keys {
        let Some(id) = key.strip_prefix(prefix.as_bytes()) else {
            continue;
        };
        pipeline.cmd("UNLINK").arg([prefix.as_bytes(), b"expires:", id].concat());
    }
    if pipeline.is_empty() {
        return Ok(0);
    }
    let removed: redis::RedisResult<Vec<u64>> = pipeline.query_async(&mut sweep.connection).await;
    let removed = removed.map_err(|error| sweep.server.error(&error, "UNLINK"))?;
    Ok(removed.into_iter().sum())
}

/// Removes from all index sets the members whose session is gone.
pub(super) async fn clean_indexes(sweep: &mut Sweep<'_>, namespace: &str) -> Result<u64, SessionError> {
    let mut removed = 0;
    for kind in ["index", "expirations"] {
        let pattern = format!("{}:{kind}:*", Glob::escape(namespace));
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let scanned: redis::RedisResult<(u64, Vec<Vec<u8>>)> = command.query_async(&mut sweep.connection).await;
            let (next, sets) = scanned.map_err(|error| sweep.server.error(&error, "SCAN"))?;
            for set in sets {
                removed += clean_set(sweep, namespace, &set).await?;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(removed)
}

async fn clean_set(sweep: &mut Sweep<'_>, namespace: &str, set: &[u8]) -> Result<u64, SessionError> {
    let members = members(sweep, set).await?;
    let mut removed = 0;
    for members in members.chunks(SCAN_COUNT) {
        let mut known = Vec::with_capacity(members.len());
        let mut pipeline = Pipeline::with_capacity(members.len());
        for member in members {
            if let Some(id) = id_of(member) {
                pipeline.cmd("EXISTS").arg(session_key(namespace, id));
                known.push(member);
            }
        }
        if known.is_empty() {
            continue;
        }
        let exist: redis::RedisResult<Vec<bool>> = pipeline.query_async(&mut sweep.connection).await;
        let exist = exist.map_err(|error| sweep.server.error(&error, "EXISTS"))?;
        let gone: Vec<_> = known
            .into_iter()
            .zip(exist)
            .filter(|(_, exists)| !exists)
            .map(|(member, _)| member)
            .collect();
        if gone.is_empty() {
            continue;
        }
        let mut command = redis::cmd("SREM");
        command.arg(set);
        for member in gone {
            command.arg(member.as_slice());
        }
        let count: redis::RedisResult<u64> = command.query_async(&mut sweep.connection).await;
        removed += count.map_err(|error| sweep.server.error(&error, "SREM"))?;
    }
    Ok(removed)
}

/// The members of a set, or none when the key is gone or no set.
async fn members(sweep: &mut Sweep<'_>, set: &[u8]) -> Result<Vec<Vec<u8>>, SessionError> {
    let kind: redis::RedisResult<String> = redis::cmd("TYPE").arg(set).query_async(&mut sweep.connection).await;
    if kind.map_err(|error| sweep.server.error(&error, "TYPE"))? != "set" {
        return Ok(Vec::new());
    }
    let mut members = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let mut command = redis::cmd("SSCAN");
        command.arg(set).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
        let scanned: redis::RedisResult<(u64, Vec<Vec<u8>>)> = command.query_async(&mut sweep.connection).await;
        let (next, found) = scanned.map_err(|error| sweep.server.error(&error, "SSCAN"))?;
        members.extend(found);
        cursor = next;
        if cursor == 0 {
            return Ok(members);
        }
    }
}

/// A session id is a UUID in its text form.
fn id_of(member: &[u8]) -> Option<&[u8]> {
    let member = member.strip_suffix(b"\"").unwrap_or(member);
    let id = &member[member.len().checked_sub(UUID_BYTES)?..];
    let is_uuid = id.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    is_uuid.then_some(id)
}

fn session_key(namespace: &str, id: &[u8]) -> Vec<u8> {
    [namespace.as_bytes(), b":sessions:", id].concat()
}

/// The class and field that name Spring's index.
const PRINCIPAL_INDEX: &str = "org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME";

const UUID_BYTES: usize = 36;
