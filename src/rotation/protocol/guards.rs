//! The database guards of a keyset's datasets.
//!
//! They go up when every live instance seals with the target, all of them before the first value is moved; they are asked for their
//! proof when every dataset was verified; and they go before the rotation ends, and before any other key is promoted, lest writers
//! that do as they are told are refused. Whose a guard is, is told by the keys that it refuses: what a run that died has left is
//! found again, whichever way the rotation goes on.

use std::sync::Arc;

use super::super::Guarding;
use super::super::guard::{self, Guard, GuardReport, Proof};
use super::super::plan::Prepared;
use super::super::preflight;
use super::super::progress::Stop;
use super::{Managed, ManagedDataset, ProtocolError, Watch, dataset};
use crate::key::{KeyId, Keyset};
use crate::store::survey::Survey;

/// The guards of a rotation's datasets, in their order.
pub(super) struct Guards<'m> {
    managed: &'m Managed,
    stop: &'m Arc<Stop>,
    watch: &'m dyn Watch,
    up: Vec<Option<Guard>>,
}

impl<'m> Guards<'m> {
    /// None is up as far as this run knows.
    pub(super) fn new(managed: &'m Managed, stop: &'m Arc<Stop>, watch: &'m dyn Watch) -> Self {
        Self {
            managed,
            stop,
            watch,
            up: Vec::new(),
        }
    }

    /// Puts them up, if they are wanted or an earlier run of this rotation has left one. Those that the keyset's other rotations have
    /// left go.
    pub(super) async fn put_up(&mut self, keyset: &Keyset, target: KeyId) -> Result<(), ProtocolError> {
        let mut prepared = Vec::new();
        for dataset in &self.managed.datasets {
            prepared.push(dataset::prepare(self.managed, dataset, keyset, target).await?);
        }
        let wanted = self.managed.options.guard == Guarding::Wanted || prepared.iter().any(guard::stands);
        self.up.clear();
        for (dataset, prepared) in self.managed.datasets.iter().zip(&prepared) {
            let own = guard::own_plan(prepared);
            self.take_from(dataset, prepared, keyset, |plan| plan != own).await?;
            if !wanted {
                continue;
            }
            let failed = ProtocolError::dataset(&dataset.name);
            let store = &self.managed.places[dataset.place].store;
            let guard = Guard::of(store, prepared, self.stop)
                .map_err(|finding| failed(super::super::RotationError::Refused(vec![finding])))?;
            if let Some(guard) = &guard {
                guard.put_up().await.map_err(&failed)?;
                self.watch.say(&format!(
                    "dataset {}: the database refuses new values under the old keys",
                    dataset.name
                ));
            }
            self.up.push(guard);
        }
        Ok(())
    }

    /// Asks for the proof of each that is up.
    pub(super) async fn prove(&self) -> Result<Vec<Option<Proof>>, ProtocolError> {
        let mut proofs = Vec::new();
        for (dataset, guard) in self.managed.datasets.iter().zip(&self.up) {
            proofs.push(match guard {
                Some(guard) => Some(guard.prove().await.map_err(ProtocolError::dataset(&dataset.name))?),
                None => None,
            });
        }
        Ok(proofs)
    }

    /// Takes away every guard that a rotation of this keyset has put up, whoever ran it. Gives for each dataset the error that says that
    /// somebody holds its table for too long, if so.
    pub(super) async fn take_away(&self, keyset: &Keyset, target: KeyId) -> Result<Vec<Option<ProtocolError>>, ProtocolError> {
        let mut left = Vec::new();
        for dataset in &self.managed.datasets {
            let prepared = dataset::prepare(self.managed, dataset, keyset, target).await?;
            left.push(self.take_from(dataset, &prepared, keyset, |_| true).await?);
        }
        Ok(left)
    }

    async fn take_from(
        &self,
        dataset: &ManagedDataset,
        prepared: &Prepared,
        keyset: &Keyset,
        goes: impl Fn(&str) -> bool,
    ) -> Result<Option<ProtocolError>, ProtocolError> {
        let (store, survey) = (&self.managed.places[dataset.place].store, &prepared.survey);
        let failed = ProtocolError::dataset(&dataset.name);
        let mut left = None;
        for plan in of_keyset(survey, keyset).filter(|plan| goes(plan)) {
            match guard::take_away(&**store, self.stop, survey.table_id, plan).await {
                Ok(()) => {}
                Err(error) if guard::is_locked_out(&error) => left = Some(failed(error)),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(left)
    }
}

/// What is reported of a dataset's guard.
pub(super) fn report(proof: Option<Proof>) -> Option<GuardReport> {
    proof.map(|proof| GuardReport {
        proved: proof == Proof::Given,
        removed: false,
    })
}

/// Findings about guards of this keyset's rotations, which stand in the way of none of them.
pub(super) fn accepted(survey: &Survey, keyset: &Keyset) -> Vec<String> {
    of_keyset(survey, keyset).map(preflight::guard_name).collect()
}

/// The rotations of this keyset whose guards stand on a table: those that refuse its keys and no others.
fn of_keyset<'s>(survey: &'s Survey, keyset: &Keyset) -> impl Iterator<Item = &'s str> {
    let known: Vec<String> = keyset.keys().iter().map(|key| key.id().to_string()).collect();
    guard::standing(survey)
        .filter(move |(_, refuses)| !refuses.is_empty() && refuses.iter().all(|key| known.contains(key)))
        .map(|(plan, _)| plan)
}
