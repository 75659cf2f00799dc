//! How the rotation of a keyset ends: the old keys leave the set that readers are given once nothing needs them, or the new one is
//! taken back.

use std::time::Instant;

use super::{Machine, ManagedReport};
use crate::key::{Key, KeyId, KeyState};
use crate::rotation::guard::GuardReport;
use crate::rotation::protocol::decide::Direction;
use crate::rotation::protocol::gate::{self, GateKind, Passed};
use crate::rotation::protocol::phase::Phase;
use crate::rotation::protocol::replicas::Replicas;
use crate::rotation::protocol::retire::{self, Need, RetirementProof};
use crate::rotation::protocol::{ProtocolError, undeclared};

impl Machine<'_> {
    /// Takes the old keys from readers if nothing needs them; otherwise says what does.
    pub(super) async fn conclude(mut self, promoted: &Passed) -> Result<ManagedReport, ProtocolError> {
        let is_clean = self.datasets.iter().all(|dataset| dataset.report.verified);
        if !self.wish.retire && is_clean {
            self.finish().await?;
            return self.report(Vec::new()).await;
        }
        let keys = retire::retirable(self.keyset()?);
        let behind = match self.replicas.take().filter(|_| is_clean) {
            Some(watches) => {
                Replicas::mark(watches, self.managed, self.stop)
                    .await?
                    .wait(self.managed, (self.progress, self.stop), self.watch)
                    .await?
            }
            None => None,
        };
        let surveys = self.datasets.iter().map(|dataset| (dataset.name.as_str(), &*dataset.survey));
        let undeclared = match self.wish.retire {
            true => undeclared::look(self.managed, self.keyset()?, &keys, surveys, self.stop)
                .await?
                .needs(),
            false => Vec::new(),
        };
        let asked = (GateKind::Promote, promoted.gate().needed, self.target);
        let now = gate::look(asked, &self.evicted, &mut self.ledgers, self.stop).await?;
        let censuses = self.datasets.iter().map(|dataset| &dataset.report.census);
        let refuted = self.datasets.iter().filter(|dataset| dataset.report.is_refuted()).count();
        let refuted = (refuted > 0).then_some(Need::Refuted {
            datasets: refuted as u64,
        });
        let beyond = refuted.into_iter().chain(behind).chain(undeclared).collect();
        match retire::prove(self.managed, keys, promoted, &now, censuses, beyond) {
            Ok(proof) => {
                self.retire(proof).await?;
                self.let_go().await?;
                self.report(Vec::new()).await
            }
            Err(needs) => self.report(needs).await,
        }
    }

    /// Irreversible for readers: takes what only the verification can give.
    async fn retire(&mut self, proof: RetirementProof) -> Result<(), ProtocolError> {
        self.enter(Phase::Retire).await?;
        let retired = self.edit(|keyset, now| proof.retire(keyset, now)).await?;
        for key in &retired {
            self.watch.say(&format!("key {key} is no longer given to readers"));
        }
        self.retired.extend(retired);
        Ok(())
    }

    /// Waits until every live instance has let go of what was retired; then the rotation is over.
    pub(super) async fn let_go(&mut self) -> Result<(), ProtocolError> {
        let begun = Instant::now();
        let passed = self.gate(GateKind::Retire).await?;
        self.done(Phase::Retire, begun, Some(passed.gate().clone()));
        self.finish().await
    }

    /// The guards go before the end: whoever dies in between ends the rotation, and them, by the same command.
    async fn finish(&mut self) -> Result<(), ProtocolError> {
        let left = self.guards.take_away(self.keyset()?, self.target).await?;
        for (dataset, left) in self.managed.datasets.iter().zip(&left) {
            if let Some(report) = self.datasets.iter_mut().find(|known| known.name == dataset.name) {
                report.report.guard = report.report.guard.map(|guard| GuardReport {
                    removed: left.is_none(),
                    ..guard
                });
            }
            if left.is_some() {
                self.watch.say(&format!(
                    "dataset {}: its guard could not be removed, because others hold the table; try again later: reseal guard remove",
                    dataset.name
                ));
            }
        }
        let end = match self.direction {
            Direction::Forward => Phase::Done,
            Direction::Back => Phase::RolledBack,
        };
        self.ledgers.forget_snapshots(self.home, &self.record.id, self.stop).await?;
        self.step(end, true).await
    }

    /// The new key of a rotation that is rolled back before anybody could have sealed with it.
    pub(super) fn never_promoted(&self) -> Result<Option<KeyId>, ProtocolError> {
        let new = KeyId(self.record.to_key);
        let key = self.keyset()?.get(new);
        let was_primary = |key: &Key| key.transitions().iter().any(|entry| entry.state == KeyState::Primary);
        let never = self.direction == Direction::Back && key.is_some_and(|key| !was_primary(key));
        Ok(never.then_some(new))
    }

    pub(super) async fn take_back(&mut self, new: KeyId) -> Result<(), ProtocolError> {
        if self.keyset()?.get(new).is_some_and(Key::is_offered) {
            self.edit(|keyset, now| keyset.retire(new, now)).await?;
            self.retired.push(new);
            self.watch.say(&format!("key {new} was taken back"));
        }
        self.let_go().await
    }
}
