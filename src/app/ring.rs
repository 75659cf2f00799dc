//! The ciphers of one keyset in one format, as of one version of the keyring. Built beside the readers, then swapped in whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{HandleError, OpenError};
use super::meters::Meters;
use crate::format::{
    Carried, Cipher, Fernet, Format, KeyHint, OpenError as CipherError, TrialError, open_exclusively, open_first,
};
use crate::key::{Algorithm, Key, KeyId, KeyState, Keyring, KeysetName, SealMeter};

/// What a handle works with.
pub(super) struct Ring {
    pub(super) keyset: KeysetName,
    pub(super) format: &'static dyn Format,
    pub(super) generation: u64,
    pub(super) revision: u64,
    /// What seals.
    pub(super) primary: RingKey,
    /// Counts what it seals, where it may not seal without end.
    pub(super) seals: Option<Arc<SealMeter>>,
    /// What else opens.
    others: Vec<RingKey>,
    /// Keys that exist and that applications are not given.
    withheld: Vec<(KeyId, Standing)>,
    /// Keys among `others` that leaked, and are offered until their values are moved.
    compromised: Vec<KeyId>,
    /// Values that were opened with one of them; counted on when the ring is built anew.
    pub(super) compromised_opens: Arc<AtomicU64>,
}

/// A key, ready for use.
pub(super) struct RingKey {
    pub(super) id: KeyId,
    pub(super) cipher: Box<dyn Cipher>,
}

#[derive(Clone, Copy)]
enum Standing {
    Withheld(&'static str),
    Destroyed,
}

impl Ring {
    /// Joins the keys that applications are given with a format.
    pub(super) fn build(
        keyring: &Keyring,
        name: &KeysetName,
        format: &'static dyn Format,
        meters: &Meters,
    ) -> Result<Self, HandleError> {
        let keyset = keyring.keyset(name).ok_or_else(|| HandleError::NoSuchKeyset(name.clone()))?;
        let primary = keyset.primary();
        if !suits(format, primary.algorithm()) {
            return Err(HandleError::Algorithm {
                keyset: name.clone(),
                id: primary.id(),
                algorithm: primary.algorithm(),
                format: format.name(),
            });
        }
        let mut ring = Self {
            keyset: name.clone(),
            format,
            generation: keyring.generation(),
            revision: keyset.revision(),
            primary: join(format, name, primary)?,
            seals: meters.meter(primary, format),
            others: Vec::new(),
            withheld: Vec::new(),
            compromised: Vec::new(),
            compromised_opens: Arc::default(),
        };
        for key in keyset.keys().iter().filter(|key| key.id() != primary.id()) {
            match standing(format, key) {
                None => {
                    ring.others.push(join(format, name, key)?);
                    if key.is_offered_though_compromised() {
                        ring.compromised.push(key.id());
                    }
                }
                Some(standing) => ring.withheld.push((key.id(), standing)),
            }
        }
        Ok(ring)
    }

    /// The next version of this ring, from a newer keyring.
    pub(super) fn rebuilt(&self, keyring: &Keyring, meters: &Meters) -> Result<Self, HandleError> {
        let mut next = Self::build(keyring, &self.keyset, self.format, meters)?;
        next.compromised_opens = Arc::clone(&self.compromised_opens);
        Ok(next)
    }

