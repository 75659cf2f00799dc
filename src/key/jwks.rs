//! The public keys of a keyset as a JSON Web Key Set (RFC 7517, RFC 8037), for services that only verify tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::{Algorithm, Key, KeyId, Keyset};

/// Why a keyset has no public form.
#[derive(Debug, thiserror::Error)]
pub enum NotPublic {
    /// A key without a public half.
    #[error("key {id} is made for {algorithm}: it has no public half, and whoever verifies with it can sign")]
    Secret {
        /// The key.
        id: KeyId,
        /// What it is made for.
        algorithm: Algorithm,
    },
    /// The bytes are no seed.
    #[error("key {0} is no Ed25519 key")]
    Broken(KeyId),
}

/// The keys that verify, the primary first. Compromised, retired and pending keys are not among them.
pub fn write_jwks(keyset: &Keyset) -> Result<Vec<u8>, NotPublic> {
    let keys: Result<Vec<_>, _> = keyset
        .opening_keys()
        .filter(|key| key.material().is_some())
        .map(public)
        .collect();
    let mut text = format!("{:#}", json!({ "keys": keys? })).into_bytes();
    text.push(b'\n');
    Ok(text)
}

fn public(key: &Key) -> Result<Value, NotPublic> {
    let id = key.id();
    let seed = key.material().filter(|_| key.algorithm() == Algorithm::Ed25519);
    let seed = seed.ok_or(NotPublic::Secret {
        id,
        algorithm: key.algorithm(),
    })?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| NotPublic::Broken(id))?;
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    Ok(json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": id.to_string(), "x": x }))
}
