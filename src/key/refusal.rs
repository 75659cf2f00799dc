//! Why a keyset refuses a change, or a record that it is restored from. Names, ids and states; never key bytes.

use jiff::Timestamp;

use super::{Algorithm, ForbiddenStep, KeyId, KeyState, KeysetName, MaterialError};

/// Why a keyset refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysetError {
    /// No key with this id.
    #[error("keyset {keyset} has no key {id}")]
    NoSuchKey {
        /// The keyset.
        keyset: KeysetName,
        /// The id asked for.
        id: KeyId,
    },
    /// Not exactly one primary key (B54).
    #[error("keyset {keyset} has {found} primary keys, it must have exactly one")]
    Primaries {
        /// The keyset.
        keyset: KeysetName,
        /// How many there are.
        found: usize,
    },
    /// Two keys with one id, or the id of a destroyed key again (B54).
    #[error("keyset {keyset} has the key id {id} already; ids are never used twice, not even after a key is destroyed")]
    IdTaken {
        /// The keyset.
        keyset: KeysetName,
        /// The id.
        id: KeyId,
    },
    /// Zero is not an id.
    #[error("keyset {keyset}: a key id is a number from 1 to 4294967295")]
    IdZero {
        /// The keyset.
        keyset: KeysetName,
    },
    /// The same bytes under two ids (B55).
    #[error("keyset {keyset} holds these key bytes already, as key {id}: a rotation to them would change nothing")]
    SameBytes {
        /// The keyset.
        keyset: KeysetName,
        /// The key that has them, or had them before it was destroyed.
        id: KeyId,
    },
    /// A key in the wrong size for its algorithm.
    #[error("an {algorithm} key has {wanted} bytes, this one has {found}")]
    Size {
        /// The algorithm.
        algorithm: Algorithm,
        /// Its key size.
        wanted: usize,
        /// What was given.
        found: usize,
    },
    /// The bytes cannot be a key.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The state does not allow the step.
    #[error("key {id} of keyset {keyset}: {step}{}", hint(.step))]
    Step {
        /// The keyset.
        keyset: KeysetName,
        /// The key.
        id: KeyId,
        /// The step that has no arrow.
        step: ForbiddenStep,
    },
    /// The key was retired before.
    #[error("key {id} of keyset {keyset} is retired: readers no longer have it; stage it again first")]
    Retired {
        /// The keyset.
        keyset: KeysetName,
        /// The key.
        id: KeyId,
    },
    /// Only a key that readers no longer have may be destroyed.
    #[error("key {id} of keyset {keyset} is {state} and not retired; retire it first, when nothing needs it any more")]
    NotRetired {
        /// The keyset.
        keyset: KeysetName,
        /// The key.
        id: KeyId,
        /// Its state.
        state: KeyState,
    },
    /// Backups that need the key may still exist.
    #[error("key {id} of keyset {keyset} must be kept until {until}: backups made before may need it")]
    BackupHorizon {
        /// The keyset.
        keyset: KeysetName,
        /// The key.
        id: KeyId,
        /// The first moment at which it may be destroyed.
        until: Timestamp,
    },
    /// A record that the rules of this version could not have written.
    #[error("key {id} of keyset {keyset}: {what}")]
    Record {
        /// The keyset.
        keyset: KeysetName,
        /// The key.
        id: KeyId,
        /// What is wrong.
        what: &'static str,
    },
}

/// What to do instead, for the steps that people try.
fn hint(step: &ForbiddenStep) -> &'static str {
    match (step.from, step.to) {
        (KeyState::Primary, KeyState::Retiring | KeyState::Compromised | KeyState::Destroyed) => "; promote another key first",
        (KeyState::Pending, KeyState::Primary) => "; stage it first, so that every reader has it",
        (KeyState::Staged, KeyState::Destroyed) => "; readers have it: retire it first",
        (KeyState::Compromised, KeyState::Primary | KeyState::Staged) => "; a key that leaked never comes back",
        (KeyState::Destroyed, _) => "; its bytes are gone",
        _ => "",
    }
}
