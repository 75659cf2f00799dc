//! Changing a keyring: lock, read, change in memory, replace the file, unlock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{FILE_BYTES_MAX, Keyring, KeyringError, KeyringFault, Seal, Unlock, payload, read_sealed, unseal};
use crate::key::Keyset;
use crate::key::file::{Digest, Place};
use crate::key::lock::Lock;
use crate::key::replace::{Expected, Steps, Uninterrupted};

/// A keyring under its lock, from the read to the write. Dropped without [`commit`](Self::commit), it changes nothing.
pub struct KeyringEdit {
    path: PathBuf,
    place: Place,
    keyring: Keyring,
    seal: Seal,
    expected: Expected,
    _lock: Lock,
}

/// What becomes of the version that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Previous {
    /// It is kept beside the file, as `.bak`.
    Kept,
    /// `.bak` becomes a copy of the new version: the old one holds a destroyed key, or opens with a secret that was replaced.
    Forgotten,
}

impl KeyringEdit {
    /// Locks and opens the keyring at `path`. Waits at most `wait` for another writer.
    pub fn begin(path: &Path, unlock: Unlock, generation_min: u64, wait: Duration) -> Result<Self, KeyringError> {
        let at = |fault| KeyringError::new(path, fault);
        let place = Place::at(path).map_err(|error| at(error.into()))?;
        // Before the lock, so that a wrong path leaves no lock file behind.
        read_sealed(&place).map_err(at)?;
        let lock = Lock::take(&place, wait).map_err(|fault| at(fault.into()))?;
        let sealed = read_sealed(&place).map_err(at)?;
        let keyring = unseal(&sealed, &unlock, generation_min).map_err(at)?;
        let seal = match unlock {
            Unlock::Passphrase(passphrase, work) => Seal::Passphrase(passphrase, work),
            Unlock::Identities(_) if keyring.recipients.is_empty() => return Err(at(KeyringFault::NoSeal)),
            Unlock::Identities(_) => Seal::Recipients(keyring.recipients.clone()),
        };
        let expected = Expected::Content(Digest::of(&sealed));
        Ok(Self {
            path: path.to_owned(),
            place,
            keyring,
            seal,
            expected,
            _lock: lock,
        })
    }

    /// A new, empty keyring for a `path` where there is no file yet. Nothing is written before the commit.
    pub fn create(path: &Path, seal: Seal, wait: Duration) -> Result<Self, KeyringError> {
        let at = |fault| KeyringError::new(path, fault);
        let place = Place::at(path).map_err(|error| at(error.into()))?;
        let lock = Lock::take(&place, wait).map_err(|fault| at(fault.into()))?;
        if place.read(FILE_BYTES_MAX).map_err(|fault| at(fault.into()))?.is_some() {
            return Err(at(KeyringFault::Exists));
        }
        let keyring = Keyring::empty();
        Ok(Self {
            path: path.to_owned(),
            place,
            keyring,
            seal,
            expected: Expected::Nothing,
            _lock: lock,
        })
    }

    /// The keyring as it is now, changes included.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The keyring, to be changed.
    pub fn keyring_mut(&mut self) -> &mut Keyring {
        &mut self.keyring
    }

    /// Adds a keyset; its name must be new.
    pub fn insert(&mut self, keyset: Keyset) -> Result<(), KeyringError> {
        self.keyring
            .insert(keyset)
            .map_err(|fault| KeyringError::new(&self.path, fault))
    }

    /// Seals the next version to something else.
    pub fn reseal_to(&mut self, seal: Seal) {
        self.seal = seal;
    }

    /// Writes the changed keyring, one generation on, and reads it back. When this returns, the new version is durable.
    ///
    /// On an error the file is the old version, unless the fault says that the new one is in place and only its durability is
    /// unknown.
    pub fn commit(self, previous: Previous) -> Result<Keyring, KeyringError> {
        self.commit_with(previous, &mut Uninterrupted)
    }

    /// [`commit`](Self::commit), with a hook that is called before every step.
    pub fn commit_with(mut self, previous: Previous, steps: &mut dyn Steps) -> Result<Keyring, KeyringError> {
        let written = self.write(previous, steps);
        written.map_err(|fault| KeyringError::new(&self.path, fault))?;
        Ok(self.keyring)
    }

    fn write(&mut self, previous: Previous, steps: &mut dyn Steps) -> Result<(), KeyringFault> {
        self.keyring.check()?;
        self.keyring.generation += 1;
        self.keyring.recipients = self.seal.recipients().to_vec();
        let sealed = self.seal.close(&payload::write(&self.keyring)?)?;
        if sealed.len() > FILE_BYTES_MAX {
            return Err(crate::key::file::ReadFault::TooLarge { max: FILE_BYTES_MAX }.into());
        }
        match previous {
            Previous::Kept => self.place.keep_copy(&self.expected, steps)?,
            Previous::Forgotten => {}
        }
        self.place.replace(&sealed, &self.expected, steps)?;
        match previous {
            Previous::Kept => {}
            Previous::Forgotten => self.place.overwrite_copy(&sealed, steps)?,
        }
        Ok(())
    }
}
