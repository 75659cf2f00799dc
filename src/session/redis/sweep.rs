//! Ending sessions in Redis: SCAN with a pattern, UNLINK in small pipelined batches. Never KEYS, never FLUSH.
//!
//! Memory does not grow with the keys that are scanned, only with those that are created or ended within seconds. Every batch is small enough that
//! other clients of the server do not notice it. Stopped anywhere, the same call continues.

use std::time::Instant;

use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::clock::{server_time, timestamp};
use super::connect::RedisServer;
use super::narrow::narrowed;
use super::note::is_note;
use super::spring;
use super::watch::Watch;
use crate::session::snapshot::Gathering;
use crate::session::{ByUser, DecidedBy, Ended, EndingOptions, KnownSessions, RedisLayout, SessionError};

/// One node, while its sessions are being ended.
pub(super) struct Sweep<'s> {
    pub(super) server: &'s RedisServer,
    pub(super) connection: MultiplexedConnection,
    pub(super) layout: &'s RedisLayout,
    pub(super) options: &'s EndingOptions,
    pub(super) watch: Watch,
    /// What was there at a cut-off that was taken before; then the watch decides nothing.
    pub(super) known: Option<&'s KnownSessions>,
    /// Where sessions are counted in, while a cut-off is taken.
    pub(super) gathering: Option<Gathering>,
    pub(super) ended: Ended,
}

/// Ends the sessions of a layout, all or those selected, on every node.
///
/// What was unlinked before an error stays unlinked. Cancelling is safe between batches and within one.
pub async fn end_redis_sessions(
    server: &RedisServer,
    layout: &RedisLayout,
    options: &EndingOptions,
) -> Result<Ended, SessionError> {
    let layout = narrowed(server, layout, options)?;
    let (nodes, places) = server.topology().await?;
    let mut total: Option<Ended> = None;
    for node in &nodes {
        let ended = Sweep::begin(node, &layout, options, None).await?.end().await?;
        total = Some(match total {
            None => ended,
            Some(total) => total.and(ended),
        });
    }
    // A slot that wandered meanwhile may have taken sessions past the scan.
    if server.topology().await?.1 != places {
        return Err(SessionError::Moving);
    }
    total.ok_or(SessionError::Moving)
}

impl<'s> Sweep<'s> {
    /// Connects, and takes the cut-off, unless one was taken before.
    pub(super) async fn begin(
        server: &'s RedisServer,
        layout: &'s RedisLayout,
        options: &'s EndingOptions,
        known: Option<&'s KnownSessions>,
    ) -> Result<Self, SessionError> {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let (mut connection, mut watch) = if options.dry_run || known.is_some() {
            (server.connect(None).await?, Watch::blind())
        } else {
            match server.connect(Some(sender)).await {
                Ok(mut connection) => {
                    let watch = Watch::begin(server, &mut connection, events).await;
                    (connection, watch)
                }
                // Before version 6 a server knows no HELLO, and announces nothing on this connection.
                Err(SessionError::Server { .. }) => (server.connect(None).await?, Watch::blind()),
                Err(error) => return Err(error),
            }
        };
        let cut_off = match watch.start(server, &mut connection).await {
            Some(time) => time,
            None => server_time(server, &mut connection).await?,
        };
        let cut_off = timestamp(server, cut_off)?;
        let decided_by = match (options.dry_run, watch.sees()) {
            (true, _) => DecidedBy::DryRun,
            (false, true) => DecidedBy::NewKeyEvents,
            (false, false) => DecidedBy::Scan,
        };
        Ok(Self {
            server,
            connection,
            layout,
            options,
            watch,
            known,
            gathering: None,
            ended: Ended::new(cut_off, decided_by),
        })
    }

    /// Ends the sessions of the node.
    pub(super) async fn end(mut self) -> Result<Ended, SessionError> {
        let done = self.run().await;
        let Self {
            server,
            mut connection,
            watch,
            ended,
            ..
        } = self;
        watch.end(server, &mut connection).await;
        match done {
            Ok(()) => Ok(ended),
            // Not a failover: this was never the primary.
            Err(SessionError::ReadOnly { place }) if ended.ended == 0 => Err(SessionError::Refused(format!(
                "{place} is read-only: connect to the primary; nothing was touched"
            ))),
            Err(error) => Err(error),
        }
    }

