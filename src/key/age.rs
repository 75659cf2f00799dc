//! How old a key is, as far as its record can say.

use jiff::{SignedDuration, Timestamp};

use super::{Key, KeyState, Origin};

/// How long a key has existed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It was made here: its record begins with its birth.
    Known(SignedDuration),
    /// It was imported that long ago. What it did before nobody has told us.
    AtLeast(SignedDuration),
    /// Its record begins in the future: a clock is wrong, or was.
    Unknown,
}

impl Key {
    /// How long the key has existed at `now`. Counted from its making, not from its promotion: a key that leaks does so by existing.
    pub fn age(&self, now: Timestamp) -> Age {
        let Some(age) = self.transitions().first().and_then(|first| since(first.at, now)) else {
            return Age::Unknown;
        };
        match self.origin() {
            Origin::Generated => Age::Known(age),
            Origin::Imported => Age::AtLeast(age),
        }
    }

    /// How long applications have still been given a key that no longer seals; `None` for every other key, and when a clock is wrong.
    pub fn retiring_for(&self, now: Timestamp) -> Option<SignedDuration> {
        if self.state() != KeyState::Retiring || !self.is_offered() {
            return None;
        }
        self.transitions().last().and_then(|last| since(last.at, now))
    }
}

impl Age {
    /// The time, where there is one.
    pub fn duration(self) -> Option<SignedDuration> {
        match self {
            Self::Known(age) | Self::AtLeast(age) => Some(age),
            Self::Unknown => None,
        }
    }
}

fn since(at: Timestamp, now: Timestamp) -> Option<SignedDuration> {
    let age = now.duration_since(at);
    (!age.is_negative()).then_some(age)
}
