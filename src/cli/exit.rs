//! Exit codes: a contract with scripts. A code never changes its meaning.

use std::process::ExitCode;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done, and verified where there is something to verify.
    Done = 0,
    /// Something unexpected happened: a bug.
    Bug = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Configuration, credentials or key material are unusable.
    Unusable = 3,
    /// Refused by preflight or by the state of a key; nothing was touched.
    Refused = 4,
    /// Stopped on request or by a signal; the same command continues.
    Incomplete = 5,
    /// Somebody else holds the dataset or the keyring.
    Conflict = 6,
    /// Ran to the end, but values are quarantined or not under the target key.
    Findings = 7,
    /// A database or key service was unreachable after retries.
    Unreachable = 8,
    /// A read-back check failed or a record is broken: a human must look.
    Integrity = 9,
}

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
