//! The phases of a keyset's rotation: a table of steps, and where a rotation stands by what is durable.
//!
//! The states of the keys decide; the record only tells apart what the keys cannot. Whoever dies in a phase is followed by whoever runs
//! the same command: in that phase, with its gate asked anew.

use std::fmt;

use super::retire::retirable;
use crate::key::{KeyId, KeyState, Keyset};

/// Where the rotation of a keyset stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The target is given to readers, for opening only.
    Introduce,
    /// The target is primary: writers switch to it.
    Promote,
    /// Values are moved to the target.
    ReEncrypt,
    /// Every value is opened under the target.
    Verify,
    /// The other keys are taken from readers.
    Retire,
    /// The end of a rotation forwards.
    Done,
    /// The end of a rotation back.
    RolledBack,
    /// Ended by another rotation, which has its keys as sources.
    Superseded,
}

/// One permitted step of a rotation.
#[derive(Debug)]
pub struct Step {
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
    /// When and why a rotation takes it.
    pub why: &'static str,
}

/// Every permitted step. What is not here does not happen.
pub const STEPS: &[Step] = &[
    step(
        Phase::Introduce,
        Phase::Promote,
        "every live instance opens with the target: it may become primary",
    ),
    step(
        Phase::Introduce,
        Phase::RolledBack,
        "the new key was taken back before anybody sealed with it",
    ),
    step(
        Phase::Introduce,
        Phase::Superseded,
        "a third key takes the place of the target",
    ),
    step(
        Phase::Promote,
        Phase::ReEncrypt,
        "every live instance seals with the target: what is moved now stays moved",
    ),
    step(
        Phase::Promote,
        Phase::Introduce,
        "turned around, or continued after a stop before the promotion: the target is given to readers, if need be again",
    ),
    step(Phase::Promote, Phase::Superseded, "a third key takes the place of the target"),
    step(Phase::ReEncrypt, Phase::Verify, "every dataset was worked through"),
    step(
        Phase::ReEncrypt,
        Phase::Promote,
        "continued after a stop: it is asked again whether every instance seals with the target",
    ),
    step(
        Phase::ReEncrypt,
        Phase::Introduce,
        "turned around: the old key is the target, if need be given to readers again",
    ),
    step(
        Phase::ReEncrypt,
        Phase::Superseded,
        "a third key takes the place of the target",
    ),
    step(
        Phase::Verify,
        Phase::ReEncrypt,
        "values were found that are not under the target",
    ),
    step(
        Phase::Verify,
        Phase::Promote,
        "continued after a stop: it is asked again whether every instance seals with the target",
    ),
    step(
        Phase::Verify,
        Phase::Retire,
        "every value opened under the target, and nothing needs the other keys",
    ),
    step(
        Phase::Verify,
        Phase::Done,
        "verified, and the operator keeps the old key for readers",
    ),
    step(
        Phase::Verify,
        Phase::RolledBack,
        "verified, and the operator keeps the new key for readers",
    ),
    step(
        Phase::Verify,
        Phase::Introduce,
        "turned around: the old key is the target, if need be given to readers again",
    ),
    step(Phase::Verify, Phase::Superseded, "a third key takes the place of the target"),
    step(Phase::Retire, Phase::Done, "every live instance has let go of the old keys"),
    step(
        Phase::Retire,
        Phase::RolledBack,
        "every live instance has let go of the new key",
    ),
    step(
        Phase::Retire,
        Phase::Promote,
        "continued after a stop before a key was retired: values are looked at anew",
    ),
    step(
        Phase::Retire,
        Phase::Introduce,
        "turned around: the old key is the target, if need be given to readers again",
    ),
    step(Phase::Retire, Phase::Superseded, "a third key takes the place of the target"),
];

/// A step that is not in [`STEPS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rotation in phase {from} does not go on to {to}")]
pub struct ForbiddenPhase {
    /// The phase before.
    pub from: Phase,
    /// The phase asked for.
    pub to: Phase,
}

impl Phase {
    /// All phases, in the order of a rotation.
    pub const ALL: [Self; 8] = [
        Self::Introduce,
        Self::Promote,
        Self::ReEncrypt,
        Self::Verify,
        Self::Retire,
        Self::Done,
        Self::RolledBack,
        Self::Superseded,
    ];

    /// The next phase, if there is a step to it. A phase may be entered again.
    pub fn advance(self, to: Self) -> Result<Self, ForbiddenPhase> {
        if self == to && !self.is_end() || STEPS.iter().any(|step| step.from == self && step.to == to) {
            Ok(to)
        } else {
            Err(ForbiddenPhase { from: self, to })
        }
    }

    /// Whether nothing follows.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Superseded)
    }

    /// The word in records and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Introduce => "introduce",
            Self::Promote => "promote",
            Self::ReEncrypt => "re-encrypt",
            Self::Verify => "verify",
            Self::Retire => "retire",
            Self::Done => "done",
            Self::RolledBack => "rolled-back",
            Self::Superseded => "superseded",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// Where a rotation towards `target` goes on, by the states of its keys and the last phase that was recorded; `None` when the target
    /// is not a key that can be rotated to.
    pub fn standing(keyset: &Keyset, target: KeyId, recorded: Self) -> Option<Self> {
        let key = keyset.get(target)?;
        match key.state() {
            KeyState::Pending | KeyState::Staged | KeyState::Retiring => Some(Self::Introduce),
            KeyState::Primary if recorded == Self::Retire && retirable(keyset).is_empty() => Some(Self::Retire),
            // Whatever was found out before the stop may have changed: whether every instance seals with the target is asked first.
            KeyState::Primary => Some(Self::Promote),
            KeyState::Compromised | KeyState::Destroyed => None,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn step(from: Phase, to: Phase, why: &'static str) -> Step {
    Step { from, to, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_distinct_and_explained() {
        for (index, step) in STEPS.iter().enumerate() {
            assert_ne!(step.from, step.to);
            assert!(step.why.len() > 20, "{} to {}", step.from, step.to);
            let again = STEPS[index + 1..]
                .iter()
                .any(|other| (other.from, other.to) == (step.from, step.to));
            assert!(!again, "{} to {} is listed twice", step.from, step.to);
        }
    }

    #[test]
    fn ends_are_ends_and_every_phase_reaches_each_of_them() {
        for from in Phase::ALL {
            let mut reached = vec![from];
            while let Some(step) = STEPS
                .iter()
                .find(|step| reached.contains(&step.from) && !reached.contains(&step.to))
            {
                reached.push(step.to);
            }
            if from.is_end() {
                assert_eq!(reached, [from]);
                assert!(from.advance(from).is_err());
            } else {
                for end in [Phase::Done, Phase::RolledBack, Phase::Superseded] {
                    assert!(reached.contains(&end), "{from} never ends as {end}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_moved_before_the_promotion_and_nothing_retired_before_the_verification() {
        let into = |phase| STEPS.iter().filter(move |step| step.to == phase).map(|step| step.from);
        assert_eq!(into(Phase::ReEncrypt).collect::<Vec<_>>(), [Phase::Promote, Phase::Verify]);
        assert_eq!(into(Phase::Verify).collect::<Vec<_>>(), [Phase::ReEncrypt]);
        assert_eq!(into(Phase::Retire).collect::<Vec<_>>(), [Phase::Verify]);
    }

    #[test]
    fn words_round_trip() {
        for phase in Phase::ALL {
            assert_eq!(Phase::parse(phase.as_str()), Some(phase));
        }
        assert_eq!(Phase::parse("Done"), None);
    }
}
