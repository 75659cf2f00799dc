//! The part in which values are moved: the rotation under faults, started again whenever it was killed.

use std::time::{Duration, Instant};

use super::{Scene, Script};
use crate::drill::DrillError;
use crate::drill::nemesis::Demand;
use crate::drill::operator::{Ended, Position, Watch};
use crate::drill::report::{Phase, seconds};
use crate::drill::verdict::Finding;
use crate::key::KeyId;

impl Script<'_> {
    /// Runs the rotation under faults. Whenever it is killed it is started again: the same command.
    pub(super) fn re_encrypt(&mut self, scene: &mut Scene<'_, '_>, from: KeyId, to: KeyId) -> Result<Ended, DrillError> {
        let mut watch = Watch::new(scene.stage)?;
        // Tables of another version, say: then nothing could be watched.
        watch.position()?;
        let rows = scene.stage.place().open(&scene.stage.role("count"))?.count()?;
        let writes = || scene.checking.checker().tally.writes;
        let writes_before = writes();
        let begun = Instant::now();
        let mut killed: Vec<Position> = Vec::new();
        let mut run = scene.operator.rotate(from, to)?;
        while !run.is_over()? {
            self.cancel.sleep(LOOK_AT_ROTATION_EVERY)?;
            scene.fleet.check()?;
            if begun.elapsed() >= ROTATION_PATIENCE || self.is_out_of_time() {
                break;
            }
            let Some(position) = watch.position()? else { continue };
            match scene.nemesis.act(position.rows, rows, &run, &mut scene.fleet)? {
                Demand::GoOn => {}
                Demand::KillRotation => {
                    (self.say)("kill -9 of the rotation; starting it again");
                    if !run.kill()? {
                        self.missed("kill -9 of the rotation");
                    }
                    // It may have committed once more before the signal came.
                    let at = watch.position()?.unwrap_or(position);
                    scene
                        .nemesis
                        .note("kill -9 of the rotation", format!("killed after {} rows", at.rows));
                    killed.push(at);
                    run = scene.operator.rotate(from, to)?;
                }
            }
        }
        let left = self.time_left().min(ROTATION_PATIENCE.saturating_sub(begun.elapsed()));
        let ended = run.wait(left, self.cancel)?;
        for missed in scene.nemesis.end(&mut scene.fleet)? {
            if ended.is_verified() {
                self.missed(&missed);
            }
        }
        let now = watch.position()?;
        let writes = writes() - writes_before;
        for at in killed {
            self.resumption(rows, writes, &at, now.as_ref(), scene);
        }
        Ok(ended)
    }

    fn missed(&mut self, what: &str) {
        self.findings.push(Finding::new(
            "fault-missed",
            format!("the rotation ended before {what}: that it survives that is not proven; rehearse with more --rows"),
        ));
    }

    /// Notes how the rotation went on from where it was killed; going back further than a batch is a finding.
    fn resumption(&mut self, rows: u64, writes: u64, at: &Position, now: Option<&Position>, scene: &mut Scene<'_, '_>) {
        let continued = now.filter(|now| now.plan == at.plan && now.generation > at.generation);
        let Some(now) = continued else {
            self.findings.push(Finding::new(
                "not-resumed",
                format!(
                    "after kill -9 at {} rows the same command did not continue the same rotation",
                    at.rows
                ),
            ));
            return;
        };
        // Ranges may reach past the largest id of the time: what was inserted since may be counted in them.
        let again = now.rows.saturating_sub(rows + writes);
        let batches = BATCH_ROWS_MAX
            * if scene.stage.place().is_postgres() {
                WORKERS_POSTGRES
            } else {
                1
            };
        if again > batches {
            self.findings.push(Finding::new(
                "not-resumed",
                format!(
                    "after kill -9 at {} rows the rotation worked through {again} rows again, more than a batch of each worker",
                    at.rows
                ),
            ));
        }
        let more = now.rows.saturating_sub(at.rows);
        let outcome = format!("run again, it went on from there and worked through {more} more");
        scene.nemesis.append_outcome("kill -9 of the rotation", &outcome);
    }

    /// The rotation's process re-encrypts, sweeps and verifies; it says itself how long the latter two took.
    pub(super) fn split_last_phase(&mut self, ended: &Ended) {
        let Some(mut whole) = self.phases.pop() else { return };
        let (sweep, verify) = (ended.seconds("sweep"), ended.seconds("verify"));
        whole.seconds = (whole.seconds - sweep - verify).max(0.0);
        let mut at_seconds = whole.at_seconds + whole.seconds;
        self.phases.push(whole);
        for (name, time) in [("sweep", sweep), ("verify", verify)] {
            let time = seconds(Duration::from_secs_f64(time));
            self.phases.push(Phase {
                name,
                at_seconds,
                seconds: time,
            });
            at_seconds += time;
        }
    }
}

/// A rotation of a million rows under traffic takes less.
const ROTATION_PATIENCE: Duration = Duration::from_secs(600);
/// Between two batches of the gentle profile.
const LOOK_AT_ROTATION_EVERY: Duration = Duration::from_millis(10);
/// The largest batch of the gentle profile: what a killed run may have to do again, for each worker.
const BATCH_ROWS_MAX: u64 = 500;
const WORKERS_POSTGRES: u64 = 4;
