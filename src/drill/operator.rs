//! The operator: the real commands, each in a process of its own, as they would be typed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::process::{Part, Process, file_output};
use super::sabotage::{OPEN_GATES, Sabotage};
use super::stage::{DATABASE_VARIABLE, REDIS_VARIABLE, Stage};
use super::table::Place;
use super::{Cancel, DrillError};
use crate::rotation::profile::Profile;

/// Types commands.
pub struct Operator<'a> {
    program: &'a Path,
    stage: &'a Stage,
    /// The database, as the commands reach it.
    place: &'a Place,
    /// The Redis server that holds sessions, if one does.
    redis: Option<&'a str>,
    typed: u32,
}

/// How a rotation is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// How many instances must acknowledge at each gate.
    pub instances: usize,
    /// How long a gate waits for them.
    pub gate_timeout: Duration,
    /// Whether a key has leaked.
    pub compromised: bool,
    /// How much of the database's time it may take.
    pub profile: Profile,
    /// Broken on purpose.
    pub sabotage: Option<Sabotage>,
}

/// A command that was started. Killed when dropped.
pub struct Run {
    process: Process,
    document: PathBuf,
    said: PathBuf,
}

/// How a command ended.
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed for programs.
    pub document: Value,
    /// What it said to people, last line.
    pub last_words: String,
}

impl<'a> Operator<'a> {
    /// Nothing typed yet.
    pub fn new(program: &'a Path, stage: &'a Stage, place: &'a Place, redis: Option<&'a str>) -> Self {
        Self {
            program,
            stage,
            place,
            redis,
            typed: 0,
        }
    }

    /// Makes the keyring with its first key.
    pub fn make_keyring(&mut self, cancel: &Cancel) -> Result<(), DrillError> {
        let (keyset, recipient) = (self.stage.keyset_name(), self.stage.recipient());
        let mut arguments = words(&["keys", "generate", &keyset, "--recipient", &recipient, "--json"]);
        arguments.extend(["--keyring".into(), self.stage.keyring_file().into()]);
        arguments.extend(["--identity".into(), self.stage.identity_file().into()]);
        let made = self.start(arguments, &[])?.wait(COMMAND_PATIENCE, cancel)?;
        made.must_succeed("reseal keys generate")
    }

    /// Starts the rotation of the keyset: the same command every time.
    pub fn rotate(&mut self, order: &Order) -> Result<Run, DrillError> {
        let keyset = self.stage.keyset_name();
        let mut arguments = words(&["rotate", &keyset, "--json", "--yes", "--config"]);
        arguments.push(self.stage.config_file().into());
        arguments.extend(words(&["--expect-instances", &order.instances.to_string()]));
        arguments.extend(words(&["--gate-timeout", &format!("{}s", order.gate_timeout.as_secs())]));
        arguments.extend(words(&["--profile", order.profile.as_str()]));
        if order.compromised {
            arguments.extend(words(&["--compromised"]));
        }
        // What others keep beside the scratch schema is none of a drill's business, however much it is.
        if self.place.is_postgres() {
            arguments.extend(words(&["--accept", "undeclared"]));
        }
        let mut variables = self.variables();
        if order.sabotage == Some(Sabotage::PromoteBeforeAcknowledgement) {
            variables.push((OPEN_GATES, "1"));
        }
        self.start(arguments, &variables)
    }

    /// As an operator's shell has them: a password on the command line would be everybody's.
    fn variables(&self) -> Vec<(&'static str, &'a str)> {
        let database = self
            .place
            .is_postgres()
            .then_some((DATABASE_VARIABLE, self.place.url.as_str()));
        let redis = self.redis.map(|url| (REDIS_VARIABLE, url));
        database.into_iter().chain(redis).collect()
    }

    fn start(&mut self, mut arguments: Vec<OsString>, variables: &[(&str, &str)]) -> Result<Run, DrillError> {
        self.typed += 1;
        let word = arguments
            .first()
            .map(|word| word.to_string_lossy().into_owned())
            .unwrap_or_default();
        let output = |kind: &str| self.stage.operator_file(&format!("{:02}-{word}.{kind}", self.typed));
        let (document, said) = (output("json"), output("log"));
        arguments.insert(0, self.program.into());
        let outputs = (file_output(&document), file_output(&said));
        let (output, errors) = (outputs.0.map_err(DrillError::Stage)?, outputs.1.map_err(DrillError::Stage)?);
        let mut process = Part::Command
            .start_with(variables, self.program, &arguments, output, errors)
            .map_err(DrillError::Rotation)?;
        process.end_input();
        Ok(Run { process, document, said })
    }
}

impl Run {
    /// Types a command as the user would, with the environment of the drill. What it says is written to files in `folder`.
    pub fn typed(program: &Path, mut arguments: Vec<OsString>, folder: &Path, name: &str) -> Result<Self, DrillError> {
        let (document, said) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.log")));
        arguments.insert(0, program.into());
        let outputs = (file_output(&document), file_output(&said));
        let (output, errors) = (outputs.0.map_err(DrillError::Stage)?, outputs.1.map_err(DrillError::Stage)?);
        let mut process = Part::Command
            .start_as_is(program, &arguments, output, errors)
            .map_err(DrillError::Rotation)?;
        process.end_input();
        Ok(Self { process, document, said })
    }

    /// Whether it ended by itself.
    pub fn is_over(&mut self) -> Result<bool, DrillError> {
        Ok(self.process.ended().map_err(DrillError::Rotation)?.is_some())
    }

