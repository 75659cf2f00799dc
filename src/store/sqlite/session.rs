//! One worker's connection: reading pages, and lending the rewriter to a batch.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;

use super::ahead::{Prepared, ReadAhead};
use super::batch::{self, Job};
use super::connect::{DatabaseFile, Handle, blocking, has_log};
use super::read::{PageError, limit_length, read_page};
use super::rewrite::SharedBatch;
use super::statement::Dataset;
use super::watch::Watch;
use crate::store::control::{Fence, Interval};
use crate::store::page::{Page, Shape, Swaps};
use crate::store::survey::Survey;
use crate::store::value::Key;
use crate::store::{InPlaceBatch, InPlaceWriter, PageEnd, PageLimits, Rewriter, Session, Sieve, StoreError, Writer};

/// A connection with the statements about one table.
pub(super) struct SqliteSession {
    file: DatabaseFile,
    watch: Arc<Watch>,
    survey: Survey,
    dataset: Arc<Dataset>,
    batch: SharedBatch,
    handle: Handle,
    mode: Mode,
    ahead: Option<ReadAhead>,
    /// Whether it is worth while to read ahead: there is a processor for it, and readers keep nobody waiting.
    reads_ahead: bool,
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
    pub(super) async fn open(file: DatabaseFile, watch: Arc<Watch>, survey: Survey) -> Result<Self, StoreError> {
        let Connected {
            connection,
            dataset,
            batch,
            has_log,
        } = connect(file.clone(), survey.clone()).await?;
        Ok(Self {
            file,
            watch,
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
            ahead: None,
            reads_ahead: has_log && std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1),
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

/// What a session has of its connection.
struct Connected {
    connection: Connection,
    dataset: Arc<Dataset>,
    batch: SharedBatch,
    has_log: bool,
}

async fn connect(file: DatabaseFile, survey: Survey) -> Result<Connected, StoreError> {
    blocking(move || {
        let connection = file.open()?;
        file.sync_less(&connection)?;
        let dataset = Dataset::find(&connection, &survey)?;
        let batch = SharedBatch::attach(&connection, dataset.shape)?;
        Ok(Connected {
            has_log: has_log(&connection)?,
            connection,
            dataset: Arc::new(dataset),
            batch,
        })
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

    /// Everything, unless nothing at all was written since.
    async fn page_sifted(
        &mut self,
        sieve: &Sieve,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        page: &mut Page,
    ) -> Result<PageEnd, StoreError> {
        if let Sieve::Since(position) = sieve {
            let (watch, position) = (Arc::clone(&self.watch), *position);
            if blocking(move || watch.has_stayed_at(position)).await? {
                page.clear();
                return Ok(PageEnd::End);
            }
        }
        self.page(interval, cursor, limits, page).await
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::InPlace(self)
    }

    async fn reconnect(&mut self) -> Result<(), StoreError> {
        let connected = connect(self.file.clone(), self.survey.clone()).await?;
        self.handle = Handle::new(connected.connection);
        self.dataset = connected.dataset;
        self.batch = connected.batch;
        Ok(())
    }
}

#[async_trait]
impl InPlaceWriter for SqliteSession {
    fn read_ahead(&mut self, rewriter: Box<dyn Rewriter>) {
        if self.reads_ahead {
            self.ahead = Some(ReadAhead::new(self.file.clone(), Arc::clone(&self.dataset), rewriter));
        }
    }

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
        // A second reader would be one more that whoever waits for the processor waits for.
        let is_worth_while = advance && !limits.stands_back && !self.mode.guarded && rewriter.judges_rows_alone();
        let mut ahead = self.ahead.as_mut().filter(|_| is_worth_while);
        let prepared = match &mut ahead {
            Some(ahead) => ahead.take(job.after.as_ref(), job.upto.as_ref()).await,
            None => None,
        };
        if let (Some(ahead), Some((last, PageEnd::More))) = (&mut ahead, prepared.as_ref().map(Prepared::last)) {
            ahead.begin(last, job.upto.clone(), limits);
        }
        let upto = job.upto.clone();
        let (dataset, batch, mode) = (Arc::clone(&self.dataset), self.batch.clone(), self.mode);
        self.batch.lock().lend(rewriter, prepared);
        let ran = self
            .handle
            .run(move |connection| {
                let mut mode = mode;
                let done = batch::run(connection, &dataset, &batch, &job, &mut mode);
                let found = std::mem::replace(&mut batch.lock().found, Swaps::new(dataset.shape.values));
                Ok((done, found, mode))
            })
            .await;
        let (rewriter, prepared) = self.batch.lock().take_back();
        if let (Some(ahead), Some(prepared)) = (&mut ahead, prepared) {
            ahead.give_back(prepared);
        }
        // Lent above under an exclusive borrow of the session, and only this method takes it back.
        #[allow(clippy::expect_used)]
        let rewriter = rewriter.expect("the rewriter was lent to this batch");
        match ran {
            Ok((done, found, mode)) => {
                self.mode = mode;
                if let (Some(ahead), Ok(batch)) = (ahead, &done)
                    && batch.end == PageEnd::More
                {
                    ahead.begin(batch.cursor.clone(), upto, limits);
                }
                (rewriter, found, done)
            }
            Err(error) => (rewriter, nothing, Err(error)),
        }
    }
}
