//! Signatures of tokens by `ring`, one key and one algorithm each.

use jsonwebtoken::Algorithm as Jws;
use jsonwebtoken::crypto::{JwtSigner, JwtVerifier};
use jsonwebtoken::signature::{Error as Refused, Signer, Verifier};
use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::key::{Algorithm, KeyMaterial};

/// A key that signs and verifies with exactly one algorithm. No `Debug`: it holds key material.
pub(super) struct SigningKey {
    algorithm: Jws,
    kind: Kind,
}

enum Kind {
    Hmac(hmac::Key),
    Ed25519(Box<Ed25519KeyPair>),
}

impl SigningKey {
    /// `None` when the algorithm signs nothing, or the bytes do not fit it.
    pub(super) fn new(algorithm: Algorithm, material: &KeyMaterial) -> Option<Self> {
        let bytes = material.expose();
        if bytes.len() != algorithm.key_bytes() {
            return None;
        }
        let hmac = |hash| Kind::Hmac(hmac::Key::new(hash, bytes));
        let (algorithm, kind) = match algorithm {
            Algorithm::Hs256 => (Jws::HS256, hmac(hmac::HMAC_SHA256)),
            Algorithm::Hs384 => (Jws::HS384, hmac(hmac::HMAC_SHA384)),
            Algorithm::Hs512 => (Jws::HS512, hmac(hmac::HMAC_SHA512)),
            Algorithm::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(bytes).ok()?;
                (Jws::EdDSA, Kind::Ed25519(Box::new(pair)))
            }
            Algorithm::Aes256Gcm | Algorithm::Aes128Gcm | Algorithm::Fernet => return None,
        };
        Some(Self { algorithm, kind })
    }
}

impl Signer<Vec<u8>> for SigningKey {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        Ok(match &self.kind {
            Kind::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Kind::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

impl Verifier<Vec<u8>> for SigningKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Refused> {
        let verified = match &self.kind {
            // Compares in constant time, and the whole tag: a shorter one is refused.
            Kind::Hmac(key) => hmac::verify(key, message, signature),
            Kind::Ed25519(pair) => UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref()).verify(message, signature),
        };
        verified.map_err(|_| Refused::new())
    }
}

impl JwtSigner for SigningKey {
    fn algorithm(&self) -> Jws {
        self.algorithm
    }
}

impl JwtVerifier for SigningKey {
    fn algorithm(&self) -> Jws {
        self.algorithm
    }
}
