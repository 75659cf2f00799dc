//! Fresh secrets, from the operating system's generator and nothing else.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::keypair::{self, PublicKey};
use super::{Kind, Recipe, SecretText};

/// What a recipe gave.
pub struct Generated {
    /// The secret as the application reads it; a private key as PKCS#8 PEM, or in WireGuard's base64.
    pub secret: SecretText,
    /// The public half, where there is one.
    pub public: Option<PublicKey>,
}

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// There is no fallback (B56).
    #[error("the operating system's random generator failed")]
    Random,
    /// A key pair could not be made or written down.
    #[error("the key pair could not be generated")]
    KeyPair,
}

impl Recipe {
    /// A fresh secret.
    pub fn generate(&self) -> Result<Generated, GenerateError> {
        let text = match self.kind() {
            Kind::TokenUrlsafe => encode(&URL_SAFE_NO_PAD, &random(self.size())?),
            Kind::Fernet => encode(&URL_SAFE, &random(self.size())?),
            Kind::Base64 => encode(&STANDARD, &random(self.size())?),
            Kind::Hex | Kind::Rails => hex(&random(self.size())?),
            Kind::Laravel => {
                let encoded = Zeroizing::new(encode(&STANDARD, &random(self.size())?));
                format!("base64:{}", encoded.as_str())
            }
            Kind::Django => characters(DJANGO, self.size())?,
            Kind::Password => password(self)?,
            Kind::Uuid => uuid(&random(self.size())?),
            Kind::Ed25519 => return keypair::ed25519(),
            Kind::Es256 => return keypair::es256(),
            Kind::Rs256 => return keypair::rs256(self.size()),
            Kind::Wireguard => return keypair::wireguard(),
        };
        Ok(Generated {
            secret: SecretText::new(text),
            public: None,
        })
    }
}

/// Random bytes, wiped when dropped.
pub(super) fn random(bytes: usize) -> Result<Zeroizing<Vec<u8>>, GenerateError> {
    let mut buffer = Zeroizing::new(vec![0; bytes]);
    SystemRandom::new().fill(&mut buffer).map_err(|_| GenerateError::Random)?;
    Ok(buffer)
}

fn encode(engine: &impl Engine, bytes: &[u8]) -> String {
    engine.encode(bytes)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

fn uuid(bytes: &[u8]) -> String {
    let mut bytes = Zeroizing::new(bytes.to_vec());
    // RFC 9562, section 5.4: version 4, variant 10.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = Zeroizing::new(hex(&bytes));
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    groups.join("-")
}

/// Uniform over the alphabet: a random byte that would favour its beginning is thrown away.
fn characters(alphabet: &[u8], count: usize) -> Result<String, GenerateError> {
    let fair = 256 / alphabet.len() * alphabet.len();
    let mut text = String::with_capacity(count);
    for _ in 0..ROUNDS_MAX {
        for byte in random(count)?.iter().map(|byte| usize::from(*byte)) {
            if byte < fair && text.len() < count {
                text.push(char::from(alphabet[byte % alphabet.len()]));
            }
        }
        if text.len() == count {
            return Ok(text);
        }
    }
    Err(GenerateError::Random)
}

/// Uniform over all passwords that hold every class: others are thrown away whole.
fn password(recipe: &Recipe) -> Result<String, GenerateError> {
    let sets = recipe.classes().alphabets();
    let alphabet: Vec<u8> = sets.concat();
    for _ in 0..ROUNDS_MAX {
        let text = Zeroizing::new(characters(&alphabet, recipe.size())?);
        if sets.iter().all(|set| text.bytes().any(|byte| set.contains(&byte))) {
            return Ok(text.as_str().to_owned());
        }
    }
    Err(GenerateError::Random)
}

/// The alphabet of Django's `get_random_secret_key` without `$`, which several readers of env files expand.
const DJANGO: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789!@#%^&*(-_=+)";

/// Rounds of a draw that succeeds in most rounds. A generator that fails so often is broken.
const ROUNDS_MAX: usize = 1000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::secret::Classes;

    fn generate(kind: Kind, size: Option<usize>) -> String {
        let recipe = Recipe::new(kind, size, Classes::default()).unwrap();
        recipe.generate().unwrap().secret.expose().to_owned()
    }

    #[test]
    fn texts_look_as_their_readers_expect() {
        assert_eq!(URL_SAFE_NO_PAD.decode(generate(Kind::TokenUrlsafe, None)).unwrap().len(), 64);
        assert_eq!(URL_SAFE.decode(generate(Kind::Fernet, None)).unwrap().len(), 32);
        assert_eq!(STANDARD.decode(generate(Kind::Base64, Some(48))).unwrap().len(), 48);
        assert_eq!(generate(Kind::Hex, Some(20)).len(), 40);
        assert_eq!(generate(Kind::Rails, None).len(), 128);
        let laravel = generate(Kind::Laravel, Some(16));
        let key = laravel.strip_prefix("base64:").unwrap();
        assert_eq!(STANDARD.decode(key).unwrap().len(), 16);
        let django = generate(Kind::Django, Some(60));
        assert!(django.len() == 60 && django.bytes().all(|byte| DJANGO.contains(&byte)));
        let uuid = generate(Kind::Uuid, None);
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn a_password_holds_every_class_and_nothing_else() {
        let classes = Classes {
            symbol: false,
            ambiguous: false,
            ..Classes::default()
        };
        let recipe = Recipe::new(Kind::Password, Some(13), classes).unwrap();
        for _ in 0..200 {
            let text = recipe.generate().unwrap().secret;
            let text = text.expose();
            assert_eq!(text.len(), 13);
            assert!(text.bytes().any(|byte| byte.is_ascii_lowercase()));
            assert!(text.bytes().any(|byte| byte.is_ascii_uppercase()));
            assert!(text.bytes().any(|byte| byte.is_ascii_digit()));
            assert!(
                text.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() && !b"0Oo1lI".contains(&byte))
            );
        }
    }

    #[test]
    fn characters_are_drawn_evenly() {
        let alphabet = b"abc";
        let text = characters(alphabet, 30_000).unwrap();
        for letter in alphabet {
            let count = text.bytes().filter(|byte| byte == letter).count();
            // 30,000 draws of one in three: a standard deviation is 82, and this is twelve of them.
            assert!((9_000..=11_000).contains(&count), "{count}");
        }
    }
}
