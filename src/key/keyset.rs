//! The keys of one purpose. In every reachable state exactly one of them is primary.
//!
//! Here a keyset is made, restored and looked at; what happens to its keys is in `life.rs`.

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

use super::member::{Key, Origin, Transition};
use super::{Algorithm, Fingerprint, KeyId, KeyMaterial, KeyState, KeysetError, KeysetName, MaterialError, OutputPrefix};

/// The keys of one purpose, one of them primary; with a revision that grows with every change.
pub struct Keyset {
    pub(super) name: KeysetName,
    pub(super) revision: u64,
    pub(super) keys: Vec<Key>,
}

/// A key from outside, with the place that it takes.
pub struct ImportedKey {
    /// Its id where it came from; `None` draws one.
    pub id: Option<KeyId>,
    /// What it is made for.
    pub algorithm: Algorithm,
    /// How Tink marks its values.
    pub prefix: OutputPrefix,
    /// The secret; `None` for the tombstone of a key destroyed elsewhere.
    pub material: Option<KeyMaterial>,
    /// The state that it enters in.
    pub state: KeyState,
    /// Whether it is kept from readers from the start (a disabled key of a Tink keyset).
    pub retired: bool,
}

impl Keyset {
    /// A new keyset whose one key, fresh from the operating system's generator, is primary.
    pub fn generate(name: KeysetName, algorithm: Algorithm, at: Timestamp) -> Result<Self, KeysetError> {
        let material = generate_for(algorithm)?;
        Self::begin(
            name,
            vec![fresh(algorithm, material, KeyState::Primary)],
            Origin::Generated,
            at,
        )
    }

    /// A new keyset from keys that an application holds already; exactly one of them primary.
    pub fn import(name: KeysetName, keys: Vec<ImportedKey>, at: Timestamp) -> Result<Self, KeysetError> {
        Self::begin(name, keys, Origin::Imported, at)
    }

    fn begin(name: KeysetName, keys: Vec<ImportedKey>, origin: Origin, at: Timestamp) -> Result<Self, KeysetError> {
        let mut keyset = Self {
            name,
            revision: 1,
            keys: Vec::with_capacity(keys.len()),
        };
        for key in keys {
            keyset.admit(key, origin, at)?;
        }
        keyset.check_primaries()?;
        Ok(keyset)
    }

    /// A keyset as it was stored; refused unless the rules of this file could have made it.
    pub(super) fn restore(name: KeysetName, revision: u64, keys: Vec<Key>) -> Result<Self, KeysetError> {
        let keyset = Self { name, revision, keys };
        for (index, key) in keyset.keys.iter().enumerate() {
            keyset.check_record(key)?;
            let before = &keyset.keys[..index];
            if before.iter().any(|other| other.id == key.id) {
                return Err(KeysetError::IdTaken {
                    keyset: keyset.name.clone(),
                    id: key.id,
                });
            }
            if let Some(other) = before
                .iter()
                .find(|other| key.fingerprint.is_some() && other.fingerprint == key.fingerprint)
            {
                return Err(KeysetError::SameBytes {
                    keyset: keyset.name.clone(),
                    id: other.id,
                });
            }
        }
        keyset.check_primaries()?;
        Ok(keyset)
    }

    /// The name.
    pub fn name(&self) -> &KeysetName {
        &self.name
    }

    /// Grows by one with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All keys with their tombstones, oldest first.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The key that seals.
    #[allow(clippy::expect_used)]
    pub fn primary(&self) -> &Key {
        // `begin` and `restore` count the primaries, and `promote` swaps one for one.
        self.keys
            .iter()
            .find(|key| key.state() == KeyState::Primary)
            .expect("a keyset has a primary")
    }

