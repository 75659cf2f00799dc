//! Where nonces come from, and how many of them a key may see.
//!
//! The operating system seeds a ChaCha20 generator for each worker; asking it for every nonce would cost more than sealing a short
//! value. If the operating system fails there is no fallback (B56): a guessable nonce is worse than a stopped rotation.

use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Where nonces and initialisation vectors come from: a ChaCha20 generator seeded by the operating system, one a worker.
pub type NonceRng = ChaCha20Rng;

/// How many values one AES-GCM key may seal under random nonces of 12 bytes: NIST SP 800-38D section 8.3 bounds the chance of a repeated
/// nonce by 2^-32. Beyond it, one repetition gives both plaintexts away, and the means to forge. Rotate well before.
pub const RANDOM_NONCES_PER_KEY_MAX: u64 = 1 << 32;

/// The operating system's random generator failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random generator failed")]
pub struct RandomFailed;

/// A generator for one worker, seeded by the operating system. Never share it, never clone it: two copies give the same nonces.
pub fn seeded() -> Result<NonceRng, RandomFailed> {
    seeded_by(|seed| SystemRandom::new().fill(seed).map_err(|_| RandomFailed))
}

/// Mixes fresh entropy into `rng`: once a batch, so that a leaked state says nothing about other batches. A quarter of a microsecond.
pub fn reseed(rng: &mut NonceRng) -> Result<(), RandomFailed> {
    reseed_by(rng, |seed| SystemRandom::new().fill(seed).map_err(|_| RandomFailed))
}

/// How many random nonces of this length keep the chance of a repetition below 2^-32: n² / 2^(bits + 1) ≤ 2^-32.
pub(super) const fn random_nonces_max(nonce_bytes: usize) -> u64 {
    let half_bits = (nonce_bytes * 8 + 1 - 32) / 2;
    if half_bits >= 63 { u64::MAX } else { 1 << half_bits }
}

fn seeded_by(fill: impl FnOnce(&mut [u8]) -> Result<(), RandomFailed>) -> Result<NonceRng, RandomFailed> {
    let mut seed = Zeroizing::new([0; 32]);
    fill(&mut *seed)?;
    Ok(NonceRng::from_seed(*seed))
}

fn reseed_by(rng: &mut NonceRng, fill: impl FnOnce(&mut [u8]) -> Result<(), RandomFailed>) -> Result<(), RandomFailed> {
    let mut seed = Zeroizing::new([0; 32]);
    fill(&mut *seed)?;
    let mut old = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *old);
    seed.iter_mut().zip(old.iter()).for_each(|(seed, old)| *seed ^= old);
    *rng = NonceRng::from_seed(*seed);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_never_see_the_same_stream() {
        assert_ne!(seeded().unwrap().next_u64(), seeded().unwrap().next_u64());
    }

    #[test]
    fn a_failing_source_is_an_error_and_leaves_the_generator_as_it_was() {
        assert_eq!(seeded_by(|_| Err(RandomFailed)).unwrap_err(), RandomFailed);
        let mut rng = NonceRng::from_seed([1; 32]);
        assert_eq!(reseed_by(&mut rng, |_| Err(RandomFailed)), Err(RandomFailed));
        assert_eq!(rng.next_u64(), NonceRng::from_seed([1; 32]).next_u64());
    }

    #[test]
    fn reseeding_changes_the_stream_and_depends_on_old_and_new() {
        let mut reseeded = Vec::new();
        for (old, fresh) in [(1, 1), (1, 2), (2, 1)] {
            let mut rng = NonceRng::from_seed([old; 32]);
            reseed_by(&mut rng, |seed| {
                seed.fill(fresh);
                Ok(())
            })
            .unwrap();
            reseeded.push(rng.next_u64());
        }
        reseeded.push(NonceRng::from_seed([1; 32]).next_u64());
        reseeded.sort_unstable();
        reseeded.dedup();
        assert_eq!(reseeded.len(), 4);
    }

    #[test]
    fn short_nonces_allow_far_fewer_values() {
        assert_eq!([8, 12, 16, 32].map(random_nonces_max), [1 << 16, 1 << 32, 1 << 48, u64::MAX]);
    }
}
