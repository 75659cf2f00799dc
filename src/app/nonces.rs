//! Nonces for an application's threads: one generator each, seeded by the operating system, never shared and never copied.

use std::cell::RefCell;

use crate::format::{NonceRng, RandomFailed, reseed, seeded};

struct Generator {
    rng: NonceRng,
    /// A child process begins with a copy of its parent's memory; two copies of a generator would give the same nonces.
    process: u32,
    seals_left: u32,
}

thread_local! {
    static GENERATOR: RefCell<Option<Generator>> = const { RefCell::new(None) };
}

/// Runs `work` with this thread's generator.
pub(super) fn with_nonces(mut work: impl FnMut(&mut NonceRng)) -> Result<(), RandomFailed> {
    let done = GENERATOR.try_with(|slot| {
        let mut slot = slot.borrow_mut();
        let process = std::process::id();
        let generator = match &mut *slot {
            Some(generator) if generator.process == process => generator,
            other => other.insert(Generator {
                rng: seeded()?,
                process,
                seals_left: SEALS_PER_SEED,
            }),
        };
        if generator.seals_left == 0 {
            reseed(&mut generator.rng)?;
            generator.seals_left = SEALS_PER_SEED;
        }
        generator.seals_left -= 1;
        work(&mut generator.rng);
        Ok(())
    });
    match done {
        Ok(result) => result,
        // The thread is ending and its generator is gone already.
        Err(_) => {
            work(&mut seeded()?);
            Ok(())
        }
    }
}

/// After so many values fresh entropy is mixed in: a generator that leaked says little about what comes later.
const SEALS_PER_SEED: u32 = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn draw() -> u64 {
        let mut drawn = 0;
        with_nonces(|rng| drawn = rng.next_u64()).unwrap();
        drawn
    }

    #[test]
    fn draws_differ_between_threads_and_across_reseeding() {
        let mut drawn: Vec<u64> = (0..2 * SEALS_PER_SEED).map(|_| draw()).collect();
        let others = std::thread::spawn(|| (0..2 * SEALS_PER_SEED).map(|_| draw()).collect::<Vec<_>>());
        drawn.extend(others.join().unwrap());
        let count = drawn.len();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), count);
    }

    #[test]
    fn a_generator_of_another_process_is_not_used() {
        draw();
        let put = |process| {
            GENERATOR.with(|slot| {
                *slot.borrow_mut() = Some(Generator {
                    rng: NonceRng::from_seed([7; 32]),
                    process,
                    seals_left: SEALS_PER_SEED,
                });
            });
        };
        let first = NonceRng::from_seed([7; 32]).next_u64();
        put(std::process::id());
        assert_eq!(draw(), first);
        put(std::process::id() ^ 1);
        assert_ne!(draw(), first);
    }
}
