//! Keys: material, ids, states, keysets, and the sealed file that holds them.
//!
//! Nothing here knows a database or a ciphertext format, and nothing here prints key material.

mod id;
mod material;

pub use id::{Fingerprint, KeyId};
pub use material::{KeyMaterial, MaterialError};
