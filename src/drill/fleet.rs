//! The application: its instances, started, rolled, stopped, and killed on purpose; each with its own copy of the keyring file.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::checker::{Checking, SourceId};
use super::clock::now;
use super::instance::{Assignment, Work};
use super::process::{Part, Process};
use super::sabotage::Sabotage;
use super::stage::Stage;
use super::table::Place;
use super::{Cancel, DrillError, Settings};
use crate::key::write_private;

/// All instances.
pub struct Fleet<'a> {
    stage: &'a Stage,
    settings: &'a Settings,
    /// The table, as the instances reach it.
    place: Place,
    checking: &'a Checking,
    instances: Vec<Instance>,
    /// Processes that were started, ever.
    started: u64,
}

struct Instance {
    name: String,
    work: Work,
    /// How often it was started.
    generation: u32,
    process: Process,
    source: SourceId,
    sabotage: Option<Sabotage>,
    /// Its keyring file stays as it was first.
    is_forgotten: bool,
}

impl<'a> Fleet<'a> {
    /// Starts the instances that the settings say.
    pub fn start(stage: &'a Stage, settings: &'a Settings, place: Place, checking: &'a Checking) -> Result<Self, DrillError> {
        let mut fleet = Self {
            stage,
            settings,
            place,
            checking,
            instances: Vec::new(),
            started: 0,
        };
        let writers = settings.writers as i64;
        let readers = (0..settings.readers).map(|number| (format!("reader-{number}"), Work::Read));
        let writers = (0..writers).map(|number| {
            let work = Work::Write {
                number,
                writers,
                unconfirmed: None,
            };
            (format!("writer-{number}"), work)
        });
        for (name, work) in readers.chain(writers) {
            fleet.add(&name, work, false)?;
        }
        Ok(fleet)
    }

    /// Starts one more instance; one that is forgotten never gets another keyring file.
    pub fn add(&mut self, name: &str, work: Work, is_forgotten: bool) -> Result<(), DrillError> {
        let sabotage = self.settings.sabotage.filter(|sabotage| sabotage.hits() == Some(name));
        self.hand_out(name)?;
        let (process, source) = self.launch(name, work, 0, sabotage)?;
        self.instances.push(Instance {
            name: name.to_owned(),
            work,
            generation: 0,
            process,
            source,
            sabotage,
            is_forgotten: is_forgotten || sabotage == Some(Sabotage::InstanceLagsBehind),
        });
        Ok(())
    }

    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The names of those that read, or that write.
    pub fn names(&self, readers: bool) -> Vec<String> {
        let wanted = self
            .instances
            .iter()
            .filter(|instance| (instance.work == Work::Read) == readers);
        wanted.map(|instance| instance.name.clone()).collect()
    }

    /// Gives the operator's keyring file to all instances, one after the other; with `restart`, each is stopped for it and started again.
    pub fn deploy(&mut self, restart: bool, cancel: &Cancel) -> Result<(), DrillError> {
        for at in 0..self.instances.len() {
            cancel.sleep(BETWEEN_INSTANCES)?;
            let instance = &self.instances[at];
            if instance.is_forgotten {
                continue;
            }
            let name = instance.name.clone();
            // One that keeps its first keys would get others by starting anew.
            let restart = restart && instance.sabotage.is_none();
            if restart {
                self.stop(at)?;
            }
            self.hand_out(&name)?;
            if restart {
                self.restart(at)?;
            }
        }
        Ok(())
    }

    /// Waits until every instance follows `revision`; otherwise names those that do not.
    pub fn wait_for(&mut self, revision: u64, patience: Duration, cancel: &Cancel) -> Result<Vec<String>, DrillError> {
        let begun = Instant::now();
        loop {
            self.check()?;
            let checker = self.checking.checker();
            let missing = self
                .instances
                .iter()
                .filter(|instance| checker.follows(instance.source).is_none_or(|follows| follows < revision));
            let missing: Vec<String> = missing.map(|instance| instance.name.clone()).collect();
            drop(checker);
            if missing.is_empty() || begun.elapsed() >= patience {
                return Ok(missing);
            }
            cancel.sleep(LOOK_EVERY)?;
        }
    }

    /// An error when an instance ended by itself, or the journals cannot be read.
    pub fn check(&mut self) -> Result<(), DrillError> {
        if self.checking.has_failed() {
            return Err(DrillError::Journal);
        }
        for at in 0..self.instances.len() {
            let instance = &mut self.instances[at];
            if instance.process.ended().map_err(DrillError::Stage)?.is_some() {
                return Err(self.died(at));
            }
        }
        Ok(())
    }

    /// kill -9 of an instance, which is started again. Returns what its successor had to settle.
    pub fn kill(&mut self, name: &str) -> Result<Option<i64>, DrillError> {
        let Some(at) = self.find(name) else { return Ok(None) };
        self.instances[at].process.kill().map_err(DrillError::Stage)?;
        let unconfirmed = self.over(at)?;
        self.restart(at)?;
        Ok(unconfirmed)
    }

