//! The life of a key: six states, and the arrows between them as data.
//!
//! A state says what a key may do, never what has been done with it; the time of every arrow is recorded by the key.

use std::fmt;
use std::str::FromStr;

/// Where a key stands in its life (NIST SP 800-57 part 1, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyState {
    /// Pre-activation: generated, given to nobody.
    Pending,
    /// Active for processing only: every reader gets it before anybody seals with it.
    Staged,
    /// Active: seals and opens. Exactly one in a keyset.
    Primary,
    /// Deactivated: opens the values that remain under it.
    Retiring,
    /// Compromised: opens for the re-encryption only.
    Compromised,
    /// Destroyed: a tombstone that keeps the id from being used again.
    Destroyed,
}

/// One permitted step in the life of a key.
#[derive(Debug)]
pub struct Arrow {
    /// The state before.
    pub from: KeyState,
    /// The state after.
    pub to: KeyState,
    /// When and why a key takes this step.
    pub why: &'static str,
}

/// Every permitted step. What is not here does not happen.
pub const ARROWS: &[Arrow] = &[
    arrow(
        KeyState::Pending,
        KeyState::Staged,
        "readers are given the key, so that nobody meets a value it cannot open",
    ),
    arrow(
        KeyState::Pending,
        KeyState::Compromised,
        "it leaked before anybody was given it",
    ),
    arrow(
        KeyState::Pending,
        KeyState::Destroyed,
        "nobody was given it, so nothing can need it",
    ),
    arrow(
        KeyState::Staged,
        KeyState::Primary,
        "every reader has it: writers may seal with it",
    ),
    arrow(
        KeyState::Staged,
        KeyState::Retiring,
        "it is taken back before it became primary",
    ),
    arrow(
        KeyState::Staged,
        KeyState::Compromised,
        "it leaked while it was being distributed",
    ),
    arrow(
        KeyState::Primary,
        KeyState::Retiring,
        "another key became primary in the same step",
    ),
    arrow(
        KeyState::Primary,
        KeyState::Compromised,
        "it leaked, and another key became primary in the same step",
    ),
    arrow(
        KeyState::Retiring,
        KeyState::Primary,
        "rollback: the rotation is undone while every reader still has the key",
    ),
    arrow(
        KeyState::Retiring,
        KeyState::Staged,
        "readers are given it again after it was retired too early",
    ),
    arrow(KeyState::Retiring, KeyState::Compromised, "it leaked after it was replaced"),
    arrow(
        KeyState::Retiring,
        KeyState::Destroyed,
        "retired, and the last backup that needs it has expired",
    ),
    arrow(
        KeyState::Compromised,
        KeyState::Destroyed,
        "retired, and the last backup that needs it has expired",
    ),
];

/// A step that is not in [`ARROWS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {from} key cannot become {to}")]
pub struct ForbiddenStep {
    /// The state before.
    pub from: KeyState,
    /// The state asked for.
    pub to: KeyState,
}

/// A word that names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key state: pending, staged, primary, retiring, compromised or destroyed")]
pub struct UnknownState;

impl KeyState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Staged,
        Self::Primary,
        Self::Retiring,
        Self::Compromised,
        Self::Destroyed,
    ];

    /// The next state, if there is an arrow to it.
    pub fn advance(self, to: Self) -> Result<Self, ForbiddenStep> {
        if ARROWS.iter().any(|arrow| arrow.from == self && arrow.to == to) {
            Ok(to)
        } else {
            Err(ForbiddenStep { from: self, to })
        }
    }

    /// Whether values may be sealed with a key in this state.
    pub fn seals(self) -> bool {
        match self {
            Self::Primary => true,
            Self::Pending | Self::Staged | Self::Retiring | Self::Compromised | Self::Destroyed => false,
        }
    }

    /// Whether applications open values with a key in this state.
    pub fn opens(self) -> bool {
        match self {
            Self::Staged | Self::Primary | Self::Retiring => true,
            Self::Pending | Self::Compromised | Self::Destroyed => false,
        }
    }

    /// Whether the re-encryption opens values with a key in this state.
    pub fn opens_for_reencryption(self) -> bool {
        match self {
            Self::Staged | Self::Primary | Self::Retiring | Self::Compromised => true,
            Self::Pending | Self::Destroyed => false,
        }
    }

    /// The word used in files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Staged => "staged",
            Self::Primary => "primary",
            Self::Retiring => "retiring",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyState {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or(UnknownState)
    }
}

const fn arrow(from: KeyState, to: KeyState, why: &'static str) -> Arrow {
    Arrow { from, to, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_are_distinct_and_explained() {
        for (index, arrow) in ARROWS.iter().enumerate() {
            assert_ne!(arrow.from, arrow.to);
            assert!(arrow.why.len() > 20);
            let again = ARROWS[index + 1..]
                .iter()
                .any(|other| other.from == arrow.from && other.to == arrow.to);
            assert!(!again, "{} to {} is listed twice", arrow.from, arrow.to);
        }
    }

    #[test]
    fn nothing_leaves_destroyed_and_every_life_can_reach_it() {
        assert!(ARROWS.iter().all(|arrow| arrow.from != KeyState::Destroyed));
        for start in KeyState::ALL {
            let mut reached = vec![start];
            while let Some(arrow) = ARROWS
                .iter()
                .find(|arrow| reached.contains(&arrow.from) && !reached.contains(&arrow.to))
            {
                reached.push(arrow.to);
            }
            assert!(reached.contains(&KeyState::Destroyed), "{start} never ends");
        }
    }

    #[test]
    fn a_compromised_key_never_serves_applications_again() {
        let next: Vec<_> = ARROWS
            .iter()
            .filter(|arrow| arrow.from == KeyState::Compromised)
            .map(|arrow| arrow.to)
            .collect();
        assert_eq!(next, [KeyState::Destroyed]);
    }

    #[test]
    fn words_round_trip_and_others_are_refused() {
        for state in KeyState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!("Primary".parse::<KeyState>(), Err(UnknownState));
        assert_eq!("suspended".parse::<KeyState>(), Err(UnknownState));
    }

    #[test]
    fn what_seals_opens_and_what_opens_is_open_to_the_re_encryption() {
        for state in KeyState::ALL {
            assert!(!state.seals() || state.opens());
            assert!(!state.opens() || state.opens_for_reencryption());
        }
    }
}
