//! What can go wrong on the application's side. Texts hold names, ids and states, never content.

use std::io;

use crate::format::{RandomFailed, UnfitKey};
use crate::key::{Algorithm, Exhausted, KeyId, KeyringError, KeysetName, UnfitName};

/// Why a keyring cannot be opened, or why the present version of its file is not used.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The file is missing, broken, locked with another secret, or older than the version that was seen before.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The new version has no usable form of a keyset that this application works with.
    #[error("the new version of the keyring would take keys away that are in use: {0}")]
    InUse(HandleError),
    /// The thread that follows the file could not be started.
    #[error("the thread that follows the keyring file could not be started")]
    Thread(#[source] io::Error),
}

/// Why there is no handle for a keyset.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The text cannot name a keyset.
    #[error(transparent)]
    Name(#[from] UnfitName),
    /// The keyring has no such keyset.
    #[error("the keyring has no keyset {0}")]
    NoSuchKeyset(KeysetName),
    /// The primary key is made for something else than this format.
    #[error("keyset {keyset}: its primary key {id} is made for {algorithm}, not for the format {format}")]
    Algorithm {
        /// The keyset.
        keyset: KeysetName,
        /// Its primary.
        id: KeyId,
        /// What that is made for.
        algorithm: Algorithm,
        /// The format asked for.
        format: &'static str,
    },
    /// The keyset is none of signing keys.
    #[error("keyset {keyset}: key {id} is made for {algorithm}, and signs no tokens")]
    SignsNothing {
        /// The keyset.
        keyset: KeysetName,
        /// The key.
        id: KeyId,
        /// What it is made for.
        algorithm: Algorithm,
    },
    /// A key does not fit the format.
    #[error("keyset {keyset}, key {id}: {cause}")]
    Unfit {
        /// The keyset.
        keyset: KeysetName,
        /// The key.
        id: KeyId,
        /// Why.
        cause: UnfitKey,
    },
}

/// Why a value was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system's random generator failed; a guessable nonce is worse than an error.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// The key has sealed as many values as it may ([`RANDOM_NONCES_PER_KEY_MAX`](crate::format::RANDOM_NONCES_PER_KEY_MAX), less a margin). It still opens them.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The format would silently forget the associated data.
    #[error("the format {0} authenticates no associated data, and some was given")]
    AssociatedData(&'static str),
}

/// Why a value was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The value is not of the handle's format: plaintext, another format, or cut short.
    #[error("not a sealed value of the format {0}")]
    NotSealed(&'static str),
    /// The value is of the handle's format, in a version that this build does not know.
    #[error("sealed in version {0} of its format, which this build does not know")]
    UnknownVersion(u8),
    /// The value names a key that the keyset does not have, also after another look at the file.
    #[error("keyset {keyset} has no key {id}, which sealed this value: is this instance's keyring file up to date?")]
    UnknownKey {
        /// The keyset.
        keyset: KeysetName,
        /// The key that the value names.
        id: KeyId,
    },
    /// The value names a key that applications are not given.
    #[error("key {id} of keyset {keyset}, which sealed this value, is {standing}: applications do not open with it")]
    Withheld {
        /// The keyset.
        keyset: KeysetName,
        /// The key that the value names.
        id: KeyId,
        /// Where it stands: `pending`, `retired`, `compromised`, or `made for another algorithm`.
        standing: &'static str,
    },
    /// The value names a key whose bytes are gone: so is the plaintext.
    #[error("key {id} of keyset {keyset}, which sealed this value, is destroyed: the value cannot be opened any more")]
    Destroyed {
        /// The keyset.
        keyset: KeysetName,
        /// The key that the value names.
        id: KeyId,
    },
    /// The tag does not match.
    #[error("authentication failed: altered bytes, other associated data, or a key that this keyset does not have")]
    Authentication,
    /// Authentic, and broken inside: written by a faulty program.
    #[error("authentic, but its padding is broken")]
    Damaged,
    /// Two keys accept the value, which never happens by chance.
    #[error("two keys accept this value: it was crafted")]
    Ambiguous,
    /// The format would silently ignore the associated data.
    #[error("the format {0} authenticates no associated data, and some was given")]
    AssociatedData(&'static str),
}
