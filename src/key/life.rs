//! What happens to the keys of a keyset: one method for each change, which raises the revision or changes nothing. Time is an
//! argument.

use jiff::{SignedDuration, Timestamp};

use super::keyset::{fresh, generate_for};
use super::{Algorithm, ForbiddenStep, KeyId, KeyMaterial, KeyState, Keyset, KeysetError, Origin};

/// How a key enters a keyset that has a primary already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Kept back.
    Pending,
    /// Given to readers, for opening only: what a rotation begins with.
    Staged,
    /// An older key of the application whose values are still there.
    Retiring,
}

/// What becomes of the primary when another key takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldPrimary {
    /// It keeps opening the values that remain under it.
    Retires,
    /// It leaked: from now on only the re-encryption opens with it.
    IsCompromised,
    /// It leaked, and applications open with it until its values are moved: no value is unreadable in the meantime.
    IsCompromisedButOffered,
}

impl Keyset {
    /// Adds a fresh key.
    pub fn add(&mut self, algorithm: Algorithm, entry: Entry, at: Timestamp) -> Result<KeyId, KeysetError> {
        let material = generate_for(algorithm)?;
        let id = self.admit(fresh(algorithm, material, entry.state()), Origin::Generated, at)?;
        self.revision += 1;
        Ok(id)
    }

    /// Adds a key that came from outside.
    pub fn add_imported(
        &mut self,
        algorithm: Algorithm,
        material: KeyMaterial,
        entry: Entry,
        at: Timestamp,
    ) -> Result<KeyId, KeysetError> {
        let id = self.admit(fresh(algorithm, material, entry.state()), Origin::Imported, at)?;
        self.revision += 1;
        Ok(id)
    }

    /// Gives a pending key to readers, or gives a retired one back to them.
    pub fn stage(&mut self, id: KeyId, at: Timestamp) -> Result<(), KeysetError> {
        let index = self.index_of(id)?;
        let state = self.step(index, KeyState::Staged)?;
        self.keys[index].record(state, at);
        self.revision += 1;
        Ok(())
    }

    /// Makes a key primary; the old primary steps down in the same change. A key that readers do not have is refused.
    pub fn promote(&mut self, id: KeyId, old: OldPrimary, at: Timestamp) -> Result<(), KeysetError> {
        let rising = self.index_of(id)?;
        let state = self.step(rising, KeyState::Primary)?;
        if self.keys[rising].retired_at().is_some() {
            return Err(KeysetError::Retired {
                keyset: self.name.clone(),
                id,
            });
        }
        let falling = self.index_of(self.primary().id)?;
        let stepped_down = match old {
            OldPrimary::Retires => self.step(falling, KeyState::Retiring)?,
            OldPrimary::IsCompromised | OldPrimary::IsCompromisedButOffered => self.step(falling, KeyState::Compromised)?,
        };
        match old {
            OldPrimary::Retires => self.keys[falling].record(stepped_down, at),
            OldPrimary::IsCompromised => self.keys[falling].record_compromise(at, false),
            OldPrimary::IsCompromisedButOffered => self.keys[falling].record_compromise(at, true),
        }
        self.keys[rising].record(state, at);
        self.revision += 1;
        Ok(())
    }

    /// Takes a key out of the set that readers are given. The caller has made sure that no value needs it.
    pub fn retire(&mut self, id: KeyId, at: Timestamp) -> Result<(), KeysetError> {
        let index = self.index_of(id)?;
        if self.keys[index].retired_at().is_some() {
            return Err(KeysetError::Retired {
                keyset: self.name.clone(),
                id,
            });
        }
        match self.keys[index].state() {
            KeyState::Retiring | KeyState::Compromised => {}
            KeyState::Staged => {
                let state = self.step(index, KeyState::Retiring)?;
                self.keys[index].record(state, at);
            }
            from @ (KeyState::Pending | KeyState::Primary | KeyState::Destroyed) => {
                return Err(self.forbidden(
                    id,
                    ForbiddenStep {
                        from,
                        to: KeyState::Retiring,
                    },
                ));
            }
        }
        self.keys[index].record_retirement(at);
        self.revision += 1;
        Ok(())
    }

    /// Records that a key leaked: from now on only the re-encryption opens with it. A primary key is refused: promote another with
    /// [`OldPrimary::IsCompromised`].
    pub fn mark_compromised(&mut self, id: KeyId, at: Timestamp) -> Result<(), KeysetError> {
        self.compromise(id, false, at)
    }

    /// The same, with `offered` as in [`OldPrimary::IsCompromisedButOffered`]. For a key that is compromised already, only an offer
    /// can be withdrawn: what was taken from applications is not given back to them.
    pub fn compromise(&mut self, id: KeyId, offered: bool, at: Timestamp) -> Result<(), KeysetError> {
        let index = self.index_of(id)?;
        if self.keys[index].state() == KeyState::Primary {
            let step = ForbiddenStep {
                from: KeyState::Primary,
                to: KeyState::Compromised,
            };
            return Err(self.forbidden(id, step));
        }
        let was_retired = self.keys[index].retired_at().is_some();
        if self.keys[index].is_offered_though_compromised() && !offered {
            self.keys[index].record_compromise(at, false);
            self.revision += 1;
            return Ok(());
        }
        self.step(index, KeyState::Compromised)?;
        self.keys[index].record_compromise(at, offered && !was_retired);
        if was_retired {
            self.keys[index].record_retirement(at);
        }
        self.revision += 1;
        Ok(())
    }

    /// Wipes a key and leaves its tombstone.
    ///
    /// Refused for the primary and staged keys, for a key that was not retired, and until `backup_horizon` has passed since
    /// it was. Since the primary is refused, a keyset never loses its last opening key.
    pub fn destroy(&mut self, id: KeyId, backup_horizon: SignedDuration, at: Timestamp) -> Result<(), KeysetError> {
        let index = self.index_of(id)?;
        let state = self.step(index, KeyState::Destroyed)?;
        let key = &mut self.keys[index];
        if key.state() != KeyState::Pending {
            let Some(retired_at) = key.retired_at() else {
                return Err(KeysetError::NotRetired {
                    keyset: self.name.clone(),
                    id,
                    state: key.state(),
                });
            };
            let until = retired_at.checked_add(backup_horizon).unwrap_or(Timestamp::MAX);
            if at < until {
                return Err(KeysetError::BackupHorizon {
                    keyset: self.name.clone(),
                    id,
                    until,
                });
            }
        }
        key.material = None;
        key.record(state, at);
        self.revision += 1;
        Ok(())
    }

    fn step(&self, index: usize, to: KeyState) -> Result<KeyState, KeysetError> {
        let key = &self.keys[index];
        key.state().advance(to).map_err(|step| self.forbidden(key.id, step))
    }

    fn forbidden(&self, id: KeyId, step: ForbiddenStep) -> KeysetError {
        KeysetError::Step {
            keyset: self.name.clone(),
            id,
            step,
        }
    }
}

impl Entry {
    fn state(self) -> KeyState {
        match self {
            Self::Pending => KeyState::Pending,
            Self::Staged => KeyState::Staged,
            Self::Retiring => KeyState::Retiring,
        }
    }
}
