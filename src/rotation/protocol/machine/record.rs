//! What a step of the rotation writes: the keyset, under the keyring's lock, and the record, while it is still ours. And the gate that it
//! passes before.

use jiff::Timestamp;

use super::Machine;
use crate::key::{Keyset, KeysetError, Previous};
use crate::rotation::protocol::ProtocolError;
use crate::rotation::protocol::decide::{self, Mode};
use crate::rotation::protocol::gate::{self, GateKind, Passed};
use crate::rotation::protocol::phase::Phase;
use crate::store::ledger::rotation::Change;

impl Machine<'_> {
    pub(super) async fn gate(&mut self, kind: GateKind) -> Result<Passed, ProtocolError> {
        let needed = self.keyset()?.revision();
        let mut rules = self.managed.gates.clone();
        if self.mode == Mode::Scheduled {
            rules.evict_after = None;
        }
        let asked = (kind, needed, self.target);
        gate::wait(asked, &rules, &mut self.evicted, &mut self.ledgers, self.stop, self.watch).await
    }

    /// Changes the keyset under the keyring's lock, if the rotation is still ours.
    pub(super) async fn edit<T>(
        &mut self,
        change: impl FnOnce(&mut Keyset, Timestamp) -> Result<T, KeysetError>,
    ) -> Result<T, ProtocolError> {
        let mut edit = self.managed.edit_keyring(self.record.keyring_generation)?;
        // Asked while nobody else can change the keyring: whoever claims the rotation from now on changes it after us.
        self.record = self
            .ledgers
            .change(self.home, &self.record, Change::default(), self.stop)
            .await?;
        let done = change(self.managed.keyset_in(&mut edit)?, (self.managed.now)())?;
        self.keyring = edit.commit(Previous::Kept)?;
        let seen = Change {
            keyring_generation: Some(self.keyring.generation()),
            ..Change::default()
        };
        self.record = self.ledgers.change(self.home, &self.record, seen, self.stop).await?;
        Ok(done)
    }

    /// Enters a phase, once operators let it; entering it again is no news.
    pub(super) async fn enter(&mut self, phase: Phase) -> Result<(), ProtocolError> {
        self.progress.throttle.pass_reading(self.stop).await;
        if self.stop.requested() {
            return Err(ProtocolError::Stopped);
        }
        if self.recorded()? == phase {
            return Ok(());
        }
        self.step(phase, false).await
    }

    pub(super) async fn step(&mut self, phase: Phase, is_end: bool) -> Result<(), ProtocolError> {
        let phase = self.recorded()?.advance(phase)?;
        let change = Change {
            phase: Some(phase.as_str()),
            is_end,
            ..Change::default()
        };
        self.record = self.ledgers.change(self.home, &self.record, change, self.stop).await?;
        Ok(())
    }

    pub(super) fn recorded(&self) -> Result<Phase, ProtocolError> {
        Phase::parse(&self.record.phase).ok_or_else(|| decide::edited(&self.record))
    }

    pub(super) fn keyset(&self) -> Result<&Keyset, ProtocolError> {
        self.managed.keyset_of(&self.keyring)
    }
}
