//! A keyset as the key list of Python's MultiFernet: `primary,other,…`. The list is a secret.

use zeroize::Zeroizing;

use super::text::KeyEncoding;
use super::{Algorithm, Key, KeyId, Keyset};

/// The primary of the keyset is not a Fernet key, and MultiFernet seals with the first of its list.
#[derive(Debug, thiserror::Error)]
#[error(
    "the primary key {id} is an {algorithm} key; MultiFernet seals with the first key of its list, which must be a Fernet key"
)]
pub struct NotFernet {
    /// The primary's id.
    pub id: KeyId,
    /// Its algorithm.
    pub algorithm: Algorithm,
}

/// The Fernet keys that applications are given, the primary first, joined by commas.
pub fn write_multifernet(keyset: &Keyset) -> Result<Zeroizing<Vec<u8>>, NotFernet> {
    let primary = keyset.primary();
    if primary.algorithm() != Algorithm::Fernet {
        return Err(NotFernet {
            id: primary.id(),
            algorithm: primary.algorithm(),
        });
    }
    let is_fernet = |key: &&Key| key.algorithm() == Algorithm::Fernet;
    let materials: Vec<_> = keyset.opening_keys().filter(is_fernet).filter_map(Key::material).collect();
    let mut list = Zeroizing::new(Vec::with_capacity(materials.len() * (FERNET_TEXT_BYTES + 1)));
    for (index, material) in materials.into_iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        list.extend_from_slice(&KeyEncoding::Fernet.encode(material));
    }
    Ok(list)
}

/// Base64url of 32 bytes with padding.
const FERNET_TEXT_BYTES: usize = 44;