    /// Counts in the sessions of the node that were there at the cut-off. Ends none.
    pub(super) async fn gather(mut self, gathering: Gathering) -> Result<(Gathering, Timestamp, DecidedBy), SessionError> {
        self.gathering = Some(gathering);
        let gathered = self.pass(Purpose::Count).await;
        if !self.watch.check(&mut self.connection).await {
            self.ended.decided_by = DecidedBy::Scan;
        }
        let Self {
            server,
            mut connection,
            watch,
            ended,
            gathering,
            ..
        } = self;
        watch.end(server, &mut connection).await;
        gathered?;
        // Put there above, and taken by nobody.
        gathering
            .map(|gathering| (gathering, ended.cut_off, ended.decided_by))
            .ok_or(SessionError::Moving)
    }

    async fn run(&mut self) -> Result<(), SessionError> {
        self.ended.matched = self.pass(Purpose::End).await?;
        if self.options.dry_run {
            return Ok(());
        }
        tokio::time::sleep(self.options.settle).await;
        // The second pass counts; what a request under way wrote back is ended again.
        loop {
            if self.known.is_none() && !self.watch.check(&mut self.connection).await {
                self.ended.decided_by = DecidedBy::Scan;
            }
            let is_certain = self.known.is_some() || self.watch.sees();
            let purpose = if is_certain { Purpose::End } else { Purpose::Count };
            self.ended.left = self.pass(purpose).await?;
            if self.ended.left == 0 || purpose == Purpose::Count || self.ended.passes >= PASSES_MAX {
                break;
            }
        }
        if let ByUser::SpringIndex(namespace) = &self.layout.by_user {
            let namespace = namespace.clone();
            self.ended.index_entries += spring::clean_indexes(self, &namespace).await?;
        }
        Ok(())
    }

    /// One pass; gives how many sessions it found that should not be there.
    async fn pass(&mut self, purpose: Purpose) -> Result<u64, SessionError> {
        self.ended.passes += 1;
        self.ended.created_since = 0;
        if let (Some(user), ByUser::SpringIndex(namespace)) = (&self.options.selection.user, &self.layout.by_user) {
            let (user, namespace) = (user.clone(), namespace.clone());
            let keys = spring::sessions_of(self, &namespace, &user).await?;
            let mut found = 0;
            for batch in keys.chunks(SCAN_COUNT) {
                found += self.batch(batch.to_vec(), purpose).await?;
            }
            return Ok(found);
        }
        let mut cursor = 0_u64;
        let mut found = 0;
        loop {
            let mut command = redis::cmd("SCAN");
            command
                .arg(cursor)
                .arg("MATCH")
                .arg(self.layout.pattern.as_bytes())
                .arg("COUNT")
                .arg(SCAN_COUNT);
            let scanned: redis::RedisResult<(u64, Vec<Vec<u8>>)> = command.query_async(&mut self.connection).await;
            let (next, keys) = scanned.map_err(|error| self.server.error(&error, "SCAN"))?;
            found += self.batch(keys, purpose).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }

    /// The keys of one answer of the server.
    async fn batch(&mut self, keys: Vec<Vec<u8>>, purpose: Purpose) -> Result<u64, SessionError> {
        // Announcements first: they came before the answer.
        self.watch.drain();
        self.check_watch()?;
        let mut meant = Vec::with_capacity(keys.len());
        for key in keys {
            if !self.layout.is_session(&key) || is_note(&key) {
                continue;
            }
            let is_new = match self.known {
                Some(known) => !known.contains(&key),
                None => self.watch.is_new(&key),
            };
            if is_new {
                self.ended.created_since += 1;
            } else {
                meant.push(key);
            }
        }
        if let (Some(user), ByUser::Json(path)) = (&self.options.selection.user, &self.layout.by_user) {
            let (user, path) = (user.clone(), path.clone());
            meant = self.of_user(meant, &user, &path).await?;
        }
        if let Some(gathering) = &mut self.gathering {
            meant.iter().for_each(|key| gathering.note(key));
        }
        let found = u64::try_from(meant.len()).unwrap_or(u64::MAX);
        if self.options.dry_run || purpose == Purpose::Count {
            return Ok(found);
        }
        for batch in meant.chunks(UNLINK_KEYS) {
            let began = Instant::now();
            self.unlink(batch).await?;
            self.ended.slowest_batch = self.ended.slowest_batch.max(began.elapsed());
        }
        Ok(found)
    }

    async fn unlink(&mut self, keys: &[Vec<u8>]) -> Result<(), SessionError> {
        let mut pipeline = Pipeline::with_capacity(keys.len());
        // In a cluster the keys of one command must be in one slot.
        let keys_per_command = if self.server.is_cluster() { 1 } else { KEYS_PER_COMMAND };
        for keys in keys.chunks(keys_per_command) {
            let command = pipeline.cmd("UNLINK");
            for key in keys {
                self.watch.note_ended(key);
                command.arg(key.as_slice());
            }
        }
        let removed: redis::RedisResult<Vec<u64>> = pipeline.query_async(&mut self.connection).await;
        let removed = removed.map_err(|error| self.server.error(&error, "UNLINK"))?;
        self.ended.ended += removed.into_iter().sum::<u64>();
        if let ByUser::SpringIndex(namespace) = &self.layout.by_user {
            let namespace = namespace.clone();
            self.ended.index_entries += spring::unlink_companions(self, &namespace, keys).await?;
        }
        Ok(())
    }

    /// Those whose JSON value names the user. The value is read up to a limit; longer ones are counted as unreadable.
    async fn of_user(&mut self, keys: Vec<Vec<u8>>, user: &str, path: &[String]) -> Result<Vec<Vec<u8>>, SessionError> {
        let mut found = Vec::new();
        for batch in keys.chunks(READ_KEYS) {
            let mut pipeline = Pipeline::with_capacity(batch.len());
            // A key of another type answers with an error, which must not stop the others.
            pipeline.ignore_errors();
            for key in batch {
                pipeline.cmd("GETRANGE").arg(key.as_slice()).arg(0).arg(VALUE_BYTES_MAX);
            }
            let values: redis::RedisResult<Vec<Value>> = pipeline.query_async(&mut self.connection).await;
            let values = values.map_err(|error| self.server.error(&error, "GETRANGE"))?;
            for (key, value) in batch.iter().zip(values) {
                let json = match &value {
                    Value::BulkString(bytes) if bytes.len() <= VALUE_BYTES_MAX => {
                        serde_json::from_slice::<serde_json::Value>(bytes)
                    }
                    // Gone since the scan.
                    Value::Nil => continue,
                    _ => Err(serde::de::Error::custom("too large, or not a string")),
                };
                match json {
                    Ok(json) if names_user(&json, path, user) => found.push(key.clone()),
                    Ok(_) => {}
                    Err(_) if matches!(&value, Value::BulkString(bytes) if bytes.is_empty()) => {}
                    Err(_) => self.ended.unreadable += 1,
                }
            }
        }
        Ok(found)
    }

    /// Without announcements that were counted on, nothing more is decided.
    fn check_watch(&self) -> Result<(), SessionError> {
        if self.watch.is_disconnected() {
            return Err(SessionError::Unreachable {
                place: self.server.describe(),
                why: "the connection was lost".to_owned(),
            });
        }
        Ok(())
    }
}

/// What a pass does with the sessions that it finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    End,
    Count,
}

