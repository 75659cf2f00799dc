//! Which kinds of faults a rehearsal does, as they are typed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// kill -9 of the rotation, of a reader and of a writer.
    Kill,
    /// SIGSTOP and, a second later, SIGCONT.
    Pause,
    /// Connections cut in the middle of a transaction.
    Cut,
    /// A keyring file replaced, by halves and older versions too, while it is read.
    Replace,
    /// An instance that never gets the new key.
    Lag,
}

/// Which kinds are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(BTreeSet<FaultKind>);

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Kill, Self::Pause, Self::Cut, Self::Replace, Self::Lag];

    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Cut => "cut",
            Self::Replace => "replace",
            Self::Lag => "lag",
        }
    }
}

impl Faults {
    /// These.
    pub fn of(kinds: impl IntoIterator<Item = FaultKind>) -> Self {
        Self(kinds.into_iter().collect())
    }

    /// Whether this kind is among them.
    pub fn contains(&self, kind: FaultKind) -> bool {
        self.0.contains(&kind)
    }

    /// Without this kind.
    pub fn without(mut self, kind: FaultKind) -> Self {
        self.0.remove(&kind);
        self
    }
}

/// As it is typed.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = self.0.iter().map(|kind| kind.as_str()).collect();
        f.write_str(
            if kinds.is_empty() {
                "none".to_owned()
            } else {
                kinds.join(",")
            }
            .as_str(),
        )
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::of(FaultKind::ALL)),
            "none" => Ok(Self::of([])),
            _ => {
                let kinds = text.split(',').map(|word| {
                    let known = FaultKind::ALL.into_iter().find(|kind| kind.as_str() == word.trim());
                    known.ok_or_else(|| "a list of kill, pause, cut, replace and lag; or all, or none".to_owned())
                });
                kinds.collect::<Result<_, _>>().map(Self)
            }
        }
    }
}