    /// The key with this id, tombstones included.
    pub fn get(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The key with these bytes, tombstones included.
    pub fn find(&self, fingerprint: Fingerprint) -> Option<&Key> {
        self.keys.iter().find(|key| key.fingerprint == Some(fingerprint))
    }

    /// What applications open with: the primary first, then every other key that they are given.
    pub fn opening_keys(&self) -> impl Iterator<Item = &Key> {
        self.primary_first().filter(|key| key.is_offered())
    }

    /// What the re-encryption opens with: the above, and compromised and retired keys whose material is still there.
    pub fn reencryption_keys(&self) -> impl Iterator<Item = &Key> {
        self.primary_first().filter(|key| key.state().opens_for_reencryption())
    }

    fn primary_first(&self) -> impl Iterator<Item = &Key> {
        let others = self.keys.iter().filter(|key| key.state() != KeyState::Primary);
        std::iter::once(self.primary()).chain(others)
    }

    pub(super) fn admit(&mut self, key: ImportedKey, origin: Origin, at: Timestamp) -> Result<KeyId, KeysetError> {
        let id = match key.id {
            Some(KeyId(0)) => {
                return Err(KeysetError::IdZero {
                    keyset: self.name.clone(),
                });
            }
            Some(id) if self.get(id).is_some() => {
                return Err(KeysetError::IdTaken {
                    keyset: self.name.clone(),
                    id,
                });
            }
            Some(id) => id,
            None => self.draw_id()?,
        };
        if let Some(material) = &key.material {
            let (wanted, found) = (key.algorithm.key_bytes(), material.expose().len());
            if wanted != found {
                return Err(KeysetError::Size {
                    algorithm: key.algorithm,
                    wanted,
                    found,
                });
            }
            // What only opens may be as poor as an application has it: a rotation leads away from it.
            if key.state != KeyState::Retiring {
                material.require_no_repetition()?;
            }
        }
        let fingerprint = key.material.as_ref().map(Fingerprint::of);
        if let Some(other) = fingerprint.and_then(|fingerprint| self.find(fingerprint)) {
            return Err(KeysetError::SameBytes {
                keyset: self.name.clone(),
                id: other.id,
            });
        }
        let mut key = Key {
            id,
            algorithm: key.algorithm,
            prefix: key.prefix,
            origin,
            material: key.material,
            fingerprint,
            transitions: first_transitions(key.state, key.retired, at),
        };
        key.transitions.shrink_to_fit();
        self.check_record(&key)?;
        self.keys.push(key);
        Ok(id)
    }

    fn draw_id(&self) -> Result<KeyId, KeysetError> {
        let random = SystemRandom::new();
        // A keyset holds at most some thousands of ids out of 2^32: a handful of draws never fails by chance.
        for _ in 0..ID_DRAWS_MAX {
            let mut bytes = [0; 4];
            random.fill(&mut bytes).map_err(|_| MaterialError::Random)?;
            let id = KeyId(u32::from_be_bytes(bytes));
            if id != KeyId(0) && self.get(id).is_none() {
                return Ok(id);
            }
        }
        Err(MaterialError::Random.into())
    }

    pub(super) fn index_of(&self, id: KeyId) -> Result<usize, KeysetError> {
        let index = self.keys.iter().position(|key| key.id == id);
        index.ok_or_else(|| KeysetError::NoSuchKey {
            keyset: self.name.clone(),
            id,
        })
    }

    fn check_primaries(&self) -> Result<(), KeysetError> {
        let found = self.keys.iter().filter(|key| key.state() == KeyState::Primary).count();
        if found == 1 {
            Ok(())
        } else {
            Err(KeysetError::Primaries {
                keyset: self.name.clone(),
                found,
            })
        }
    }

    fn check_record(&self, key: &Key) -> Result<(), KeysetError> {
        let wrong = |what| {
            Err(KeysetError::Record {
                keyset: self.name.clone(),
                id: key.id,
                what,
            })
        };
        if key.id == KeyId(0) {
            return Err(KeysetError::IdZero {
                keyset: self.name.clone(),
            });
        }
        if key.transitions.is_empty() {
            return wrong("no state was ever recorded");
        }
        for pair in key.transitions.windows(2) {
            let is_same_state = pair[0].state == pair[1].state && !pair[0].retired;
            let is_retirement = pair[1].retired && is_same_state;
            let is_withdrawal = pair[0].offered && !pair[1].offered && is_same_state;
            let is_step = !pair[1].retired && pair[0].state.advance(pair[1].state).is_ok();
            if !(is_retirement || is_withdrawal || is_step) {
                return wrong("its recorded states do not follow from each other");
            }
        }
        let is_offer = |entry: &Transition| entry.offered && (entry.retired || entry.state != KeyState::Compromised);
        if key.transitions.iter().any(is_offer) {
            return wrong("only a compromised key can be offered in spite of its state");
        }
        if key.retired_at().is_some() && !matches!(key.state(), KeyState::Retiring | KeyState::Compromised) {
            return wrong("only retiring and compromised keys can be retired");
        }
        match (&key.material, key.state()) {
            (None, KeyState::Destroyed) => Ok(()),
            (Some(_), KeyState::Destroyed) => wrong("destroyed, and yet its bytes are here"),
            (None, _) => wrong("its bytes are missing"),
            (Some(material), _) if material.expose().len() != key.algorithm.key_bytes() => {
                wrong("its size does not fit its algorithm")
            }
            (Some(material), _) if key.fingerprint != Some(Fingerprint::of(material)) => {
                wrong("its bytes do not match its fingerprint")
            }
            (Some(_), _) => Ok(()),
        }
    }
}

pub(super) fn generate_for(algorithm: Algorithm) -> Result<KeyMaterial, KeysetError> {
    if algorithm == Algorithm::Aes128Gcm {
        // New keys of a cipher have 256 bits.
        return Err(KeysetError::Size {
            algorithm,
            wanted: algorithm.key_bytes(),
            found: Algorithm::Aes256Gcm.key_bytes(),
        });
    }
    Ok(KeyMaterial::generate_bytes(algorithm.key_bytes())?)
}

pub(super) fn fresh(algorithm: Algorithm, material: KeyMaterial, state: KeyState) -> ImportedKey {
    ImportedKey {
        id: None,
        algorithm,
        prefix: OutputPrefix::Tink,
        material: Some(material),
        state,
        retired: false,
    }
}

fn first_transitions(state: KeyState, retired: bool, at: Timestamp) -> Vec<Transition> {
    let mut transitions = vec![Transition {
        state,
        at,
        retired: false,
        offered: false,
    }];
    if retired {
        transitions.push(Transition {
            state,
            at,
            retired: true,
            offered: false,
        });
    }
    transitions
}

/// Draws before an id is given up on; each fails with a probability below 10,000 / 2^32.
const ID_DRAWS_MAX: usize = 16;
