//! Fresh secrets. No test has a key in its source, published vectors excepted.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use ring::rand::{SecureRandom, SystemRandom};

/// `N` random bytes.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system has randomness");
    bytes
}

/// A Fernet key as `Fernet.generate_key()` writes it: 32 bytes in padded base64url.
pub fn fernet_key() -> String {
    URL_SAFE.encode(random_bytes::<32>())
}

/// The bytes of an AES-256 key.
pub fn aes256_key() -> [u8; 32] {
    random_bytes()
}

/// A passphrase that nobody has used before.
pub fn passphrase() -> String {
    URL_SAFE.encode(random_bytes::<18>())
}
