//! Sessions in SQL tables: the rows that existed at the cut-off are deleted, or marked as revoked, in small batches by their key.
//!
//! One statement reads the keys of all these rows into a temporary table. That is what decides: a session that is created while the
//! batches run is not among them, whatever its columns say. Each batch is a transaction of its own. The temporary table is the
//! database's, in a file where it grows: memory does not grow with the sessions.

mod known;
mod mark;
mod postgres;
mod sqlite;
mod statement;
mod table;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use zeroize::Zeroizing;

pub(super) use known::{cut, end_known};
pub(super) use mark::raise_mark;
pub use table::{Action, CreatedAs, TABLE_PRESETS, TableLayout, TablePreset};

use super::{DecidedBy, Ended, EndingOptions, Selection, SessionError};
use crate::store::StoreError;

/// A table of sessions in one database. Calls are made in the order in which they stand here.
#[async_trait]
trait SessionTable: Send {
    /// Reads the keys of the rows that are meant; gives the database's time and how many there are.
    async fn snapshot(&mut self) -> Result<(Timestamp, u64), StoreError>;

    /// The keys of the snapshot with numbers above `from` up to `to`, as text.
    async fn keys(&mut self, from: u64, to: u64) -> Result<Vec<(u64, String)>, StoreError>;

    /// Takes those with these numbers out of the snapshot: they stay.
    async fn spare(&mut self, numbers: &[u64]) -> Result<(), StoreError>;

    /// Ends those with numbers above `from` up to `to`; gives how many rows that were.
    async fn end(&mut self, from: u64, to: u64) -> Result<u64, StoreError>;

    /// Makes durable what was ended, and counts those of the snapshot that are left.
    async fn left(&mut self) -> Result<u64, StoreError>;

    /// Does what is due after a batch and holds up nobody.
    async fn between_batches(&mut self) -> Result<(), StoreError>;

    /// The database's time, and how many sessions there are now that would be meant. May be called first, too.
    async fn present(&mut self) -> Result<(Timestamp, u64), StoreError>;
}

/// Ends the sessions of a table, all or those selected. `url` is `sqlite:PATH` or `postgres://…`.
///
/// What was deleted before an error stays deleted. Another call takes a cut-off of its own.
pub async fn end_table_sessions(
    url: &Zeroizing<String>,
    layout: &TableLayout,
    options: &EndingOptions,
) -> Result<Ended, SessionError> {
    let mut table = open(url, layout, &options.selection).await?;
    // Nothing is kept of sessions that live on.
    let (cut_off, matched) = if options.dry_run {
        table.present().await?
    } else {
        snapshot(table.as_mut()).await?
    };
    let decided_by = match (options.dry_run, options.selection.before) {
        (true, _) => DecidedBy::DryRun,
        (false, Some(_)) => DecidedBy::CreationColumn,
        (false, None) => DecidedBy::Snapshot,
    };
    let mut ended = Ended::new(options.selection.before.unwrap_or(cut_off), decided_by);
    ended.matched = matched;
    ended.passes = 1;
    if options.dry_run {
        return Ok(ended);
    }
    end_snapshot(table.as_mut(), matched, options.settle, &mut ended).await?;
    Ok(ended)
}

/// Connects, and finds the table and its columns.
pub(super) async fn check(url: &Zeroizing<String>, layout: &TableLayout) -> Result<(), SessionError> {
    open(url, layout, &Selection::default()).await.map(drop)
}

async fn open(
    url: &Zeroizing<String>,
    layout: &TableLayout,
    selection: &Selection,
) -> Result<Box<dyn SessionTable>, SessionError> {
    let statement = statement::Condition::of(layout, selection)?;
    let table: Box<dyn SessionTable> = if let Some(path) = url.strip_prefix("sqlite:") {
        Box::new(sqlite::SqliteTable::open(path, layout, statement).await?)
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Box::new(postgres::PostgresTable::open(url, layout, statement).await?)
    } else {
        let why = "sessions are ended in sqlite: and postgres:// databases";
        return Err(SessionError::Refused(why.to_owned()));
    };
    Ok(table)
}

async fn snapshot(table: &mut dyn SessionTable) -> Result<(Timestamp, u64), SessionError> {
    match table.snapshot().await {
        Err(StoreError::ReadOnly(_)) => Err(read_only()),
        snapshot => Ok(snapshot?),
    }
}

/// Ends what is in the snapshot, whose rows have numbers up to `last`, until a pass finds nothing of it.
async fn end_snapshot(
    table: &mut dyn SessionTable,
    last: u64,
    settle: Duration,
    ended: &mut Ended,
) -> Result<(), SessionError> {
    match run_batches(table, last, ended).await {
        Err(SessionError::Store(StoreError::ReadOnly(_))) if ended.ended == 0 => return Err(read_only()),
        done => done?,
    }
    tokio::time::sleep(settle).await;
    loop {
        ended.passes += 1;
        ended.left = table.left().await?;
        if ended.left == 0 || ended.passes >= PASSES_MAX {
            break;
        }
        // A request that was under way has written its session back.
        run_batches(table, last, ended).await?;
    }
    ended.created_since = table.present().await?.1.saturating_sub(ended.left);
    Ok(())
}

fn read_only() -> SessionError {
    SessionError::Refused("the database is read-only: connect to the primary; nothing was touched".to_owned())
}

async fn run_batches(table: &mut dyn SessionTable, last: u64, ended: &mut Ended) -> Result<(), SessionError> {
    let (mut from, mut rows, mut retries) = (0, ROWS_FIRST, 0);
    while from < last {
        let began = Instant::now();
        match table.end(from, from + rows).await {
            Ok(gone) => {
                let took = began.elapsed();
                ended.ended += gone;
                ended.slowest_batch = ended.slowest_batch.max(took);
                (from, retries) = (from + rows, 0);
                rows = rows_after(rows, took);
                table.between_batches().await?;
            }
            Err(error) if error.is_retryable() && retries < RETRIES_MAX => {
                retries += 1;
                rows = (rows / 2).max(ROWS_MIN);
                tokio::time::sleep(PAUSE * retries).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// How many rows the next batch has. Growing by half at most, it does not overshoot much where rows are suddenly slower.
fn rows_after(rows: u64, took: Duration) -> u64 {
    let fitting = u128::from(rows) * TARGET.as_micros() / took.as_micros().max(1);
    let fitting = u64::try_from(fitting).unwrap_or(u64::MAX);
    fitting.clamp(rows / 2, rows + rows / 2).clamp(ROWS_MIN, ROWS_MAX)
}

/// How long a batch should take. Others of the same database may wait for it, and from 100 ms on a user notices; much shorter, and the same
/// pages of indexes are written again and again.
const TARGET: Duration = Duration::from_millis(60);
const ROWS_FIRST: u64 = 500;
/// Below, statements cost more than rows.
const ROWS_MIN: u64 = 50;
/// Above, one slow page of the disk makes a batch long.
const ROWS_MAX: u64 = 20_000;
/// A lock that is held longer than all these retries together is not that of a request.
const RETRIES_MAX: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// Passes at most: a session that comes back more often is written by something that is not a request under way.
const PASSES_MAX: u32 = 6;
