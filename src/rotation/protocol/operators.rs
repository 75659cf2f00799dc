//! One operator a keyset: the locks in its databases, held as long as the rotation runs.

use futures_util::future::select_all;

use super::super::hold::hold;
use super::super::retry::{Before, patiently};
use super::{Managed, Place, ProtocolError};
use crate::store::ledger::rotation::RotationRecord;
use crate::store::{OperatorLock, StoreError};

/// The locks of one operator.
pub(super) struct Operators<'m> {
    managed: &'m Managed,
    locks: Vec<(&'m Place, Box<dyn OperatorLock>)>,
}

impl<'m> Operators<'m> {
    /// Takes the lock in every database, or says who holds it, and which rotation that one runs.
    pub(super) async fn take(
        managed: &'m Managed,
        take_over: bool,
        open: Option<&RotationRecord>,
    ) -> Result<Self, ProtocolError> {
        let take_over = take_over || managed.options.take_over;
        let mut locks = Vec::new();
        for place in &managed.places {
            let keyset = managed.keyset.as_str();
            let lock = patiently(&*place.store, Before::Answered, || {
                place.store.lock_keyset(keyset, &managed.options.owner, take_over)
            })
            .await
            .map_err(|error| match error {
                StoreError::Held { holder } => ProtocolError::Held {
                    holder,
                    rotation: open.map(|record| record.id.clone()),
                },
                other => ProtocolError::store("lock", other),
            })?;
            locks.push((place, lock));
        }
        Ok(Self { managed, locks })
    }

    /// Holds them. Returns when one is lost for good: somebody else has it, or its database stays away.
    pub(super) async fn keep(self) -> ProtocolError {
        let managed = self.managed;
        // Whoever had the lock meanwhile has claimed the record, which says so at its next change.
        let keeping = self.locks.into_iter().map(|(place, lock)| {
            Box::pin(hold(&*place.store, lock, managed.options.away_max, || {
                std::future::ready(Ok(()))
            }))
        });
        let (lost, _, _) = select_all(keeping).await;
        ProtocolError::store("lock", lost)
    }
}
