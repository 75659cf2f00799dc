//! A fault for tests of the binary: a value that is not what was sealed, as a broken memory makes them.
//!
//! Only builds with debug assertions have this file; a release build has neither the code nor the variable.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::format::{Carried, Cipher, NonceRng, OpenError};
use crate::rotation::recipe::Recipe;

/// Spoils the seal with the number that `RESEAL_DEBUG_SPOIL_SEAL` names, counted from 1 over all columns and workers.
pub fn spoil_as_ordered(recipe: &mut Recipe) {
    let order = std::env::var("RESEAL_DEBUG_SPOIL_SEAL").ok();
    let Some(number) = order.and_then(|order| order.parse().ok()) else {
        return;
    };
    let left = Arc::new(AtomicI64::new(number));
    for column in &mut recipe.columns {
        let sound = std::mem::replace(&mut column.target.cipher, Box::new(Nothing));
        column.target.cipher = Box::new(Spoiling {
            sound,
            left: Arc::clone(&left),
        });
    }
}

struct Spoiling {
    sound: Box<dyn Cipher>,
    left: Arc<AtomicI64>,
}

impl Cipher for Spoiling {
    fn open(&self, stored: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<Carried, OpenError> {
        self.sound.open(stored, associated_data, out)
    }

    fn seal(&self, plaintext: &[u8], associated_data: &[u8], carried: Carried, rng: &mut NonceRng, out: &mut Vec<u8>) {
        let start = out.len();
        self.sound.seal(plaintext, associated_data, carried, rng, out);
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let middle = start + (out.len() - start) / 2;
            out[middle] ^= 1;
        }
    }
}

/// Stands in a cipher's place for a moment.
struct Nothing;

impl Cipher for Nothing {
    fn open(&self, _: &[u8], _: &[u8], _: &mut Vec<u8>) -> Result<Carried, OpenError> {
        Err(OpenError::Malformed)
    }

    fn seal(&self, _: &[u8], _: &[u8], _: Carried, _: &mut NonceRng, _: &mut Vec<u8>) {}
}
