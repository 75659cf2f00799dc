//! Working through one range to its end, whatever the database does meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::batch::{self, BatchError, Buffers, Place, Step};
use super::census::Counter;
use super::error::RotationError;
use super::isolate::Isolation;
use super::progress::Progress;
use super::retry::{ANSWERS_AN_ATTEMPT, Patience, Remedy, answered};
use super::shared::Shared;
use crate::store::control::{Counters, Fence, Interval, Range};
use crate::store::page::{Page, Tally};
use crate::store::survey::Survey;
use crate::store::value::Key;
use crate::store::{PageEnd, Session, Store, StoreError, Witness, Written};

/// What is needed to work on ranges.
#[derive(Clone)]
pub struct RangeWork {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The table.
    pub survey: Arc<Survey>,
    /// What workers share.
    pub shared: Shared,
    /// The plan; `None` with `--no-state`.
    pub plan: Option<String>,
    /// How long a server may be away.
    pub away_max: Duration,
    /// The step, for errors.
    pub step: &'static str,
}

impl RangeWork {
    /// Re-encrypts a range from its cursor to its end. Everything up to the last committed batch is durable whenever this ends.
    pub async fn run(
        &self,
        session: &mut dyn Session,
        buffers: &mut Buffers,
        range: &Range,
    ) -> Result<Counters, RotationError> {
        let fence = self.plan.as_ref().map(|plan| range.fence(plan));
        let mut cursor = range.cursor.clone();
        let mut counters = Counters::default();
        let (mut ahead, mut hold) = (0, true);
        let mut patience = Patience::new(self.away_max);
        let mut witness = Witness::Version;
        let mut isolation = Isolation::default();
        loop {
            self.shared.progress.throttle.pass(&self.shared.stop).await;
            if self.shared.stop.requested() {
                return Err(RotationError::Stopped);
            }
            if let Some(reason) = isolation.withhold() {
                buffers.withhold(reason)?;
            }
            let place = Place {
                interval: &range.interval,
                cursor: cursor.as_ref(),
                fence: fence.as_ref(),
                step: Step::Next { hold },
                witness,
                rows_max: isolation.rows_max(),
            };
            let outcome = batch::run(&self.shared, session, buffers, &place).await;
            if outcome.is_err() {
                let committed = buffers.take_committed();
                ahead += committed.values;
                count(&mut counters, Tally::default(), committed);
                self.shared.wrote(&range.interval.relation, committed.rows);
            }
            match outcome {
                Ok(done) if done.held => {
                    patience.reset();
                    self.shared.wrote(&range.interval.relation, done.written.rows);
                    let page = upto(&range.interval, cursor.as_ref(), done.cursor);
                    let rewritten = self.retry_lost(session, buffers, &page, fence.as_ref(), Step::Again).await?;
                    for written in [done.written, rewritten] {
                        ahead += written.values;
                        count(&mut counters, Tally::default(), written);
                    }
                    // What is held locked for longer is left to the sweeps, and this pass does not wait for it again.
                    (hold, witness) = (false, Witness::VersionSkipLocked);
                }
                Ok(done) => {
                    patience.reset();
                    (hold, witness) = (true, Witness::Version);
                    isolation.widen();
                    // What was written ahead of the cursor is met again.
                    let met_again = ahead.min(done.tally.current);
                    ahead -= met_again;
                    let tally = Tally {
                        current: done.tally.current - met_again,
                        ..done.tally
                    };
                    count(&mut counters, tally, done.written);
                    self.shared.wrote(&range.interval.relation, done.written.rows);
                    if done.written.lost_races > 0 {
                        let page = upto(&range.interval, cursor.as_ref(), done.cursor.clone());
                        self.note_left_behind(session, buffers.counter(), &page).await;
                    }
                    if done.cursor.is_some() {
                        cursor = done.cursor;
                    }
                    if done.end == PageEnd::End {
                        Progress::add(&self.shared.progress.ranges_done, 1);
                        return Ok(counters);
                    }
                }
                Err(BatchError::Refused) => return Err(self.shared.refused()),
                Err(BatchError::Store(error @ StoreError::Row { .. })) => self.isolate(&mut isolation, error)?,
                Err(BatchError::Store(error)) if self.is_gone(&range.interval.relation, &error).await => {
                    Progress::add(&self.shared.progress.ranges_done, 1);
                    return Ok(counters);
                }
                Err(BatchError::Store(error)) => {
                    if let Some(class) = self.recover(session, &mut patience, error).await? {
                        witness = batch::next_witness(class, witness);
                    } else if let Some(durable) = self.durable_cursor(fence.as_ref(), &mut patience).await? {
                        if durable.cursor != cursor {
                            // Only the reply was lost.
                            patience.reset();
                        }
                        if durable.done {
                            Progress::add(&self.shared.progress.ranges_done, 1);
                            return Ok(counters);
                        }
                        cursor = durable.cursor;
                    }
                }
            }
        }
    }

