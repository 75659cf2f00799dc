//! Keys with the names that reports give them, and joined with a format.

use crate::format::{Cipher, Format, UnfitKey};
use crate::key::{KeyId, KeyMaterial};

/// A key with the name that reports give it.
pub struct NamedKey {
    /// `customer-data@2771811438` for a key of a keyring, otherwise its fingerprint.
    pub label: String,
    /// Its id in a keyset, if it has one.
    pub id: Option<KeyId>,
    /// Its bytes.
    pub material: KeyMaterial,
}

/// How far what a source opens is believed to come from the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Whatever is under it is moved.
    Full,
    /// The key has leaked: what turns up under it after its values were moved may be forged.
    Leaked,
    /// The key has leaked, and its values were moved long ago: whatever is under it may be forged.
    Spent,
}

/// A cipher with its key's names.
pub struct KeyedCipher {
    /// For reports.
    pub label: String,
    /// In ciphertexts.
    pub id: Option<KeyId>,
    /// Opens and seals.
    pub cipher: Box<dyn Cipher>,
    /// Where it opens values that are to be moved.
    pub trust: Trust,
}

impl KeyedCipher {
    /// Joins a format with a key, whose values are moved whatever they are.
    pub(super) fn join(format: &'static dyn Format, key: &NamedKey) -> Result<Self, UnfitKey> {
        Ok(Self {
            label: key.label.clone(),
            id: key.id,
            cipher: format.cipher(&key.material, key.id)?,
            trust: Trust::Full,
        })
    }
}
