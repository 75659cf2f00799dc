//! The file with the public keys that verifiers of tokens read: a JSON Web Key Set.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::rotate::RotateFault;
use super::{FileFault, jwks};
use crate::key::{Digest, Expected, Lock, Place, ReplaceFault, Uninterrupted};

/// A key set that is decided and not written yet.
pub(super) struct KeySetFile {
    pub(super) path: PathBuf,
    place: Place,
    expected: Expected,
    is_change: bool,
    content: String,
    _lock: Lock,
}

/// Which keys verifiers are to have.
pub(super) enum Keys<'k> {
    /// This one, in front of those that are there.
    With(&'k Value),
    /// This one alone.
    Only(&'k Value),
    /// The foremost of those that are there: the newest.
    Newest,
}

impl KeySetFile {
    /// Decides the set. A file that does not exist is made.
    pub(super) fn prepare(path: &Path, keys: &Keys<'_>, wait: Duration) -> Result<Self, RotateFault> {
        let fault = |fault| RotateFault::File(fault);
        let place = Place::at(path).map_err(|error| fault(FileFault::Folder(error)))?.public();
        let lock = Lock::take(&place, wait).map_err(|error| fault(FileFault::Lock(error)))?;
        let present = place.read(BYTES_MAX).map_err(|error| fault(FileFault::Read(error)))?;
        let (old, expected) = match &present {
            Some(bytes) => (read(bytes)?, Expected::Content(Digest::of(bytes))),
            None => (Vec::new(), Expected::Nothing),
        };
        let chosen: Vec<&Value> = match keys {
            Keys::With(key) => std::iter::once(*key).chain(&old).collect(),
            Keys::Only(key) => vec![key],
            Keys::Newest => old.iter().take(1).collect(),
        };
        Ok(Self {
            path: path.to_owned(),
            place,
            expected,
            is_change: !matches!(keys, Keys::Newest) || old.len() > 1,
            content: jwks(chosen),
            _lock: lock,
        })
    }

    /// Whether there is anything to write.
    pub(super) fn is_change(&self) -> bool {
        self.is_change
    }

    /// Writes it; the version before is durable as `.bak` first.
    pub(super) fn write(&self) -> Result<(), ReplaceFault> {
        self.place.keep_copy(&self.expected, &mut Uninterrupted)?;
        self.place
            .replace(self.content.as_bytes(), &self.expected, &mut Uninterrupted)
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Value>, RotateFault> {
    let set: Value = serde_json::from_slice(bytes).map_err(|_| RotateFault::KeySet)?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or(RotateFault::KeySet)?;
    // A private key here would be published again.
    let is_public = |key: &Value| key.is_object() && key.get("d").is_none() && key.get("k").is_none();
    if keys.iter().all(is_public) {
        Ok(keys.clone())
    } else {
        Err(RotateFault::KeySet)
    }
}

/// Thousands of keys.
const BYTES_MAX: usize = 1024 * 1024;
