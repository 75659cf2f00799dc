//! Reading a page, and how far a statement may look.

use rusqlite::Connection;
use rusqlite::limits::Limit;

use super::cell::{ValueForm, parameters, push_context, push_key, push_value};
use super::error::{from_sqlite, is_too_big};
use super::statement::{Bounds, Dataset};
use crate::store::page::{Page, RowVersion, Shape};
use crate::store::value::Key;
use crate::store::{PageEnd, PageLimits, StoreError};

/// Makes SQLite itself refuse to load values far above the limit, so that the fast statements need not ask for sizes. Once it has
/// refused, the guarded ones ask.
pub(super) fn limit_length(connection: &Connection, limits: PageLimits, guarded: bool) -> Result<(), StoreError> {
    let wanted = limits.value_bytes_max.max(LENGTH_LIMIT_MIN);
    let length = match i32::try_from(wanted) {
        Ok(length) if !guarded => length.min(LENGTH_LIMIT_SQLITE),
        _ => LENGTH_LIMIT_SQLITE,
    };
    connection
        .set_limit(Limit::SQLITE_LIMIT_LENGTH, length)
        .map(drop)
        .map_err(from_sqlite)
}

/// Why there is no page.
pub(super) enum PageError {
    /// A value or row above SQLite's length limit: only the guarded statement can pass it.
    TooBig,
    Store(StoreError),
}

impl From<rusqlite::Error> for PageError {
    fn from(error: rusqlite::Error) -> Self {
        if is_too_big(&error) {
            Self::TooBig
        } else {
            Self::Store(from_sqlite(error))
        }
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PageError> for StoreError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::TooBig => Self::Refused("a row is larger than SQLite can read".to_owned()),
            PageError::Store(error) => error,
        }
    }
}

/// The next rows of an interval, without the guard only where none is too large.
pub(super) fn read_page(
    connection: &Connection,
    dataset: &Dataset,
    after: Option<&Key>,
    upto: Option<&Key>,
    limits: PageLimits,
    guarded: bool,
    page: &mut Page,
) -> Result<PageEnd, PageError> {
    let bounds = Bounds {
        after: after.is_some(),
        upto: upto.is_some(),
    };
    let form = ValueForm {
        bytes_max: limits.value_bytes_max,
        guarded,
    };
    let rows_max = limits.rows.max(1);
    let mut statement = connection.prepare_cached(&dataset.page(bounds, guarded))?;
    bind_interval(&mut statement, dataset, after, upto)?;
    statement.raw_bind_parameter(dataset.number(), to_i64(rows_max as u64))?;
    if guarded {
        statement.raw_bind_parameter(dataset.number() + 1, to_i64(limits.value_bytes_max))?;
    }
    let Shape { keys, contexts, values } = dataset.shape;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if limits.stands_back {
            stand_back(page.len() as u64);
        }
        page.begin_row(RowVersion::default());
        for at in 0..keys {
            push_key(page, row.get_ref(at)?).map_err(StoreError::from)?;
        }
        for at in keys..keys + contexts {
            push_context(page, row.get_ref(at)?);
        }
        for at in keys + contexts..keys + contexts + values {
            push_value(page, row.get_ref(at)?, form);
        }
        if page.byte_len() > limits.bytes || page.len() == rows_max {
            return Ok(PageEnd::More);
        }
    }
    Ok(PageEnd::End)
}

/// Binds the bounds of an interval; the statement has no place for those that are absent.
pub(super) fn bind_interval(
    statement: &mut rusqlite::Statement<'_>,
    dataset: &Dataset,
    after: Option<&Key>,
    upto: Option<&Key>,
) -> Result<(), StoreError> {
    let parts = dataset.shape.keys;
    for (first, key) in [(1, after), (parts + 1, upto)] {
        let Some(key) = key else { continue };
        for (at, parameter) in (first..).zip(parameters(key, parts)?) {
            statement.raw_bind_parameter(at, parameter).map_err(from_sqlite)?;
        }
    }
    Ok(())
}

/// Lets whoever waits for this processor go first, every few rows. Where nobody waits it costs a fraction of a microsecond.
pub(super) fn stand_back(row: u64) {
    if row % STAND_BACK_EVERY == STAND_BACK_EVERY - 1 {
        std::thread::yield_now();
    }
}

/// Counts and limits as SQLite takes them.
pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Rows between two looks at who waits: a tenth of a millisecond or so.
const STAND_BACK_EVERY: u64 = 4;
/// Below this, other parts of a row would hit the limit.
const LENGTH_LIMIT_MIN: u64 = 16 << 20;
/// SQLite's default of `SQLITE_MAX_LENGTH`.
const LENGTH_LIMIT_SQLITE: i32 = 1_000_000_000;
