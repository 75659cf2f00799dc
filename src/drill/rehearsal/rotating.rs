//! The rotation itself: the operator's one command, its phases watched, faults done to it, and the command given again whenever it was
//! killed.

use std::time::{Duration, Instant};

use super::rollout::Rollout;
use super::timeline::Timeline;
use super::{Scene, Script};
use crate::drill::DrillError;
use crate::drill::clock::now;
use crate::drill::faults::FaultKind;
use crate::drill::nemesis::Demand;
use crate::drill::operator::{Ended, Order, Run};
use crate::drill::sabotage::{BlindRewriter, Sabotage};
use crate::drill::verdict::Finding;
use crate::drill::watch::{Position, Watch};
use crate::key::KeyId;
use crate::rotation::profile::{Profile, Task};
use crate::rotation::protocol::Phase;

/// The rotation while it is under way.
struct Rotating<'s> {
    watch: &'s mut Watch,
    timeline: Timeline,
    rollout: Rollout,
    killed: Vec<Position>,
    /// The cut-offs of sessions that were on record when it was killed while it ended them.
    cut_offs: Option<Vec<i64>>,
    blind: Option<BlindRewriter>,
    /// Sabotage: the old key was taken from readers.
    is_retired: bool,
    /// Sabotage: somebody was logged out.
    is_lost: bool,
}

