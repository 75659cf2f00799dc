//! One in-place batch: a transaction in which the fence is checked, an UPDATE calls the rewriter for each row of the next stretch of
//! keys, quarantine is recorded and the range moves.

use rusqlite::Connection;

use super::ahead::Prepared;
use super::cell::{ValueForm, key_of_row, push_key};
use super::error::{from_sqlite, is_too_big};
use super::read::{bind_interval, limit_length, to_i64};
use super::rewrite::{Failure, SharedBatch};
use super::session::Mode;
use super::statement::{Bounds, Dataset};
use super::transaction::WriteTransaction;
use crate::store::control::{Counters, Fence};
use crate::store::page::{Page, RowVersion, Shape};
use crate::store::value::{Cell, Key, Kind};
use crate::store::{InPlaceBatch, PageEnd, PageLimits, StoreError, Written};

/// What a batch is to do.
pub(super) struct Job {
    pub(super) relation: String,
    pub(super) after: Option<Key>,
    pub(super) upto: Option<Key>,
    pub(super) limits: PageLimits,
    pub(super) fence: Option<Fence>,
    pub(super) advance: bool,
}

/// Runs the batch. When the rows turn out to be larger than the statement was made for, it rolls back and tries once more with the
/// careful one; `mode` remembers.
pub(super) fn run(
    connection: &Connection,
    dataset: &Dataset,
    batch: &SharedBatch,
    job: &Job,
    mode: &mut Mode,
) -> Result<InPlaceBatch, StoreError> {
    loop {
        match attempt(connection, dataset, batch, job, *mode) {
            Err(Stop::TooManyBytes) if batch.lock().prepared.take().is_some() || !mode.by_bytes => mode.by_bytes = true,
            Err(Stop::TooBig) if !mode.guarded => mode.guarded = true,
            Err(stop) => {
                batch.lock().found.clear();
                return Err(stop.into());
            }
            Ok(done) => {
                done.teach(job, mode);
                return Ok(done.batch);
            }
        }
    }
}

struct Done {
    batch: InPlaceBatch,
    rows: u64,
    bytes_read: usize,
}

impl Done {
    /// What the next batch had better do, judging by the rows of this one.
    fn teach(&self, job: &Job, mode: &mut Mode) {
        let Ok(rows @ 1..) = usize::try_from(self.rows) else {
            mode.is_dense = false;
            return;
        };
        mode.row_bytes = self.bytes_read / rows;
        mode.by_bytes = self.bytes_read > job.limits.bytes.saturating_mul(3) / 2;
        mode.is_dense = match (job.after.as_ref().and_then(rowid), self.batch.cursor.as_ref().and_then(rowid)) {
            (Some(after), Some(last)) => last.abs_diff(after) / 2 <= self.rows,
            _ => false,
        };
    }
}

fn attempt(connection: &Connection, dataset: &Dataset, batch: &SharedBatch, job: &Job, mode: Mode) -> Result<Done, Stop> {
    limit_length(connection, job.limits, mode.guarded)?;
    let transaction = WriteTransaction::begin(connection)?;
    if let Some(fence) = &job.fence {
        check_fence(connection, fence)?;
    }
    let prepared = batch.lock().prepared.as_ref().map(Prepared::last);
    let by_bytes = mode.by_bytes && prepared.is_none();
    let (last, end) = if let Some((last, end)) = prepared {
        end_as_read(connection, dataset, job, last, end)?
    } else if by_bytes {
        end_by_bytes(connection, dataset, job)?
    } else {
        let fitting = job.limits.bytes / mode.row_bytes.max(1);
        let rows = job.limits.rows.min(fitting).max(1);
        match end_by_rowid(connection, dataset, job, mode, rows)? {
            Some(end) => end,
            None => end_by_rows(connection, dataset, job, rows)?,
        }
    };
    // Where the end was found by bytes, the rows fit: the transaction keeps them as they were.
    let bytes_max = if by_bytes {
        usize::MAX
    } else {
        job.limits.bytes.saturating_mul(WIDTH_MISJUDGED_MAX)
    };
    let form = ValueForm {
        bytes_max: job.limits.value_bytes_max,
        guarded: mode.guarded,
    };
    batch.lock().start(form, bytes_max, job.limits.stands_back);
    let written = match &last {
        Some(last) => rewrite(connection, dataset, batch, job, last, form)?,
        None => Written::default(),
    };
    let (rows, bytes_read, bytes) = {
        let state = batch.lock();
        (state.rows, state.bytes_read, state.bytes_read + state.bytes_new)
    };
    if let Some(fence) = &job.fence {
        record(connection, batch, job, fence, last.as_ref(), end, written)?;
    }
    let waited = transaction.waited();
    transaction.commit()?;
    Ok(Done {
        batch: InPlaceBatch {
            cursor: last,
            end,
            written,
            bytes,
            waited,
        },
        rows,
        bytes_read,
    })
}

