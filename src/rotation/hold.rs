//! Holding an operator's lock for as long as a run takes.

use std::time::Duration;

use super::retry::{ANSWERS_AN_ATTEMPT, Patience, Remedy, answered};
use crate::store::{LOCK_ASKED_EVERY, OperatorLock, Store, StoreError};

/// Looks after the lock, and takes it again when its connection dies. Returns when it is lost for good: somebody was faster, or the
/// database stays away. Rows are guarded by their fence meanwhile. Somebody may have had the lock in between and be gone:
/// `still_ours` says whether what the run works on is its own nevertheless.
pub(super) async fn hold<F>(
    store: &dyn Store,
    mut lock: Box<dyn OperatorLock>,
    away_max: Duration,
    still_ours: impl Fn() -> F,
) -> StoreError
where
    F: Future<Output = Result<(), StoreError>>,
{
    let mut patience = Patience::new(away_max);
    loop {
        tokio::time::sleep(LOCK_ASKED_EVERY).await;
        let Err(mut error) = answered(store, 1, lock.still_held()).await else {
            continue;
        };
        loop {
            let Remedy::Reconnect { wait } = patience.after(&error) else {
                return error;
            };
            tokio::time::sleep(wait).await;
            let retaken = async {
                lock.retake().await?;
                still_ours().await
            };
            match answered(store, ANSWERS_AN_ATTEMPT, retaken).await {
                Ok(()) => break,
                Err(refused) => error = refused,
            }
        }
        patience.reset();
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    struct Cut;

    #[async_trait]
    impl OperatorLock for Cut {
        async fn still_held(&mut self) -> Result<(), StoreError> {
            Err(StoreError::Disconnected(String::new()))
        }

        async fn retake(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_lock_that_was_taken_again_is_of_no_use_when_the_work_was_taken_over() -> Result<(), StoreError> {
        let store = crate::store::open("postgres://nobody@127.0.0.1:1/nothing", "reseal test")?;
        let lost = hold(&*store, Box::new(Cut), Duration::from_secs(60), async || {
            Err(StoreError::Superseded)
        })
        .await;
        assert!(matches!(lost, StoreError::Superseded), "{lost:?}");
        Ok(())
    }
}
