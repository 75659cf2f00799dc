//! The keyring file as a rotation uses it.

use super::{KEYRING_WAIT, Managed, ProtocolError};
use crate::key::{Keyring, KeyringEdit, Keyset};

impl Managed {
    /// Opens the keyring. One that is older than what a rotation has seen is refused.
    pub(super) fn open_keyring(&self, generation_min: u64) -> Result<Keyring, ProtocolError> {
        Ok(Keyring::open(&self.keyring, &self.unlock, generation_min)?)
    }

    /// Locks and opens it for a change.
    pub(super) fn edit_keyring(&self, generation_min: u64) -> Result<KeyringEdit, ProtocolError> {
        Ok(KeyringEdit::begin(
            &self.keyring,
            self.unlock.duplicate(),
            generation_min,
            KEYRING_WAIT,
        )?)
    }

    /// The keyset in an opened keyring.
    pub(super) fn keyset_of<'k>(&self, keyring: &'k Keyring) -> Result<&'k Keyset, ProtocolError> {
        keyring.keyset(&self.keyset).ok_or_else(|| self.no_such_keyset())
    }

    /// The same, to be changed.
    pub(super) fn keyset_in<'k>(&self, edit: &'k mut KeyringEdit) -> Result<&'k mut Keyset, ProtocolError> {
        edit.keyring_mut()
            .keyset_mut(&self.keyset)
            .ok_or_else(|| self.no_such_keyset())
    }

    fn no_such_keyset(&self) -> ProtocolError {
        ProtocolError::refused(
            format!("the keyring {} has no keyset {}", self.keyring.display(), self.keyset),
            format!("make it with: reseal keys generate {}", self.keyset),
        )
    }
}
