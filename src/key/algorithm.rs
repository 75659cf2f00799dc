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
    /// HMAC-SHA-256 over tokens (JWS `HS256`). 32 bytes.
    Hs256,
    /// HMAC-SHA-384 over tokens (JWS `HS384`). 48 bytes.
    Hs384,
    /// HMAC-SHA-512 over tokens (JWS `HS512`). 64 bytes.
    Hs512,
    /// Ed25519 signatures of tokens (JWS `EdDSA`). A seed of 32 bytes.
    Ed25519,
}

/// A word that names no algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an algorithm: aes256-gcm, aes128-gcm, fernet, hs256, hs384, hs512 or ed25519")]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 7] = [
        Self::Aes256Gcm,
        Self::Aes128Gcm,
        Self::Fernet,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Ed25519,
    ];

    /// Bytes of a key. Of an HMAC as many as its hash has, the floor of RFC 7518, section 3.2.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Aes256Gcm | Self::Fernet | Self::Hs256 | Self::Ed25519 => 32,
            Self::Aes128Gcm => 16,
            Self::Hs384 => 48,
            Self::Hs512 => 64,
        }
    }

    /// Whether keys of it sign tokens; the others seal values. No key does both.
    pub fn signs(self) -> bool {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 | Self::Ed25519 => true,
            Self::Aes256Gcm | Self::Aes128Gcm | Self::Fernet => false,
        }
    }

    /// The word used in files, on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes256-gcm",
            Self::Aes128Gcm => "aes128-gcm",
            Self::Fernet => "fernet",
            Self::Hs256 => "hs256",
            Self::Hs384 => "hs384",
            Self::Hs512 => "hs512",
            Self::Ed25519 => "ed25519",
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
