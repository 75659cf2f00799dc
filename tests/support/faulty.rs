//! A store whose commits fail as ordered: before anything was done, or after everything was, with the answer lost.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use reseal::store::control::{Fence, Interval};
use reseal::store::page::{Page, Shape, Swaps};
use reseal::store::survey::{Relation, Survey, Target};
use reseal::store::value::Key;
use reseal::store::waves::Waves;
use reseal::store::{
    Control, InPlaceBatch, InPlaceWriter, Moment, OpenWriter, OperatorLock, PageEnd, PageLimits, Rewriter, SampleLimits,
    Session, SetBatch, SetWriter, Sieve, Store, StoreError, TakesSamples, Witness, WorkerLimits, Writer, Written,
};

/// When a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing of it happened.
    Before,
    /// All of it happened.
    After,
}

/// What the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The connection is gone: the run goes on with another.
    Lost,
    /// The disk is full: the run ends.
    Full,
}

impl What {
    fn error(self) -> StoreError {
        match self {
            Self::Lost => StoreError::Disconnected("ordered by the test".to_owned()),
            Self::Full => StoreError::Storage {
                code: "test".to_owned(),
                message: "ordered by the test".to_owned(),
            },
        }
    }
}

/// Decides the fate of commit number n, counted from 1 over all workers, attempts that fail included.
pub type Order = Arc<dyn Fn(u32) -> Option<(When, What)> + Send + Sync>;

/// What happens when everything that was committed is made durable, for the n-th time: before a sweep, before the verification, behind it.
pub type Settling = Arc<dyn Fn(u32) + Send + Sync>;

/// Another store, with failures.
pub struct Faulty {
    inner: Arc<dyn Store>,
    orders: Orders,
    settling: Settling,
    settled: AtomicU32,
}

#[derive(Clone)]
struct Orders {
    order: Order,
    commits: Arc<AtomicU32>,
    failed: Arc<Mutex<Vec<When>>>,
}

impl Orders {
    fn next(&self) -> Option<(When, What)> {
        let fault = (self.order)(self.commits.fetch_add(1, Ordering::SeqCst) + 1);
        if let Some((when, _)) = fault {
            self.failed.lock().unwrap().push(when);
        }
        fault
    }
}

impl Faulty {
    pub fn new(inner: Arc<dyn Store>, order: Order) -> Self {
        Self {
            inner,
            orders: Orders {
                order,
                commits: Arc::default(),
                failed: Arc::default(),
            },
            settling: Arc::new(|_| ()),
            settled: AtomicU32::new(0),
        }
    }

    /// Without failures, while others go about their work.
    pub fn settling(inner: Arc<dyn Store>, settling: Settling) -> Self {
        Self {
            settling,
            ..Self::new(inner, Arc::new(|_| None))
        }
    }

    /// How many commits failed in this way.
    pub fn failed(&self, when: When) -> usize {
        self.orders
            .failed
            .lock()
            .unwrap()
            .iter()
            .filter(|each| **each == when)
            .count()
    }
}

#[async_trait]
impl Store for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn survey(&self, target: &Target) -> Result<Survey, StoreError> {
        self.inner.survey(target).await
    }

    async fn relations(&self, survey: &Survey) -> Result<Vec<Relation>, StoreError> {
        self.inner.relations(survey).await
    }

    async fn intervals(&self, survey: &Survey, pieces: usize, frozen: bool) -> Result<Vec<Interval>, StoreError> {
        self.inner.intervals(survey, pieces, frozen).await
    }

    async fn moment(&self, survey: &Survey) -> Result<Option<Moment>, StoreError> {
        self.inner.moment(survey).await
    }

    async fn writers(&self, survey: &Survey) -> Result<Vec<OpenWriter>, StoreError> {
        self.inner.writers(survey).await
    }

    async fn session(&self, survey: &Survey) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(FaultySession {
            inner: self.inner.session(survey).await?,
            orders: self.orders.clone(),
        }))
    }

    async fn lock(&self, survey: &Survey, owner: &str, take_over: bool) -> Result<Box<dyn OperatorLock>, StoreError> {
        self.inner.lock(survey, owner, take_over).await
    }

    async fn lock_keyset(&self, keyset: &str, owner: &str, take_over: bool) -> Result<Box<dyn OperatorLock>, StoreError> {
        self.inner.lock_keyset(keyset, owner, take_over).await
    }

    async fn control(&self) -> Result<Box<dyn Control>, StoreError> {
        self.inner.control().await
    }

    async fn column_samples(&self, limits: SampleLimits, take: TakesSamples<'_>) -> Result<(), StoreError> {
        self.inner.column_samples(limits, take).await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        let number = self.settled.fetch_add(1, Ordering::SeqCst) + 1;
        // What happens there has a runtime of its own.
        std::thread::scope(|scope| {
            scope.spawn(|| (self.settling)(number));
        });
        self.inner.settle().await
    }

    fn workers(&self) -> WorkerLimits {
        self.inner.workers()
    }
}

struct FaultySession {
    inner: Box<dyn Session>,
    orders: Orders,
}

#[async_trait]
impl Session for FaultySession {
    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    async fn page(
        &mut self,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        page: &mut Page,
    ) -> Result<PageEnd, StoreError> {
        self.inner.page(interval, cursor, limits, page).await
    }

    async fn page_sifted(
        &mut self,
        sieve: &Sieve,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        page: &mut Page,
    ) -> Result<PageEnd, StoreError> {
        self.inner.page_sifted(sieve, interval, cursor, limits, page).await
    }

    fn writer(&mut self) -> Writer<'_> {
        if matches!(self.inner.writer(), Writer::InPlace(_)) {
            Writer::InPlace(self)
        } else {
            Writer::Set(self)
        }
    }

    async fn reconnect(&mut self) -> Result<(), StoreError> {
        self.inner.reconnect().await
    }
}

#[async_trait]
impl SetWriter for FaultySession {
    async fn swap_and_advance(&mut self, batch: &SetBatch<'_>, witness: Witness) -> Result<Written, StoreError> {
        let fault = self.orders.next();
        if let Some((When::Before, what)) = fault {
            return Err(what.error());
        }
        let Writer::Set(writer) = self.inner.writer() else {
            panic!("the session changed its kind");
        };
        let written = writer.swap_and_advance(batch, witness).await?;
        match fault {
            Some((When::After, what)) => Err(what.error()),
            _ => Ok(written),
        }
    }

    fn arrange(&mut self, page: &Page, swaps: &Swaps, waves: &mut Waves) {
        if let Writer::Set(writer) = self.inner.writer() {
            writer.arrange(page, swaps, waves);
        }
    }
}

#[async_trait]
impl InPlaceWriter for FaultySession {
    fn read_ahead(&mut self, rewriter: Box<dyn Rewriter>) {
        if let Writer::InPlace(writer) = self.inner.writer() {
            writer.read_ahead(rewriter);
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
        let fault = self.orders.next();
        if let Some((When::Before, what)) = fault {
            let nothing = Swaps::new(self.inner.shape().values);
            return (rewriter, nothing, Err(what.error()));
        }
        let Writer::InPlace(writer) = self.inner.writer() else {
            panic!("the session changed its kind");
        };
        let (rewriter, swaps, written) = writer
            .rewrite_and_advance(interval, cursor, limits, rewriter, fence, advance)
            .await;
        match (fault, written) {
            (Some((When::After, what)), Ok(_)) => (rewriter, swaps, Err(what.error())),
            (_, written) => (rewriter, swaps, written),
        }
    }
}
