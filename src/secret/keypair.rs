//! Key pairs: the private half as PKCS#8 PEM, the public half as PEM and JWK.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rsa::pkcs8::{Document, EncodePrivateKey, EncodePublicKey, LineEnding, SecretDocument};
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use x25519_dalek::{PublicKey as X25519Public, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use super::generate::random;
use super::{GenerateError, Generated, SecretText};

/// The public half of a key pair. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo as PEM; of a WireGuard key, its base64.
    pub text: String,
    /// As a JSON Web Key with `kid`, `use` and `alg`, where it verifies signatures.
    pub jwk: Option<Value>,
}

impl PublicKey {
    /// The RFC 7638 thumbprint that names the key in tokens.
    pub fn kid(&self) -> Option<&str> {
        self.jwk.as_ref()?.get("kid")?.as_str()
    }
}

/// The JSON Web Key Set of these keys, in this order.
pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a Value>) -> String {
    let keys: Vec<_> = keys.into_iter().collect();
    format!("{:#}\n", json!({ "keys": keys }))
}

pub(super) fn ed25519() -> Result<Generated, GenerateError> {
    let seed = random(SEED_BYTES)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| GenerateError::KeyPair)?;
    let public = pair.public_key().as_ref();
    // Version 1, without the public key: every library reads it, and not every one reads the version 2 that ring writes.
    let private = Zeroizing::new([ED25519_PRIVATE, &seed].concat());
    let members = [("crv", json!("Ed25519")), ("kty", json!("OKP")), ("x", base64url(public))];
    Ok(Generated {
        secret: private_pem(&private)?,
        public: Some(PublicKey {
            text: public_pem(&[ED25519_PUBLIC, public].concat())?,
            jwk: Some(jwk("EdDSA", &members)),
        }),
    })
}

pub(super) fn es256() -> Result<Generated, GenerateError> {
    let generator = SystemRandom::new();
    let private =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &generator).map_err(|_| GenerateError::Random)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_ref(), &generator)
        .map_err(|_| GenerateError::KeyPair)?;
    // SEC 1, section 2.3.3: 0x04, then x and y.
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(point.len() / 2);
    let members = [
        ("crv", json!("P-256")),
        ("kty", json!("EC")),
        ("x", base64url(x)),
        ("y", base64url(y)),
    ];
    Ok(Generated {
        secret: private_pem(private.as_ref())?,
        public: Some(PublicKey {
            text: public_pem(&[P256_PUBLIC, point].concat())?,
            jwk: Some(jwk("ES256", &members)),
        }),
    })
}

pub(super) fn rs256(bits: usize) -> Result<Generated, GenerateError> {
    let pair = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).map_err(|_| GenerateError::KeyPair)?;
    let public = pair.to_public_key();
    let members = [
        ("e", base64url(&public.e().to_bytes_be())),
        ("kty", json!("RSA")),
        ("n", base64url(&public.n().to_bytes_be())),
    ];
    let private = pair.to_pkcs8_pem(LineEnding::LF).map_err(|_| GenerateError::KeyPair)?;
    let text = public.to_public_key_pem(LineEnding::LF).map_err(|_| GenerateError::KeyPair)?;
    Ok(Generated {
        secret: SecretText::from(private),
        public: Some(PublicKey {
            text,
            jwk: Some(jwk("RS256", &members)),
        }),
    })
}

pub(super) fn wireguard() -> Result<Generated, GenerateError> {
    let bytes = random(SEED_BYTES)?;
    let mut scalar = [0; SEED_BYTES];
    scalar.copy_from_slice(&bytes);
    // Clamped before it is written, as `wg genkey` does (RFC 7748, section 5).
    scalar[0] &= 248;
    scalar[31] = (scalar[31] & 127) | 64;
    let private = StaticSecret::from(scalar);
    let secret = SecretText::new(STANDARD.encode(scalar));
    scalar.zeroize();
    Ok(Generated {
        secret,
        public: Some(PublicKey {
            text: STANDARD.encode(X25519Public::from(&private).as_bytes()),
            jwk: None,
        }),
    })
}

/// `members` are the required ones of the key type, in the order of their names: RFC 7638, section 3.
fn jwk(algorithm: &str, members: &[(&str, Value)]) -> Value {
    let required: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let canonical = format!("{{{}}}", required.join(","));
    let mut key = serde_json::Map::new();
    key.insert("alg".to_owned(), json!(algorithm));
    key.insert("kid".to_owned(), base64url(digest(&SHA256, canonical.as_bytes()).as_ref()));
    key.insert("use".to_owned(), json!("sig"));
    key.extend(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Value::Object(key)
}

fn base64url(bytes: &[u8]) -> Value {
    Value::String(URL_SAFE_NO_PAD.encode(bytes))
}

fn private_pem(der: &[u8]) -> Result<SecretText, GenerateError> {
    let document = SecretDocument::try_from(der).map_err(|_| GenerateError::KeyPair)?;
    let pem = document
        .to_pem("PRIVATE KEY", LineEnding::LF)
        .map_err(|_| GenerateError::KeyPair)?;
    Ok(SecretText::from(pem))
}

fn public_pem(der: &[u8]) -> Result<String, GenerateError> {
    let document = Document::try_from(der).map_err(|_| GenerateError::KeyPair)?;
    document
        .to_pem("PUBLIC KEY", LineEnding::LF)
        .map_err(|_| GenerateError::KeyPair)
}

const SEED_BYTES: usize = 32;

/// RFC 8410, section 7: OneAsymmetricKey, version 1, id-Ed25519, before the 32 bytes of the seed.
const ED25519_PRIVATE: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// RFC 8410, section 4: SubjectPublicKeyInfo, id-Ed25519, before the 32 bytes of the key.
const ED25519_PUBLIC: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// RFC 5480, section 2: SubjectPublicKeyInfo, id-ecPublicKey, prime256v1, before the 65 bytes of the point.
const P256_PUBLIC: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        // RFC 8037, appendix A.3.
        let members = [
            ("crv", json!("Ed25519")),
            ("kty", json!("OKP")),
            ("x", json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")),
        ];
        assert_eq!(jwk("EdDSA", &members)["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