    /// Opens `stored` with the key that it names, or with the one key that accepts it; appends the plaintext to `out`.
    /// On an error `out` is as it was.
    pub(super) fn open(&self, stored: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<(KeyId, Carried), OpenError> {
        let (id, carried) = self.open_uncounted(stored, associated_data, out)?;
        if self.compromised.contains(&id) {
            self.compromised_opens.fetch_add(1, Ordering::Relaxed);
        }
        Ok((id, carried))
    }

    fn open_uncounted(&self, stored: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<(KeyId, Carried), OpenError> {
        match self.format.hint(stored) {
            KeyHint::Key(id) => {
                let key = self.keys().find(|key| key.id == id).ok_or_else(|| self.absent(id))?;
                let opened = key.cipher.open(stored, associated_data, out);
                opened.map(|carried| (id, carried)).map_err(|error| self.unopened(error))
            }
            KeyHint::Unnamed => {
                let ciphers = self.keys().map(|key| &*key.cipher);
                let opened = if self.format.is_committing() {
                    open_first(ciphers, stored, associated_data, out)
                } else {
                    open_exclusively(ciphers, stored, associated_data, out)
                };
                let (position, carried) = opened.map_err(|error| match error {
                    TrialError::Unreadable(error) => self.unopened(error),
                    TrialError::Ambiguous(..) => OpenError::Ambiguous,
                    TrialError::NoKey => OpenError::Authentication,
                })?;
                let id = self.keys().nth(position).map_or(self.primary.id, |key| key.id);
                Ok((id, carried))
            }
            KeyHint::UnknownVersion(version) => Err(OpenError::UnknownVersion(version)),
            KeyHint::Foreign => Err(OpenError::NotSealed(self.format.name())),
        }
    }

    /// Whether a newer version of the keyring could make this failure go away.
    pub(super) fn may_be_stale(&self, stored: &[u8], error: &OpenError) -> bool {
        match error {
            OpenError::UnknownKey { .. } | OpenError::Withheld { .. } => true,
            // Where the value names no key, a key that is not here yet looks like altered bytes.
            OpenError::Authentication => self.format.hint(stored) == KeyHint::Unnamed,
            OpenError::NotSealed(_)
            | OpenError::UnknownVersion(_)
            | OpenError::Destroyed { .. }
            | OpenError::Damaged
            | OpenError::Ambiguous
            | OpenError::AssociatedData(_) => false,
        }
    }

    fn keys(&self) -> impl Iterator<Item = &RingKey> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    fn absent(&self, id: KeyId) -> OpenError {
        let keyset = self.keyset.clone();
        match self.withheld.iter().find(|(known, _)| *known == id) {
            Some((_, Standing::Withheld(standing))) => OpenError::Withheld { keyset, id, standing },
            Some((_, Standing::Destroyed)) => OpenError::Destroyed { keyset, id },
            None => OpenError::UnknownKey { keyset, id },
        }
    }

    fn unopened(&self, error: CipherError) -> OpenError {
        match error {
            CipherError::Malformed => OpenError::NotSealed(self.format.name()),
            CipherError::UnknownVersion(version) => OpenError::UnknownVersion(version),
            CipherError::OtherKey(id) => self.absent(id),
            CipherError::Authentication => OpenError::Authentication,
            CipherError::Padding => OpenError::Damaged,
        }
    }
}

/// Why applications do not open with a key; `None` when they do.
fn standing(format: &dyn Format, key: &Key) -> Option<Standing> {
    match key.state() {
        KeyState::Destroyed => Some(Standing::Destroyed),
        KeyState::Pending => Some(Standing::Withheld("pending")),
        KeyState::Compromised if !key.is_offered() => Some(Standing::Withheld("compromised")),
        _ if key.retired_at().is_some() => Some(Standing::Withheld("retired")),
        // Values of another format are opened through a handle of that format.
        _ if !suits(format, key.algorithm()) => Some(Standing::Withheld("made for another algorithm")),
        KeyState::Staged | KeyState::Primary | KeyState::Retiring | KeyState::Compromised => None,
    }
}

/// One key, one algorithm (NIST SP 800-57 part 1, section 5.2), also where the lengths would fit.
fn suits(format: &dyn Format, algorithm: Algorithm) -> bool {
    !algorithm.signs() && (algorithm == Algorithm::Fernet) == (format.name() == Fernet.name())
}

fn join(format: &dyn Format, keyset: &KeysetName, key: &Key) -> Result<RingKey, HandleError> {
    let id = key.id();
    // A keyset is only restored or built with material for every key that is not destroyed.
    let material = key.material().ok_or_else(|| HandleError::NoSuchKeyset(keyset.clone()))?;
    let cipher = format.cipher(material, Some(id)).map_err(|cause| HandleError::Unfit {
        keyset: keyset.clone(),
        id,
        cause,
    })?;
    Ok(RingKey { id, cipher })
}
