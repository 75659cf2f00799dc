//! The rotation of a keyset: what is done in each phase, in the order in which it must become durable.
//!
//! The new key is on disk before anything else. Keys change under the keyring's lock, and only while the record is still ours: an
//! operator who was paused and lost the rotation changes no key any more.

mod end;
mod record;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::super::Guarding;
use super::super::guard::Proof;
use super::super::progress::{Progress, Stop};
use super::dataset::{self, DatasetReport};
use super::decide::{self, Aim, Direction, Mode, Policy};
use super::gate::{Gate, GateKind, Passed};
use super::guards::{self, Guards};
use super::ledgers::Ledgers;
use super::phase::Phase;
use super::replicas::Watches;
use super::retire::Need;
use super::sessions::{Ending, SessionsReport};
use super::{Managed, ProtocolError, Watch, Wish};
use crate::key::{Key, KeyId, KeyState, Keyring, OldPrimary};
use crate::store::ledger::instance::Instance;
use crate::store::ledger::rotation::RotationRecord;

/// What a rotation of a keyset did and found.
pub struct ManagedReport {
    /// Its record in the end.
    pub record: RotationRecord,
    /// The revision of the keyset in the end.
    pub revision: u64,
    /// The phases of this run, with their gates.
    pub phases: Vec<PhaseReport>,
    /// What was done in each dataset; empty when the new key was taken back before anybody sealed with it.
    pub datasets: Vec<DatasetReport>,
    /// The instances of the keyset in the end.
    pub instances: Vec<Instance>,
    /// The sessions that this rotation ends, and how that stands.
    pub sessions: Vec<SessionsReport>,
    /// Keys that were taken from readers.
    pub retired: Vec<KeyId>,
    /// Why they were not, each reason with its count.
    pub needs: Vec<Need>,
}

/// A phase of a run.
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// How long it took, its gate included.
    pub seconds: f64,
    /// Its gate, once it was passed.
    pub gate: Option<Gate>,
}

pub(super) struct Machine<'m> {
    managed: &'m Managed,
    wish: &'m Wish,
    ledgers: Ledgers<'m>,
    /// Until the end asks them.
    replicas: Option<Watches<'m>>,
    guards: Guards<'m>,
    progress: &'m Arc<Progress>,
    stop: &'m Arc<Stop>,
    watch: &'m dyn Watch,
    home: usize,
    record: RotationRecord,
    keyring: Keyring,
    target: KeyId,
    direction: Direction,
    mode: Mode,
    evicted: BTreeSet<String>,
    phases: Vec<PhaseReport>,
    datasets: Vec<DatasetReport>,
    retired: Vec<KeyId>,
}

