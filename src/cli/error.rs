//! What a command says when it fails: what failed, where, what is durable, and what to type next.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use serde::Serialize;

use super::Exit;
use crate::config::{RefError, SecretError};
use crate::key::{KeyTextError, KeyringError, KeyringFault, KeysetError, LockFault, NotFernet, ReplaceFault, TinkJsonError};

/// A failure, ready to be shown. Its texts hold names, ids, counts and states, never content.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    failed: String,
    place: Option<String>,
    durable: Option<String>,
    next: Option<String>,
}

/// The JSON document of a command that failed.
#[derive(Serialize)]
pub(super) struct FailureDocument<'a> {
    exit: u8,
    error: ErrorDocument<'a>,
}

/// The four parts of a failure.
#[derive(Serialize)]
pub(super) struct ErrorDocument<'a> {
    failed: &'a str,
    #[serde(skip_serializing_if = "Option::is_none", rename = "where")]
    place: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

impl CliError {
    /// A failure: its exit code, and what failed.
    pub fn new(exit: Exit, failed: impl Into<String>) -> Self {
        Self {
            exit,
            failed: failed.into(),
            place: None,
            durable: None,
            next: None,
        }
    }

    /// A command line that makes no sense.
    pub fn usage(failed: impl Into<String>) -> Self {
        Self::new(Exit::Usage, failed)
    }

    /// A failure told by an error and the errors beneath it.
    pub fn from_error(exit: Exit, error: &dyn Error) -> Self {
        let mut failed = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            // Writing to a String does not fail.
            let _ = write!(failed, ": {error}");
            cause = error.source();
        }
        Self::new(exit, failed)
    }

    /// Adds where it failed.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Adds in what it failed, around where.
    pub fn within(self, around: &str) -> Self {
        let place = match &self.place {
            Some(place) => format!("{around}, {place}"),
            None => around.to_owned(),
        };
        self.at(place)
    }

    /// Adds what is durable all the same.
    pub fn durable(mut self, durable: impl Into<String>) -> Self {
        self.durable = Some(durable.into());
        self
    }

    /// Adds that this run has changed nothing: it was refused, or its command only looks.
    pub fn touched_nothing(self) -> Self {
        self.durable("nothing was touched")
    }

    /// Adds what to do next, preferably a command to type.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Adds another way, behind what to do next if that is said.
    pub fn next_or(mut self, other: &str) -> Self {
        self.next = Some(match self.next.take() {
            Some(next) => format!("{next}; {other}"),
            None => other.to_owned(),
        });
        self
    }

    /// The same of a run that had begun: it did not end, and "nothing was touched" is no longer true.
    pub fn once_begun(self, durable: &str, next: &str) -> Self {
        match self.exit {
            Exit::Refused => Self {
                exit: Exit::Incomplete,
                ..self
            }
            .durable(durable)
            .next_or(next),
            _ => self,
        }
    }

    /// What failed, without the rest.
    pub fn what_failed(&self) -> &str {
        &self.failed
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("error: {}", self.failed);
        let parts = [("where", &self.place), ("durable", &self.durable), ("next", &self.next)];
        for (label, part) in parts {
            if let Some(part) = part {
                let _ = write!(text, "\n{label:>9}: {part}");
            }
        }
        text
    }

    pub(super) fn failure(&self) -> FailureDocument<'_> {
        FailureDocument {
            exit: self.exit.code(),
            error: self.document(),
        }
    }

    pub(super) fn document(&self) -> ErrorDocument<'_> {
        ErrorDocument {
            failed: &self.failed,
            place: self.place.as_deref(),
            durable: self.durable.as_deref(),
            next: self.next.as_deref(),
        }
    }
}

impl From<RefError> for CliError {
    fn from(error: RefError) -> Self {
        Self::from_error(Exit::Usage, &error)
            .next("export NAME=… in the environment and pass env:NAME, or put it into a file of mode 0600 and pass file:PATH")
    }
}

impl From<SecretError> for CliError {
    fn from(error: SecretError) -> Self {
        let exit = match error {
            // The command asks a key service, and that does not answer.
            SecretError::Timeout(_) => Exit::Unreachable,
            _ => Exit::Unusable,
        };
        let failure = Self::from_error(exit, &error);
        match error {
            SecretError::Unset(name) => failure.next(format!(
                "export {name}, or name another source: file:PATH, fd:N, prompt, cmd:COMMAND"
            )),
            SecretError::NoTerminal => failure.next("pass env:NAME, file:PATH, fd:N or cmd:COMMAND instead of prompt"),
            SecretError::Empty(_)
            | SecretError::TooLarge(_)
            | SecretError::File { .. }
            | SecretError::Descriptor { .. }
            | SecretError::Prompt(_)
            | SecretError::Mismatch
            | SecretError::Start(_)
            | SecretError::Failed(_)
            | SecretError::Timeout(_)
            | SecretError::NotText => failure,
        }
    }
}

impl From<KeyTextError> for CliError {
    fn from(error: KeyTextError) -> Self {
        Self::from_error(Exit::Unusable, &error)
    }
}

impl From<TinkJsonError> for CliError {
    fn from(error: TinkJsonError) -> Self {
        Self::from_error(Exit::Unusable, &error)
    }
}

impl From<NotFernet> for CliError {
    fn from(error: NotFernet) -> Self {
        Self::from_error(Exit::Unusable, &error).next("reseal keys export KEYSET --as tink-json")
    }
}

