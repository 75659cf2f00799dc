//! `reseal.toml` as typed settings.
//!
//! Nothing in it is executed and nothing is interpolated when it is read. Unknown keys, duplicate keys and whatever looks like a
//! secret are errors; no error repeats a value.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::Table;

use super::SecretRef;
use super::sections::{self, Database, Dataset, Policy};
use super::session::{SessionSettings, session};
use super::table::Section;
use crate::secret::SecretSettings;

/// The whole configuration.
#[derive(Debug)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// `[keyring]`.
    pub keyring: Option<KeyringSettings>,
    /// `[database.NAME]`.
    pub databases: Vec<Database>,
    /// `[dataset.NAME]`.
    pub datasets: Vec<Dataset>,
    /// `[session.NAME]`.
    pub sessions: Vec<SessionSettings>,
    /// `[secret.NAME]`.
    pub secrets: Vec<SecretSettings>,
    /// `[policy]`.
    pub policy: Policy,
}

/// `[keyring]`.
#[derive(Debug, Clone)]
pub struct KeyringSettings {
    /// The sealed file.
    pub file: PathBuf,
    /// Where its passphrase is read from.
    pub unlock: Option<SecretRef>,
    /// The file with the age identity that opens it.
    pub identity: Option<PathBuf>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub fault: ConfigFault,
}

/// What is wrong with a configuration. Keys and lines, never values.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// It does not exist.
    #[error("there is no such file")]
    Absent,
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// Larger than any configuration.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// Not TOML, or a key that stands there twice.
    #[error("line {line} is not valid TOML: {what}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What the parser found, without what it read.
        what: &'static str,
    },
    /// A key that does not exist.
    #[error("there is no setting {key}; did you mean {nearest}?")]
    Unknown {
        /// The key with its table.
        key: String,
        /// The most similar setting of that table.
        nearest: &'static str,
    },
    /// A setting that must be there.
    #[error("the setting {key} is missing")]
    Missing {
        /// The key with its table.
        key: String,
    },
    /// A setting with a value that makes no sense.
    #[error("{key} {why}")]
    Value {
        /// The key with its table.
        key: String,
        /// Why.
        why: String,
    },
    /// A secret written out.
    #[error(
        "{key} looks like a secret; a configuration holds only where it is: env:NAME, file:PATH, fd:N, prompt or cmd:COMMAND"
    )]
    LooksSecret {
        /// The key with its table.
        key: String,
    },
}

impl Config {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |fault| ConfigError {
            path: path.to_owned(),
            fault,
        };
        let text = read_bounded(path).map_err(failed)?;
        Self::parse(path, &text).map_err(failed)
    }

    /// Takes the text of the file at `path`; relative paths in it begin at the folder of the file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigFault> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let table: Table = text.parse().map_err(|error| syntax(text, &error))?;
        let mut root = Section::new("", table, folder);
        let keyring = root.section("keyring")?.map(keyring).transpose()?;
        let databases = named(&mut root, "database", sections::database)?;
        let datasets = named(&mut root, "dataset", |name, section| {
            sections::dataset(name, section, &databases)
        })?;
        let sessions = named(&mut root, "session", |name, section| session(name, section, &databases))?;
        let policy = root.section("policy")?.map(sections::policy).transpose()?.unwrap_or_default();
        let secrets = named(&mut root, "secret", |name, section| {
            sections::secret(name, section, policy.max_key_age)
        })?;
        root.finish()?;
        Ok(Self {
            path: path.to_owned(),
            keyring,
            databases,
            datasets,
            sessions,
            secrets,
            policy,
        })
    }
}

fn named<'f, T>(
    root: &mut Section<'f>,
    key: &'static str,
    read: impl Fn(String, Section<'f>) -> Result<T, ConfigFault>,
) -> Result<Vec<T>, ConfigFault> {
    root.sections(key)?
        .into_iter()
        .map(|(name, section)| read(name, section))
        .collect()
}

fn keyring(mut section: Section<'_>) -> Result<KeyringSettings, ConfigFault> {
    let file = section.file("file")?.ok_or_else(|| ConfigFault::Missing {
        key: section.path("file"),
    })?;
    let unlock = section.parsed("unlock")?;
    let identity = section.file("identity")?;
    if unlock.is_some() && identity.is_some() {
        return Err(section.wrong("identity", "and unlock exclude each other"));
    }
    section.finish()?;
    Ok(KeyringSettings { file, unlock, identity })
}

fn read_bounded(path: &Path) -> Result<String, ConfigFault> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigFault::Absent,
        _ => ConfigFault::Read(error),
    })?;
    let mut text = String::new();
    let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX);
    file.take(limit + 1).read_to_string(&mut text).map_err(ConfigFault::Read)?;
    if text.len() > BYTES_MAX {
        return Err(ConfigFault::TooLarge(BYTES_MAX));
    }
    Ok(text)
}

/// The parser's own message may quote what it read.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigFault {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let message = error.message();
    let what = if message.contains("duplicate") {
        "a key stands there twice"
    } else if message.contains("recurs") {
        "too many brackets inside each other"
    } else {
        "something is misspelt, unquoted or not closed"
    };
    ConfigFault::Syntax { line, what }
}

/// Thousands of datasets.
const BYTES_MAX: usize = 1024 * 1024;
