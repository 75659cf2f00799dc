//! A Tink keyset as a reader, with Tink's own rules: the enabled keys whose prefix the value carries, then every key of prefix type
//! RAW over the whole value, because a RAW ciphertext may begin like a prefix.
//!
//! One deviation, and a stricter one: where more than one key could be meant, all of them are asked, and a value that two accept is
//! refused instead of decided by the order of the keyset (AES-GCM does not commit to its key).

use super::encoding::Encoding;
use super::tink::{KIND_CRUNCHY, KIND_TINK, Tink, prefix, refuse};
use super::trial::{TrialError, open_exclusively};
use super::{Carried, Cipher, OpenError, UnfitKey};
use crate::key::{KeyId, KeyMaterial};

/// How a key of a Tink keyset marks what it seals: `outputPrefixType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixType {
    /// `01 ‖ key id`.
    Tink,
    /// `00 ‖ key id`.
    Crunchy,
    /// `00 ‖ key id`; for this primitive the same as CRUNCHY.
    Legacy,
    /// Nothing.
    Raw,
}

/// Opens values under all AES-GCM keys of a Tink keyset. Keys that are disabled or destroyed are simply never added.
#[derive(Default)]
pub struct TinkKeyset {
    keys: Vec<TinkKey>,
}

struct TinkKey {
    id: KeyId,
    prefix: Option<[u8; 5]>,
    cipher: Box<dyn Cipher>,
}

impl TinkKeyset {
    /// A keyset that opens nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an enabled key.
    pub fn enable(&mut self, id: KeyId, prefix_type: PrefixType, material: &KeyMaterial) -> Result<(), UnfitKey> {
        let prefix = match prefix_type {
            PrefixType::Tink => Some(prefix(KIND_TINK, id)),
            PrefixType::Crunchy | PrefixType::Legacy => Some(prefix(KIND_CRUNCHY, id)),
            PrefixType::Raw => None,
        };
        let cipher = Box::new(Tink::envelope(prefix, Encoding::Raw, material)?);
        self.keys.push(TinkKey { id, prefix, cipher });
        Ok(())
    }

    /// Opens a value, appends the plaintext to `out`, and says which key it was. On an error `out` is as it was.
    pub fn open(&self, stored: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<(KeyId, Carried), TrialError> {
        let named = self
            .keys
            .iter()
            .filter(|key| key.prefix.is_some_and(|prefix| stored.starts_with(&prefix)));
        let candidates = named.chain(self.keys.iter().filter(|key| key.prefix.is_none()));
        let ciphers = candidates.clone().map(|key| &*key.cipher);
        let (position, carried) = open_exclusively(ciphers, stored, associated_data, out).map_err(|error| match error {
            TrialError::NoKey => TrialError::Unreadable(self.refuse(stored)),
            other => other,
        })?;
        let id = candidates.map(|key| key.id).nth(position).ok_or(TrialError::NoKey)?;
        Ok((id, carried))
    }

    /// Why no key of the set is even meant: another key, or a prefix type that no key of the set has.
    fn refuse(&self, stored: &[u8]) -> OpenError {
        let has = |kind: u8| self.keys.iter().any(|key| key.prefix.is_some_and(|prefix| prefix[0] == kind));
        match stored.first() {
            Some(&KIND_CRUNCHY) if has(KIND_CRUNCHY) => refuse::<KIND_CRUNCHY>(stored),
            _ => refuse::<KIND_TINK>(stored),
        }
    }
}
