//! One keyset in one format, as an application uses it: seal, open.

use std::sync::Arc;

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use super::error::{OpenError, SealError};
use super::keyring::Shared;
use super::nonces::with_nonces;
use super::opened::Opened;
use super::ring::Ring;
use crate::format::{Carried, WORKING_ROOM};
use crate::key::{KeyId, KeysetName};

/// A keyset of a [`Keyring`](super::Keyring), to seal and open values of one format. Cheap to clone; follows the keyring.
#[derive(Clone)]
pub struct KeysetHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) ring: Arc<ArcSwap<Ring>>,
}

impl KeysetHandle {
    /// Seals `plaintext` with the primary key, bound to `associated_data`: name the place of the value, such as
    /// `customers.email:42`, and it opens nowhere else.
    pub fn seal(&self, plaintext: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut stored = Vec::with_capacity(self.ring.load().format.sealed_len(plaintext.len()));
        self.seal_into(plaintext, associated_data, &mut stored)?;
        Ok(stored)
    }

    /// [`seal`](Self::seal), appended to `out`; returns the key that sealed it. On an error `out` is as it was.
    pub fn seal_into(&self, plaintext: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<KeyId, SealError> {
        let ring = self.ring.load();
        if !ring.format.binds_associated_data() && !associated_data.is_empty() {
            return Err(SealError::AssociatedData(ring.format.name()));
        }
        let carried = Carried {
            timestamp: u64::try_from((self.shared.now)().as_second()).ok(),
            ..Carried::default()
        };
        if let Some(seals) = &ring.seals {
            seals.take(1)?;
        }
        let primary = &ring.primary;
        with_nonces(|rng| primary.cipher.seal(plaintext, associated_data, carried, rng, out))?;
        Ok(primary.id)
    }

    /// Opens `stored` with the key that sealed it.
    ///
    /// When that key is not here, the keyring's file is looked at once more before this fails (at most a hundred times a second for
    /// all handles), since it may just have changed. That look is the only time that this waits for anything.
    pub fn open(&self, stored: &[u8], associated_data: &[u8]) -> Result<Opened, OpenError> {
        let ring = self.ring.load();
        match open_with(&ring, stored, associated_data) {
            Err(error) if ring.may_be_stale(stored, &error) && self.shared.catch_up(ring.generation) => {
                open_with(&self.ring.load(), stored, associated_data)
            }
            outcome => outcome,
        }
    }

    /// The revision of the keyset that the next [`seal`](Self::seal) uses.
    pub fn revision(&self) -> u64 {
        self.ring.load().revision
    }

    /// The key that the next [`seal`](Self::seal) uses.
    pub fn primary(&self) -> KeyId {
        self.ring.load().primary.id
    }

    /// The name of the keyset.
    pub fn name(&self) -> KeysetName {
        self.ring.load().keyset.clone()
    }

    /// The name of the format.
    pub fn format(&self) -> &'static str {
        self.ring.load().format.name()
    }
}

fn open_with(ring: &Ring, stored: &[u8], associated_data: &[u8]) -> Result<Opened, OpenError> {
    if !ring.format.binds_associated_data() && !associated_data.is_empty() {
        return Err(OpenError::AssociatedData(ring.format.name()));
    }
    // A vector that grew would leave plaintext in freed memory.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(stored.len() + WORKING_ROOM));
    let (key, carried) = ring.open(stored, associated_data, &mut plaintext)?;
    Ok(Opened {
        plaintext,
        key,
        is_due: key != ring.primary.id,
        sealed_at: carried.timestamp,
    })
}
