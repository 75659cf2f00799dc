//! AES-GCM on a slice, whatever surrounds it: `ring` for nonces of 12 bytes, the `aes-gcm` crate for all that `ring` leaves out.
//!
//! `ring` keeps the expanded key without wiping it when dropped; the process switches core dumps off for that.

use std::ops::Range;

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::array::ArraySize;
use aes_gcm::aead::consts::{U8, U12, U16, U24, U32};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, AesGcm, KeyInit, Nonce as WideNonce, Tag as WideTag};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// Where nonce, ciphertext and tag lie in the bytes of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) nonce: Range<usize>,
    pub(super) ciphertext: Range<usize>,
    pub(super) tag: Range<usize>,
}

/// AES-GCM with one key, for nonces of one length.
#[expect(
    clippy::large_enum_variant,
    reason = "one of it lives in each boxed cipher; the small variant is the rare one"
)]
pub(super) enum Gcm {
    Ring(LessSafeKey),
    Wide(Box<dyn Wide>),
}

impl Gcm {
    /// `None` unless the key has 16, 24 or 32 bytes and the nonce 8, 12, 16, 24 or 32.
    pub(super) fn new(key: &[u8], nonce_bytes: usize) -> Option<Self> {
        let algorithm = match (key.len(), nonce_bytes) {
            (16, 12) => &AES_128_GCM,
            (32, 12) => &AES_256_GCM,
            (16, _) => return wide(Aes128::new_from_slice(key).ok()?, nonce_bytes),
            (24, _) => return wide(Aes192::new_from_slice(key).ok()?, nonce_bytes),
            (32, _) => return wide(Aes256::new_from_slice(key).ok()?, nonce_bytes),
            _ => return None,
        };
        UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new).map(Self::Ring)
    }

    /// Authenticates and decrypts in place; the plaintext ends up at the front of `value`. `None` if the tag does not match.
    pub(super) fn open(&self, value: &mut [u8], parts: &Parts, associated_data: &[u8]) -> Option<usize> {
        let tag: [u8; TAG] = value[parts.tag.clone()].try_into().ok()?;
        match self {
            Self::Ring(key) => {
                let nonce = Nonce::try_assume_unique_for_key(&value[parts.nonce.clone()]).ok()?;
                let ciphertext = &mut value[..parts.ciphertext.end];
                key.open_in_place_separate_tag(
                    nonce,
                    Aad::from(associated_data),
                    Tag::from(tag),
                    ciphertext,
                    parts.ciphertext.start..,
                )
                .ok()
                .map(|plaintext| plaintext.len())
            }
            Self::Wide(key) => {
                let mut nonce = [0; NONCE_MAX];
                let nonce = &mut nonce[..parts.nonce.len()];
                nonce.copy_from_slice(&value[parts.nonce.clone()]);
                key.open(nonce, associated_data, &mut value[parts.ciphertext.clone()], &tag)?;
                value.copy_within(parts.ciphertext.clone(), 0);
                Some(parts.ciphertext.len())
            }
        }
    }

    /// Encrypts the plaintext that lies in the ciphertext's place, under the nonce that lies in its own, and writes the tag.
    pub(super) fn seal(&self, value: &mut [u8], parts: &Parts, associated_data: &[u8]) {
        let mut nonce = [0; NONCE_MAX];
        let nonce = &mut nonce[..parts.nonce.len()];
        nonce.copy_from_slice(&value[parts.nonce.clone()]);
        let text = &mut value[parts.ciphertext.clone()];
        let tag: Option<[u8; TAG]> = match self {
            Self::Ring(key) => Nonce::try_assume_unique_for_key(nonce)
                .and_then(|nonce| key.seal_in_place_separate_tag(nonce, Aad::from(associated_data), text))
                .ok()
                .and_then(|tag| tag.as_ref().try_into().ok()),
            Self::Wide(key) => key.seal(nonce, associated_data, text),
        };
        let Some(tag) = tag else {
            // The nonce has the length that the key was made for, and both crates refuse nothing else below 64 GiB.
            unreachable!("AES-GCM refuses only plaintexts above 64 GiB, and no column holds one");
        };
        value[parts.tag.clone()].copy_from_slice(&tag);
    }
}

/// The `aes-gcm` crate behind one type for all key and nonce lengths.
pub(super) trait Wide: Send + Sync {
    fn open(&self, nonce: &[u8], associated_data: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> Option<()>;
    fn seal(&self, nonce: &[u8], associated_data: &[u8], text: &mut [u8]) -> Option<[u8; TAG]>;
}

impl<A, N> Wide for AesGcm<A, N>
where
    AesGcm<A, N>: AeadInOut<NonceSize = N, TagSize = U16> + Send + Sync,
    N: ArraySize,
{
    fn open(&self, nonce: &[u8], associated_data: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> Option<()> {
        let nonce = <&WideNonce<N>>::try_from(nonce).ok()?;
        self.decrypt_inout_detached(nonce, associated_data, InOutBuf::from(text), &WideTag::from(*tag))
            .ok()
    }

    fn seal(&self, nonce: &[u8], associated_data: &[u8], text: &mut [u8]) -> Option<[u8; TAG]> {
        let nonce = <&WideNonce<N>>::try_from(nonce).ok()?;
        self.encrypt_inout_detached(nonce, associated_data, InOutBuf::from(text))
            .ok()
            .map(Into::into)
    }
}

fn wide<A>(cipher: A, nonce_bytes: usize) -> Option<Gcm>
where
    A: aes::cipher::BlockCipherEncrypt + aes::cipher::BlockSizeUser<BlockSize = U16> + Send + Sync + 'static,
{
    Some(Gcm::Wide(match nonce_bytes {
        8 => Box::new(AesGcm::<A, U8>::from(cipher)),
        12 => Box::new(AesGcm::<A, U12>::from(cipher)),
        16 => Box::new(AesGcm::<A, U16>::from(cipher)),
        24 => Box::new(AesGcm::<A, U24>::from(cipher)),
        32 => Box::new(AesGcm::<A, U32>::from(cipher)),
        _ => return None,
    }))
}

/// Tags are never shorter: a short tag is a forgery waiting for enough tries.
pub(super) const TAG: usize = 16;
const NONCE_MAX: usize = 32;