impl Ended {
    /// The counts of two nodes.
    pub(super) fn and(self, other: Self) -> Self {
        let is_certain = self.decided_by != DecidedBy::Scan;
        Self {
            cut_off: self.cut_off.min(other.cut_off),
            decided_by: if is_certain { other.decided_by } else { self.decided_by },
            matched: self.matched + other.matched,
            ended: self.ended + other.ended,
            created_since: self.created_since + other.created_since,
            index_entries: self.index_entries + other.index_entries,
            unreadable: self.unreadable + other.unreadable,
            left: self.left + other.left,
            passes: self.passes.max(other.passes),
            slowest_batch: self.slowest_batch.max(other.slowest_batch),
        }
    }
}

fn names_user(json: &serde_json::Value, path: &[String], user: &str) -> bool {
    let found = path.iter().try_fold(json, |json, member| json.get(member));
    match found {
        Some(serde_json::Value::String(text)) => text == user,
        Some(serde_json::Value::Number(number)) => number.to_string() == user,
        _ => false,
    }
}

/// Keys that the server looks at for one SCAN. With four times as many, and with five times as many to unlink, the slowest hundredth of
/// other clients' requests waits nearly three times as long, and a million sessions end hardly sooner.
pub(super) const SCAN_COUNT: usize = 250;

/// Keys of one pipeline of UNLINK, which a server works through before it turns to the next client.
const UNLINK_KEYS: usize = 100;

/// Keys of one UNLINK: the server does nothing else while it runs one command.
const KEYS_PER_COMMAND: usize = 50;

/// Values of one pipeline: with the limit below, at most some megabytes in memory.
const READ_KEYS: usize = 64;

/// Bytes of a session's value that are read to find its user. Sessions are kilobytes; a value may have 512 MB.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Passes at most: a session that comes back more often is written by something that is not a request under way.
const PASSES_MAX: u32 = 6;
