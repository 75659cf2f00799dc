//! How old the secrets are that applications read now.
//!
//! The value that stands in its place is compared with what rotations recorded; the place itself is believed in nothing else.

use jiff::{SignedDuration, Timestamp};

use super::list::Values;
use super::record::{Record, Recorded};
use super::rotate::{RotateFault, Surroundings};
use super::settings::{History, ListForm, SecretSettings, Target};
use super::{Dotenv, Fields, FileFault, Manifest, SecretText, credential};
use crate::key::{Place, Readers};

/// What is known of a secret's age.
#[derive(Debug)]
pub enum SecretAge {
    /// The value that stands there was written that long ago.
    Known(SignedDuration),
    /// A program took its latest value that long ago. What it holds now cannot be read back.
    Delivered(SignedDuration),
    /// The value that stands there was written that long ago, and replaced since: an old file was put back.
    PutBack(SignedDuration),
    /// There is a value, and no rotation wrote it.
    Stranger,
    /// No rotation of it was ever recorded.
    NeverRotated,
    /// There is no value.
    Absent,
    /// It was written in the future: a clock is wrong, or was.
    Future,
    /// The place cannot be read.
    Unreadable(RotateFault),
}

impl SecretAge {
    /// The time, where there is one.
    pub fn duration(&self) -> Option<SignedDuration> {
        match self {
            Self::Known(age) | Self::Delivered(age) | Self::PutBack(age) => Some(*age),
            Self::Stranger | Self::NeverRotated | Self::Absent | Self::Future | Self::Unreadable(_) => None,
        }
    }
}

/// The age of a secret at `now`. Reads its place and changes nothing.
pub fn age(secret: &SecretSettings, record: &Record, now: Timestamp, around: &Surroundings) -> SecretAge {
    if let Target::Command { .. } = secret.target {
        return match record.delivered(&secret.name) {
            None => SecretAge::NeverRotated,
            Some(at) => since(at, now).map_or(SecretAge::Future, SecretAge::Delivered),
        };
    }
    let value = match present(&secret.target, around) {
        Ok(Some(value)) if !value.is_empty() => value,
        Ok(_) => return SecretAge::Absent,
        Err(fault) => return SecretAge::Unreadable(fault),
    };
    match record.find(&secret.name, &value) {
        Recorded::Latest(at) => since(at, now).map_or(SecretAge::Future, SecretAge::Known),
        Recorded::Earlier(at) => since(at, now).map_or(SecretAge::Future, SecretAge::PutBack),
        Recorded::Stranger => SecretAge::Stranger,
        Recorded::Nothing => SecretAge::NeverRotated,
    }
}

/// A rotation in steps that was begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// A new value is accepted and signs nothing yet, since then.
    Introduced(Timestamp),
    /// The new value, which was introduced then, signs; old ones are still accepted.
    Promoted(Timestamp),
}

/// Whether a rotation of the secret in steps is under way. Reads its place and changes nothing.
pub fn unfinished(secret: &SecretSettings, record: &Record, around: &Surroundings) -> Option<Unfinished> {
    let staged = record.staged(&secret.name)?;
    let is_in_use = match present(&secret.target, around) {
        Ok(Some(value)) => staged.is(value.expose()),
        // A command tells nothing; what cannot be read is a finding of its own.
        Ok(None) | Err(_) => false,
    };
    if staged.is_waiting() && !is_in_use {
        staged.is_written().then(|| Unfinished::Introduced(staged.at()))
    } else {
        Some(Unfinished::Promoted(staged.at()))
    }
}

/// The value that the application uses for what is new.
fn present(target: &Target, around: &Surroundings) -> Result<Option<SecretText>, RotateFault> {
    let (value, history, name) = match target {
        Target::EnvFile { file, variable, history } => (in_file(file, None, false, variable)?, history, variable),
        Target::Manifest {
            file,
            object,
            variable,
            history,
        } => (in_file(file, object.as_deref(), true, variable)?, history, variable),
        Target::Systemd {
            file,
            credential,
            history,
        } => (credential::decrypt(file, credential, around)?, history, credential),
        Target::Command { .. } => return Ok(None),
    };
    match (value, history) {
        (Some(list), History::Inside { .. }) => {
            let values = Values::read(list.expose(), ListForm::Comma).ok_or_else(|| RotateFault::List(name.clone()))?;
            Ok(values.first())
        }
        (value, _) => Ok(value),
    }
}

fn in_file(
    path: &std::path::Path,
    object: Option<&str>,
    is_manifest: bool,
    variable: &str,
) -> Result<Option<SecretText>, RotateFault> {
    let fault = RotateFault::File;
    let place = Place::at(path).map_err(|error| fault(FileFault::Folder(error)))?;
    let place = place.with_readers(Readers::Anybody);
    let content = place
        .read(super::file::BYTES_MAX)
        .map_err(|error| fault(FileFault::Read(error)))?;
    let content = content.ok_or(fault(FileFault::Missing))?;
    let value = if is_manifest {
        Manifest::new(&content, object).value(variable)
    } else {
        Dotenv::new(&content).value(variable)
    };
    value.map_err(RotateFault::Field)
}

fn since(at: Timestamp, now: Timestamp) -> Option<SignedDuration> {
    let age = now.duration_since(at);
    (!age.is_negative()).then_some(age)
}
