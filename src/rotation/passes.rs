//! The three ways over a table: re-encrypt by ranges, sweep, verify.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::batch::{Buffers, Step};
use super::census::{Census, Counter};
use super::crew::Labour;
use super::error::RotationError;
use super::judge::Depth;
use super::pace::Sample;
use super::progress::Progress;
use super::range::RangeWork;
use super::retry::Patience;
use super::rewriter::Rewriters;
use super::shared::Shared;
use crate::store::control::{Counters, Fence, Interval, Range};
use crate::store::page::Page;
use crate::store::value::Key;
use crate::store::{PageEnd, Session, Sieve};

/// Re-encrypts ranges from their cursors on.
pub struct ReEncrypt {
    /// How ranges are worked on.
    pub work: RangeWork,
    /// The worker's buffers.
    pub buffers: Buffers,
    /// What was done.
    pub counters: Counters,
}

#[async_trait]
impl Labour for ReEncrypt {
    type Piece = Range;
    type Yield = Counters;

    async fn work(&mut self, session: &mut dyn Session, range: Range) -> Result<(), RotationError> {
        let outcome = self.work.run(session, &mut self.buffers, &range).await;
        let outcome = outcome.map(|counters| self.counters += counters);
        self.work.unless_gone(&range.interval.relation, outcome).await
    }

    fn finish(self: Box<Self>) -> Counters {
        self.counters
    }
}

/// An interval to be swept, with the fence under which rows of its relation may be written.
pub struct SweepPiece {
    /// The interval.
    pub interval: Interval,
    /// Ownership of a range of the same relation; `None` with `--no-state`.
    pub fence: Option<Fence>,
    /// What need be looked at; `None` for everything.
    pub sieve: Option<Sieve>,
}

/// Reads everything that may be due and rewrites what is. Reading alone writes nothing.
pub struct Sweep {
    /// How rows are written.
    pub work: RangeWork,
    /// The worker's buffers for writing.
    pub buffers: Buffers,
    /// Looks, believing key ids.
    pub counter: Counter,
    /// The page that is looked at.
    pub page: Page,
    /// What was rewritten.
    pub counters: Counters,
}

#[async_trait]
impl Labour for Sweep {
    type Piece = SweepPiece;
    type Yield = (Census, Counters);

    async fn work(&mut self, session: &mut dyn Session, piece: SweepPiece) -> Result<(), RotationError> {
        let outcome = self.sweep(session, &piece).await;
        self.work.unless_gone(&piece.interval.relation, outcome).await
    }

    fn finish(self: Box<Self>) -> (Census, Counters) {
        let mut sweep = *self;
        (std::mem::take(&mut sweep.counter.census), sweep.counters)
    }
}

impl Sweep {
    async fn sweep(&mut self, session: &mut dyn Session, piece: &SweepPiece) -> Result<(), RotationError> {
        let (mut cursor, mut sieve): (Option<Key>, _) = (None, piece.sieve.clone());
        loop {
            let due_before = self.counter.census.due;
            let begun = Instant::now();
            let end = read(
                &self.work,
                session,
                (&piece.interval, cursor.as_ref()),
                &mut sieve,
                &mut self.page,
            )
            .await?;
            self.counter.count(&piece.interval.relation, &self.page);
            Progress::add(&self.work.shared.progress.rows_scanned, self.page.len() as u64);
            let sample = sample(begun, &self.page);
            let last = self.page.len().checked_sub(1).map(|row| self.page.owned_key(row));
            if self.counter.census.due > due_before {
                let part = Interval {
                    relation: piece.interval.relation.clone(),
                    after: cursor.clone().or_else(|| piece.interval.after.clone()),
                    upto: last.clone(),
                };
                let written = self
                    .work
                    .retry_lost(session, &mut self.buffers, &part, piece.fence.as_ref(), Step::Sweep)
                    .await?;
                self.counters.rows_reencrypted += written.rows;
                self.counters.values_reencrypted += written.values;
            }
            if end == PageEnd::End {
                Progress::add(&self.work.shared.progress.ranges_done, 1);
                return Ok(());
            }
            cursor = last;
            self.work.shared.finish_reading(sample).await;
        }
    }
}

/// Opens every value. Writes nothing.
pub struct Verify {
    /// How reading is retried.
    pub work: RangeWork,
    /// Opens and counts.
    pub counter: Counter,
    /// The page that is looked at.
    pub page: Page,
}