    /// Ends an instance for good, after its present operation.
    pub fn remove(&mut self, name: &str) -> Result<(), DrillError> {
        if let Some(at) = self.find(name) {
            self.stop(at)?;
            self.instances.remove(at);
        }
        Ok(())
    }

    /// SIGSTOP.
    pub fn pause(&mut self, name: &str) -> Result<(), DrillError> {
        self.signal(name, Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self, name: &str) -> Result<(), DrillError> {
        self.signal(name, Signal::CONT)
    }

    /// The keyring file of an instance.
    pub fn keyring_file(&self, name: &str) -> Result<PathBuf, DrillError> {
        Ok(self.stage.instance_folder(name)?.join("reseal.keyring"))
    }

    /// Gives an instance the operator's keyring file as it stands.
    pub fn hand_out(&self, name: &str) -> Result<(), DrillError> {
        let bytes = fs::read(self.stage.keyring_file()).map_err(DrillError::Stage)?;
        Ok(write_private(&self.keyring_file(name)?, &bytes, true)?)
    }

    /// Stops all instances, each after its present operation.
    pub fn finish(mut self) -> Result<(), DrillError> {
        for at in 0..self.instances.len() {
            self.instances[at].process.end_input();
        }
        for at in 0..self.instances.len() {
            self.stop(at)?;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.instances.iter().position(|instance| instance.name == name)
    }

    fn signal(&mut self, name: &str, signal: Signal) -> Result<(), DrillError> {
        if let Some(at) = self.find(name) {
            self.instances[at].process.signal(signal).map_err(DrillError::Stage)?;
        }
        Ok(())
    }

    /// After its present operation.
    fn stop(&mut self, at: usize) -> Result<(), DrillError> {
        let instance = &mut self.instances[at];
        instance.process.end_input();
        let ended = instance.process.wait(STOPPED_WITHIN).map_err(DrillError::Stage)?;
        if !ended.is_some_and(|status| status.success()) {
            return Err(self.died(at));
        }
        self.over(at)?;
        Ok(())
    }

    /// Its process is gone: what it told is complete.
    fn over(&mut self, at: usize) -> Result<Option<i64>, DrillError> {
        let instance = &mut self.instances[at];
        let unfinished = self.checking.checker().ended(instance.source).map_err(DrillError::Stage)?;
        if let Work::Write { unconfirmed, .. } = &mut instance.work {
            *unconfirmed = unfinished;
        }
        Ok(unfinished)
    }

    fn restart(&mut self, at: usize) -> Result<(), DrillError> {
        let instance = &mut self.instances[at];
        instance.generation += 1;
        let (name, work, generation, sabotage) = (instance.name.clone(), instance.work, instance.generation, instance.sabotage);
        let (process, source) = self.launch(&name, work, generation, sabotage)?;
        let instance = &mut self.instances[at];
        (instance.process, instance.source) = (process, source);
        Ok(())
    }

    fn launch(
        &mut self,
        name: &str,
        work: Work,
        generation: u32,
        sabotage: Option<Sabotage>,
    ) -> Result<(Process, SourceId), DrillError> {
        self.started += 1;
        let folder = self.stage.instance_folder(name)?;
        let is_reader = work == Work::Read;
        let assignment = Assignment {
            name: name.to_owned(),
            role: self.stage.role(name),
            work,
            place: self.place.clone(),
            keyring: folder.join("reseal.keyring"),
            keyset: self.stage.keyset_name(),
            identity: self.stage.identity_file(),
            journal: folder.join(format!("journal.{generation}")),
            // Different traffic for each; the table itself was filled from `seed`.
            seed: self.settings.seed.wrapping_add(self.started),
            per_second: if is_reader {
                self.settings.reads_per_second
            } else {
                self.settings.writes_per_second
            },
            sabotage,
        };
        let source = self
            .checking
            .checker()
            .add(name, is_reader, assignment.journal.clone(), now());
        let said = self.stage.said(name, generation)?;
        let mut process = Part::Instance
            .start(&self.settings.program, &[], Stdio::null(), said)
            .map_err(DrillError::Stage)?;
        let line = serde_json::to_string(&assignment).map_err(|error| DrillError::Stage(error.into()))?;
        process.send(line.as_bytes()).map_err(DrillError::Stage)?;
        process.send(b"\n").map_err(DrillError::Stage)?;
        Ok((process, source))
    }

    /// What an instance that ended by itself said last.
    fn died(&self, at: usize) -> DrillError {
        let instance = &self.instances[at];
        let folder = self.stage.instance_folder(&instance.name);
        let said = folder
            .ok()
            .and_then(|folder| fs::read_to_string(folder.join(format!("said.{}.log", instance.generation))).ok());
        let last = said
            .as_deref()
            .and_then(|said| said.lines().last())
            .unwrap_or("it said nothing");
        DrillError::InstanceDied(instance.name.clone(), last.to_owned())
    }
}

/// A deployment takes its time.
const BETWEEN_INSTANCES: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Longer than the longest that an instance waits for its database.
const STOPPED_WITHIN: Duration = Duration::from_secs(40);
