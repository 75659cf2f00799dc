//! The private half of a key pair that was introduced: verifiers have its public half already, and nobody signs with it yet.
//!
//! An application that signs with one key has no place for another. Until the promotion it waits in a file of its own beside the
//! application's, readable by nobody else; a systemd credential waits sealed.

use std::path::{Path, PathBuf};

use super::list::Values;
use super::rotate::{RotateFault, Surroundings};
use super::{FileFault, SecretText, credential};
use crate::key::{Place, write_private};

/// Where it waits.
#[derive(Clone)]
pub(super) struct Waiting {
    path: PathBuf,
    /// The name that is sealed into a credential.
    credential: Option<String>,
}

impl Waiting {
    /// Beside an env file or a manifest.
    pub(super) fn beside(file: &Path, variable: &str) -> Self {
        Self {
            path: with_suffix(file, &format!(".{variable}.next")),
            credential: None,
        }
    }

    /// Beside a credential.
    pub(super) fn beside_credential(file: &Path, name: &str) -> Self {
        Self {
            path: with_suffix(file, ".next"),
            credential: Some(name.to_owned()),
        }
    }

    /// What waits, unless it is in use already: then a run died before it could remove it.
    pub(super) fn read(&self, in_use: Option<&SecretText>, around: &Surroundings) -> Result<Values, RotateFault> {
        let value = match &self.credential {
            Some(name) => credential::decrypt(&self.path, name, around)?,
            None => {
                let fault = RotateFault::File;
                let place = Place::at(&self.path).map_err(|error| fault(FileFault::Folder(error)))?;
                let content = place
                    .read(super::file::BYTES_MAX)
                    .map_err(|error| fault(FileFault::Read(error)))?;
                let text = content
                    .map(|content| std::str::from_utf8(&content).map(|text| SecretText::new(text.to_owned())))
                    .transpose();
                text.map_err(|_| RotateFault::List(self.path.display().to_string()))?
            }
        };
        let value = value.filter(|value| in_use.is_none_or(|in_use| in_use.expose() != value.expose()));
        Ok(Values::of(value))
    }

    /// Makes this wait, or nothing.
    pub(super) fn write(&self, value: Option<&SecretText>, around: &Surroundings) -> Result<(), RotateFault> {
        let replaced = |fault| RotateFault::File(FileFault::Replace(fault));
        match (value, &self.credential) {
            (None, _) => match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(RotateFault::File(FileFault::Folder(error))),
                _ => Ok(()),
            },
            (Some(value), None) => write_private(&self.path, value.expose().as_bytes(), true).map_err(replaced),
            (Some(value), Some(name)) => credential::encrypt(&self.path, name, value, around).map(drop),
        }
    }
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
