//! What names a key without revealing it: the id a keyring gives it, and the fingerprint of its bytes.

use std::fmt;

use ring::hmac;

use super::KeyMaterial;

/// The id of a key inside a keyset: the 32-bit, non-zero number that Tink writes into ciphertexts (big-endian).
///
/// Random, never reused: a destroyed key leaves its id behind as a tombstone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

/// The first 8 bytes of HMAC-SHA256(key, a fixed label): tells two keys apart in plans, reports and refusals.
///
/// One-way for keys of full entropy, which are the only keys that [`KeyMaterial`] accepts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// The fingerprint of `material`.
    pub fn of(material: &KeyMaterial) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, material.expose());
        let tag = hmac::sign(&key, b"reseal key fingerprint v1");
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&tag.as_ref()[..8]);
        Self(bytes)
    }

    /// Reads the 16 lowercase hexadecimal digits that [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 16 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let bytes = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