    /// Forgives an error that only says that a partition was detached or dropped meanwhile: nothing is left to do in it.
    pub async fn unless_gone(&self, relation: &str, outcome: Result<(), RotationError>) -> Result<(), RotationError> {
        match outcome {
            Err(RotationError::Store { step, cause }) if !self.is_gone(relation, &cause).await => {
                Err(RotationError::Store { step, cause })
            }
            Err(RotationError::Store { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// Goes once more over the rows of a batch that somebody else was faster with: by value now, so that a change of another column
    /// does not lose the race again. What is still lost after that is the sweep's.
    pub async fn retry_lost(
        &self,
        session: &mut dyn Session,
        buffers: &mut Buffers,
        interval: &Interval,
        fence: Option<&Fence>,
        step: Step,
    ) -> Result<Written, RotationError> {
        let mut rewritten = Written::default();
        let mut cursor: Option<Key> = None;
        let (mut rounds, mut lost) = (0, false);
        let mut isolation = Isolation::default();
        while rounds < LOST_ROUNDS_MAX {
            self.shared.progress.throttle.pass(&self.shared.stop).await;
            if self.shared.stop.requested() {
                return Err(RotationError::Stopped);
            }
            if let Some(reason) = isolation.withhold() {
                buffers.withhold(reason)?;
            }
            let place = Place {
                interval,
                cursor: cursor.as_ref(),
                fence,
                step,
                witness: Witness::OldValue,
                rows_max: isolation.rows_max(),
            };
            match batch::run(&self.shared, session, buffers, &place).await {
                Ok(done) => {
                    isolation.widen();
                    rewritten.rows += done.written.rows;
                    self.shared.wrote(&interval.relation, done.written.rows);
                    rewritten.values += done.written.values;
                    lost |= done.written.lost_races > 0;
                    match (done.end, lost) {
                        (PageEnd::More, _) => cursor = done.cursor,
                        (PageEnd::End, false) => break,
                        (PageEnd::End, true) => {
                            cursor = None;
                            lost = false;
                            rounds += 1;
                        }
                    }
                }
                Err(BatchError::Refused) => return Err(self.shared.refused()),
                Err(BatchError::Store(error @ StoreError::Row { .. })) => self.isolate(&mut isolation, error)?,
                Err(BatchError::Store(error)) if self.is_gone(&interval.relation, &error).await => break,
                // The sweep comes by anyway; only what makes going on pointless is passed up.
                Err(BatchError::Store(error)) if error.is_retryable() => break,
                Err(BatchError::Store(error)) if error.wants_reconnect() => {
                    let mut patience = Patience::new(self.away_max);
                    self.recover(session, &mut patience, error).await?;
                    break;
                }
                Err(BatchError::Store(error)) => return Err(RotationError::store(self.step)(error)),
            }
        }
        Ok(rewritten)
    }

    /// Remembers what is under the old key in an interval whose lost races were not made good, so that the sweep that finds it accuses
    /// no writer. A failure to look only means that it may.
    async fn note_left_behind(&self, session: &mut dyn Session, mut counter: Counter, interval: &Interval) {
        let mut page = Page::to_look_at(session.shape());
        let mut cursor: Option<Key> = None;
        loop {
            match session
                .page(interval, cursor.as_ref(), self.shared.reading_limits(), &mut page)
                .await
            {
                Ok(end) => {
                    counter.count(&interval.relation, &page);
                    cursor = page.len().checked_sub(1).map(|last| page.owned_key(last));
                    if end == PageEnd::End {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "rows of lost races were not looked at");
                    break;
                }
            }
        }
        self.shared.left_behind.add(&counter.census);
    }

    /// The database refused some row of a batch: the next one is smaller, or leaves that row as it is.
    fn isolate(&self, isolation: &mut Isolation, error: StoreError) -> Result<(), RotationError> {
        if self.shared.withheld.is_too_many() || !isolation.narrow(self.shared.limits().rows, &error) {
            return Err(RotationError::store(self.step)(error));
        }
        Ok(())
    }

    /// Whether an error means that this partition was detached or dropped: its rows are no longer rows of the table. The catalogue
    /// decides, and a table without any partition left is an error, never an empty one.
    pub async fn is_gone(&self, relation: &str, error: &StoreError) -> bool {
        if !matches!(error, StoreError::Vanished(_)) {
            return false;
        }
        let ask = self.store.relations(&self.survey);
        let now = answered(&*self.store, ANSWERS_AN_ATTEMPT, ask).await.unwrap_or_default();
        !now.is_empty() && now.iter().all(|other| other.sql_name != relation)
    }

    /// Waits and, where needed, connects again. `Some(class)`: the batch rolled back and may be tried again as it is. `None`: it may
    /// have been committed.
    pub async fn recover(
        &self,
        session: &mut dyn Session,
        patience: &mut Patience,
        error: StoreError,
    ) -> Result<Option<crate::store::RetryClass>, RotationError> {
        let mut remedy = patience.after(&error);
        let mut last = error;
        loop {
            match remedy {
                Remedy::GiveUp => return Err(RotationError::store(self.step)(last)),
                Remedy::Again { wait, class } => {
                    tracing::debug!(error = %last, "batch rolled back, trying again");
                    self.shared.cut();
                    self.pause(wait).await?;
                    return Ok(Some(class));
                }
                Remedy::Reconnect { wait } => {
                    tracing::warn!(error = %last, "connection lost, connecting again");
                    self.shared.own.doubt();
                    self.pause(wait).await?;
                    match answered(&*self.store, ANSWERS_AN_ATTEMPT, session.reconnect()).await {
                        Ok(()) => return Ok(None),
                        Err(error) => {
                            remedy = patience.after(&error);
                            last = error;
                        }
                    }
                }
            }
        }
    }

    /// Makes an attempt again and again while the database is busy or away. Attempts of which only the reply was lost are repeated, too.
    pub async fn patiently<T, F>(&self, step: &'static str, mut attempt: impl FnMut() -> F) -> Result<T, RotationError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut patience = Patience::new(self.away_max);
        loop {
            let error = match answered(&*self.store, ANSWERS_AN_ATTEMPT, attempt()).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            match patience.after(&error) {
                Remedy::GiveUp => return Err(RotationError::store(step)(error)),
                Remedy::Again { wait, .. } | Remedy::Reconnect { wait } => {
                    tracing::debug!(%error, step, "trying again");
                    self.pause(wait).await?;
                }
            }
        }
    }

    async fn pause(&self, wait: Duration) -> Result<(), RotationError> {
        self.shared.waited(wait);
        self.shared.stop.sleep(wait).await;
        if self.shared.stop.requested() {
            return Err(RotationError::Stopped);
        }
        Ok(())
    }

    /// Where the range stands in the database: after a lost reply nobody else knows. Without control tables the batch is simply done
    /// again: what it had written is current by now and is passed over.
    async fn durable_cursor(&self, fence: Option<&Fence>, patience: &mut Patience) -> Result<Option<Range>, RotationError> {
        let Some(fence) = fence else { return Ok(None) };
        loop {
            let ask = async { self.store.control().await?.range(&fence.plan, fence.range).await };
            let found = answered(&*self.store, ANSWERS_AN_ATTEMPT, ask).await;
            let error = match found {
                Ok(Some(range)) if range.epoch == fence.epoch => return Ok(Some(range)),
                Ok(_) => StoreError::Superseded,
                Err(error) => error,
            };
            match patience.after(&error) {
                Remedy::GiveUp => return Err(RotationError::store(self.step)(error)),
                Remedy::Again { wait, .. } | Remedy::Reconnect { wait } => self.pause(wait).await?,
            }
        }
    }
}

/// The part of an interval from a cursor to the end of a page.
fn upto(interval: &Interval, cursor: Option<&Key>, last: Option<Key>) -> Interval {
    Interval {
        relation: interval.relation.clone(),
        after: cursor.cloned().or_else(|| interval.after.clone()),
        upto: last,
    }
}

fn count(counters: &mut Counters, tally: Tally, written: Written) {
    *counters += Counters {
        rows_scanned: tally.rows,
        values_reencrypted: written.values,
        rows_reencrypted: written.rows,
        values_already_current: tally.current,
        values_null: tally.nulls,
        lost_races: written.lost_races,
    };
}

/// A row that is written more often than this between two looks is left to the sweep.
const LOST_ROUNDS_MAX: u32 = 3;