#[async_trait]
impl Labour for Verify {
    type Piece = Interval;
    type Yield = Census;

    async fn work(&mut self, session: &mut dyn Session, interval: Interval) -> Result<(), RotationError> {
        let outcome = self.verify(session, &interval).await;
        self.work.unless_gone(&interval.relation, outcome).await
    }

    fn finish(self: Box<Self>) -> Census {
        let mut verify = *self;
        std::mem::take(&mut verify.counter.census)
    }
}

impl Verify {
    async fn verify(&mut self, session: &mut dyn Session, interval: &Interval) -> Result<(), RotationError> {
        let mut cursor: Option<Key> = None;
        loop {
            let begun = Instant::now();
            let end = read(&self.work, session, (interval, cursor.as_ref()), &mut None, &mut self.page).await?;
            if let Some(row) = self.page.twin() {
                return Err(RotationError::Twins {
                    relation: interval.relation.clone(),
                    key: RotationError::key(&self.page.owned_key(row)),
                });
            }
            // The next page begins with the last row of this one: its twin would not be behind it, and nobody would ever look at it.
            if end == PageEnd::More && self.page.len() > 1 {
                self.page.forget_last();
            }
            let found = self.counter.count_apart(&interval.relation, &self.page);
            self.work.shared.progress.saw(found);
            Progress::add(&self.work.shared.progress.rows_scanned, self.page.len() as u64);
            let sample = sample(begun, &self.page);
            if end == PageEnd::End {
                Progress::add(&self.work.shared.progress.ranges_done, 1);
                return Ok(());
            }
            cursor = self.page.len().checked_sub(1).map(|row| self.page.owned_key(row));
            self.work.shared.finish_reading(sample).await;
        }
    }
}

fn sample(begun: Instant, page: &Page) -> Sample {
    Sample {
        took: begun.elapsed(),
        bytes: page.byte_len(),
        rows: page.len(),
    }
}

/// Reads one page, patiently: of everything, or of what passes a sieve. Where a server cannot find that (in one statement, between
/// its limits), everything is read from there on. Reading twice harms nobody.
async fn read(
    work: &RangeWork,
    session: &mut dyn Session,
    (interval, cursor): (&Interval, Option<&Key>),
    sieve: &mut Option<Sieve>,
    page: &mut Page,
) -> Result<PageEnd, RotationError> {
    let mut patience = Patience::new(work.away_max);
    loop {
        work.shared.progress.throttle.pass_reading(&work.shared.stop).await;
        if work.shared.stop.requested() {
            return Err(RotationError::Stopped);
        }
        let mut limits = work.shared.reading_limits();
        limits.rows = limits.rows.max(READ_ROWS_MIN);
        if matches!(sieve, Some(Sieve::Except(_))) && work.shared.own.is_doubtful() {
            *sieve = None;
        }
        let read = match sieve {
            Some(sieve) => session.page_sifted(sieve, interval, cursor, limits, page).await,
            None => session.page(interval, cursor, limits, page).await,
        };
        match read {
            Ok(end) => return Ok(end),
            Err(error) if work.is_gone(&interval.relation, &error).await => {
                page.clear();
                return Ok(PageEnd::End);
            }
            Err(error) if !error.wants_reconnect() && sieve.take().is_some() => {
                tracing::debug!(%error, "rows are not sifted by who wrote them, everything is read");
            }
            Err(error) => {
                work.recover(session, &mut patience, error).await?;
            }
        }
    }
}

/// Builds the labour of each pass for a session.
#[derive(Clone)]
pub struct Workshop {
    /// How ranges are worked on.
    pub work: RangeWork,
    /// What is done to values.
    pub rewriters: Rewriters,
}

impl Workshop {
    /// Buffers for a worker, with nonces of its own.
    pub fn buffers(&self, session: &dyn Session) -> Result<Buffers, RotationError> {
        Ok(Buffers::new(session, self.rewriters.clone())?)
    }

    /// Looks at values with this depth.
    pub fn counter(&self, depth: Depth) -> Counter {
        Counter::new(Arc::clone(&self.rewriters.recipe), depth)
    }

    /// What workers share.
    pub fn shared(&self) -> &Shared {
        &self.work.shared
    }
}

/// Reading keeps one row back.
const READ_ROWS_MIN: usize = 2;
/// How long a server may be away in one go, unless the operator says otherwise.
pub const AWAY_MAX_DEFAULT: Duration = Duration::from_secs(120);
