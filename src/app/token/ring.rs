//! The signing keys of one keyset, as of one version of the keyring. Built beside the readers, then swapped in whole.

use super::error::TokenError;
use super::signature::SigningKey;
use crate::app::error::HandleError;
use crate::app::keyring::NextSeal;
use crate::key::{Key, KeyId, KeyState, Keyring, KeysetName};

/// What a handle works with.
pub(in crate::app) struct TokenRing {
    pub(in crate::app) keyset: KeysetName,
    pub(super) generation: u64,
    pub(super) revision: u64,
    /// What signs: always the first.
    keys: Vec<(KeyId, SigningKey)>,
    /// Keys that exist and verify nothing.
    withheld: Vec<(KeyId, &'static str)>,
}

impl TokenRing {
    /// The keys of a keyset that sign and verify.
    pub(in crate::app) fn build(keyring: &Keyring, name: &KeysetName) -> Result<Self, HandleError> {
        let keyset = keyring.keyset(name).ok_or_else(|| HandleError::NoSuchKeyset(name.clone()))?;
        let primary = keyset.primary();
        let mut ring = Self {
            keyset: name.clone(),
            generation: keyring.generation(),
            revision: keyset.revision(),
            keys: vec![(primary.id(), signing(name, primary)?)],
            withheld: Vec::new(),
        };
        for key in keyset.keys().iter().filter(|key| key.id() != primary.id()) {
            match standing(key) {
                None => ring.keys.push((key.id(), signing(name, key)?)),
                Some(standing) => ring.withheld.push((key.id(), standing)),
            }
        }
        Ok(ring)
    }

    /// What a report says of the next signature.
    pub(in crate::app) fn next_seal(&self) -> NextSeal {
        NextSeal {
            keyset: self.keyset.clone(),
            revision: self.revision,
            key: self.primary().0,
            // A compromised key verifies nothing.
            compromised_opens: 0,
        }
    }

    /// The key that signs.
    pub(super) fn primary(&self) -> (KeyId, &SigningKey) {
        let (id, key) = &self.keys[0];
        (*id, key)
    }

    /// The one key of this name.
    pub(super) fn named(&self, kid: &str) -> Result<(KeyId, &SigningKey), TokenError> {
        let unknown = || TokenError::UnknownKey {
            keyset: self.keyset.clone(),
        };
        let id = kid.parse().map(KeyId).map_err(|_| unknown())?;
        // One spelling for one key: no sign, no zeros in front.
        if id.to_string() != kid {
            return Err(unknown());
        }
        if let Some((id, key)) = self.keys.iter().find(|(known, _)| *known == id) {
            return Ok((*id, key));
        }
        let standing = self.withheld.iter().find(|(known, _)| *known == id);
        Err(standing.map_or_else(unknown, |(id, standing)| TokenError::Withheld {
            keyset: self.keyset.clone(),
            id: *id,
            standing,
        }))
    }
}

/// Why a key verifies nothing; `None` when it does. That a compromised key may open stored values (availability first) changes
/// nothing here: whoever holds it could sign.
fn standing(key: &Key) -> Option<&'static str> {
    match key.state() {
        KeyState::Pending => Some("pending"),
        KeyState::Compromised => Some("compromised"),
        KeyState::Destroyed => Some("destroyed"),
        KeyState::Staged | KeyState::Primary | KeyState::Retiring if key.retired_at().is_some() => Some("retired"),
        KeyState::Staged | KeyState::Primary | KeyState::Retiring => None,
    }
}

fn signing(keyset: &KeysetName, key: &Key) -> Result<SigningKey, HandleError> {
    let signing = key.material().and_then(|material| SigningKey::new(key.algorithm(), material));
    signing.ok_or_else(|| HandleError::SignsNothing {
        keyset: keyset.clone(),
        id: key.id(),
        algorithm: key.algorithm(),
    })
}