impl From<KeysetError> for CliError {
    fn from(error: KeysetError) -> Self {
        Self::from_error(keyset_exit(&error), &error)
    }
}

impl From<KeyringError> for CliError {
    fn from(error: KeyringError) -> Self {
        let (exit, next) = keyring_exit(&error.fault);
        let mut failed = error.fault.to_string();
        let mut cause = error.fault.source();
        while let Some(beneath) = cause {
            let _ = write!(failed, ": {beneath}");
            cause = beneath.source();
        }
        let failure = Self::new(exit, failed).at(format!("keyring {}", error.path.display()));
        let failure = match error.fault {
            KeyringFault::Replace(ReplaceFault::NotDurable { .. }) => {
                failure.durable("the version before, in .bak beside it, unless the key was destroyed or the keyring resealed")
            }
            KeyringFault::Replace(ReplaceFault::Exists | ReplaceFault::Changed | ReplaceFault::Before { .. }) => {
                failure.durable("the keyring as it was")
            }
            _ => failure,
        };
        if next.is_empty() { failure } else { failure.next(next) }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::from_error(Exit::Unusable, &error)
    }
}

fn keyset_exit(error: &KeysetError) -> Exit {
    match error {
        KeysetError::NoSuchKey { .. }
        | KeysetError::Primaries { .. }
        | KeysetError::IdZero { .. }
        | KeysetError::SameBytes { .. }
        | KeysetError::Size { .. }
        | KeysetError::Material(_)
        | KeysetError::Record { .. } => Exit::Unusable,
        KeysetError::IdTaken { .. }
        | KeysetError::Step { .. }
        | KeysetError::Retired { .. }
        | KeysetError::NotRetired { .. }
        | KeysetError::BackupHorizon { .. } => Exit::Refused,
    }
}

/// The exit code of a fault, and what to do about it.
fn keyring_exit(fault: &KeyringFault) -> (Exit, &'static str) {
    match fault {
        KeyringFault::Missing => (
            Exit::Unusable,
            "name the file with --keyring, or make one: reseal keys generate KEYSET",
        ),
        KeyringFault::Exists => (Exit::Refused, "leave the file, or name another with --keyring"),
        KeyringFault::Empty | KeyringFault::Truncated | KeyringFault::Damaged => (
            Exit::Unusable,
            "restore it from a backup, or from the version before: the .bak file beside it",
        ),
        KeyringFault::NotAge => (
            Exit::Unusable,
            "name the keyring with --keyring; a keyring is a binary age file",
        ),
        KeyringFault::UnknownAgeVersion | KeyringFault::NewerSchema { .. } => (Exit::Unusable, "use a newer version of reseal"),
        KeyringFault::OtherUnlock { .. } => (
            Exit::Unusable,
            "pass --unlock REF for a passphrase, --identity FILE for an age identity",
        ),
        KeyringFault::Locked => (
            Exit::Unusable,
            "check the passphrase or identity; the version before is the .bak file beside it",
        ),
        KeyringFault::Work { .. } => (
            Exit::Unusable,
            "seal it again within the range: age -d FILE, then age -p, and check where it came from",
        ),
        KeyringFault::WrongSchema => (
            Exit::Unusable,
            "name the keyring with --keyring; this file is encrypted, but it is something else",
        ),
        KeyringFault::Malformed { .. }
        | KeyringFault::Field { .. }
        | KeyringFault::Name
        | KeyringFault::Contents(_)
        | KeyringFault::TooManyKeys { .. } => (Exit::Unusable, "if it was edited by hand, restore the .bak file beside it"),
        KeyringFault::KeysetExists { .. } => (Exit::Refused, "choose another name, or add a key to the keyset that exists"),
        KeyringFault::NoSuchKeyset { .. } => (Exit::Unusable, "see what there is: reseal keys list"),
        KeyringFault::OlderGeneration { .. } => (
            Exit::Integrity,
            "find out who replaced the file; keys that are in use may be missing from it",
        ),
        KeyringFault::NoSeal | KeyringFault::MixedSeal | KeyringFault::Recipient => (Exit::Usage, ""),
        KeyringFault::Read(_) | KeyringFault::Folder(_) | KeyringFault::Sealing => (Exit::Unusable, ""),
        KeyringFault::Lock(LockFault::Held { .. }) => {
            (Exit::Conflict, "wait until it has finished, then run the command again")
        }
        KeyringFault::Lock(LockFault::Unusable(_) | LockFault::Unfit(_)) => (Exit::Unusable, ""),
        KeyringFault::Replace(ReplaceFault::Changed) => (Exit::Conflict, "run the command again"),
        KeyringFault::Replace(ReplaceFault::Exists) => (Exit::Conflict, "look at what is there: reseal keys list"),
        KeyringFault::Replace(ReplaceFault::Before { .. }) => (
            Exit::Unusable,
            "make room or mend the file system, then run the command again",
        ),
        KeyringFault::Replace(ReplaceFault::NotDurable { .. }) => (
            Exit::Integrity,
            "check the disk and the file (reseal keys list) before anything is sealed with a new key",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_service_that_does_not_answer_is_unreachable() {
        let timeout = CliError::from(SecretError::Timeout(Duration::from_secs(30)));
        assert_eq!(timeout.exit(), Exit::Unreachable);
        let unset = CliError::from(SecretError::Unset("OLD_KEY".to_owned()));
        assert_eq!(unset.exit(), Exit::Unusable);
    }
}