/// The transaction holds the write lock, so that reading is enough: nobody can take the range over before it ends.
fn check_fence(connection: &Connection, fence: &Fence) -> Result<(), StoreError> {
    let held = connection
        .prepare_cached(
            "SELECT 1 FROM reseal_range AS r JOIN reseal_plan AS p ON p.id = r.plan \
             WHERE r.plan = ?1 AND r.id = ?2 AND r.epoch = ?3 AND p.generation = ?3",
        )
        .and_then(|mut statement| statement.exists((&fence.plan, fence.range, fence.epoch)))
        .map_err(from_sqlite)?;
    if held { Ok(()) } else { Err(StoreError::Superseded) }
}

/// Where the page that was read ahead ended. If nothing followed then, something may now: whatever there is goes with this batch.
fn end_as_read(
    connection: &Connection,
    dataset: &Dataset,
    job: &Job,
    last: Option<Key>,
    end: PageEnd,
) -> Result<(Option<Key>, PageEnd), StoreError> {
    match (end, &job.upto) {
        (PageEnd::More, _) => Ok((last, PageEnd::More)),
        (PageEnd::End, Some(upto)) => Ok((Some(upto.clone()), PageEnd::End)),
        (PageEnd::End, None) => Ok((last_key(connection, dataset, job)?, PageEnd::End)),
    }
}

/// Where rowids lie close together: so many rowids further on there are at most so many rows. `None` where that is not known.
fn end_by_rowid(
    connection: &Connection,
    dataset: &Dataset,
    job: &Job,
    mode: Mode,
    rows: usize,
) -> Result<Option<(Option<Key>, PageEnd)>, StoreError> {
    let after = job.after.as_ref().and_then(rowid);
    let (true, true, Some(after)) = (mode.is_dense, dataset.is_rowid_enough(), after) else {
        return Ok(None);
    };
    let Some(candidate) = after.checked_add(to_i64(rows as u64)) else {
        return Ok(None);
    };
    let end = match &job.upto {
        Some(upto) => match rowid(upto) {
            Some(last) if last <= candidate => Some((job.upto.clone(), PageEnd::End)),
            Some(_) => None,
            None => return Ok(None),
        },
        None => {
            let last = last_key(connection, dataset, job)?;
            let is_last = last.as_ref().and_then(rowid).is_none_or(|last| last <= candidate);
            is_last.then_some((last, PageEnd::End))
        }
    };
    Ok(Some(end.unwrap_or_else(|| {
        let key = Key::new([Cell {
            kind: Kind::Int,
            bytes: &candidate.to_be_bytes(),
        }]);
        (Some(key), PageEnd::More)
    })))
}

/// The key of the last row of the batch when rows are narrow.
fn end_by_rows(
    connection: &Connection,
    dataset: &Dataset,
    job: &Job,
    rows: usize,
) -> Result<(Option<Key>, PageEnd), StoreError> {
    let mut statement = connection
        .prepare_cached(&dataset.key_at_offset(bounds(job)))
        .map_err(from_sqlite)?;
    bind_interval(&mut statement, dataset, job.after.as_ref(), job.upto.as_ref())?;
    statement
        .raw_bind_parameter(dataset.number(), to_i64(rows as u64 - 1))
        .map_err(from_sqlite)?;
    if let Some(key) = only_key(&mut statement, dataset)? {
        return Ok((Some(key), PageEnd::More));
    }
    Ok((last_key(connection, dataset, job)?, PageEnd::End))
}

/// The largest key of the interval.
fn last_key(connection: &Connection, dataset: &Dataset, job: &Job) -> Result<Option<Key>, StoreError> {
    let mut statement = connection
        .prepare_cached(&dataset.last_key(bounds(job)))
        .map_err(from_sqlite)?;
    bind_interval(&mut statement, dataset, job.after.as_ref(), job.upto.as_ref())?;
    only_key(&mut statement, dataset)
}

/// The key of the last row of the batch, adding up the sizes of the values.
fn end_by_bytes(connection: &Connection, dataset: &Dataset, job: &Job) -> Result<(Option<Key>, PageEnd), StoreError> {
    let mut statement = connection.prepare_cached(&dataset.sizes(bounds(job))).map_err(from_sqlite)?;
    bind_interval(&mut statement, dataset, job.after.as_ref(), job.upto.as_ref())?;
    let rows_max = job.limits.rows.max(1);
    statement
        .raw_bind_parameter(dataset.number(), to_i64(rows_max as u64))
        .map_err(from_sqlite)?;
    let Shape { keys, values, .. } = dataset.shape;
    let mut last = Page::new(Shape {
        keys,
        contexts: 0,
        values: 0,
    });
    let (mut count, mut bytes) = (0, 0_u64);
    let mut rows = statement.raw_query();
    let end = loop {
        let Some(row) = rows.next().map_err(from_sqlite)? else {
            break PageEnd::End;
        };
        last.clear();
        last.begin_row(RowVersion::default());
        for at in 0..keys {
            push_key(&mut last, row.get_ref(at).map_err(from_sqlite)?)?;
        }
        for at in keys..keys + values {
            let size = row.get::<_, i64>(at).map_err(from_sqlite)?.unsigned_abs();
            // What is not read takes no room.
            bytes += if size > job.limits.value_bytes_max { 0 } else { size };
        }
        count += 1;
        if count == rows_max || bytes > job.limits.bytes as u64 {
            break PageEnd::More;
        }
    };
    let last = (!last.is_empty()).then(|| last.owned_key(0));
    Ok((last, end))
}

