//! The keyring: the sealed file that holds keysets.
//!
//! An [age](https://age-encryption.org/v1) file with JSON inside; without this program `age -d` opens it. Reading takes no
//! lock, since the file is only ever replaced whole. Changing it goes through [`KeyringEdit`], which holds the lock from the
//! read to the write.

mod edit;
mod error;
mod payload;
mod sealing;

use std::path::Path;

use zeroize::Zeroizing;

use super::{Key, KeyId, Keyset, KeysetError, KeysetName};
use crate::key::file::Place;

pub use edit::{KeyringEdit, Previous};
pub use error::{KeyringError, KeyringFault};
pub use sealing::{Seal, Unlock, WorkFactor};

/// Keysets, and how the file that holds them is sealed.
///
/// No `Debug`, no `Clone`: it holds key material.
pub struct Keyring {
    generation: u64,
    recipients: Vec<age::x25519::Recipient>,
    keysets: Vec<Keyset>,
}

impl Keyring {
    /// Reads and opens the keyring at `path`. A file that was written before `generation_min` is refused: it is an old copy.
    pub fn open(path: &Path, unlock: &Unlock, generation_min: u64) -> Result<Self, KeyringError> {
        let place = Place::at(path).map_err(|error| KeyringError::new(path, error.into()))?;
        read_sealed(&place)
            .and_then(|bytes| unseal(&bytes, unlock, generation_min))
            .map_err(|fault| KeyringError::new(path, fault))
    }

    /// A keyring without a file: what a new file begins with, and what tests and rehearsals fill.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            recipients: Vec::new(),
            keysets: Vec::new(),
        }
    }

    /// Grows by one with every write of the file.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The age recipients that the file is sealed to; none for a passphrase.
    pub fn recipients(&self) -> impl Iterator<Item = String> {
        self.recipients.iter().map(ToString::to_string)
    }

    /// All keysets, in the order in which they were added.
    pub fn keysets(&self) -> &[Keyset] {
        &self.keysets
    }

    /// The keyset of this name.
    pub fn keyset(&self, name: &KeysetName) -> Option<&Keyset> {
        self.keysets.iter().find(|keyset| keyset.name() == name)
    }

    /// The keyset of this name, to be changed.
    pub fn keyset_mut(&mut self, name: &KeysetName) -> Option<&mut Keyset> {
        self.keysets.iter_mut().find(|keyset| keyset.name() == name)
    }

    /// The key with this id in the keyset of this name.
    pub fn key(&self, name: &KeysetName, id: KeyId) -> Option<&Key> {
        self.keyset(name)?.get(id)
    }

    /// Adds a keyset; its name must be new.
    pub fn insert(&mut self, keyset: Keyset) -> Result<(), KeyringFault> {
        self.keysets.push(keyset);
        let checked = self.check();
        if checked.is_err() {
            self.keysets.pop();
        }
        checked
    }

    /// What holds across keysets: names are distinct, no key bytes stand in two of them, and there are not too many keys.
    fn check(&self) -> Result<(), KeyringFault> {
        let count: usize = self.keysets.iter().map(|keyset| keyset.keys().len()).sum();
        if count > KEYS_MAX {
            return Err(KeyringFault::TooManyKeys {
                found: count,
                max: KEYS_MAX,
            });
        }
        let mut seen = std::collections::HashMap::with_capacity(count);
        for (index, keyset) in self.keysets.iter().enumerate() {
            if self.keysets[..index].iter().any(|other| other.name() == keyset.name()) {
                return Err(KeyringFault::KeysetExists {
                    keyset: keyset.name().clone(),
                });
            }
            for key in keyset.keys() {
                let Some(fingerprint) = key.fingerprint() else { continue };
                if let Some(id) = seen.insert(fingerprint, key.id()) {
                    let keyset = keyset.name().clone();
                    return Err(KeyringFault::Contents(KeysetError::SameBytes { keyset, id }));
                }
            }
        }
        Ok(())
    }
}

fn read_sealed(place: &Place) -> Result<Zeroizing<Vec<u8>>, KeyringFault> {
    let bytes = place.read(FILE_BYTES_MAX)?.ok_or(KeyringFault::Missing)?;
    if bytes.is_empty() {
        Err(KeyringFault::Empty)
    } else {
        Ok(bytes)
    }
}

fn unseal(bytes: &[u8], unlock: &Unlock, generation_min: u64) -> Result<Keyring, KeyringFault> {
    let keyring = payload::read(&unlock.open(bytes)?)?;
    keyring.check()?;
    if keyring.generation < generation_min {
        return Err(KeyringFault::OlderGeneration {
            found: keyring.generation,
            expected: generation_min,
        });
    }
    Ok(keyring)
}

/// Keys in a keyring, tombstones included. 10,000 take 4 MB; a keyset that rotates daily needs 27 years to get there. More
/// than that is an attack or a mistake (B54).
pub const KEYS_MAX: usize = 10_000;

/// Bytes of a keyring file: room for [`KEYS_MAX`] keys with long records (B54).
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
