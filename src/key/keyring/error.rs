//! What can be wrong with a keyring file, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::key::file::ReadFault;
use crate::key::lock::LockFault;
use crate::key::replace::ReplaceFault;
use crate::key::{KeysetError, KeysetName};

/// A fault, and the file that has it.
#[derive(Debug, thiserror::Error)]
#[error("keyring {}: {fault}", path.display())]
pub struct KeyringError {
    /// The keyring file.
    pub path: PathBuf,
    /// What is wrong with it. Part of the text already, and so not the source.
    pub fault: KeyringFault,
}

/// What is wrong with a keyring file, or with a change to it. Never says anything of its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyringFault {
    /// There is no file.
    #[error("there is no such file")]
    Missing,
    /// There is a file where a new keyring should go.
    #[error("the file exists already")]
    Exists,
    /// Zero bytes.
    #[error("the file is empty")]
    Empty,
    /// The header is not complete, or the body ends before its first block does.
    #[error("the file ends too early")]
    Truncated,
    /// The file does not begin like an age file.
    #[error("not an age file")]
    NotAge,
    /// An age file of a version that this build does not read.
    #[error("an age file of an unknown version")]
    UnknownAgeVersion,
    /// Sealed with a passphrase, and identities were given; or the other way round.
    #[error("the file is sealed to {sealed_to}, and {given} was given")]
    OtherUnlock {
        /// What opens it.
        sealed_to: &'static str,
        /// What was tried.
        given: &'static str,
    },
    /// One error for wrong secrets and damaged headers: telling them apart would help somebody who guesses (B52).
    #[error("wrong passphrase or identity, or a damaged header")]
    Locked,
    /// The header opened, the body did not.
    #[error("the body is damaged: altered or cut short")]
    Damaged,
    /// A scrypt work factor outside the accepted range (B53).
    #[error("scrypt work factor 2^{found} is outside the accepted range, 2^{min} to 2^{max}")]
    Work {
        /// The exponent in the file.
        found: u8,
        /// The least that is accepted.
        min: u8,
        /// The most that is accepted.
        max: u8,
    },
    /// The file opened, and inside is something else.
    #[error("the file does not hold a keyring")]
    WrongSchema,
    /// Written by a newer version.
    #[error("written by a newer version of reseal (keyring schema {found})")]
    NewerSchema {
        /// The version of the schema.
        found: u32,
    },
    /// The JSON inside breaks the schema. The place, and never the text, which holds keys.
    #[error("its JSON breaks the schema at line {line}, column {column}")]
    Malformed {
        /// Counted from one.
        line: usize,
        /// Counted from one.
        column: usize,
    },
    /// A field of a key is none of the words or forms that it may have (B54).
    #[error("keyset {keyset}, key number {position}: {what}")]
    Field {
        /// The keyset.
        keyset: KeysetName,
        /// The position of the key in it, counted from one.
        position: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A keyset whose name cannot be one.
    #[error("a keyset has a name that is not allowed")]
    Name,
    /// A keyset that breaks its rules.
    #[error(transparent)]
    Contents(#[from] KeysetError),
    /// Two keysets with one name.
    #[error("there is a keyset {keyset} already")]
    KeysetExists {
        /// The name.
        keyset: KeysetName,
    },
    /// No keyset of that name.
    #[error("there is no keyset {keyset}")]
    NoSuchKeyset {
        /// The name.
        keyset: KeysetName,
    },
    /// More keys than a keyring may hold (B54).
    #[error("{found} keys, at most {max} are accepted")]
    TooManyKeys {
        /// How many.
        found: usize,
        /// How many are accepted.
        max: usize,
    },
    /// An older version of the file was put back (B49).
    #[error("generation {found} is older than generation {expected}, which was seen before: an old copy was put back")]
    OlderGeneration {
        /// The generation in the file.
        found: u64,
        /// The least that the caller accepts.
        expected: u64,
    },
    /// Nothing to seal to.
    #[error("a keyring is sealed with a passphrase or to at least one recipient")]
    NoSeal,
    /// Passphrase and recipients at once, which the age format forbids.
    #[error("a keyring is sealed either with a passphrase or to recipients: the age format forbids both at once")]
    MixedSeal,
    /// The text is not an age X25519 recipient.
    #[error("not an age recipient (age1…)")]
    Recipient,
    /// Sealing failed inside the age library.
    #[error("the keyring could not be sealed")]
    Sealing,
    /// The file is not one that keys may be read from (B50), or reading failed.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// Somebody else is changing the keyring.
    #[error(transparent)]
    Lock(#[from] LockFault),
    /// The new version could not be written.
    #[error(transparent)]
    Replace(#[from] ReplaceFault),
    /// The folder could not be opened.
    #[error("its folder cannot be opened")]
    Folder(#[source] io::Error),
}

impl KeyringError {
    pub(crate) fn new(path: &Path, fault: KeyringFault) -> Self {
        Self {
            path: path.to_owned(),
            fault,
        }
    }
}

impl From<io::Error> for KeyringFault {
    fn from(error: io::Error) -> Self {
        Self::Folder(error)
    }
}
