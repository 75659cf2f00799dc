//! The application's deployment: whenever the operator's keyring has changed, every instance gets a copy of it, one after another.
//!
//! It knows nothing of the rotation, and the rotation nothing of it: what instances have, they say themselves.

use std::fs;
use std::time::{Duration, Instant};

use super::{STARTED_WITHIN, Scene, Script};
use crate::drill::DrillError;
use crate::drill::clock::now;
use crate::drill::faults::FaultKind;
use crate::drill::instance::Work;
use crate::drill::operator::Run;
use crate::drill::report::seconds;
use crate::drill::verdict::Finding;
use crate::drill::watch::Position;
use crate::rotation::protocol::Phase;

/// What was deployed.
pub(super) struct Rollout {
    /// The keyring that every instance was given last.
    handed_out: Vec<u8>,
    /// How often there was another one.
    times: u32,
    /// Since when the laggard is the only one without it.
    lagging_since: Option<Instant>,
}

impl Rollout {
    /// The instances were started with the keyring as it is.
    pub(super) fn new(scene: &Scene<'_, '_>) -> Result<Self, DrillError> {
        Ok(Self {
            handed_out: fs::read(scene.stage.keyring_file()).map_err(DrillError::Stage)?,
            times: 0,
            lagging_since: None,
        })
    }
}

impl Script<'_> {
    /// An instance that is left out of every deployment.
    pub(super) fn add_laggard(&mut self, scene: &mut Scene<'_, '_>, revision: u64) -> Result<(), DrillError> {
        if self.settings.faults.contains(FaultKind::Lag) {
            scene.fleet.add(LAGGARD, Work::Read, true)?;
            scene.fleet.wait_for(revision, STARTED_WITHIN, self.cancel)?;
        }
        Ok(())
    }

    /// Deploys the keyring if it is another one than before: the first time by restarting every instance, later by its file alone.
    pub(super) fn roll_out(&mut self, scene: &mut Scene<'_, '_>, rollout: &mut Rollout) -> Result<(), DrillError> {
        let keyring = fs::read(scene.stage.keyring_file()).map_err(DrillError::Stage)?;
        if keyring == rollout.handed_out {
            return Ok(());
        }
        rollout.times += 1;
        if rollout.times == 2 && self.settings.compromised {
            // The new key is primary. Sessions end once every instance says so, which none can yet.
            scene.logins.may_end(now());
        }
        if rollout.times == 2 && self.settings.faults.contains(FaultKind::Replace) {
            scene
                .nemesis
                .replace_keyrings(&scene.fleet, (&rollout.handed_out, &keyring), self.cancel)?;
        }
        scene.fleet.deploy(rollout.times == 1, self.cancel)?;
        rollout.handed_out = keyring;
        if rollout.times == 1 && scene.fleet.has(LAGGARD) {
            rollout.lagging_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Ends the laggard once the gate has been seen to wait for it, by name; a gate that did not is a finding.
    pub(super) fn judge_laggard(
        &mut self,
        scene: &mut Scene<'_, '_>,
        rollout: &mut Rollout,
        run: &Run,
        position: &Position,
    ) -> Result<(), DrillError> {
        let Some(since) = rollout.lagging_since else {
            return Ok(());
        };
        if position.phase != Phase::Introduce {
            self.findings.push(Finding::new(
                "gate-opened",
                format!("the gate before the promotion opened although {LAGGARD} had not loaded the new key"),
            ));
        } else if since.elapsed() < LAG {
            return Ok(());
        } else {
            let line = run.gate_line()?.filter(|line| line.contains(&format!("{LAGGARD}/")));
            match line {
                Some(_) => {
                    let waited = seconds(since.elapsed());
                    let outcome = format!("the gate named it and stayed shut; it was ended after {waited:.1} s");
                    scene.nemesis.note("an instance that never gets the new key", outcome);
                }
                // Others may not have reported yet on a slow machine, and the line that names it alone is still to come.
                None if since.elapsed() < NAMED_WITHIN => return Ok(()),
                None => self.findings.push(Finding::new(
                    "laggard-not-named",
                    format!("the gate before the promotion stayed shut and did not say that it waited for {LAGGARD}"),
                )),
            }
        }
        rollout.lagging_since = None;
        scene.fleet.remove(LAGGARD)
    }
}

const LAGGARD: &str = "laggard";
/// A gate that stays shut this long does not open.
const LAG: Duration = Duration::from_millis(2_000);
/// A gate says again every ten seconds for whom it waits.
const NAMED_WITHIN: Duration = Duration::from_secs(15);
