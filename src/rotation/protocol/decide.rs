//! What a command is to do, by what is durable: begin, go on, turn around, or take the place of an open rotation.

use super::{ProtocolError, Wish};
use crate::key::{Key, KeyId, KeyState, Keyset};
use crate::store::ledger::rotation::RotationRecord;

/// Where a rotation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the new key.
    Forward,
    /// Back to the old one.
    Back,
}

/// Why a rotation takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It was time.
    Scheduled,
    /// A key has leaked.
    Compromised(Policy),
}

/// What applications may still do with a key that has leaked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// They open values with it until these are moved: nothing is unreadable meanwhile.
    AvailabilityFirst,
    /// Nothing: only the re-encryption opens with it, and values are unreadable until they are moved.
    LockDown,
}

/// What to do.
#[derive(Debug)]
pub(super) struct Aim {
    /// The key that the rotation leads to; `None` for a fresh one.
    pub(super) target: Option<KeyId>,
    /// The key that was primary when it began.
    pub(super) from: KeyId,
    /// Forwards, or back.
    pub(super) direction: Direction,
    /// Scheduled, or compromised.
    pub(super) mode: Mode,
    /// How it begins.
    pub(super) start: Start,
}

/// How a run begins.
#[derive(Debug)]
pub(super) enum Start {
    /// A rotation of its own, perhaps to undo a finished one.
    New {
        /// The one that it undoes, and the key that it led to.
        undoes: Option<(String, KeyId)>,
    },
    /// An open one goes on.
    Resume,
    /// An open one is turned around.
    Turn,
    /// An open one ends, and a new one takes its keys as sources.
    Supersede,
}

/// Decides. `open` is the keyset's open rotation, `finished` the one that ended last.
pub(super) fn decide(
    wish: &Wish,
    keyset: &Keyset,
    open: Option<&RotationRecord>,
    finished: Option<&RotationRecord>,
) -> Result<Aim, ProtocolError> {
    match (wish.direction, open) {
        (Direction::Back, _) => back(keyset, open, finished),
        (Direction::Forward, Some(record)) if wish.supersede => supersede(wish, keyset, record),
        (Direction::Forward, Some(record)) => resume(wish, keyset, record),
        (Direction::Forward, None) if wish.supersede => Err(ProtocolError::refused(
            format!(
                "no rotation of keyset {} is open that another could take the place of",
                keyset.name()
            ),
            "leave --supersede out",
        )),
        (Direction::Forward, None) => begin(wish, keyset, finished),
    }
}

fn begin(wish: &Wish, keyset: &Keyset, finished: Option<&RotationRecord>) -> Result<Aim, ProtocolError> {
    let primary = keyset.primary().id();
    let staged = keys_in(keyset, KeyState::Staged);
    let retiring: Vec<KeyId> = keyset
        .opening_keys()
        .filter(|key| key.state() == KeyState::Retiring)
        .map(Key::id)
        .collect();
    let was_rotated_to = finished.is_some_and(|record| KeyId(record.to_key) == primary || KeyId(record.from_key) == primary);
    let (target, from) = match (staged.as_slice(), retiring.first()) {
        ([one], _) => (Some(*one), primary),
        // The key was promoted by hand: its values are moved, and its rotation ends.
        ([], Some(old)) if !was_rotated_to && wish.compromised.is_none() => (Some(primary), *old),
        ([], _) => (None, primary),
        (several, _) => {
            return Err(ProtocolError::refused(
                format!("keyset {} has several staged keys: {}", keyset.name(), list(several)),
                format!("take back those that are not meant: reseal keys retire {} KEY", keyset.name()),
            ));
        }
    };
    Ok(Aim {
        target,
        from,
        direction: Direction::Forward,
        mode: mode_of(wish),
        start: Start::New { undoes: None },
    })
}

fn resume(wish: &Wish, keyset: &Keyset, record: &RotationRecord) -> Result<Aim, ProtocolError> {
    let direction = direction_of(record)?;
    if direction == Direction::Back {
        return Err(ProtocolError::refused(
            format!("rotation {} is being rolled back", record.id),
            "go on with --rollback; or take another way with --supersede",
        ));
    }
    let target = KeyId(record.to_key);
    let third: Vec<KeyId> = keys_in(keyset, KeyState::Staged)
        .into_iter()
        .filter(|id| *id != target)
        .collect();
    if !third.is_empty() {
        return Err(ProtocolError::refused(
            format!(
                "rotation {} leads to key {target}, and key {} is staged as well",
                record.id,
                list(&third)
            ),
            "lead it to that key with --supersede; or take the key back: reseal keys retire",
        ));
    }
    require_target(keyset, target, "take another way with --supersede")?;
    let recorded = mode_in(record)?;
    Ok(Aim {
        target: Some(target),
        from: KeyId(record.from_key),
        direction,
        // A leak is never forgotten, and a stricter policy never loosened.
        mode: match (recorded, wish.compromised) {
            (mode, None) => mode,
            (Mode::Compromised(Policy::LockDown), Some(_)) => recorded,
            (_, Some(policy)) => Mode::Compromised(policy),
        },
        start: Start::Resume,
    })
}

