//! A note in Redis of what `notify-keyspace-events` was before it was changed: whoever is killed leaves it to the next run.
//!
//! The note is written before the setting is changed, and goes when the setting is back. Somebody who has changed the setting since
//! keeps what he set.

use redis::aio::MultiplexedConnection;

use super::connect::RedisServer;

/// Where the note of a server is.
pub(super) struct Note {
    key: String,
}

/// What the setting was, and what it became; the latter is unknown when the run died in between.
pub(super) struct Noted {
    pub(super) before: String,
    pub(super) after: Option<String>,
}

impl Note {
    /// Finds the place. In a cluster each server has settings of its own, so that its note must be in one of its slots: the first number
    /// that is. `None` where the user may not, or the server has hardly any slots.
    pub(super) async fn of(server: &RedisServer, connection: &mut MultiplexedConnection) -> Option<Self> {
        if !server.is_cluster() {
            return Some(Self { key: NOTE.to_owned() });
        }
        for number in 0..PLACES_MAX {
            let key = format!("{NOTE}:{{{number}}}");
            let answer: redis::RedisResult<bool> = redis::cmd("EXISTS").arg(&key).query_async(connection).await;
            if answer.is_ok() {
                return Some(Self { key });
            }
        }
        None
    }

    /// What it says, if there is one.
    pub(super) async fn read(&self, connection: &mut MultiplexedConnection) -> Option<Noted> {
        let text: Option<String> = redis::cmd("GET").arg(&self.key).query_async(connection).await.ok()?;
        let text = text?;
        Some(match text.split_once('>') {
            Some((before, after)) => Noted {
                before: before.to_owned(),
                after: Some(after.to_owned()),
            },
            None => Noted {
                before: text,
                after: None,
            },
        })
    }

    /// Writes it. Says whether it stands.
    pub(super) async fn write(&self, before: &str, after: Option<&str>, connection: &mut MultiplexedConnection) -> bool {
        let text = match after {
            Some(after) => format!("{before}>{after}"),
            None => before.to_owned(),
        };
        let mut command = redis::cmd("SET");
        command.arg(&self.key).arg(text);
        command.exec_async(connection).await.is_ok()
    }

    /// Takes it away.
    pub(super) async fn remove(&self, connection: &mut MultiplexedConnection) {
        // Left behind, it says what is true already.
        let _ = redis::cmd("UNLINK").arg(&self.key).exec_async(connection).await;
    }
}

/// Whether a key is such a note, and so no session, whatever the pattern.
pub(super) fn is_note(key: &[u8]) -> bool {
    key.starts_with(NOTE.as_bytes())
}

const NOTE: &str = "reseal:notify-keyspace-events";

/// With so many tries, a server with a sixteenth of the slots is missed once in thousands.
const PLACES_MAX: u32 = 128;
