//! Holding an operator's lock for as long as a run takes.

use std::time::Duration;

use super::retry::{ANSWERS_AN_ATTEMPT, Patience, Remedy, answered};
use crate::store::{OperatorLock, Store, StoreError};

/// Looks after the lock, and takes it again when its connection dies. Returns when it is lost for good: somebody was faster, or the
/// database stays away. Rows are guarded by their fence meanwhile.
pub(super) async fn hold(store: &dyn Store, mut lock: Box<dyn OperatorLock>, away_max: Duration) -> StoreError {
    let mut patience = Patience::new(away_max);
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let Err(mut error) = answered(store, 1, lock.still_held()).await else {
            continue;
        };
        loop {
            let Remedy::Reconnect { wait } = patience.after(&error) else {
                return error;
            };
            tokio::time::sleep(wait).await;
            match answered(store, ANSWERS_AN_ATTEMPT, lock.retake()).await {
                Ok(()) => break,
                Err(refused) => error = refused,
            }
        }
        patience.reset();
    }
}

const CHECK_EVERY: Duration = Duration::from_secs(3);
