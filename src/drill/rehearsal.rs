//! The script: what happens after what, with the gates between.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inspect::{Inspection, inspect};
use super::latency::Window;
use super::load::{Load, Scene};
use super::model::Deviation;
use super::nemesis::{Fault, Killed, kill_after};
use super::report::{LatencyReport, Phase, Report, seconds};
use super::rotation::{Ended, Position, Rotation, Watch};
use super::sabotage::{BlindRewriter, Sabotage};
use super::stage::{KEYSET, Stage};
use super::tally::Tally;
use super::verdict::{Finding, Verdict, judge, lost_writes};
use super::{Cancel, DrillError, Settings};
use crate::key::KeyId;

/// Rehearses a rotation; `say` is told, for people, what is going on. Nothing is left behind unless the settings or the verdict say so.
pub fn run(settings: &Settings, cancel: &Cancel, say: &mut dyn FnMut(&str)) -> Result<Report, DrillError> {
    let begun = Instant::now();
    let mut stage = Stage::build(settings.now)?;
    let rows = i64::from(settings.rows);
    let scene = Arc::new(Scene::new(u64::from(settings.rows)));
    let mut script = Script {
        settings,
        cancel,
        say,
        begun,
        phases: Vec::new(),
        findings: Vec::new(),
        faults: Vec::new(),
        last_run: None,
    };

    let census = script.phase("prepare", |_| {
        stage.fill(rows, settings.seed, &scene.model, || scene.now())?;
        inspect(&stage, &scene.model, scene.now())
    })?;
    let old = primary(&stage)?;
    let load = Load::start(
        &stage,
        &scene,
        settings.readers,
        settings.writers,
        settings.seed,
        settings.sabotage,
    )?;
    let instances = load.instances();
    script.phase("before", |script| script.cancel.sleep(settings.duration / 2))?;
    load.enter(Window::During);
    let new = script.rotation(&stage, &load, old)?;
    load.enter(Window::After);
    script.phase("after", |script| script.cancel.sleep(settings.duration / 2))?;
    let (tally, end) = script.phase("check", |_| {
        let tally = load.stop()?;
        let end = inspect(&stage, &scene.model, scene.now())?;
        Ok((tally, end))
    })?;

    let mut report = script.report(&tally, &census, &end, old, new, instances);
    if report.verdict == Verdict::Bad || settings.keep {
        stage.keep();
        report.evidence = Some(stage.folder().to_owned());
        fs::write(stage.folder().join("incidents.txt"), report.incidents.join("\n")).map_err(DrillError::Stage)?;
    }
    Ok(report)
}

struct Script<'a> {
    settings: &'a Settings,
    cancel: &'a Cancel,
    say: &'a mut dyn FnMut(&str),
    begun: Instant,
    phases: Vec<Phase>,
    findings: Vec<Finding>,
    faults: Vec<Fault>,
    last_run: Option<Ended>,
}

