//! An opened value: its plaintext, wiped when dropped, and which key sealed it.

use std::ops::Deref;

use zeroize::Zeroizing;

use crate::key::KeyId;

/// An opened value. Reads like the plaintext's bytes; the memory is wiped when it is dropped. No `Debug`, no `Clone`.
pub struct Opened {
    pub(super) plaintext: Zeroizing<Vec<u8>>,
    pub(super) key: KeyId,
    pub(super) is_due: bool,
    pub(super) sealed_at: Option<u64>,
}

impl Opened {
    /// Whether the value was sealed with another key than the present primary: seal it again when it is written next.
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// The key that sealed it.
    pub fn key_id(&self) -> KeyId {
        self.key
    }

    /// When it was sealed, in seconds since 1970, if its format says so (Fernet). The caller checks its age; nothing here does.
    pub fn sealed_at(&self) -> Option<u64> {
        self.sealed_at
    }

    /// The plaintext, still wiped when dropped.
    pub fn into_plaintext(self) -> Zeroizing<Vec<u8>> {
        self.plaintext
    }
}

impl Deref for Opened {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.plaintext
    }
}
