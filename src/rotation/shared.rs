//! What all workers of a pass share: pace, progress, and what they have to say to whoever runs it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::RotationError;
use super::isolate::Withheld;
use super::late::{LateLog, LeftBehind};
use super::own::OwnWrites;
use super::pace::{BatchController, Sample};
use super::progress::{Progress, Stop};
use super::rewriter::RefusalSlot;
use super::vacuum::Wear;
use crate::store::PageLimits;

/// What all workers of a pass share.
#[derive(Clone)]
pub struct Shared {
    /// Sizes of batches that are rewritten, learnt together.
    pub pace: Arc<Mutex<BatchController>>,
    /// Sizes of pages that are only read.
    pub reading_pace: Arc<Mutex<BatchController>>,
    /// What is told.
    pub progress: Arc<Progress>,
    /// Whether to go on.
    pub stop: Arc<Stop>,
    /// Where rewriters leave their refusal.
    pub refusal: RefusalSlot,
    /// Larger values are not read.
    pub value_bytes_max: u64,
    /// Column names, for errors.
    pub columns: Arc<Vec<String>>,
    /// Values that the database refuses to take.
    pub withheld: Arc<Withheld>,
    /// Values that this run left under the old key.
    pub left_behind: Arc<LeftBehind>,
    /// Late values that were met.
    pub late: Arc<LateLog>,
    /// Rows that were rewritten since their table was vacuumed.
    pub wear: Arc<Wear>,
    /// The transactions that re-encrypted its ranges.
    pub own: Arc<OwnWrites>,
}

impl Shared {
    /// How much the next batch may hold that is to be rewritten.
    pub fn limits(&self) -> PageLimits {
        let rows_max = self.progress.throttle.batch_rows_max();
        self.limits_of(&mut lock(&self.pace), rows_max)
    }

    /// How much the next page may hold that is only read: it costs no rows.
    pub fn reading_limits(&self) -> PageLimits {
        self.limits_of(&mut lock(&self.reading_pace), usize::MAX)
    }

    /// How many batches share a page.
    pub fn batches_a_page(&self) -> usize {
        lock(&self.pace).batches_a_page()
    }

    fn limits_of(&self, pace: &mut BatchController, rows_max: usize) -> PageLimits {
        pace.follow(self.progress.throttle.profile());
        PageLimits {
            rows: pace.rows().min(rows_max),
            bytes: pace.page_bytes(),
            value_bytes_max: self.value_bytes_max,
            stands_back: pace.stands_back(),
        }
    }

    /// Something timed out: less at a time.
    pub fn cut(&self) {
        lock(&self.pace).cut();
        lock(&self.reading_pace).cut();
    }

    /// The error that a stopped rewriter left behind.
    pub fn refused(&self) -> RotationError {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        RotationError::refusal(refusal, &self.columns)
    }

    /// Rows of a physical table were rewritten.
    pub fn wrote(&self, relation: &str, rows: u64) {
        if rows > 0 {
            self.progress.throttle.wrote(rows);
            self.wear.add(relation, rows);
        }
    }

    /// Adds to what was waited for others.
    pub fn waited(&self, wait: std::time::Duration) {
        let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Progress::add(&self.progress.waited_ms, milliseconds);
    }

    /// Learns from a page that was read and looked at, and rests as the profile says.
    pub(super) async fn finish_reading(&self, sample: Sample) {
        let rest = {
            let mut pace = lock(&self.reading_pace);
            pace.record(sample);
            pace.rest(sample.took)
        };
        self.rest(&self.reading_pace, rest).await;
    }

    /// Learns from a batch and rests as the profile says, by how long it kept the database `busy`.
    pub(super) async fn finish(&self, sample: Sample, busy: Duration) {
        let rest = {
            let mut pace = lock(&self.pace);
            pace.record(sample);
            self.progress
                .batch_rows
                .store(pace.rows() as u64, std::sync::atomic::Ordering::Relaxed);
            pace.rest(busy)
        };
        self.rest(&self.pace, rest).await;
    }

    async fn rest(&self, pace: &Mutex<BatchController>, rest: Duration) {
        if !rest.is_zero() {
            let begun = Instant::now();
            self.stop.sleep(rest).await;
            lock(pace).rested(rest, begun.elapsed());
        }
    }
}

fn lock(pace: &Mutex<BatchController>) -> MutexGuard<'_, BatchController> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}