impl Script<'_> {
    fn phase<T>(&mut self, name: &'static str, act: impl FnOnce(&mut Self) -> Result<T, DrillError>) -> Result<T, DrillError> {
        self.cancel.check()?;
        (self.say)(name);
        let begun = Instant::now();
        let done = act(self);
        self.phases.push(Phase {
            name,
            seconds: seconds(begun.elapsed()),
        });
        done
    }

    /// Introduce, promote, re-encrypt, verify, retire; ends early, with a finding, where a gate stays shut. Returns the new key.
    fn rotation(&mut self, stage: &Stage, load: &Load, old: KeyId) -> Result<Option<KeyId>, DrillError> {
        let sabotage = self.settings.sabotage;
        let (new, revision) = self.phase("introduce", |_| stage.introduce())?;
        if !self.gate(load, revision, "the new key may not be promoted") {
            return Ok(None);
        }
        if sabotage != Some(Sabotage::RotateBeforePromote) {
            let revision = self.phase("promote", |_| stage.promote(new))?;
            if !self.gate(load, revision, "no value may be moved yet") {
                return Ok(Some(new));
            }
        }
        if sabotage == Some(Sabotage::RetireBeforeRotate) {
            stage.retire(old)?;
        }
        let blind = match sabotage {
            Some(Sabotage::SwapWithoutComparison) => Some(BlindRewriter::start(stage.database())?),
            _ => None,
        };
        let ended = self.phase("re-encrypt", |script| script.re_encrypt(stage, old, new))?;
        drop(blind);
        self.split_last_phase(&ended);
        let is_verified = ended.is_verified();
        if !is_verified {
            let code = ended
                .code
                .map_or_else(|| "no exit code".to_owned(), |code| format!("exit {code}"));
            self.findings.push(Finding::new(
                "rotation-failed",
                format!("the rotation did not prove its result ({code}): {}", ended.why()),
            ));
        }
        self.last_run = Some(ended);
        if is_verified && sabotage != Some(Sabotage::RetireBeforeRotate) {
            let revision = self.phase("retire", |_| stage.retire(old))?;
            self.gate(load, revision, "the old key is still in use");
        }
        Ok(Some(new))
    }

    /// Waits for every instance. A gate that stays shut is a finding.
    fn gate(&mut self, load: &Load, revision: u64, consequence: &str) -> bool {
        let begun = Instant::now();
        let opened = load.wait_for(revision, GATE_PATIENCE);
        if let Some(phase) = self.phases.last_mut() {
            phase.seconds = seconds(Duration::from_secs_f64(phase.seconds) + begun.elapsed());
        }
        let Err(missing) = opened else { return true };
        self.findings.push(Finding::new(
            "not-acknowledged",
            format!(
                "{} did not load revision {revision} of keyset {KEYSET} within {} s: {consequence}",
                missing.join(", "),
                GATE_PATIENCE.as_secs()
            ),
        ));
        false
    }

    /// Starts the rotation, kills it in the middle, and starts it again.
    fn re_encrypt(&mut self, stage: &Stage, from: KeyId, to: KeyId) -> Result<Ended, DrillError> {
        let mut rotation = Rotation {
            program: &self.settings.program,
            stage,
            from,
            to,
            runs: 0,
        };
        let watch = Watch::new(stage)?;
        let rows = stage.count_rows()?;
        let threshold = rows * KILL_AT_PERCENT / 100;
        let killed = kill_after(threshold, rotation.start()?, &watch, ROTATION_PATIENCE, self.cancel)?;
        let at = match killed {
            Killed::At(position) => position,
            Killed::TooLate(run) => {
                let ended = run.wait(ROTATION_PATIENCE, self.cancel)?;
                if ended.is_verified() {
                    self.findings.push(Finding::new(
                        "not-killed",
                        "the rotation ended before it could be killed: that it resumes is not proven; rehearse with more --rows",
                    ));
                }
                return Ok(ended);
            }
        };
        let at_seconds = seconds(self.begun.elapsed());
        (self.say)("kill -9 of the rotation; starting it again");
        let ended = rotation.start()?.wait(ROTATION_PATIENCE, self.cancel)?;
        let now = watch.position()?;
        let outcome = self.resumption(rows, &at, now.as_ref());
        self.faults.push(Fault {
            name: "kill -9 of the rotation",
            at_seconds,
            outcome,
        });
        Ok(ended)
    }

    /// Tells how the second run went on from where the first one was killed; going back further than a batch is a finding.
    fn resumption(&mut self, rows: u64, at: &Position, now: Option<&Position>) -> String {
        let continued = now.filter(|now| now.plan == at.plan && now.generation > at.generation);
        let Some(now) = continued else {
            self.findings.push(Finding::new(
                "not-resumed",
                format!(
                    "after kill -9 at {} rows the same command did not continue the same rotation",
                    at.rows
                ),
            ));
            return format!("killed after {} rows; not continued", at.rows);
        };
        // The ranges ended at the largest id of the time: what was inserted since is not in them, but for a few reused ids.
        let again = now.rows.saturating_sub(rows);
        if again > BATCH_ROWS_MAX {
            self.findings.push(Finding::new(
                "not-resumed",
                format!(
                    "after kill -9 at {} rows the rotation worked through {again} rows again, more than a batch",
                    at.rows
                ),
            ));
        }
        format!(
            "killed after {} rows; run again, it went on from there and worked through {} more",
            at.rows,
            now.rows.saturating_sub(at.rows)
        )
    }

    /// The rotation's process re-encrypts, sweeps and verifies; it says itself how long the latter two took.
    fn split_last_phase(&mut self, ended: &Ended) {
        let Some(mut whole) = self.phases.pop() else { return };
        let (sweep, verify) = (ended.seconds("sweep"), ended.seconds("verify"));
        whole.seconds = (whole.seconds - sweep - verify).max(0.0);
        self.phases.push(whole);
        for (name, time) in [("sweep", sweep), ("verify", verify)] {
            self.phases.push(Phase {
                name,
                seconds: seconds(Duration::from_secs_f64(time)),
            });
        }
    }

    fn report(
        self,
        tally: &Tally,
        before: &Inspection,
        end: &Inspection,
        old: KeyId,
        new: Option<KeyId>,
        instances: usize,
    ) -> Report {
        let mut findings = self.findings;
        findings.extend(judge(tally, end, old));
        let verdict = if findings.is_empty() { Verdict::Good } else { Verdict::Bad };
        let total = |failures: &BTreeMap<_, u64>| failures.values().sum();
        Report {
            reads: tally.reads,
            writes: tally.writes,
            failed_reads: total(&tally.failed_reads),
            failed_writes: total(&tally.failed_writes),
            lost_writes: lost_writes(end),
            resurrected_rows: end.deviating(Deviation::Resurrected),
            wrong_values: end.deviating(Deviation::Wrong),
            values_under_old_key: end.under(old),
            unreadable_values: end.unreadable,
            rows_checked: tally.rows_checked,
            instances,
            rows_before: before.rows,
            rows_after: end.rows,
            old_key: old.0,
            new_key: new.map(|id| id.0),
            census_before: before.per_key.clone(),
            census_after: end.per_key.clone(),
            rows_per_second: self
                .last_run
                .as_ref()
                .and_then(|run| run.document["rows_per_second"].as_f64())
                .unwrap_or(0.0),
            phases: self.phases,
            latency_ms: LatencyReport {
                reads: tally.read_latencies.windows(),
                writes: tally.write_latencies.windows(),
            },
            faults: self.faults,
            seed: self.settings.seed,
            verdict,
            findings,
            incidents: tally.incidents.iter().chain(&end.incidents).cloned().collect(),
            evidence: None,
            elapsed_seconds: seconds(self.begun.elapsed()),
        }
    }
}

fn primary(stage: &Stage) -> Result<KeyId, DrillError> {
    let keyring = stage.keyring()?;
    let keyset = keyring.keysets().iter().find(|keyset| keyset.name().as_str() == KEYSET);
    keyset
        .map(|keyset| keyset.primary().id())
        .ok_or(DrillError::Stage(std::io::ErrorKind::NotFound.into()))
}

/// Instances look at their file twenty times a second; one that takes this long does not follow it.
const GATE_PATIENCE: Duration = Duration::from_secs(5);
/// A rotation of a million rows under traffic takes less.
const ROTATION_PATIENCE: Duration = Duration::from_secs(600);
/// Late enough that there is something to resume, early enough that there is something left to do.
const KILL_AT_PERCENT: u64 = 40;
/// The largest batch of the gentle profile, twice: what a killed run may have to do again, and inserts under old ids, which are few.
const BATCH_ROWS_MAX: u64 = 500;