impl Script<'_> {
    /// Runs the rotation to its end, or to what stands in its way.
    pub(super) fn rotate(
        &mut self,
        scene: &mut Scene<'_, '_>,
        watch: &mut Watch,
        old: KeyId,
        instances: usize,
    ) -> Result<(), DrillError> {
        let rows = scene.stage.place().open(&scene.stage.role("count"))?.count()?;
        let writes = |scene: &Scene<'_, '_>| scene.checking.checker().tally.writes;
        let writes_before = writes(scene);
        let order = Order {
            instances,
            gate_timeout: GATE_PATIENCE,
            compromised: self.settings.compromised,
            profile: self.settings.profile,
            sabotage: self.settings.sabotage,
        };
        let mut rotating = Rotating {
            watch,
            timeline: Timeline::new(self.origin),
            rollout: Rollout::new(scene)?,
            killed: Vec::new(),
            cut_offs: None,
            blind: None,
            is_retired: false,
            is_lost: false,
        };
        let begun = Instant::now();
        let ended = loop {
            let mut run = scene.operator.rotate(&order)?;
            rotating.timeline.run_begins();
            if self.run_once(scene, &mut rotating, &mut run, rows, old, begun)? {
                rotating.timeline.run_ends(&[], now());
                continue;
            }
            let left = self.time_left().min(self.patience().saturating_sub(begun.elapsed()));
            let ended = run.wait(left, self.cancel)?;
            rotating.timeline.run_ends(&ended.phases(), now());
            break ended;
        };
        drop(rotating.blind.take());
        for missed in scene.nemesis.end(&mut scene.fleet)? {
            if ended.is_verified() {
                self.missed(&missed);
            }
        }
        let position = rotating.watch.position()?;
        let writes = writes(scene) - writes_before;
        for at in std::mem::take(&mut rotating.killed) {
            self.resumption(rows + writes, &at, position.as_ref(), scene);
        }
        self.judge_sessions(&ended, &rotating, position.as_ref(), scene);
        for name in ended.gone() {
            let (instance, _) = name.split_once('/').unwrap_or((&name, ""));
            let outcome = "its lease ended, and the rotation named it as gone";
            scene.nemesis.append_outcome(&format!("kill -9 of {instance}"), outcome);
        }
        self.judge_end(&ended);
        let moving = rotating.timeline.seconds_of("re-encrypt");
        let moved = position.map_or(0, |position| position.rows);
        self.rows_per_second = if moving > 0.0 { (moved as f64 / moving).round() } else { 0.0 };
        self.phases.extend(rotating.timeline.into_phases());
        Ok(())
    }

    /// Watches one run of the command until it ends or is killed. Says whether it was killed.
    fn run_once(
        &mut self,
        scene: &mut Scene<'_, '_>,
        rotating: &mut Rotating<'_>,
        run: &mut Run,
        rows: u64,
        old: KeyId,
        begun: Instant,
    ) -> Result<bool, DrillError> {
        let look_every = match (scene.stage.place().is_postgres(), self.settings.profile) {
            (true, Profile::Gentle) => look_gently_every(rows),
            _ => LOOK_EVERY,
        };
        while !run.is_over()? {
            self.cancel.sleep(look_every)?;
            scene.fleet.check()?;
            if begun.elapsed() >= self.patience() || self.is_out_of_time() {
                break;
            }
            self.roll_out(scene, &mut rotating.rollout)?;
            let Some(position) = rotating.watch.position()? else {
                continue;
            };
            self.new = Some(KeyId(position.to_key));
            if !position.phase.is_end() && rotating.timeline.sees(position.doing(), now()) {
                (self.say)(position.doing());
                scene.checking.checker().tally.rotation_enters(position.phase, now());
            }
            if position.is_cut_off() {
                scene.logins.cut_off(now());
            }
            if self.kill_while_sessions_end(scene, rotating, run, &position)? {
                return Ok(true);
            }
            self.judge_laggard(scene, &mut rotating.rollout, run, &position)?;
            self.break_on_purpose(scene, rotating, &position, old)?;
            if matches!(position.phase, Phase::ReEncrypt | Phase::Verify) {
                let demand = scene.nemesis.act(&position, rows, run, &mut scene.fleet)?;
                if matches!(demand, Demand::KillRotation) {
                    if !run.kill()? {
                        self.missed(KILL);
                        return Ok(false);
                    }
                    (self.say)("kill -9 of the rotation; the same command again");
                    // It may have committed once more before the signal came.
                    let at = rotating.watch.position()?.unwrap_or(position);
                    let doing = at.doing();
                    let outcome = format!("killed after {} rows, in phase {doing}", at.rows);
                    scene.nemesis.note(KILL, outcome);
                    rotating.killed.push(at);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// kill -9 of the rotation when it has taken the cut-off and ends sessions; once. Says whether it was killed.
    fn kill_while_sessions_end(
        &mut self,
        scene: &mut Scene<'_, '_>,
        rotating: &mut Rotating<'_>,
        run: &mut Run,
        position: &Position,
    ) -> Result<bool, DrillError> {
        let is_due = self.settings.faults.contains(FaultKind::Kill) && rotating.cut_offs.is_none();
        if !is_due || !position.is_ending_sessions() || !run.kill()? {
            return Ok(false);
        }
        (self.say)("kill -9 of the rotation while sessions end; the same command again");
        rotating.cut_offs = Some(position.cut_offs());
        scene
            .nemesis
            .note(KILL_ENDING, "killed when the cut-off was on record".to_owned());
        Ok(true)
    }

    /// Judges what the rotation says of the sessions that it was to end, and whether it kept their cut-off over its death.
    fn judge_sessions(
        &mut self,
        ended: &Ended,
        rotating: &Rotating<'_>,
        position: Option<&Position>,
        scene: &mut Scene<'_, '_>,
    ) {
        for name in ended.sessions_not_ended() {
            self.findings.push(Finding::new(
                "sessions-left",
                format!("the rotation does not say of sessions {name} that none of before is left"),
            ));
        }
        let Some(before) = &rotating.cut_offs else { return };
        if position.is_some_and(|position| position.cut_offs() == *before) {
            let outcome = "run again, it ended the sessions of that cut-off and no others";
            scene.nemesis.append_outcome(KILL_ENDING, outcome);
        } else {
            self.findings.push(Finding::new(
                "not-resumed",
                "after kill -9 while sessions ended the same command did not go on with their cut-off",
            ));
        }
    }

    /// What a test of the rehearsal wants broken.
    fn break_on_purpose(
        &mut self,
        scene: &mut Scene<'_, '_>,
        rotating: &mut Rotating<'_>,
        position: &Position,
        old: KeyId,
    ) -> Result<(), DrillError> {
        match self.settings.sabotage {
            Some(Sabotage::SwapWithoutComparison) if rotating.blind.is_none() && position.phase == Phase::ReEncrypt => {
                rotating.blind = Some(BlindRewriter::start(scene.stage.place())?);
            }
            Some(Sabotage::RetireBeforeRotate) if !rotating.is_retired && position.phase == Phase::Promote => {
                let primary = scene.stage.keyset(|keyset| keyset.primary().id())?;
                if primary != old {
                    scene.stage.retire_unasked(old)?;
                    rotating.is_retired = true;
                }
            }
            Some(Sabotage::SessionLost) if !rotating.is_lost && position.phase == Phase::ReEncrypt => {
                let role = scene.stage.role("accident");
                let lost = scene.logins.lose_one(scene.login_place, scene.stage.place(), &role);
                lost.map_err(DrillError::Logins)?;
                rotating.is_lost = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        ROTATION_PATIENCE + ROTATION_PATIENCE_A_ROW * self.settings.rows
    }

    fn judge_end(&mut self, ended: &Ended) {
        if let Some(gate) = ended.shut_gate() {
            self.findings.push(Finding::new("not-acknowledged", gate));
        } else if !ended.is_verified() {
            let code = ended
                .code
                .map_or_else(|| "no exit code".to_owned(), |code| format!("exit {code}"));
            self.findings.push(Finding::new(
                "rotation-failed",
                format!("the rotation did not prove its result ({code}): {}", ended.why()),
            ));
        }
    }

    fn missed(&mut self, what: &str) {
        self.findings.push(Finding::new(
            "fault-missed",
            format!("the rotation ended before {what}: that it survives that is not proven; rehearse with more --rows"),
        ));
    }

    /// Notes how the rotation went on from where it was killed; going back further than a batch is a finding. `rows` is how many there
    /// can have been.
    fn resumption(&mut self, rows: u64, at: &Position, now: Option<&Position>, scene: &mut Scene<'_, '_>) {
        let continued = now.filter(|now| now.rotation == at.rotation && now.plan == at.plan && now.generation > at.generation);
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
        let again = now.rows.saturating_sub(rows);
        // What a killed run may have to do again is a batch of each worker.
        let is_postgres = scene.stage.place().is_postgres();
        let batch = self.settings.profile.limits(Task::Rewrite, !is_postgres).rows_max as u64;
        if again > batch * if is_postgres { WORKERS_POSTGRES } else { 1 } {
            self.findings.push(Finding::new(
                "not-resumed",
                format!(
                    "after kill -9 at {} rows the rotation worked through {again} rows again, more than a batch of each worker",
                    at.rows
                ),
            ));
        }
        let outcome = if at.is_proving() {
            "run again, it proved everything anew".to_owned()
        } else {
            let more = now.rows.saturating_sub(at.rows);
            format!("run again, it went on from there and worked through {more} more")
        };
        scene.nemesis.append_outcome_at(
            KILL,
            &format!("killed after {} rows, in phase {}", at.rows, at.doing()),
            &outcome,
        );
    }
}

/// A look is some queries: more of them would burden a server as much as the gentle rotation that is to be measured. Forty come while
/// all rows are worked through at its fastest, between bounds.
fn look_gently_every(rows: u64) -> Duration {
    Duration::from_micros(rows.saturating_mul(12)).clamp(LOOK_GENTLY_MIN, LOOK_GENTLY_MAX)
}

const KILL: &str = "kill -9 of the rotation";
const KILL_ENDING: &str = "kill -9 of the rotation while it ended sessions";
/// How long a rotation may take, and how much longer for each row: under traffic it takes a tenth of it.
const ROTATION_PATIENCE: Duration = Duration::from_secs(600);
const ROTATION_PATIENCE_A_ROW: Duration = Duration::from_millis(10);
/// The customers may be worked through within a second.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOK_GENTLY_MIN: Duration = Duration::from_millis(50);
/// Whoever waits at a gate is not seen later than that.
const LOOK_GENTLY_MAX: Duration = Duration::from_millis(250);
/// Longer than a deployment, and than the lease of an instance that was killed.
const GATE_PATIENCE: Duration = Duration::from_secs(20);
const WORKERS_POSTGRES: u64 = 4;