    /// kill -9. Returns whether it was still at work.
    pub fn kill(&mut self) -> Result<bool, DrillError> {
        let status = self.process.kill().map_err(DrillError::Rotation)?;
        Ok(status.code().is_none())
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = self.process.signal(signal);
    }

    /// The last thing that it said of a gate at which it waits, if it said so of any.
    pub fn gate_line(&self) -> Result<Option<String>, DrillError> {
        let said = fs::read_to_string(&self.said).map_err(DrillError::Stage)?;
        let line = said
            .lines()
            .rfind(|line| line.starts_with("gate ") && line.contains(": waiting "));
        Ok(line.map(str::to_owned))
    }

    /// Waits for its end; one that takes longer than `patience` is killed.
    pub fn wait(mut self, patience: Duration, cancel: &Cancel) -> Result<Ended, DrillError> {
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = self.process.wait(LOOK_EVERY).map_err(DrillError::Rotation)? {
                break status.code();
            }
            cancel.check()?;
            if begun.elapsed() >= patience {
                break None;
            }
        };
        let said = fs::read_to_string(&self.said).map_err(DrillError::Stage)?;
        let document = fs::read(&self.document).map_err(DrillError::Stage)?;
        Ok(Ended {
            code,
            document: serde_json::from_slice(&document).unwrap_or(Value::Null),
            last_words: said.lines().last().unwrap_or_default().to_owned(),
        })
    }
}

impl Ended {
    /// Whether it did what it should.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Whether a rotation ran to its end and proved the result.
    pub fn is_verified(&self) -> bool {
        self.succeeded() && self.document["verified"] == true
    }

    /// The phases of a rotation that ran to its end, and their seconds; the pass over the values is told step by step.
    pub fn phases(&self) -> Vec<(String, f64)> {
        let listed = |value: &Value| -> Vec<(String, f64)> {
            let entries = value.as_array().map_or(&[][..], Vec::as_slice).iter();
            let entry = |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["seconds"].as_f64()?));
            entries.filter_map(entry).collect()
        };
        if self.document["rotation"].is_null() {
            return Vec::new();
        }
        let steps = listed(&self.document["datasets"][0]["phases"]);
        let of_step = |name: &str| {
            steps
                .iter()
                .filter(|(step, _)| step == name)
                .map(|(_, time)| time)
                .sum::<f64>()
        };
        let (sweep, verify) = (of_step("sweep"), of_step("verify"));
        let mut phases = Vec::new();
        for (name, time) in listed(&self.document["phases"]) {
            match name.as_str() {
                // The table's own sweeps and verification are part of the pass over it.
                "re-encrypt" => {
                    phases.push((name, (time - sweep - verify).max(0.0)));
                    phases.push(("sweep".to_owned(), sweep));
                }
                "verify" => phases.push((name, time + verify)),
                _ => phases.push((name, time)),
            }
        }
        phases
    }

    /// The gate that did not open, in a sentence, if that is what ended the rotation.
    pub fn shut_gate(&self) -> Option<String> {
        let gate = &self.document["gate"];
        let (name, revision) = (gate["name"].as_str()?, gate["revision"].as_u64()?);
        let missing = gate["missing"].as_array().map_or(&[][..], Vec::as_slice).iter();
        let missing: Vec<&str> = missing.filter_map(|missing| missing["instance"].as_str()).collect();
        let waited = gate["waited_seconds"].as_f64().unwrap_or(0.0);
        let who = if missing.is_empty() {
            "too few instances".to_owned()
        } else {
            missing.join(", ")
        };
        let consequence = match name {
            "introduce" => "the new key may not be promoted",
            "promote" => "no value may be moved yet",
            _ => "the old key is still in use",
        };
        Some(format!(
            "{who} did not load revision {revision} of the keyset within {waited:.0} s: {consequence}"
        ))
    }

    /// The stores of sessions of which it does not say that nothing is left.
    pub fn sessions_not_ended(&self) -> Vec<String> {
        let stores = self.document["sessions"].as_array().map_or(&[][..], Vec::as_slice).iter();
        let is_left = |store: &Value| store["state"] != "ended" || store["left"].as_u64().is_some_and(|left| left > 0);
        let left = stores.filter(|store| is_left(store));
        left.filter_map(|store| store["name"].as_str().map(str::to_owned)).collect()
    }

    /// The instances that a gate named as gone, because their lease had ended.
    pub fn gone(&self) -> Vec<String> {
        let phases = self.document["phases"].as_array().map_or(&[][..], Vec::as_slice).iter();
        let gone = phases.filter_map(|phase| phase["gate"]["gone"].as_array()).flatten();
        gone.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    /// Why it did not, in its own words.
    pub fn why(&self) -> String {
        let need = || self.document["needs"][0]["what"].as_str();
        match (self.document["error"]["failed"].as_str().or_else(need), self.code) {
            (Some(failed), _) => failed.to_owned(),
            (None, Some(7)) => {
                let left = self.document["not_current_total"].as_u64().unwrap_or(0);
                format!("{left} values were still not under the new key when it gave up")
            }
            (None, None) => "it did not end in time".to_owned(),
            (None, Some(_)) => self.last_words.clone(),
        }
    }

    /// An error where a rehearsal cannot even begin.
    pub fn must_succeed(&self, command: &'static str) -> Result<(), DrillError> {
        if self.succeeded() {
            Ok(())
        } else {
            Err(DrillError::Command(command, self.why()))
        }
    }
}

/// Arguments.
pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Short beside everything that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A change of the keyring takes a fraction of a second.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
