//! Rotating secrets where their applications read them.
//!
//! Everything is generated, read and decided before the first write, so that a mistake in one secret leaves all as they were. Each
//! file is then replaced once, whatever number of secrets it holds. What cannot be undone, a command, comes last. What is written is
//! on record before and after (`record.rs`).

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::child::ChildFault;
use super::prepare::Prepared;
use super::record::{RecordEdit, RecordFault};
use super::settings::{SecretSettings, Target};
use super::{FieldError, FileFault, GenerateError};

/// Why the secrets are rotated, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// In its time, in one step: what the configuration says about old values holds. For applications of one process.
    Scheduled,
    /// A secret leaked: no old value is accepted any more.
    Compromised,
    /// First step: the new value joins those that are accepted. Nothing is signed with it.
    Introduce,
    /// Second step: the introduced value is signed with; the old one stays accepted.
    Promote,
    /// Last step: the old values are no longer accepted.
    Retire,
}

impl Occasion {
    /// Whether it needs a value that was not there before.
    pub(super) fn makes_a_value(self) -> bool {
        matches!(self, Self::Scheduled | Self::Compromised | Self::Introduce)
    }

    /// The word for programs that take part in it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "replace",
            Self::Compromised => "compromised",
            Self::Introduce => "introduce",
            Self::Promote => "promote",
            Self::Retire => "retire",
        }
    }
}

/// What a rotation needs from its surroundings.
pub struct Surroundings {
    /// How long another writer of a file is waited for.
    pub lock_wait: Duration,
    /// How long a command may take.
    pub command_timeout: Duration,
    /// Environment variables that commands do not inherit.
    pub kept_from_children: Vec<String>,
    /// Where it is recorded when which value was written.
    pub record: PathBuf,
    /// The time that is recorded.
    pub now: Timestamp,
}

/// One secret that was rotated.
#[derive(Debug)]
pub struct Rotated {
    /// Its name in the configuration.
    pub name: String,
    /// Where it was written, for people.
    pub place: String,
    /// Whether anything was written: a step that was done before is not done again.
    pub is_changed: bool,
    /// How many values its application accepts beside the one that it signs with.
    pub old_values: usize,
    /// The name of the new key in tokens.
    pub kid: Option<String>,
    /// Where the version before is, if there is one.
    pub backup: Option<PathBuf>,
    /// The mode of a file that others could read, and no longer can.
    pub mode_lost: Option<u32>,
}

/// A rotation that stopped.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct RotateError {
    /// The secret at which it stopped.
    pub name: String,
    /// The file or program, for people.
    pub place: String,
    /// Why.
    #[source]
    pub fault: RotateFault,
    /// The secrets that were rotated before it stopped.
    pub done: Vec<Rotated>,
}

/// Why a secret was not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateFault {
    /// No new secret could be made.
    #[error(transparent)]
    Generate(GenerateError),
    /// The file cannot be changed, or was not.
    #[error(transparent)]
    File(FileFault),
    /// The value cannot be read or written in the file.
    #[error(transparent)]
    Field(FieldError),
    /// The old values cannot be kept in the form that is configured.
    #[error("the old value of {0} does not fit into a list of that form")]
    List(String),
    /// The file is no JSON Web Key Set.
    #[error("it is not a JSON Web Key Set")]
    KeySet,
    /// The step is not the next one.
    #[error(transparent)]
    Order(OrderFault),
    /// The program did not do it.
    #[error("{0}")]
    Child(#[source] ChildFault),
    /// It cannot be recorded when the value was written.
    #[error("the record of secrets, {}: {fault}", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        fault: Box<RecordFault>,
    },
}

/// Why a step of a rotation is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderFault {
    /// There is nothing that could be promoted.
    #[error("no new value was introduced: instances that have not got it would refuse what others sign with it")]
    NotIntroduced,
    /// An introduced value waits for its promotion.
    #[error("a new value was introduced and is not promoted yet")]
    Waiting,
    /// The application accepts one value at a time.
    #[error("its configuration lets the application accept one value only: there is nowhere to introduce another")]
    OneValueOnly,
    /// The program takes whole values only.
    #[error("its command takes new values only, and is not known to understand steps")]
    NoSteps,
}

/// Rotates secrets: all, or, when a write fails, those before it. Each name may occur once.
pub fn rotate(secrets: &[&SecretSettings], occasion: Occasion, around: &Surroundings) -> Result<Vec<Rotated>, RotateError> {
    let unrecorded = |fault| {
        let name = secrets.first().map_or("", |secret| &secret.name);
        let place = secrets.first().map_or_else(String::new, |secret| describe(secret));
        stopped(name, place, around.unrecorded(fault), Vec::new())
    };
    let mut record = RecordEdit::begin(&around.record, around.lock_wait).map_err(unrecorded)?;
    let mut prepared = Prepared::new(occasion);
    for secret in secrets {
        prepared
            .add(secret, record.record(), around)
            .map_err(|fault| stopped(&secret.name, describe(secret), fault, Vec::new()))?;
    }
    let values = prepared.take_values();
    for (name, value) in &values {
        record
            .intend(name, value.as_ref(), occasion, around.now)
            .map_err(unrecorded)?;
    }
    if !values.is_empty() {
        record.save().map_err(unrecorded)?;
    }
    drop(values);

    let (done, stop) = match prepared.write(around) {
        Ok(done) => (done, None),
        Err(mut stop) => (std::mem::take(&mut stop.done), Some(stop)),
    };
    for rotated in &done {
        record.confirm(&rotated.name, occasion);
    }
    // Without this, a check takes the entries for what they are: values that were about to be written, and are found there.
    let saved = record.save();
    match (stop, saved) {
        (Some(stop), _) => Err(RotateError { done, ..stop }),
        (None, Err(fault)) => {
            let last = done
                .last()
                .map_or((String::new(), String::new()), |last| (last.name.clone(), last.place.clone()));
            Err(stopped(&last.0, last.1, around.unrecorded(fault), done))
        }
        (None, Ok(())) => Ok(done),
    }
}

impl Surroundings {
    fn unrecorded(&self, fault: RecordFault) -> RotateFault {
        RotateFault::Record {
            path: self.record.clone(),
            fault: Box::new(fault),
        }
    }
}

/// Where a secret goes, for people.
pub(super) fn describe(secret: &SecretSettings) -> String {
    match &secret.target {
        Target::EnvFile { file, .. } | Target::Manifest { file, .. } | Target::Systemd { file, .. } => {
            file.display().to_string()
        }
        // People write tokens into commands.
        Target::Command { .. } => "its command".to_owned(),
    }
}

pub(super) fn stopped(name: &str, place: String, fault: RotateFault, done: Vec<Rotated>) -> RotateError {
    RotateError {
        name: name.to_owned(),
        place,
        fault,
        done,
    }
}
