//! The operator's steps: introduce, promote, retire; and the gates between, which wait for every instance.

use std::fs;
use std::time::{Duration, Instant};

use super::{STARTED_WITHIN, Scene, Script};
use crate::drill::DrillError;
use crate::drill::clock::now;
use crate::drill::instance::Work;
use crate::drill::nemesis::FaultKind;
use crate::drill::operator::Ended;
use crate::drill::report::seconds;
use crate::drill::sabotage::Sabotage;
use crate::drill::stage::KEYSET;
use crate::drill::verdict::Finding;
use crate::key::{KeyId, KeyState, Keyset};

impl Script<'_> {
    /// Gives readers a new key, which nobody seals with yet, while the instances are rolled. Returns it and the keyset's revision.
    pub(super) fn introduce(&mut self, scene: &mut Scene<'_, '_>, first: u64) -> Result<Option<(KeyId, u64)>, DrillError> {
        let lag = self.settings.faults.contains(FaultKind::Lag);
        if lag {
            scene.fleet.add(LAGGARD, Work::Read, true)?;
            scene.fleet.wait_for(first, STARTED_WITHIN, self.cancel)?;
        }
        let ended = scene.operator.stage_key(self.cancel)?;
        if !self.is_done(&ended, "reseal keys generate") {
            return Ok(None);
        }
        let (new, revision) = scene.stage.keyset(|keyset| (newest(keyset), keyset.revision()))?;
        scene.fleet.deploy(true, self.cancel)?;
        if lag {
            let begun = now();
            let missing = scene.fleet.wait_for(revision, LAG, self.cancel)?;
            let waited = seconds(Duration::from_nanos(now() - begun));
            scene.fleet.remove(LAGGARD)?;
            if missing.iter().any(|name| name == LAGGARD) {
                let outcome = format!("the gate named it and stayed shut; it was ended after {waited:.1} s");
                scene.nemesis.note("an instance that never gets the new key", outcome);
            } else {
                self.findings.push(Finding::new(
                    "gate-opened",
                    format!("the gate before the promotion opened although {LAGGARD} had not loaded revision {revision}"),
                ));
            }
        }
        Ok(Some((new, revision)))
    }

    /// Makes the new key primary. Returns the keyset's revision.
    pub(super) fn promote(&mut self, scene: &mut Scene<'_, '_>, new: KeyId) -> Result<Option<u64>, DrillError> {
        let before = fs::read(scene.stage.keyring_file()).map_err(DrillError::Stage)?;
        let ended = scene.operator.promote(new, self.cancel)?;
        if !self.is_done(&ended, "reseal keys promote") {
            return Ok(None);
        }
        scene.fleet.deploy(false, self.cancel)?;
        if self.settings.faults.contains(FaultKind::Replace) {
            scene.nemesis.replace_keyrings(&scene.fleet, &before, self.cancel)?;
        }
        scene.stage.keyset(Keyset::revision).map(Some)
    }

    /// Takes the old key from readers. Returns the keyset's revision.
    pub(super) fn retire(&mut self, scene: &mut Scene<'_, '_>, old: KeyId) -> Result<Option<u64>, DrillError> {
        let ended = scene.operator.retire(old, self.cancel)?;
        if !self.is_done(&ended, "reseal keys retire") {
            return Ok(None);
        }
        scene.fleet.deploy(false, self.cancel)?;
        scene.stage.keyset(Keyset::revision).map(Some)
    }

    /// Whether a command of the operator succeeded; one that did not is a finding.
    pub(super) fn is_done(&mut self, ended: &Ended, command: &str) -> bool {
        if !ended.succeeded() {
            self.findings
                .push(Finding::new("command-failed", format!("{command} failed: {}", ended.why())));
        }
        ended.succeeded()
    }

    /// Waits for every instance. A gate that stays shut is a finding.
    pub(super) fn gate(&mut self, scene: &mut Scene<'_, '_>, revision: u64, consequence: &str) -> Result<bool, DrillError> {
        if self.settings.sabotage == Some(Sabotage::PromoteBeforeAcknowledgement) {
            return Ok(true);
        }
        let begun = Instant::now();
        let missing = scene.fleet.wait_for(revision, GATE_PATIENCE, self.cancel)?;
        if let Some(phase) = self.phases.last_mut() {
            phase.seconds = seconds(Duration::from_secs_f64(phase.seconds) + begun.elapsed());
        }
        if missing.is_empty() {
            return Ok(true);
        }
        self.findings.push(Finding::new(
            "not-acknowledged",
            format!(
                "{} did not load revision {revision} of keyset {KEYSET} within {} s: {consequence}",
                missing.join(", "),
                GATE_PATIENCE.as_secs()
            ),
        ));
        Ok(false)
    }
}

fn newest(keyset: &Keyset) -> KeyId {
    let staged = keyset.keys().iter().find(|key| key.state() == KeyState::Staged);
    staged.map_or(keyset.primary().id(), |key| key.id())
}

const LAGGARD: &str = "laggard";
/// Instances look at their file twenty times a second; one that takes this long does not follow it.
const GATE_PATIENCE: Duration = Duration::from_secs(5);
/// A gate that stays shut this long does not open.
const LAG: Duration = Duration::from_millis(1_500);
