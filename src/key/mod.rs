//! Keys: material, ids, states, keysets, and the sealed file that holds them.
//!
//! Nothing here knows a database or a ciphertext format, and nothing here prints key material.

mod age;
mod algorithm;
mod file;
mod id;
mod jwks;
mod keyring;
mod keyset;
mod life;
mod lock;
mod material;
mod member;
mod multifernet;
mod name;
mod refusal;
mod replace;
mod seals;
mod state;
mod text;
mod tink_json;

pub use age::Age;
pub use algorithm::{Algorithm, OutputPrefix, UnknownAlgorithm};
pub use file::ReadFault;
pub(crate) use file::{Digest, Place, Readers, check_private};
pub use id::{Fingerprint, KeyId};
pub use jwks::{NotPublic, write_jwks};
pub use keyring::{
    FILE_BYTES_MAX, KEYS_MAX, Keyring, KeyringEdit, KeyringError, KeyringFault, Previous, Seal, Unlock, WorkFactor,
};
pub use keyset::{ImportedKey, Keyset};
pub use life::{Entry, OldPrimary};
pub(crate) use lock::Lock;
pub use lock::LockFault;
pub use material::{KeyMaterial, MaterialError};
pub use member::{Key, Origin, Transition};
pub use multifernet::{NotFernet, write_multifernet};
pub use name::{KeysetName, UnfitName};
pub use refusal::KeysetError;
pub(crate) use replace::Expected;
pub use replace::{ReplaceFault, Step, Steps, Uninterrupted, write_private, write_public};
pub use seals::{Exhausted, SealCounts, SealMeter, SealsFault, seals_refused_at, seals_warned_at};
pub use state::{ARROWS, Arrow, ForbiddenStep, KeyState, UnknownState};
pub use text::{KeyEncoding, KeyTextError, decode_fernet_list};
pub use tink_json::{TinkJsonError, read_tink_json, write_tink_json};
