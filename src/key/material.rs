//! Key bytes. Born on the heap at their final size, wiped on drop, never shown.

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// The secret bytes of a key: 16, 24 or 32 of a cipher, 32, 48 or 64 of a signature.
///
/// No `Debug`, no `Clone`, no `Serialize`; [`expose`](Self::expose) is the one way to the bytes.
pub struct KeyMaterial {
    bytes: Zeroizing<Box<[u8]>>,
}

/// Why bytes are not usable as a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MaterialError {
    /// Not 16, 24, 32, 48 or 64 bytes.
    #[error("a key has 16, 24, 32, 48 or 64 bytes, this one has {0}")]
    Length(usize),
    /// Few distinct bytes, a counting pattern or a repeated one: a placeholder, not a key (B55).
    #[error("these bytes are not random enough to be a key ({0}); generate one with `reseal keys generate`")]
    LowEntropy(&'static str),
    /// The operating system's random generator failed; there is no fallback (B56).
    #[error("the operating system's random generator failed")]
    Random,
}

impl KeyMaterial {
    /// 256 fresh bits from the operating system's generator.
    pub fn generate() -> Result<Self, MaterialError> {
        Self::generate_bytes(KEY_BYTES)
    }

    /// So many fresh bytes. The caller has the number from an algorithm.
    pub(super) fn generate_bytes(count: usize) -> Result<Self, MaterialError> {
        let mut bytes = Zeroizing::new(vec![0u8; count].into_boxed_slice());
        SystemRandom::new().fill(&mut bytes).map_err(|_| MaterialError::Random)?;
        Ok(Self { bytes })
    }

    /// Takes bytes that came from outside, after checking that they can be a key. The caller's buffer is its own to wipe.
    pub fn import(bytes: &[u8]) -> Result<Self, MaterialError> {
        if !matches!(bytes.len(), 16 | 24 | 32 | 48 | 64) {
            return Err(MaterialError::Length(bytes.len()));
        }
        reject_placeholder(bytes)?;
        Ok(Self {
            bytes: Zeroizing::new(bytes.to_vec().into_boxed_slice()),
        })
    }

    /// Refuses bytes that repeat a shorter pattern. Asked where a key is about to seal; a key that an application has can be as poor
    /// as that, and is still read, to rotate away from it.
    pub fn require_no_repetition(&self) -> Result<(), MaterialError> {
        // Random bytes repeat their first half with a probability of 2^-64 at most.
        let repeats = |period: usize| self.bytes[period..] == self.bytes[..self.bytes.len() - period];
        if (1..=self.bytes.len() / 2).any(repeats) {
            return Err(MaterialError::LowEntropy("a short pattern, repeated"));
        }
        Ok(())
    }

    /// The secret bytes. Every call site is a place to review.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

fn reject_placeholder(bytes: &[u8]) -> Result<(), MaterialError> {
    let mut seen = [false; 256];
    for &byte in bytes {
        seen[usize::from(byte)] = true;
    }
    let distinct = seen.iter().filter(|&&s| s).count();
    if distinct < bytes.len() / 4 {
        return Err(MaterialError::LowEntropy("few distinct bytes"));
    }
    let step = bytes[1].wrapping_sub(bytes[0]);
    if bytes.windows(2).all(|w| w[1].wrapping_sub(w[0]) == step) {
        return Err(MaterialError::LowEntropy("a counting pattern"));
    }
    Ok(())
}

/// AES-256 and two AES-128-sized halves of a Fernet key alike.
const KEY_BYTES: usize = 32;
