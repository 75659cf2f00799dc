//! What a key is made for, and how the values that it seals begin.

use std::fmt;
use std::str::FromStr;

/// The algorithm that a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// AES-256-GCM: the `tink` and `aes-gcm` formats. 32 bytes.
    Aes256Gcm,
    /// AES-128-GCM: imported keys only, new keys have 256 bits. 16 bytes.
    Aes128Gcm,
    /// Fernet: 16 bytes for HMAC-SHA256, then 16 for AES-128-CBC.
    Fernet,
}

/// A word that names no algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an algorithm: aes256-gcm, aes128-gcm or fernet")]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::Fernet];

    /// Bytes of a key.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Aes256Gcm | Self::Fernet => 32,
            Self::Aes128Gcm => 16,
        }
    }

    /// The word used in files, on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes256-gcm",
            Self::Aes128Gcm => "aes128-gcm",
            Self::Fernet => "fernet",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(word: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == word)
            .ok_or(UnknownAlgorithm)
    }
}

/// How Tink marks the values of a key. Only exports need it: formats decide for themselves how a value looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OutputPrefix {
    /// `01` and the key id: the default.
    #[default]
    Tink,
    /// Nothing: the key came from a keyset whose values carry no id.
    Raw,
}
