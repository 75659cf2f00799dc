//! References to secrets: where to read one, never the secret itself.
//!
//! A text that is no reference may be a secret that somebody typed by mistake. It is refused without being repeated.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::key::{KeyId, KeysetName};

/// Where a secret is read from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`: an environment variable.
    Env(String),
    /// `file:PATH`: a file that only its owner can read.
    File(PathBuf),
    /// `fd:N`: an open file descriptor.
    Fd(u32),
    /// `prompt`: asked for on the terminal, without echo.
    Prompt,
    /// `cmd:COMMAND`: what a shell command prints.
    Command(String),
}

/// A key: somewhere outside, or in the keyring.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// Key text outside the keyring.
    Secret(SecretRef),
    /// `keyring:KEYSET[@KEYID]`.
    Keyring(KeyringRef),
}

/// A keyset of the keyring, or one key of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyringRef {
    /// The keyset.
    pub keyset: KeysetName,
    /// The key; `None` means the keyset as a whole.
    pub key: Option<KeyId>,
}

/// A database URL: written out, or kept elsewhere because it holds a password.
#[derive(Clone)]
pub enum UrlRef {
    /// Written out: `sqlite:PATH`, `postgres://…`, `mysql://…`. Wiped when dropped, for it may hold a password.
    Literal(Zeroizing<String>),
    /// Kept elsewhere.
    Secret(SecretRef),
}

/// Why a text is no reference. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    /// No known prefix: perhaps the secret itself.
    #[error("secrets are not taken from the command line; say where to read it: {0}")]
    Literal(&'static str),
    /// `env:` without the name of a variable.
    #[error("env: takes the name of an environment variable, env:NAME")]
    Variable,
    /// `file:` without a path.
    #[error("file: takes a path, file:PATH")]
    Path,
    /// `fd:` without a number that can be read from.
    #[error("fd: takes the number of an open descriptor to read from, fd:3")]
    Descriptor,
    /// `cmd:` without a command.
    #[error("cmd: takes a shell command that prints the secret, cmd:COMMAND")]
    Command,
    /// `keyring:` without a keyset, or with something that is no key id.
    #[error("keyring: takes a keyset and perhaps a key id, keyring:KEYSET or keyring:KEYSET@KEYID")]
    Keyring,
}

impl SecretRef {
    fn parse(text: &str) -> Option<Result<Self, RefError>> {
        if text == "prompt" {
            return Some(Ok(Self::Prompt));
        }
        let (scheme, rest) = text.split_once(':')?;
        match scheme {
            "env" => Some(if is_variable_name(rest) {
                Ok(Self::Env(rest.to_owned()))
            } else {
                Err(RefError::Variable)
            }),
            "file" if rest.is_empty() => Some(Err(RefError::Path)),
            "file" => Some(Ok(Self::File(PathBuf::from(rest)))),
            // 1 and 2 are where output goes.
            "fd" => Some(match rest.parse() {
                Ok(0 | 3..=DESCRIPTOR_MAX) => rest.parse().map(Self::Fd).map_err(|_| RefError::Descriptor),
                Ok(_) | Err(_) => Err(RefError::Descriptor),
            }),
            "cmd" if rest.trim().is_empty() => Some(Err(RefError::Command)),
            "cmd" => Some(Ok(Self::Command(rest.to_owned()))),
            _ => None,
        }
    }
}

impl FromStr for SecretRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        Self::parse(text).unwrap_or(Err(RefError::Literal(SECRET_FORMS)))
    }
}

impl FromStr for KeyRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        if let Some(rest) = text.strip_prefix("keyring:") {
            return parse_keyring(rest).map(Self::Keyring);
        }
        SecretRef::parse(text)
            .unwrap_or(Err(RefError::Literal(KEY_FORMS)))
            .map(Self::Secret)
    }
}

