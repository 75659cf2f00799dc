//! Transactions of the application that were under way when the run began, every writer having switched to the new key. What they have
//! sealed with the old one becomes visible when they commit, which may be behind the back of every range, sweep and verification.

use std::time::{Duration, Instant};

use super::super::RotationError;
use super::super::throttle::Reason;
use super::Run;
use crate::store::OpenWriter;

impl Run<'_> {
    /// Waits for those that are under way now, so that the ranges meet what they write. Returns those that take longer.
    pub(super) async fn outlast_writers(&self) -> Result<Vec<OpenWriter>, RotationError> {
        let open = self
            .patiently("re-encrypt", || self.store.writers(&self.prepared.survey))
            .await?;
        self.outlast("re-encrypt", open, FIRST_PATIENCE.min(self.prepared.options.outlast_max))
            .await
    }

    /// Waits for the end of those that were left, so that the sweeps meet what they wrote. If one does not end, nor does the run.
    pub(super) async fn outlast_the_last(&self, open: Vec<OpenWriter>) -> Result<(), RotationError> {
        let left = self.outlast("sweep", open, self.prepared.options.outlast_max).await?;
        if left.is_empty() {
            return Ok(());
        }
        Err(RotationError::Ended(told(&left)))
    }

    async fn outlast(
        &self,
        step: &'static str,
        mut open: Vec<OpenWriter>,
        patience: Duration,
    ) -> Result<Vec<OpenWriter>, RotationError> {
        let (begun, mut pause) = (Instant::now(), LOOK_FIRST);
        let waiting = self.workshop.shared().progress.throttle.hold(Reason::OpenTransactions);
        while !open.is_empty() && begun.elapsed() < patience {
            if self.workshop.shared().stop.requested() {
                return Err(RotationError::Stopped);
            }
            waiting.why(told(&open));
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LOOK_LAST);
            let now = self.patiently(step, || self.store.writers(&self.prepared.survey)).await?;
            open.retain(|writer| now.iter().any(|still| still.id == writer.id));
        }
        Ok(open)
    }
}

fn told(open: &[OpenWriter]) -> String {
    let whose: Vec<&str> = open.iter().map(|writer| writer.whose.as_str()).collect();
    format!(
        "a transaction that may have written values under the old key has been open since before the ranges were worked through: {}",
        whose.join("; ")
    )
}

/// An application's transactions take milliseconds. Whoever takes longer does not keep the ranges waiting.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_LAST: Duration = Duration::from_millis(500);
