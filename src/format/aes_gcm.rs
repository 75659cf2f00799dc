//! Bare AES-GCM as applications store it: nonce, ciphertext and tag, nothing that names a key.
//!
//! Names are built from parts: `aes-gcm`, the text form (`-base64`, `-base64url`, `-hex`; raw bytes without), the length of the nonce
//! (`-nonce8`, `-nonce16`, `-nonce24`, `-nonce32`; 12 without) and the order (`-tag-first` for nonce ‖ tag ‖ ciphertext, `-nonce-last`
//! for ciphertext ‖ tag ‖ nonce, `-tag-nonce` for tag ‖ nonce ‖ ciphertext; nonce ‖ ciphertext ‖ tag without). Spring's `delux` is
//! `aes-gcm-hex-nonce16`, PyCryptodome's usual example `aes-gcm-nonce16-tag-first`.

use super::encoding::{Encoding, Shape};
use super::envelope::{Envelope, Layout, Order};
use super::gcm::Gcm;
use super::nonce::{RANDOM_NONCES_PER_KEY_MAX, random_nonces_max};
use super::{Cipher, Format, KeyHint, OpenError, UnfitKey};
use crate::key::{KeyId, KeyMaterial};

/// One of the `aes-gcm…` formats: a text form and a layout.
#[derive(Debug, Clone, Copy)]
pub struct AesGcm {
    name: &'static str,
    encoding: Encoding,
    layout: Layout,
}

impl AesGcm {
    /// All of them, the plain ones first.
    pub fn all() -> impl Iterator<Item = &'static AesGcm> {
        ALL.iter().flatten().flatten()
    }

    /// The text form.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The order of the parts and the length of the nonce.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    fn envelope(&self, material: &KeyMaterial) -> Result<Envelope, UnfitKey> {
        let key = Gcm::new(material.expose(), self.layout.nonce_bytes).ok_or(UnfitKey::Length {
            format: self.name,
            wanted: "16, 24 or 32",
            found: material.expose().len(),
        })?;
        Ok(Envelope {
            prefix: None,
            layout: self.layout,
            encoding: self.encoding,
            key,
            refuse: |_| OpenError::Malformed,
        })
    }

    /// Seals under a given nonce: for published vectors only. A nonce used twice under one key gives both plaintexts away, and the
    /// means to forge. `None` if key or nonce do not have the layout's length.
    #[doc(hidden)]
    pub fn seal_with_nonce(
        &self,
        key: &KeyMaterial,
        nonce: &[u8],
        plaintext: &[u8],
        associated_data: &[u8],
        unpadded: bool,
    ) -> Option<Vec<u8>> {
        let envelope = self.envelope(key).ok().filter(|_| nonce.len() == self.layout.nonce_bytes)?;
        let mut out = Vec::new();
        envelope.seal_with(
            plaintext,
            associated_data,
            unpadded,
            |room| room.copy_from_slice(nonce),
            &mut out,
        );
        Some(out)
    }
}

impl Format for AesGcm {
    fn name(&self) -> &'static str {
        self.name
    }

    /// Only length and alphabet can be looked at. A text that is no canonical base64 or hex, but nearly, is a broken value.
    fn hint(&self, stored: &[u8]) -> KeyHint {
        match self.encoding.shape(stored) {
            Shape::Canonical(len) | Shape::Variant(len) if len >= self.layout.overhead() => KeyHint::Unnamed,
            _ => KeyHint::Foreign,
        }
    }

    fn cipher(&self, material: &KeyMaterial, _id: Option<KeyId>) -> Result<Box<dyn Cipher>, UnfitKey> {
        Ok(Box::new(self.envelope(material)?))
    }

    fn sealed_len(&self, plaintext_len: usize) -> usize {
        self.encoding.text_len(self.layout.overhead() + plaintext_len, false)
    }

    fn is_text(&self) -> bool {
        self.encoding != Encoding::Raw
    }

    /// Two keys can be made to accept one value, and no value names its key: see `open_exclusively`.
    fn is_committing(&self) -> bool {
        false
    }

    fn binds_associated_data(&self) -> bool {
        true
    }

    fn values_per_key_max(&self) -> u64 {
        random_nonces_max(self.layout.nonce_bytes).min(RANDOM_NONCES_PER_KEY_MAX)
    }
}

macro_rules! orders {
    ($encoding:ident $encoding_name:literal, $nonce_bytes:literal $nonce_name:literal) => {
        [
            orders!(@ $encoding $encoding_name, $nonce_bytes $nonce_name, NonceCiphertextTag ""),
            orders!(@ $encoding $encoding_name, $nonce_bytes $nonce_name, NonceTagCiphertext "-tag-first"),
            orders!(@ $encoding $encoding_name, $nonce_bytes $nonce_name, CiphertextTagNonce "-nonce-last"),
            orders!(@ $encoding $encoding_name, $nonce_bytes $nonce_name, TagNonceCiphertext "-tag-nonce"),
        ]
    };
    (@ $encoding:ident $encoding_name:literal, $nonce_bytes:literal $nonce_name:literal, $order:ident $order_name:literal) => {
        AesGcm {
            name: concat!("aes-gcm", $encoding_name, $nonce_name, $order_name),
            encoding: Encoding::$encoding,
            layout: Layout { nonce_bytes: $nonce_bytes, order: Order::$order },
        }
    };
}

macro_rules! encodings {
    ($nonce_bytes:literal $nonce_name:literal) => {
        [
            orders!(Raw "", $nonce_bytes $nonce_name),
            orders!(Base64 "-base64", $nonce_bytes $nonce_name),
            orders!(Base64Url "-base64url", $nonce_bytes $nonce_name),
            orders!(Hex "-hex", $nonce_bytes $nonce_name),
        ]
    };
}

static ALL: [[[AesGcm; 4]; 4]; 5] = [
    encodings!(12 ""),
    encodings!(16 "-nonce16"),
    encodings!(8 "-nonce8"),
    encodings!(24 "-nonce24"),
    encodings!(32 "-nonce32"),
];