fn only_key(statement: &mut rusqlite::Statement<'_>, dataset: &Dataset) -> Result<Option<Key>, StoreError> {
    let mut rows = statement.raw_query();
    match rows.next().map_err(from_sqlite)? {
        Some(row) => key_of_row(row, dataset.shape.keys).map(Some),
        None => Ok(None),
    }
}

/// The rowid that a key consists of.
fn rowid(key: &Key) -> Option<i64> {
    let mut cells = key.cells();
    let number = cells.next()?.as_int();
    number.filter(|_| cells.next().is_none())
}

fn bounds(job: &Job) -> Bounds {
    Bounds {
        after: job.after.is_some(),
        upto: job.upto.is_some(),
    }
}

fn rewrite(
    connection: &Connection,
    dataset: &Dataset,
    batch: &SharedBatch,
    job: &Job,
    last: &Key,
    form: ValueForm,
) -> Result<Written, Stop> {
    let mut statement = connection
        .prepare_cached(&dataset.rewrite(job.after.is_some(), form.guarded))
        .map_err(from_sqlite)?;
    bind_interval(&mut statement, dataset, job.after.as_ref(), Some(last))?;
    if form.guarded {
        statement
            .raw_bind_parameter(dataset.number() + 1, to_i64(form.bytes_max))
            .map_err(from_sqlite)?;
    }
    let changed = statement.raw_execute();
    let state = batch.lock();
    match (changed, state.failure) {
        (Ok(rows), _) => Ok(state.written(rows as u64)),
        (Err(_), Some(Failure::Rewriter)) => Err(Stop::Store(StoreError::Rewriter)),
        (Err(_), Some(Failure::TooManyBytes)) => Err(Stop::TooManyBytes),
        (Err(_), Some(Failure::InexactKey)) => Err(Stop::Store(super::cell::InexactKey.into())),
        (Err(error), None) if is_too_big(&error) => Err(Stop::TooBig),
        (Err(error), None) => Err(Stop::Store(from_sqlite(error))),
    }
}

/// Quarantine, cursor and counters. Touches nothing when there is nothing to say.
fn record(
    connection: &Connection,
    batch: &SharedBatch,
    job: &Job,
    fence: &Fence,
    last: Option<&Key>,
    end: PageEnd,
    written: Written,
) -> Result<(), StoreError> {
    let state = batch.lock();
    for entry in &state.found.quarantined {
        let column = to_i64(entry.column as u64);
        let key = entry.key.as_bytes();
        connection
            .prepare_cached(super::control_sql::QUARANTINE)
            .and_then(|mut statement| statement.execute((&fence.plan, &job.relation, key, column, &entry.reason)))
            .map_err(from_sqlite)?;
    }
    super::late::record(connection, &fence.plan, &job.relation, &state.found.late)?;
    let tally = &state.found.tally;
    let mut counters = Counters {
        values_reencrypted: written.values,
        rows_reencrypted: written.rows,
        lost_races: written.lost_races,
        ..Counters::default()
    };
    if job.advance {
        counters.rows_scanned = tally.rows;
        counters.values_already_current = tally.current;
        counters.values_null = tally.nulls;
    } else if counters == Counters::default() {
        return Ok(());
    }
    let cursor = last.filter(|_| job.advance).map(Key::as_bytes);
    let done = job.advance && end == PageEnd::End;
    super::control::advance(connection, fence, cursor, done, counters)
}

/// Why an attempt rolled back.
enum Stop {
    /// A value or row above SQLite's length limit: only the guarded statement can pass it.
    TooBig,
    /// More bytes than a batch may have.
    TooManyBytes,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Stop> for StoreError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::TooBig => Self::Refused("a row is larger than SQLite can rewrite".to_owned()),
            // The careful statement has no cap, so that this does not come out; still, nothing was written.
            Stop::TooManyBytes => Self::Refused("a batch is larger than it may be".to_owned()),
            Stop::Store(error) => error,
        }
    }
}

/// Rows may turn out this many times as wide as those of the batch before; beyond that the batch is done again, by bytes.
const WIDTH_MISJUDGED_MAX: usize = 2;
