//! Prefix, nonce, ciphertext and tag in some order, in some text form: the ciphers of `tink` and `aes-gcm` in one.

use rand::Rng;

use super::encoding::Encoding;
use super::gcm::{Gcm, Parts, TAG};
use super::{Carried, Cipher, NonceRng, OpenError};

/// The order of the parts of a value, and the length of its nonce. Order cannot be seen from outside: a wrong guess fails to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Length of the nonce: 8, 12, 16, 24 or 32. Any but 12 is hashed into the counter block (SP 800-38D section 7.1).
    pub nonce_bytes: usize,
    /// What comes after what.
    pub order: Order,
}

/// The order of the parts of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `nonce ‖ ciphertext ‖ tag`: nearly everybody.
    NonceCiphertextTag,
    /// `nonce ‖ tag ‖ ciphertext`: the example of PyCryptodome's manual, sqlalchemy-utils, hand-made Node code.
    NonceTagCiphertext,
    /// `ciphertext ‖ tag ‖ nonce`.
    CiphertextTagNonce,
    /// `tag ‖ nonce ‖ ciphertext`.
    TagNonceCiphertext,
}

impl Layout {
    /// A nonce of 12 bytes, the ciphertext, the tag.
    pub const STANDARD: Self = Self {
        nonce_bytes: 12,
        order: Order::NonceCiphertextTag,
    };

    /// Bytes that a value has beside its plaintext and its prefix.
    pub(super) const fn overhead(self) -> usize {
        self.nonce_bytes + TAG
    }

    /// Where the parts lie in a value of `len` bytes that starts with a prefix. `None` if it is too short.
    pub(super) fn parts(self, prefix_len: usize, len: usize) -> Option<Parts> {
        let text = len.checked_sub(prefix_len + self.overhead())?;
        let nonce = self.nonce_bytes;
        let at = |offset: usize, len: usize| prefix_len + offset..prefix_len + offset + len;
        let [nonce, ciphertext, tag] = match self.order {
            Order::NonceCiphertextTag => [at(0, nonce), at(nonce, text), at(nonce + text, TAG)],
            Order::NonceTagCiphertext => [at(0, nonce), at(nonce + TAG, text), at(nonce, TAG)],
            Order::CiphertextTagNonce => [at(text + TAG, nonce), at(0, text), at(text, TAG)],
            Order::TagNonceCiphertext => [at(TAG, nonce), at(TAG + nonce, text), at(0, TAG)],
        };
        Some(Parts { nonce, ciphertext, tag })
    }
}

/// AES-GCM with one key in one layout and one text form, behind an optional prefix.
pub(super) struct Envelope {
    pub(super) prefix: Option<[u8; PREFIX]>,
    pub(super) layout: Layout,
    pub(super) encoding: Encoding,
    pub(super) key: Gcm,
    /// What a value is that does not begin with the prefix. Only asked if there is one.
    pub(super) refuse: fn(&[u8]) -> OpenError,
}

impl Envelope {
    fn open_at(&self, value: &mut [u8], associated_data: &[u8]) -> Result<usize, OpenError> {
        let prefix_len = match self.prefix {
            Some(prefix) if !value.starts_with(&prefix) => return Err((self.refuse)(value)),
            Some(prefix) => prefix.len(),
            None => 0,
        };
        let parts = self.layout.parts(prefix_len, value.len()).ok_or(OpenError::Malformed)?;
        self.key.open(value, &parts, associated_data).ok_or(OpenError::Authentication)
    }

    /// Seals under the nonce that `fill_nonce` writes.
    pub(super) fn seal_with(
        &self,
        plaintext: &[u8],
        associated_data: &[u8],
        unpadded: bool,
        fill_nonce: impl FnOnce(&mut [u8]),
        out: &mut Vec<u8>,
    ) {
        let prefix = self.prefix.as_ref().map_or(&[][..], |prefix| prefix);
        let len = prefix.len() + self.layout.overhead() + plaintext.len();
        self.encoding.append(len, unpadded, out, |value| {
            let Some(parts) = self.layout.parts(prefix.len(), len) else {
                unreachable!("`len` is the sum of all parts");
            };
            value[..prefix.len()].copy_from_slice(prefix);
            fill_nonce(&mut value[parts.nonce.clone()]);
            value[parts.ciphertext.clone()].copy_from_slice(plaintext);
            self.key.seal(value, &parts, associated_data);
        });
    }
}

impl Cipher for Envelope {
    fn open(&self, stored: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<Carried, OpenError> {
        let start = out.len();
        let unpadded = self.encoding.decode(stored, out).map_err(|_| OpenError::Malformed)?;
        let opened = self.open_at(&mut out[start..], associated_data);
        out.truncate(start + opened.unwrap_or(0));
        opened.map(|_| Carried {
            unpadded,
            ..Carried::default()
        })
    }

    fn seal(&self, plaintext: &[u8], associated_data: &[u8], carried: Carried, rng: &mut NonceRng, out: &mut Vec<u8>) {
        self.seal_with(
            plaintext,
            associated_data,
            carried.unpadded,
            |nonce| rng.fill_bytes(nonce),
            out,
        );
    }
}

/// A byte for the kind and four for the key id.
pub(super) const PREFIX: usize = 5;
