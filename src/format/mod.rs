//! Ciphertext formats: how a value looks in its column, and back.
//!
//! A [`Format`] names a layout; joined with one key it becomes a [`Cipher`] that opens and seals. Both are pure: no I/O, no
//! database, no allocation per value beyond the caller's output arena.

mod aes_gcm;
mod associated;
mod detect;
mod encoding;
mod envelope;
mod fernet;
mod foreign;
mod gcm;
mod kernel;
mod keyset;
mod lenient;
mod names;
mod nonce;
mod tink;
mod trial;

pub use aes_gcm::AesGcm;
pub use associated::{AssociatedData, Component, NullColumn, TemplateError, tag};
pub use detect::{Detection, Verdict, detect, looks_sealed};
pub use encoding::Encoding;
pub use envelope::{Layout, Order};
pub use fernet::{Fernet, FernetCipher};
pub use kernel::{ResealError, Scratch, WORKING_ROOM, make_room, reseal, reseal_bound, seal_checked};
pub use keyset::{PrefixType, TinkKeyset};
pub use names::{UnknownFormat, all, by_name};
pub use nonce::{NonceRng, RANDOM_NONCES_PER_KEY_MAX, RandomFailed, reseed, seeded};
pub use tink::Tink;
pub use trial::{TrialError, open_exclusively, open_first};

use crate::key::{KeyId, KeyMaterial};

/// What a stored value says about its key before anything is decrypted. A hint chooses a key; only the tag decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHint {
    /// The value names the key that sealed it.
    Key(KeyId),
    /// The value has this format's shape, and the format names no key: keys are tried in order.
    Unnamed,
    /// The value says that it is of this format, in a version or algorithm that this build does not know (B06).
    UnknownVersion(u8),
    /// The value is not of this format: plaintext, or another format.
    Foreign,
}

/// Why a value did not open. Carries no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short, wrong magic, not canonical text: the layout does not hold.
    #[error("not a well-formed value of this format")]
    Malformed,
    /// A version or algorithm that this build does not know.
    #[error("unknown format version {0}")]
    UnknownVersion(u8),
    /// The value names another key than this one.
    #[error("sealed with another key (id {0})")]
    OtherKey(KeyId),
    /// The tag does not match: wrong key, altered bytes, or a value moved from another row or column.
    #[error("authentication failed: wrong key, altered bytes, or a value of another row or column")]
    Authentication,
    /// The tag matches and the inside is broken (padding): written by a faulty program.
    #[error("authentic, but its padding is broken")]
    Padding,
}

/// What a value carries besides its plaintext and must keep through a rotation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Fernet: the time of creation, seconds since 1970, as stored (applications check a TTL against it). Whoever seals a *new* value
    /// as Fernet sets it; `None` writes 1970, which every TTL refuses.
    pub timestamp: Option<u64>,
    /// Base64url text forms: the stored text left out its `=` padding.
    pub unpadded: bool,
}

/// A layout of ciphertext.
pub trait Format: Send + Sync {
    /// The name used in configuration, on the command line and in reports: `fernet`, `tink`, `aes-gcm`, ….
    fn name(&self) -> &'static str;

    /// What `stored` says about its key. Cheap: no cryptography.
    fn hint(&self, stored: &[u8]) -> KeyHint;

    /// The beginnings of all values under the key with this id, one of which each value has; `None` where values do not name their
    /// key. For filters that see only bytes.
    fn beginnings(&self, _id: KeyId) -> Option<Vec<Vec<u8>>> {
        None
    }

    /// Joins the layout with a key. `id` is the key's id in its keyset; formats that write an id refuse `None`.
    fn cipher(&self, material: &KeyMaterial, id: Option<KeyId>) -> Result<Box<dyn Cipher>, UnfitKey>;

    /// Bytes that a plaintext of `plaintext_len` takes in the column.
    fn sealed_len(&self, plaintext_len: usize) -> usize;

    /// Whether stored values are text (base64, hex, tokens), so that they fit a text column.
    fn is_text(&self) -> bool;

    /// Whether two keys can be made to accept one ciphertext (AES-GCM does not commit to its key). Where the value names no key
    /// either, a reader must make sure that only one of its keys accepts (SECURITY 1.7).
    fn is_committing(&self) -> bool;

    /// Whether associated data is authenticated with the value.
    fn binds_associated_data(&self) -> bool;

    /// How many values one key may seal before the chance of a repeated nonce exceeds what the standard allows.
    fn values_per_key_max(&self) -> u64 {
        u64::MAX
    }
}

impl std::fmt::Debug for dyn Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Format({})", self.name())
    }
}

/// A format joined with one key.
pub trait Cipher: Send + Sync {
    /// Opens `stored` and appends the plaintext to `out`. On an error `out` is as it was.
    ///
    /// Needs at most `stored.len() + 3` bytes of `out`'s spare capacity, also while it works. Reserve them beforehand: a vector that
    /// grows leaves its old copy, plaintexts included, in freed memory. Decrypted bytes may remain beyond `out.len()`;
    /// `Zeroize for Vec` wipes the whole capacity.
    fn open(&self, stored: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<Carried, OpenError>;

    /// Seals `plaintext` under a fresh nonce and appends the stored form to `out`.
    fn seal(&self, plaintext: &[u8], associated_data: &[u8], carried: Carried, rng: &mut NonceRng, out: &mut Vec<u8>);
}

/// A key that a format cannot use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnfitKey {
    /// Wrong size for the format's algorithm.
    #[error("{format} takes a key of {wanted} bytes, this one has {found}")]
    Length {
        /// The format.
        format: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What was given.
        found: usize,
    },
    /// The format writes the key's id into every value, and this key has none.
    #[error("{0} writes the key's id into every value, and this key has none: use a key of a keyring, or a Tink keyset")]
    NeedsId(&'static str),
}