fn supersede(wish: &Wish, keyset: &Keyset, record: &RotationRecord) -> Result<Aim, ProtocolError> {
    let known = [KeyId(record.from_key), KeyId(record.to_key)];
    let third: Vec<KeyId> = keys_in(keyset, KeyState::Staged)
        .into_iter()
        .filter(|id| !known.contains(id))
        .collect();
    if third.len() > 1 {
        return Err(ProtocolError::refused(
            format!("keyset {} has several staged keys: {}", keyset.name(), list(&third)),
            format!("take back those that are not meant: reseal keys retire {} KEY", keyset.name()),
        ));
    }
    let primary = keyset.primary().id();
    let leaked_is_primary = matches!(mode_in(record)?, Mode::Compromised(_)) && KeyId(record.from_key) == primary;
    Ok(Aim {
        target: third.first().copied(),
        from: primary,
        direction: Direction::Forward,
        mode: match wish.compromised {
            None if leaked_is_primary => mode_in(record)?,
            _ => mode_of(wish),
        },
        start: Start::Supersede,
    })
}

fn back(keyset: &Keyset, open: Option<&RotationRecord>, finished: Option<&RotationRecord>) -> Result<Aim, ProtocolError> {
    let Some(record) = open.or(finished) else {
        return Err(ProtocolError::refused(
            format!("no rotation of keyset {} is known that could be rolled back", keyset.name()),
            "see reseal status",
        ));
    };
    if matches!(mode_in(record)?, Mode::Compromised(_)) {
        return Err(ProtocolError::refused(
            format!(
                "rotation {} leads away from a key that has leaked: there is no way back to it",
                record.id
            ),
            "go on without --rollback; or lead it to a third key with --supersede",
        ));
    }
    let (target, to) = (KeyId(record.from_key), KeyId(record.to_key));
    if open.is_none() && (record.phase != super::Phase::Done.as_str() || keyset.primary().id() != to) {
        return Err(ProtocolError::refused(
            format!(
                "rotation {}, the last one, is not in effect any more: it is {}",
                record.id, record.phase
            ),
            "see reseal status and reseal keys list",
        ));
    }
    require_target(keyset, target, "rotate to a new key instead: leave --rollback out")?;
    Ok(Aim {
        target: Some(target),
        from: target,
        direction: Direction::Back,
        mode: Mode::Scheduled,
        start: match open {
            Some(record) if direction_of(record)? == Direction::Back => Start::Resume,
            Some(_) => Start::Turn,
            None => Start::New {
                undoes: Some((record.id.clone(), to)),
            },
        },
    })
}

fn require_target(keyset: &Keyset, target: KeyId, next: &str) -> Result<(), ProtocolError> {
    let state = keyset.get(target).map(Key::state);
    match state {
        Some(KeyState::Pending | KeyState::Staged | KeyState::Primary | KeyState::Retiring) => Ok(()),
        Some(KeyState::Compromised | KeyState::Destroyed) | None => Err(ProtocolError::refused(
            format!(
                "key {target} of keyset {} is {}: nothing is rotated to it",
                keyset.name(),
                state.map_or("unknown", KeyState::as_str)
            ),
            next,
        )),
    }
}

fn keys_in(keyset: &Keyset, state: KeyState) -> Vec<KeyId> {
    keyset.keys().iter().filter(|key| key.state() == state).map(Key::id).collect()
}

fn list(keys: &[KeyId]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn mode_of(wish: &Wish) -> Mode {
    wish.compromised.map_or(Mode::Scheduled, Mode::Compromised)
}

/// What a record says; one of other words was edited by hand.
fn mode_in(record: &RotationRecord) -> Result<Mode, ProtocolError> {
    let policy = record.policy.as_deref().map(Policy::parse);
    match (record.mode.as_str(), policy) {
        ("scheduled", None) => Ok(Mode::Scheduled),
        ("compromised", Some(Some(policy))) => Ok(Mode::Compromised(policy)),
        _ => Err(edited(record)),
    }
}

fn direction_of(record: &RotationRecord) -> Result<Direction, ProtocolError> {
    match record.direction.as_str() {
        "forward" => Ok(Direction::Forward),
        "back" => Ok(Direction::Back),
        _ => Err(edited(record)),
    }
}

pub(super) fn edited(record: &RotationRecord) -> ProtocolError {
    ProtocolError::refused(
        format!("the record of rotation {} is not what reseal wrote", record.id),
        "look at it in the table of rotations; keys and values do not depend on it",
    )
}

impl Direction {
    /// The word in records and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Back => "back",
        }
    }
}

impl Mode {
    /// The word in records and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Compromised(_) => "compromised",
        }
    }

    /// The policy, where a key has leaked.
    pub fn policy(self) -> Option<Policy> {
        match self {
            Self::Scheduled => None,
            Self::Compromised(policy) => Some(policy),
        }
    }
}

impl Policy {
    /// The word in records and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AvailabilityFirst => "availability-first",
            Self::LockDown => "lock-down",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::AvailabilityFirst, Self::LockDown]
            .into_iter()
            .find(|policy| policy.as_str() == word)
    }
}
