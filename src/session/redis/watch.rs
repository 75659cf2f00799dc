//! Which keys were created after the cut-off, as the server itself announces them.
//!
//! Redis keeps no creation times, and SCAN meets old and new keys alike. But from version 7 on a server announces every key that is
//! created (`__keyevent@N__:new`). The announcements come on the connection that scans, in order: when the answer of a SCAN is
//! there, so are the announcements of all keys that existed when it was made. A key that was announced is newer than the cut-off and
//! stays.
//!
//! A request that was under way at the cut-off may write an old session back after it was unlinked, and that is announced as a new
//! key, too. So a key that comes back within [`IN_FLIGHT`] of its end is the old one, and is ended again.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::UnboundedReceiver;

use super::connect::RedisServer;
use super::note::Note;

/// Keys by the hash of their names: eight bytes each instead of the name.
pub(super) struct Watch {
    events: Option<UnboundedReceiver<PushInfo>>,
    hasher: RandomState,
    created: HashSet<u64>,
    /// Unlinked in the present span of time and in the one before.
    ended: [HashSet<u64>; 2],
    span_began: Instant,
    /// Where it is noted what `notify-keyspace-events` was, if it was changed: by this run, by one that still runs, or by one that died.
    note: Option<Note>,
    is_broken: bool,
    is_disconnected: bool,
}

impl Watch {
    /// A watch that sees nothing: what a scan meets is taken for old.
    pub(super) fn blind() -> Self {
        Self {
            events: None,
            hasher: RandomState::new(),
            created: HashSet::new(),
            ended: [HashSet::new(), HashSet::new()],
            span_began: Instant::now(),
            note: None,
            is_broken: false,
            is_disconnected: false,
        }
    }

    /// Asks the server to announce new keys. Blind when it cannot, or does not allow it.
    pub(super) async fn begin(
        server: &RedisServer,
        connection: &mut MultiplexedConnection,
        events: UnboundedReceiver<PushInfo>,
    ) -> Self {
        let mut watch = Self::blind();
        let Some(flags) = read_flags(connection).await else {
            return watch;
        };
        watch.note = Note::of(server, connection).await;
        if !announces(&flags) {
            // What cannot be noted is not changed: a run that is killed would leave it changed for good.
            let Some(note) = &watch.note else { return watch };
            if !note.write(&flags, None, connection).await {
                return watch;
            }
            if !set_flags(connection, &format!("{flags}En")).await {
                note.remove(connection).await;
                return watch;
            }
            let after = read_flags(connection).await;
            note.write(&flags, after.as_deref(), connection).await;
        }
        watch.events = Some(events);
        watch
    }

    /// Takes the cut-off: the server's time, and in the same moment the beginning of the announcements. `None` when it is blind.
    ///
    /// Both commands travel together, and a server runs what has arrived from one client before it turns to the next, so that
    /// nothing is created between them.
    pub(super) async fn start(&mut self, server: &RedisServer, connection: &mut MultiplexedConnection) -> Option<(i64, i64)> {
        self.events.as_ref()?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME").cmd("SUBSCRIBE").arg(channel(server));
        let told: redis::RedisResult<((i64, i64), Value)> = pipeline.query_async(connection).await;
        if told.is_err() {
            self.events = None;
        }
        told.ok().map(|(time, _)| time)
    }

    /// Whether new keys are told from old ones.
    pub(super) fn sees(&self) -> bool {
        self.events.is_some() && !self.is_broken
    }

    /// Whether the connection was lost, and announcements with it.
    pub(super) fn is_disconnected(&self) -> bool {
        self.is_disconnected
    }

    /// Takes in the announcements that have arrived.
    pub(super) fn drain(&mut self) {
        let Some(events) = &mut self.events else { return };
        while let Ok(push) = events.try_recv() {
            match (push.kind, push.data.last()) {
                (PushKind::Message, Some(Value::BulkString(key))) => {
                    let key = self.hasher.hash_one(key);
                    let came_back = self.ended.iter().any(|ended| ended.contains(&key));
                    if !came_back {
                        self.created.insert(key);
                    }
                }
                (PushKind::Disconnection, _) => self.is_disconnected = true,
                _ => {}
            }
        }
    }

    /// Whether a key was created after the cut-off.
    pub(super) fn is_new(&self, key: &[u8]) -> bool {
        self.created.contains(&self.hasher.hash_one(key))
    }

    /// Notes that a key is about to be unlinked.
    pub(super) fn note_ended(&mut self, key: &[u8]) {
        if self.span_began.elapsed() > IN_FLIGHT {
            self.ended.swap(0, 1);
            self.ended[0].clear();
            self.span_began = Instant::now();
        }
        self.ended[0].insert(self.hasher.hash_one(key));
    }

    /// Whether the server still announces new keys. Somebody may have switched it off, and nothing says when.
    pub(super) async fn check(&mut self, connection: &mut MultiplexedConnection) -> bool {
        if self.events.is_some() {
            let flags = read_flags(connection).await.unwrap_or_default();
            self.is_broken |= !announces(&flags);
        }
        self.sees()
    }

    /// Puts the server's setting back as it is noted, whoever changed it, unless somebody else still listens: another run, which does
    /// this at its end, say.
    pub(super) async fn end(self, server: &RedisServer, connection: &mut MultiplexedConnection) {
        let Some(note) = self.note else { return };
        let Some(noted) = note.read(connection).await else { return };
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(channel(server));
        let listeners: redis::RedisResult<(String, u64)> = command.query_async(connection).await;
        if matches!(listeners, Ok((_, others)) if others > 1) {
            return;
        }
        let now = read_flags(connection).await.unwrap_or_default();
        let is_ours = noted.after.map_or(announces(&now), |after| after == now);
        // Left on, it costs the server little, and the note lets the next run try again.
        if !is_ours || set_flags(connection, &noted.before).await {
            note.remove(connection).await;
        }
    }
}

fn channel(server: &RedisServer) -> String {
    format!("__keyevent@{}__:new", server.database())
}

/// Whether these flags make the server announce new keys.
fn announces(flags: &str) -> bool {
    flags.contains('E') && flags.contains('n')
}

async fn read_flags(connection: &mut MultiplexedConnection) -> Option<String> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg(SETTING);
    let answer: std::collections::HashMap<String, String> = command.query_async(connection).await.ok()?;
    answer.into_values().next()
}

async fn set_flags(connection: &mut MultiplexedConnection, flags: &str) -> bool {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg(SETTING).arg(flags);
    command.exec_async(connection).await.is_ok()
}

const SETTING: &str = "notify-keyspace-events";

/// How long after its end a key that comes back is the old session, written by a request that was under way; between once and twice
/// this long. Longer, and whoever logs in again under the same id at once is logged out again; shorter, and slow requests bring
/// sessions back.
const IN_FLIGHT: Duration = Duration::from_secs(3);
