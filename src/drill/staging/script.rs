//! What happens one after the other in a staging environment: commands, their phases, and what came of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::readers::Readers;
use super::{KILL, Staging, census};
use crate::drill::clock::{Moment, now, seconds_between};
use crate::drill::nemesis::Fault;
use crate::drill::operator::{Ended, Run, words};
use crate::drill::rehearsal::timeline::Timeline;
use crate::drill::report::{Phase, seconds};
use crate::drill::verdict::Finding;
use crate::drill::watch::{Position, Watch};
use crate::drill::{Cancel, DrillError};
use crate::key::KeyId;
use crate::rotation::protocol::Phase as Step;

pub(super) struct Script<'a> {
    pub(super) cancel: &'a Cancel,
    pub(super) say: &'a mut dyn FnMut(&str),
    pub(super) folder: PathBuf,
    pub(super) begun: Instant,
    pub(super) origin: Moment,
    pub(super) phases: Vec<Phase>,
    pub(super) findings: Vec<Finding>,
    pub(super) faults: Vec<Fault>,
    pub(super) new: Option<KeyId>,
    pub(super) rows_per_second: f64,
    pub(super) typed: u32,
}

impl Script<'_> {
    pub(super) fn phase<T>(
        &mut self,
        name: &'static str,
        act: impl FnOnce(&mut Self) -> Result<T, DrillError>,
    ) -> Result<T, DrillError> {
        self.cancel.check()?;
        (self.say)(name);
        let began = now();
        let done = act(self);
        self.phases.push(Phase {
            name,
            at_seconds: (seconds_between(self.origin, began) * 1e3).round() / 1e3,
            seconds: seconds(Duration::from_nanos(now() - began)),
        });
        done
    }

    pub(super) fn wait(&mut self, time: Duration) -> Result<(), DrillError> {
        self.cancel.sleep(time)
    }

    /// What the rotation would meet. Reasons against it end the rehearsal before anything is touched.
    pub(super) fn plan(&mut self, staging: &Staging, keyset: &str) -> Result<(), DrillError> {
        let mut arguments = vec!["plan", keyset, "--json"];
        arguments.extend(accepted(staging));
        let ended = self.run(staging, "plan", &arguments)?;
        if ended.succeeded() {
            return Ok(());
        }
        let plans = ended.document["datasets"].as_array().map_or(&[][..], Vec::as_slice).iter();
        let findings = plans.filter_map(|plan| plan["findings"].as_array()).flatten();
        let stops = findings.filter(|finding| finding["severity"] == "ask" || finding["severity"] == "refuse");
        let named: Vec<&str> = stops.filter_map(|finding| finding["what"].as_str()).collect();
        Err(DrillError::Planned(if named.is_empty() {
            ended.why()
        } else {
            named.join("; ")
        }))
    }

    /// Every value, counted per key.
    pub(super) fn verify(&mut self, staging: &Staging, keyset: &str) -> Result<BTreeMap<String, u64>, DrillError> {
        let ended = self.run(staging, "verify", &["verify", keyset, "--json"])?;
        match ended.code {
            // Values under older keys are what a rotation is for.
            Some(0 | 7) => Ok(census(&ended.document)),
            _ => Err(DrillError::Staging(ended.why())),
        }
    }

    fn run(&mut self, staging: &Staging, name: &str, arguments: &[&str]) -> Result<Ended, DrillError> {
        self.typed(staging, name, arguments)?.wait(COMMAND_PATIENCE, self.cancel)
    }

    fn typed(&mut self, staging: &Staging, name: &str, arguments: &[&str]) -> Result<Run, DrillError> {
        self.typed += 1;
        let mut arguments = words(arguments);
        arguments.extend(["--config".into(), staging.config.clone().into()]);
        Run::typed(
            &staging.program,
            arguments,
            &self.folder,
            &format!("{:02}-{name}", self.typed),
        )
    }

    /// The rotation, killed once where that is wanted, and continued by the same command.
    pub(super) fn rotate(
        &mut self,
        staging: &Staging,
        keyset: &str,
        watch: &mut Watch,
        readers: &Readers,
    ) -> Result<Ended, DrillError> {
        let mut arguments = vec!["rotate", keyset, "--json", "--yes", "--profile", staging.profile.as_str()];
        arguments.extend(staging.gates.iter().map(String::as_str));
        arguments.extend(accepted(staging));
        if staging.compromised {
            arguments.push("--compromised");
        }
        let known = watch.position()?.map(|position| position.rotation);
        let mut timeline = Timeline::new(self.origin);
        let mut killed: Option<Position> = None;
        let ended = loop {
            let mut run = self.typed(staging, "rotate", &arguments)?;
            timeline.run_begins();
            let mut was_killed = false;
            while !run.is_over()? {
                self.cancel.sleep(LOOK_EVERY)?;
                let Some(position) = watch.position()? else { continue };
                if position.phase.is_end() && known.as_ref() == Some(&position.rotation) {
                    continue;
                }
                self.new = Some(KeyId(position.to_key));
                if !position.phase.is_end() && timeline.sees(position.doing(), now()) {
                    (self.say)(position.doing());
                    readers.tally(|tally| tally.rotation_enters(position.phase, now()));
                }
                let is_in_the_middle = position.phase == Step::ReEncrypt && position.rows > 0;
                if staging.kills && killed.is_none() && is_in_the_middle && run.kill()? {
                    (self.say)("kill -9 of the rotation; the same command again");
                    self.faults.push(Fault {
                        name: KILL.to_owned(),
                        at_seconds: (seconds_between(self.origin, now()) * 1e3).round() / 1e3,
                        outcome: format!("killed after {} rows, in phase {}", position.rows, position.doing()),
                    });
                    killed = Some(position);
                    was_killed = true;
                    break;
                }
            }
            if was_killed {
                timeline.run_ends(&[], now());
                continue;
            }
            let ended = run.wait(COMMAND_PATIENCE, self.cancel)?;
            timeline.run_ends(&ended.phases(), now());
            break ended;
        };
        let position = watch.position()?;
        if let Some(at) = killed {
            self.judge_resumption(&at, position.as_ref());
        } else if staging.kills && ended.is_verified() {
            self.findings.push(Finding::new(
                "fault-missed",
                "the rotation ended before kill -9 of it: that it survives that is not proven",
            ));
        }
        if let Some(gate) = ended.shut_gate() {
            self.findings.push(Finding::new("not-acknowledged", gate));
        } else if !ended.is_verified() {
            self.findings.push(Finding::new(
                "rotation-failed",
                format!("the rotation did not prove its result: {}", ended.why()),
            ));
        }
        let moving = timeline.seconds_of("re-encrypt");
        let moved = position.map_or(0, |position| position.rows);
        self.rows_per_second = if moving > 0.0 { (moved as f64 / moving).round() } else { 0.0 };
        self.phases.extend(timeline.into_phases());
        Ok(ended)
    }

    fn judge_resumption(&mut self, at: &Position, now: Option<&Position>) {
        let continued = now.is_some_and(|now| now.rotation == at.rotation && now.generation > at.generation);
        if !continued {
            self.findings.push(Finding::new(
                "not-resumed",
                "after kill -9 the same command did not continue the same rotation",
            ));
        } else if let Some(fault) = self.faults.last_mut() {
            fault.outcome += "; run again, it went on from there";
        }
    }
}

/// Which findings are accepted, as arguments.
fn accepted(staging: &Staging) -> impl Iterator<Item = &str> {
    let accepted = &staging.managed.options.accepted;
    accepted.iter().flat_map(|finding| ["--accept", finding])
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A staging environment has as many rows as it has; somebody who wants an end says --max-duration.
const COMMAND_PATIENCE: Duration = Duration::from_secs(24 * 3_600);