impl FromStr for UrlRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        if URL_SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Ok(Self::Literal(Zeroizing::new(text.to_owned())));
        }
        SecretRef::parse(text)
            .unwrap_or(Err(RefError::Literal(URL_FORMS)))
            .map(Self::Secret)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Fd(number) => write!(f, "fd:{number}"),
            Self::Prompt => f.write_str("prompt"),
            // People write tokens into commands.
            Self::Command(_) => f.write_str("cmd:…"),
        }
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(secret) => secret.fmt(f),
            Self::Keyring(KeyringRef { keyset, key: Some(id) }) => write!(f, "keyring:{keyset}@{id}"),
            Self::Keyring(KeyringRef { keyset, key: None }) => write!(f, "keyring:{keyset}"),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRef({self})")
    }
}

impl fmt::Debug for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRef({self})")
    }
}

impl fmt::Debug for UrlRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("UrlRef(a literal URL)"),
            Self::Secret(secret) => write!(f, "UrlRef({secret})"),
        }
    }
}

fn parse_keyring(text: &str) -> Result<KeyringRef, RefError> {
    let (keyset, key) = match text.split_once('@') {
        Some((keyset, id)) => (keyset, Some(id.parse().map_err(|_| RefError::Keyring)?)),
        None => (text, None),
    };
    match key {
        Some(0) => Err(RefError::Keyring),
        key => Ok(KeyringRef {
            keyset: keyset.parse().map_err(|_| RefError::Keyring)?,
            key: key.map(KeyId),
        }),
    }
}

fn is_variable_name(text: &str) -> bool {
    let begins_well = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    begins_well && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

const SECRET_FORMS: &str = "env:NAME, file:PATH, fd:N, prompt or cmd:COMMAND";
const KEY_FORMS: &str = "env:NAME, file:PATH, fd:N, prompt, cmd:COMMAND or keyring:KEYSET[@KEYID]";
const URL_FORMS: &str = "sqlite:PATH, postgres://…, mysql://…, or env:NAME, file:PATH, fd:N, prompt, cmd:COMMAND";
const URL_SCHEMES: &[&str] = &["sqlite:", "postgres://", "postgresql://", "mysql://", "mariadb://"];

/// Far above any descriptor limit in use.
const DESCRIPTOR_MAX: u32 = 1_048_576;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn references_print_as_they_are_written() {
        for text in ["env:OLD_KEY", "file:/run/secrets/key", "file:k:ey", "fd:0", "fd:63", "prompt"] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
            assert_eq!(text.parse::<KeyRef>().unwrap().to_string(), text);
        }
        for text in ["keyring:customer-data", "keyring:customer-data@4294967295"] {
            assert_eq!(text.parse::<KeyRef>().unwrap().to_string(), text);
            assert!(text.parse::<SecretRef>().is_err());
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_and_never_repeated() {
        let secrets = [
            "hunter2",
            "c2VjcmV0IGtleSBieXRlcyBvZiBzb21lYm9keSBlbHNl",
            "sk:hunter2",
            "env:hunter2=x",
            "fd:hunter2",
        ];
        for text in secrets
            .into_iter()
            .chain(["", "env:", "env:1A", "file:", "fd:1", "fd:2", "fd:-3", "cmd: ", "Prompt"])
        {
            let (secret, key, url) = (text.parse::<SecretRef>(), text.parse::<KeyRef>(), text.parse::<UrlRef>());
            for error in [secret.err().unwrap(), key.err().unwrap(), url.err().unwrap()] {
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
        }
        for text in [
            "keyring:",
            "keyring:a@",
            "keyring:a@0",
            "keyring:a@4294967296",
            "keyring:a b",
            "keyring:@1",
        ] {
            assert_eq!(text.parse::<KeyRef>(), Err(RefError::Keyring), "{text}");
        }
    }

    #[test]
    fn neither_commands_nor_urls_are_printed() {
        let command = "cmd:vault read -token=hunter2".parse::<SecretRef>().unwrap();
        assert!(!format!("{command} {command:?}").contains("hunter2"));
        let url = "postgres://app:hunter2@db/app".parse::<UrlRef>().unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
