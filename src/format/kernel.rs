//! The kernel of a rotation: open under the old key, seal under the new one, read back what was sealed.
//!
//! The promise it keeps: no value is sent to a database that was not opened again and found equal to its plaintext.

use std::hint::black_box;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{Carried, Cipher, NonceRng, OpenError};

/// Why a value was not re-encrypted. In every case `out` is as it was: there is nothing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResealError {
    /// The stored value does not open under the old key: leave it alone, quarantine it.
    #[error("stored value: {0}")]
    Unreadable(OpenError),
    /// The freshly sealed value does not open again. A defect of this program or this machine: stop.
    #[error("read-back of the sealed value failed: {0}")]
    ReadBack(OpenError),
    /// The freshly sealed value opens to something else. A defect of this program or this machine: stop.
    #[error("read-back of the sealed value gave another plaintext")]
    ReadBackDiffers,
}

/// The plaintexts of one value at a time, in memory that is reused from value to value and wiped at the end of a batch.
///
/// One a worker. It grows by replacing its memory, wiped before it is given back, never by moving plaintexts around.
#[derive(Default)]
pub struct Scratch {
    plaintext: Vec<u8>,
}

impl Scratch {
    /// An empty one; it grows to twice the largest value.
    pub fn new() -> Self {
        Self::default()
    }

    /// Overwrites every plaintext that passed through, and keeps the memory. Call it after each batch; dropping wipes, too.
    pub fn wipe(&mut self) {
        self.plaintext.zeroize();
    }

    /// Empty, with room for `len` bytes.
    fn room_for(&mut self, len: usize) -> &mut Vec<u8> {
        if self.plaintext.capacity() < len {
            self.plaintext.zeroize();
            self.plaintext = Vec::with_capacity(len.next_power_of_two());
        }
        self.plaintext.clear();
        &mut self.plaintext
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// Re-encrypts one value and appends its new stored form to `out`; returns what the value carried.
pub fn reseal(
    old: &dyn Cipher,
    new: &dyn Cipher,
    stored: &[u8],
    associated_data: &[u8],
    scratch: &mut Scratch,
    rng: &mut NonceRng,
    out: &mut Vec<u8>,
) -> Result<Carried, ResealError> {
    reseal_bound(old, associated_data, new, associated_data, None, stored, scratch, rng, out)
}

/// [`reseal`] for a value whose binding or format changes on the way: other associated data on either side, and a `time` (seconds since
/// 1970) for values that carried none and whose new format wants one.
#[expect(
    clippy::too_many_arguments,
    reason = "each is one thing, and a struct of them would be filled once a value"
)]
pub fn reseal_bound(
    old: &dyn Cipher,
    old_associated_data: &[u8],
    new: &dyn Cipher,
    new_associated_data: &[u8],
    time: Option<u64>,
    stored: &[u8],
    scratch: &mut Scratch,
    rng: &mut NonceRng,
    out: &mut Vec<u8>,
) -> Result<Carried, ResealError> {
    let plaintext = scratch.room_for(stored.len() + WORKING_ROOM);
    let mut carried = old
        .open(stored, old_associated_data, plaintext)
        .map_err(ResealError::Unreadable)?;
    carried.timestamp = carried.timestamp.or(time);
    seal_checked(new, plaintext, 0, new_associated_data, carried, rng, out)?;
    Ok(carried)
}

/// Seals the plaintext at `plain[start..]`, appends the stored form to `out`, and opens it again from there: for callers that opened the
/// old value themselves. `plain` is as it was afterwards; on an error so is `out`.
pub fn seal_checked(
    new: &dyn Cipher,
    plain: &mut Vec<u8>,
    start: usize,
    associated_data: &[u8],
    carried: Carried,
    rng: &mut NonceRng,
    out: &mut Vec<u8>,
) -> Result<(), ResealError> {
    let (sealed_at, end) = (out.len(), plain.len());
    new.seal(&plain[start..], associated_data, carried, rng, out);
    make_room(plain, out.len() - sealed_at + WORKING_ROOM);
    let outcome = match new.open(&out[sealed_at..], associated_data, plain) {
        Err(error) => Err(ResealError::ReadBack(error)),
        Ok(again) => {
            let (plaintext, copy) = plain[start..].split_at(end - start);
            let same_time = again.timestamp.is_none() || again.timestamp == Some(carried.timestamp.unwrap_or(0));
            if same_time && equal(plaintext, copy) {
                Ok(())
            } else {
                Err(ResealError::ReadBackDiffers)
            }
        }
    };
    plain[end..].zeroize();
    plain.truncate(end);
    if outcome.is_err() {
        out.truncate(sealed_at);
    }
    outcome
}

/// Room for `more` bytes behind those that are there; memory that is given up is wiped first.
pub fn make_room(plain: &mut Vec<u8>, more: usize) {
    let len = plain.len() + more;
    if plain.capacity() < len {
        let mut larger = Vec::with_capacity(len.next_power_of_two());
        larger.extend_from_slice(plain);
        plain.zeroize();
        *plain = larger;
    }
}

/// Whether two plaintexts are equal, in a time that depends on their length alone. Differences are gathered eight bytes at a time:
/// comparing byte by byte would take longer than sealing.
fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let (one, one_rest) = one.as_chunks::<8>();
    let (other, other_rest) = other.as_chunks::<8>();
    let words = one.iter().zip(other);
    let difference = words.fold(0, |sum, (a, b)| sum | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)));
    let rest = one_rest.iter().zip(other_rest).fold(0, |sum, (a, b)| sum | (a ^ b));
    (black_box(difference) | u64::from(black_box(rest))).ct_eq(&0).into()
}

/// What `Cipher::open` may use beyond the length of the value.
pub const WORKING_ROOM: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_sees_every_byte() {
        for len in 0..40 {
            let one: Vec<u8> = (0..len).collect();
            assert!(equal(&one, &one));
            assert!(!equal(&one, &[&one[..], &[0]].concat()));
            for at in 0..one.len() {
                let mut other = one.clone();
                other[at] ^= 0x10;
                assert!(!equal(&one, &other));
            }
        }
    }
}
