//! Sealed values as an application would have stored them.

use std::error::Error;

use reseal::format::{Carried, Cipher, NonceRng, by_name, seeded};
use reseal::key::{KeyEncoding, KeyMaterial};

/// A format's values under a fresh key, and two keys as text.
pub struct Sample {
    pub old: String,
    pub new: String,
    cipher: Box<dyn Cipher>,
    rng: NonceRng,
}

impl Sample {
    pub fn new(format: &str) -> Result<Self, Box<dyn Error>> {
        let (old, new) = (KeyMaterial::generate()?, KeyMaterial::generate()?);
        let text = |key: &KeyMaterial| -> Result<String, Box<dyn Error>> {
            Ok(std::str::from_utf8(&KeyEncoding::Fernet.encode(key))?.to_owned())
        };
        Ok(Self {
            old: text(&old)?,
            new: text(&new)?,
            cipher: by_name(format)?.cipher(&old, None)?,
            rng: seeded()?,
        })
    }

    /// A value of about `bytes` plaintext bytes.
    pub fn seal(&mut self, row: usize, bytes: usize) -> Vec<u8> {
        let plaintext: Vec<u8> = format!("note of customer {row}: ").bytes().cycle().take(bytes).collect();
        let mut out = Vec::new();
        let carried = Carried {
            timestamp: Some(1_700_000_000 + row as u64),
            ..Carried::default()
        };
        self.cipher.seal(&plaintext, b"", carried, &mut self.rng, &mut out);
        out
    }
}

/// Plaintext sizes of 222 to 322 bytes: sealed by AES-GCM they are 250 to 350, 300 on average.
pub fn note_bytes(row: usize) -> usize {
    222 + row * 7919 % 101
}
