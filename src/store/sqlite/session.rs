//! One worker's connection: reading pages, and lending the rewriter to a batch.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use rusqlite::limits::Limit;

use super::batch::{self, Job};
use super::cell::{ValueForm, parameters, push_context, push_key, push_value};
use super::connect::{DatabaseFile, Handle, blocking};
use super::error::{from_sqlite, is_too_big};
use super::rewrite::SharedBatch;
use super::statement::{Bounds, Dataset};
use crate::store::control::{Fence, Interval};
use crate::store::page::{Page, RowVersion, Shape, Swaps};
use crate::store::survey::Survey;
use crate::store::value::Key;
use crate::store::{InPlaceBatch, InPlaceWriter, PageEnd, PageLimits, Rewriter, Session, StoreError, Writer};

/// A connection with the statements about one table.
pub(super) struct SqliteSession {
    file: DatabaseFile,
    survey: Survey,
    dataset: Arc<Dataset>,
    batch: SharedBatch,
    handle: Handle,
    mode: Mode,
}

/// How careful the next statement must be. Learnt from what the table turned out to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// There are values above the limit: ask for the size before the value.
    pub(super) guarded: bool,
    /// Rows are of unknown or very uneven width: end batches by bytes, which costs a look at the sizes first.
    pub(super) by_bytes: bool,
    /// Mean bytes of a row of the last batch: tells how many rows fit into the next one.
    pub(super) row_bytes: usize,
    /// The rowids of the last batch lay close together: the next batch ends so many rowids further on, without counting rows.
    pub(super) is_dense: bool,
}

impl SqliteSession {
    pub(super) async fn open(file: DatabaseFile, survey: Survey) -> Result<Self, StoreError> {
        let (connection, dataset, batch) = connect(file.clone(), survey.clone()).await?;
        Ok(Self {
            file,
            survey,
            dataset,
            batch,
            handle: Handle::new(connection),
            mode: Mode {
                guarded: false,
                by_bytes: true,
                row_bytes: 0,
                is_dense: false,
            },
        })
    }

    fn check_relation(&self, interval: &Interval) -> Result<(), StoreError> {
        if interval.relation == self.dataset.relation {
            return Ok(());
        }
        Err(StoreError::State(format!(
            "a stored range is about {}, not about {}",
            interval.relation, self.dataset.relation
        )))
    }
}

async fn connect(file: DatabaseFile, survey: Survey) -> Result<(Connection, Arc<Dataset>, SharedBatch), StoreError> {
    blocking(move || {
        let connection = file.open()?;
        file.sync_less(&connection)?;
        let dataset = Dataset::find(&connection, &survey)?;
        let batch = SharedBatch::attach(&connection, dataset.shape)?;
        Ok((connection, Arc::new(dataset), batch))
    })
    .await
}

#[async_trait]
impl Session for SqliteSession {
    fn shape(&self) -> Shape {
        self.dataset.shape
    }

    async fn page(
        &mut self,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        page: &mut Page,
    ) -> Result<PageEnd, StoreError> {
        self.check_relation(interval)?;
        let dataset = Arc::clone(&self.dataset);
        let after = cursor.or(interval.after.as_ref()).cloned();
        let upto = interval.upto.clone();
        let mode = self.mode;
        let mut rows = std::mem::replace(page, Page::new(self.dataset.shape));
        let (rows, read) = self
            .handle
            .run(move |connection| {
                let mut guarded = mode.guarded;
                let read: Result<_, StoreError> = loop {
                    rows.clear();
                    limit_length(connection, limits, guarded)?;
                    match read_page(
                        connection,
                        &dataset,
                        after.as_ref(),
                        upto.as_ref(),
                        limits,
                        guarded,
                        &mut rows,
                    ) {
                        Err(PageError::TooBig) if !guarded => guarded = true,
                        Err(error) => break Err(error.into()),
                        Ok(end) => break Ok((end, guarded)),
                    }
                };
                Ok((rows, read))
            })
            .await?;
        *page = rows;
        let (end, guarded) = read?;
        self.mode.guarded = guarded;
        Ok(end)
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::InPlace(self)
    }

    async fn reconnect(&mut self) -> Result<(), StoreError> {
        let (connection, dataset, batch) = connect(self.file.clone(), self.survey.clone()).await?;
        self.handle = Handle::new(connection);
        self.dataset = dataset;
        self.batch = batch;
        Ok(())
    }
}

#[async_trait]
impl InPlaceWriter for SqliteSession {
    async fn rewrite_and_advance(
        &mut self,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        rewriter: Box<dyn Rewriter>,
        fence: Option<&Fence>,
        advance: bool,
    ) -> (Box<dyn Rewriter>, Swaps, Result<InPlaceBatch, StoreError>) {
        let nothing = Swaps::new(self.dataset.shape.values);
        // A cancelled batch may still be running, with its own rewriter.
        let ready = self.handle.check().and_then(|()| self.check_relation(interval));
        if let Err(error) = ready {
            return (rewriter, nothing, Err(error));
        }
        let job = Job {
            relation: interval.relation.clone(),
            after: cursor.or(interval.after.as_ref()).cloned(),
            upto: interval.upto.clone(),
            limits,
            fence: fence.cloned(),
            advance,
        };
        let (dataset, batch, mode) = (Arc::clone(&self.dataset), self.batch.clone(), self.mode);
        self.batch.lock().lend(rewriter);
        let ran = self
            .handle
            .run(move |connection| {
                let mut mode = mode;
                let done = batch::run(connection, &dataset, &batch, &job, &mut mode);
                let found = std::mem::replace(&mut batch.lock().found, Swaps::new(dataset.shape.values));
                Ok((done, found, mode))
            })
            .await;
        let rewriter = self.batch.lock().take_back();
        // Lent above under an exclusive borrow of the session, and only this method takes it back.
        #[allow(clippy::expect_used)]
        let rewriter = rewriter.expect("the rewriter was lent to this batch");
        match ran {
            Ok((done, found, mode)) => {
                self.mode = mode;
                (rewriter, found, done)
            }
            Err(error) => (rewriter, nothing, Err(error)),
        }
    }
}

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

enum PageError {
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

fn read_page(
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
