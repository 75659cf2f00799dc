//! A key as a member of a keyset: its material, and where it stands.

use jiff::Timestamp;

use super::{Algorithm, Fingerprint, KeyId, KeyMaterial, KeyState, OutputPrefix};

/// A key of a keyset. Only its [`Keyset`](super::Keyset) changes it.
///
/// No `Debug`, no `Clone`: it holds key material.
pub struct Key {
    pub(super) id: KeyId,
    pub(super) algorithm: Algorithm,
    pub(super) prefix: OutputPrefix,
    pub(super) origin: Origin,
    pub(super) material: Option<KeyMaterial>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) transitions: Vec<Transition>,
}

/// One entry in the record of a key's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state that the key took.
    pub state: KeyState,
    /// When.
    pub at: Timestamp,
    /// Whether it left the set that readers are given. The state stays what it was: retiring or compromised.
    pub retired: bool,
    /// Whether applications go on opening with it although it is compromised, until its values are moved (availability first).
    pub offered: bool,
}

/// Where a key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Made here, from the operating system's generator.
    Generated,
    /// Brought from outside: somebody else may hold copies.
    Imported,
}

impl Key {
    /// The id, unique in the keyset and never used again.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What the key is made for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How Tink marks its values.
    pub fn prefix(&self) -> OutputPrefix {
        self.prefix
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Where it stands.
    pub fn state(&self) -> KeyState {
        // A key without a record cannot be built; were it so, a destroyed key is the one that can do no harm.
        self.transitions.last().map_or(KeyState::Destroyed, |last| last.state)
    }

    /// Since when it has left the set that readers are given; `None` while it is offered, or was never.
    pub fn retired_at(&self) -> Option<Timestamp> {
        self.transitions.last().filter(|last| last.retired).map(|last| last.at)
    }

    /// Whether applications are given this key to open values with.
    pub fn is_offered(&self) -> bool {
        (self.state().opens() || self.is_offered_though_compromised()) && self.retired_at().is_none()
    }

    /// Whether applications are given this key although it leaked, so that its values stay readable until they are moved.
    pub fn is_offered_though_compromised(&self) -> bool {
        self.transitions.last().is_some_and(|last| last.offered)
    }

    /// The secret; `None` once destroyed.
    pub fn material(&self) -> Option<&KeyMaterial> {
        self.material.as_ref()
    }

    /// Tells this key from others. Kept after destruction; `None` for a tombstone that came from outside.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Every state that the key has taken, oldest first; never empty.
    pub fn transitions(&self) -> &[Transition] {
        &self.transitions
    }

    pub(super) fn record(&mut self, state: KeyState, at: Timestamp) {
        self.transitions.push(Transition {
            state,
            at,
            retired: false,
            offered: false,
        });
    }

    /// Records that the key leaked; `offered` says whether applications keep it until its values are moved.
    pub(super) fn record_compromise(&mut self, at: Timestamp, offered: bool) {
        self.transitions.push(Transition {
            state: KeyState::Compromised,
            at,
            retired: false,
            offered,
        });
    }

    pub(super) fn record_retirement(&mut self, at: Timestamp) {
        let state = self.state();
        self.transitions.push(Transition {
            state,
            at,
            retired: true,
            offered: false,
        });
    }
}
