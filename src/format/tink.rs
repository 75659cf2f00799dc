//! The wire format of Google Tink's AEAD with AES-GCM keys: `01 ‖ key id (4, big-endian) ‖ nonce(12) ‖ ciphertext ‖ tag(16)`.
//!
//! Native to Reseal, and readable in every language that Tink speaks. `tink` writes the prefix type TINK; `tink-crunchy` the older
//! `00 ‖ key id` (CRUNCHY, LEGACY); prefix type RAW is `aes-gcm`. `-base64` is the text form (RFC 4648 section 4, padded).
//! The prefix is not authenticated: it chooses the key, and the tag decides.

use super::encoding::{Encoding, Shape};
use super::envelope::{Envelope, Layout, PREFIX};
use super::gcm::Gcm;
use super::nonce::RANDOM_NONCES_PER_KEY_MAX;
use super::{Cipher, Format, KeyHint, OpenError, UnfitKey, lenient};
use crate::key::{KeyId, KeyMaterial};

/// One of the `tink…` formats.
#[derive(Debug, Clone, Copy)]
pub struct Tink {
    name: &'static str,
    kind: u8,
    encoding: Encoding,
}

impl Tink {
    /// `tink`: what Reseal writes unless told otherwise.
    pub const NATIVE: Self = Self {
        name: "tink",
        kind: KIND_TINK,
        encoding: Encoding::Raw,
    };

    /// All of them, the native one first.
    pub fn all() -> impl Iterator<Item = &'static Tink> {
        ALL.iter()
    }

    /// AES-GCM in Tink's layout behind `prefix`, or without one (prefix type RAW).
    pub(super) fn envelope(
        prefix: Option<[u8; PREFIX]>,
        encoding: Encoding,
        material: &KeyMaterial,
    ) -> Result<Envelope, UnfitKey> {
        let unfit = UnfitKey::Length {
            format: Self::NATIVE.name,
            wanted: "16 or 32",
            found: material.expose().len(),
        };
        let key = Some(material.expose())
            .filter(|key| key.len() != 24)
            .and_then(|key| Gcm::new(key, Layout::STANDARD.nonce_bytes))
            .ok_or(unfit)?;
        Ok(Envelope {
            prefix,
            layout: Layout::STANDARD,
            encoding,
            key,
            refuse: match prefix {
                Some([KIND_CRUNCHY, ..]) => refuse::<KIND_CRUNCHY>,
                _ => refuse::<KIND_TINK>,
            },
        })
    }
}

impl Format for Tink {
    fn name(&self) -> &'static str {
        self.name
    }

    fn hint(&self, stored: &[u8]) -> KeyHint {
        let (len, head) = match self.encoding.shape(stored) {
            Shape::Other => return KeyHint::Foreign,
            Shape::Canonical(len) if self.encoding == Encoding::Raw => (len, stored.first_chunk().copied()),
            Shape::Canonical(len) | Shape::Variant(len) => (len, lenient::peek(stored)),
        };
        match head.map(read_prefix) {
            // Ordinary words decode from base64, too: short ones are not taken for values. No text begins with the byte itself.
            Some((kind, id)) if kind == self.kind && (self.encoding == Encoding::Raw || len >= VALUE_MIN) => KeyHint::Key(id),
            Some((kind @ ..=KIND_LAST, _)) if kind != self.kind && len >= VALUE_MIN => KeyHint::UnknownVersion(kind),
            _ => KeyHint::Foreign,
        }
    }

    fn beginnings(&self, id: KeyId) -> Option<Vec<Vec<u8>>> {
        let prefix = prefix(self.kind, id);
        if self.encoding == Encoding::Raw {
            return Some(vec![prefix.to_vec()]);
        }
        // Seven digits of six bits end two bits into the byte behind the prefix.
        let texts = [0x00, 0x40, 0x80, 0xc0].map(|next| {
            let mut text = Vec::new();
            self.encoding.append(PREFIX + 1, false, &mut text, |bytes| {
                bytes[..PREFIX].copy_from_slice(&prefix);
                bytes[PREFIX] = next;
            });
            text.truncate(7);
            text
        });
        Some(texts.to_vec())
    }

    fn cipher(&self, material: &KeyMaterial, id: Option<KeyId>) -> Result<Box<dyn Cipher>, UnfitKey> {
        let id = id.ok_or(UnfitKey::NeedsId(self.name))?;
        Ok(Box::new(Self::envelope(
            Some(prefix(self.kind, id)),
            self.encoding,
            material,
        )?))
    }

    fn sealed_len(&self, plaintext_len: usize) -> usize {
        self.encoding.text_len(VALUE_MIN + plaintext_len, false)
    }

    fn is_text(&self) -> bool {
        self.encoding != Encoding::Raw
    }

    /// Two keys can be made to accept one value, but the value names one, and only that one is asked.
    fn is_committing(&self) -> bool {
        false
    }

    fn binds_associated_data(&self) -> bool {
        true
    }

    fn values_per_key_max(&self) -> u64 {
        RANDOM_NONCES_PER_KEY_MAX
    }
}

/// What a value is that does not begin with the prefix of a key whose kind is `KIND`.
pub(super) fn refuse<const KIND: u8>(value: &[u8]) -> OpenError {
    match value.first_chunk().copied().map(read_prefix) {
        Some((kind, id)) if kind == KIND => OpenError::OtherKey(id),
        Some((kind @ ..=KIND_LAST, _)) if value.len() >= VALUE_MIN => OpenError::UnknownVersion(kind),
        _ => OpenError::Malformed,
    }
}

pub(super) fn prefix(kind: u8, KeyId(id): KeyId) -> [u8; PREFIX] {
    let [a, b, c, d] = id.to_be_bytes();
    [kind, a, b, c, d]
}

fn read_prefix([kind, a, b, c, d]: [u8; PREFIX]) -> (u8, KeyId) {
    (kind, KeyId(u32::from_be_bytes([a, b, c, d])))
}

/// Prefix types of Tink: `tink-go/core/cryptofmt`.
pub(super) const KIND_TINK: u8 = 1;
pub(super) const KIND_CRUNCHY: u8 = 0;
/// Bytes up to here begin no text, so that a value beginning with one is a format to come rather than plaintext.
const KIND_LAST: u8 = 8;
/// Prefix, nonce and tag of an empty plaintext.
const VALUE_MIN: usize = PREFIX + Layout::STANDARD.overhead();

static ALL: [Tink; 4] = [
    Tink::NATIVE,
    Tink {
        name: "tink-base64",
        kind: KIND_TINK,
        encoding: Encoding::Base64,
    },
    Tink {
        name: "tink-crunchy",
        kind: KIND_CRUNCHY,
        encoding: Encoding::Raw,
    },
    Tink {
        name: "tink-crunchy-base64",
        kind: KIND_CRUNCHY,
        encoding: Encoding::Base64,
    },
];