impl<'m> Machine<'m> {
    /// A rotation whose target is durable and whose record is ours.
    pub(super) fn new(
        (managed, wish): (&'m Managed, &'m Wish),
        (ledgers, replicas): (Ledgers<'m>, Watches<'m>),
        (progress, stop, watch): (&'m Arc<Progress>, &'m Arc<Stop>, &'m dyn Watch),
        (home, record): (usize, RotationRecord),
        keyring: Keyring,
        aim: &Aim,
        target: KeyId,
    ) -> Self {
        Self {
            managed,
            wish,
            ledgers,
            replicas: Some(replicas),
            guards: Guards::new(managed, stop, watch),
            progress,
            stop,
            watch,
            home,
            record,
            keyring,
            target,
            direction: aim.direction,
            mode: aim.mode,
            evicted: BTreeSet::new(),
            phases: Vec::new(),
            datasets: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// Goes on from where the rotation stands, to its end or to what stands in its way.
    pub(super) async fn go(mut self) -> Result<ManagedReport, ProtocolError> {
        self.mark_leaked().await?;
        if let Some(new) = self.never_promoted()? {
            self.take_back(new).await?;
            return self.report(Vec::new()).await;
        }
        let recorded = self.recorded()?;
        let standing = Phase::standing(self.keyset()?, self.target, recorded).ok_or_else(|| decide::edited(&self.record))?;
        if standing == Phase::Introduce {
            self.introduce().await?;
        }
        if standing == Phase::Retire {
            self.let_go().await?;
            return self.report(Vec::new()).await;
        }
        let promoted = self.promoted().await?;
        for _ in 0..ROUNDS_MAX {
            self.re_encrypt().await?;
            if self.verify().await? && self.database_agrees().await? {
                break;
            }
        }
        self.conclude(&promoted).await
    }

    /// Readers get the target; when every live instance has it, it becomes primary.
    async fn introduce(&mut self) -> Result<(), ProtocolError> {
        let begun = Instant::now();
        self.enter(Phase::Introduce).await?;
        let target = self.target;
        let key = self.keyset()?.get(target);
        if !key.is_some_and(Key::is_offered) {
            self.edit(|keyset, now| keyset.stage(target, now)).await?;
        }
        let passed = self.gate(GateKind::Introduce).await?;
        self.done(Phase::Introduce, begun, Some(passed.gate().clone()));
        self.promote(&passed).await
    }

    /// Only who has passed the gate can promote.
    async fn promote(&mut self, _introduced: &Passed) -> Result<(), ProtocolError> {
        self.enter(Phase::Promote).await?;
        let target = self.target;
        // From now on writers seal with the target: no guard of an earlier rotation, or of this one before it turned, may refuse it.
        self.take_guards_away().await?;
        let old = match (self.direction, self.mode) {
            (Direction::Back, _) | (_, Mode::Scheduled) => OldPrimary::Retires,
            (_, Mode::Compromised(Policy::LockDown)) => OldPrimary::IsCompromised,
            (_, Mode::Compromised(Policy::AvailabilityFirst)) => OldPrimary::IsCompromisedButOffered,
        };
        self.edit(|keyset, now| keyset.promote(target, old, now)).await?;
        self.watch.say(&format!("key {target} is primary"));
        Ok(())
    }

    /// Waits until every live instance seals with the target.
    async fn promoted(&mut self) -> Result<Passed, ProtocolError> {
        let begun = Instant::now();
        self.enter(Phase::Promote).await?;
        let passed = self.gate(GateKind::Promote).await?;
        let (target, keyring) = (self.target, &self.keyring);
        self.guards.put_up(self.managed.keyset_of(keyring)?, target).await?;
        self.end_sessions().await?;
        self.done(Phase::Promote, begun, Some(passed.gate().clone()));
        Ok(passed)
    }

    /// The place where sessions end: whoever has not switched was waited for or evicted, and no value has been moved yet.
    async fn end_sessions(&mut self) -> Result<(), ProtocolError> {
        let rotation = (self.home, self.record.id.as_str());
        let (ending, ledgers) = (self.ending(), &mut self.ledgers);
        ending.run(rotation, ledgers, self.stop, self.watch).await
    }

    fn ending(&self) -> Ending<'m> {
        Ending {
            managed: self.managed,
            wish: self.wish,
            direction: self.direction,
            mode: self.mode,
        }
    }

    async fn re_encrypt(&mut self) -> Result<(), ProtocolError> {
        let begun = Instant::now();
        self.enter(Phase::ReEncrypt).await?;
        let managed = self.managed;
        self.datasets.clear();
        for dataset in &managed.datasets {
            let place = &managed.places[dataset.place];
            self.watch
                .say(&format!("dataset {} ({} in {})", dataset.name, dataset.table, place.name));
            let mut prepared = dataset::prepare(managed, dataset, self.keyset()?, self.target).await?;
            // Whoever takes the place of a rotation takes its tables from it, too.
            prepared.options.take_over |= self.wish.supersede;
            prepared.options.guard = Guarding::ByCaller;
            // What turns up late under a key that has leaked may be forged.
            prepared.options.compromised = matches!(self.mode, Mode::Compromised(_));
            let report = super::super::rotate(&place.store, &prepared, self.progress, self.stop)
                .await
                .map_err(ProtocolError::dataset(&dataset.name))?;
            self.datasets.push(DatasetReport {
                name: dataset.name.clone(),
                place: place.name.clone(),
                survey: Arc::clone(&prepared.survey),
                left_late_values: prepared.options.compromised || report.has_forged(),
                report,
            });
        }
        self.done(Phase::ReEncrypt, begun, None);
        Ok(())
    }

    /// Says whether nothing is left to be moved. Every dataset is read in whole after the last one was worked through: the last one's
    /// own verification was that already.
    async fn verify(&mut self) -> Result<bool, ProtocolError> {
        let begun = Instant::now();
        self.enter(Phase::Verify).await?;
        let managed = self.managed;
        let again = managed.datasets.len().saturating_sub(1);
        for (at, dataset) in managed.datasets.iter().enumerate().take(again) {
            let (_, mut found) = dataset::verify_one(managed, dataset, self.keyset()?, self.progress, self.stop).await?;
            let report = &mut self.datasets[at].report;
            // What was left as it is, is not waiting to be moved.
            found.census.withhold(&report.census.quarantined_values);
            report.verified = found.census.is_clean();
            report.census = found.census;
        }
        self.done(Phase::Verify, begun, None);
        Ok(self.datasets.iter().all(|dataset| dataset.report.census.due == 0))
    }

    /// Asks the guards for the databases' own proof, once every dataset is clean. Says whether there is nothing against it.
    async fn database_agrees(&mut self) -> Result<bool, ProtocolError> {
        if !self.datasets.iter().all(|dataset| dataset.report.verified) {
            return Ok(true);
        }
        let mut agrees = true;
        for (dataset, proof) in self.datasets.iter_mut().zip(self.guards.prove().await?) {
            let refuted = proof == Some(Proof::Refuted);
            dataset.report.guard = guards::report(proof);
            dataset.report.verified &= !refuted;
            agrees &= !refuted;
        }
        Ok(agrees)
    }

    /// All of them, or it is an error.
    async fn take_guards_away(&self) -> Result<(), ProtocolError> {
        let left = self.guards.take_away(self.keyset()?, self.target).await?;
        left.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    /// A rotation that became an emergency after its promotion: the key that leaked says so.
    async fn mark_leaked(&mut self) -> Result<(), ProtocolError> {
        let (Direction::Forward, Mode::Compromised(policy)) = (self.direction, self.mode) else {
            return Ok(());
        };
        let leaked = KeyId(self.record.from_key);
        let Some(key) = self.keyset()?.get(leaked) else {
            return Ok(());
        };
        let offers = policy == Policy::AvailabilityFirst;
        let is_to_be_marked = key.state() == KeyState::Retiring || (key.is_offered_though_compromised() && !offers);
        if is_to_be_marked {
            self.edit(|keyset, now| keyset.compromise(leaked, offers, now)).await?;
        }
        Ok(())
    }

    fn done(&mut self, phase: Phase, begun: Instant, gate: Option<Gate>) {
        self.phases.push(PhaseReport {
            phase,
            seconds: begun.elapsed().as_secs_f64(),
            gate,
        });
    }

    async fn report(mut self, needs: Vec<Need>) -> Result<ManagedReport, ProtocolError> {
        let instances = self.ledgers.instances(self.stop).await?;
        let rotation = (self.home, self.record.id.as_str());
        let sessions = self.ending().reports(rotation, &mut self.ledgers, self.stop).await?;
        Ok(ManagedReport {
            sessions,
            revision: self.keyset()?.revision(),
            record: self.record,
            phases: self.phases,
            datasets: self.datasets,
            instances,
            retired: self.retired,
            needs,
        })
    }
}

/// Values that turn up again after so many rounds are somebody's who keeps sealing with the old key.
const ROUNDS_MAX: u32 = 3;
