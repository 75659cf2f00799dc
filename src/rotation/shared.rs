//! What all workers of a pass share: pace, progress, and what they have to say to whoever runs it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::error::RotationError;
use super::isolate::Withheld;
use super::late::{LateLog, LeftBehind};
use super::pace::{BatchController, Sample};
use super::progress::{Progress, Stop};
use super::rewriter::RefusalSlot;
use crate::store::PageLimits;

/// What all workers of a pass share.
#[derive(Clone)]
pub struct Shared {
    /// Batch sizes, learnt together.
    pub pace: Arc<Mutex<BatchController>>,
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
}

impl Shared {
    /// How much the next page may hold.
    pub fn limits(&self) -> PageLimits {
        let throttle = &self.progress.throttle;
        let mut pace = self.pace();
        pace.follow(throttle.profile());
        PageLimits {
            rows: pace.rows().min(throttle.batch_rows_max()),
            bytes: pace.page_bytes(),
            value_bytes_max: self.value_bytes_max,
        }
    }

    /// The batch sizes.
    pub fn pace(&self) -> std::sync::MutexGuard<'_, BatchController> {
        self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The error that a stopped rewriter left behind.
    pub fn refused(&self) -> RotationError {
        let refusal = self.refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        RotationError::refusal(refusal, &self.columns)
    }

    /// Adds to what was waited for others.
    pub fn waited(&self, wait: std::time::Duration) {
        let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Progress::add(&self.progress.waited_ms, milliseconds);
    }

    /// Rests after a page that was read and looked at, as the profile says.
    pub async fn rest_of_reader(&self, busy: std::time::Duration) {
        let rest = self.pace().rest_of_reader(busy);
        if !rest.is_zero() {
            self.stop.sleep(rest).await;
        }
    }

    /// Learns from a batch and rests as the profile says.
    pub(super) async fn finish(&self, sample: Sample, busy: Duration) {
        let rest = {
            let mut pace = self.pace();
            pace.record(sample);
            self.progress
                .batch_rows
                .store(pace.rows() as u64, std::sync::atomic::Ordering::Relaxed);
            pace.rest(busy)
        };
        self.stop.sleep(rest).await;
    }
}
