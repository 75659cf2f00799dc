//! Arguments that several commands share.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use age::x25519::Identity;
use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo};

use super::{CliError, Context, Exit};
use crate::config::{Config, KeyringSettings, RefError, Secret, SecretRef};
use crate::key::{KeyId, Keyring, KeyringEdit, KeyringError, KeyringFault, Keyset, KeysetName, Seal, Unlock};

/// A reference from the command line, perhaps a wrong one. Parsing never fails here, because clap would repeat the text in its
/// error, and the text may be a secret that was typed by mistake.
#[derive(Clone)]
pub struct RefArg<T>(Result<T, RefError>);

impl<T> RefArg<T> {
    /// A reference from elsewhere.
    pub fn of(reference: T) -> Self {
        Self(Ok(reference))
    }

    /// The reference, or a usage error that does not repeat the text.
    pub fn get(&self) -> Result<&T, CliError> {
        self.0.as_ref().map_err(|error| (*error).into())
    }
}

impl<T: FromStr<Err = RefError>> FromStr for RefArg<T> {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.parse()))
    }
}

/// Which keyring, and what opens it.
#[derive(Args)]
pub struct KeyringArgs {
    /// The keyring file
    #[arg(long, value_name = "FILE", default_value = KEYRING_DEFAULT, env = "RESEAL_KEYRING")]
    pub keyring: PathBuf,

    /// Where its passphrase is read from: env:NAME, file:PATH, fd:N, prompt, cmd:COMMAND [default: env:RESEAL_PASSPHRASE]
    #[arg(long, value_name = "REF", conflicts_with = "identity")]
    unlock: Option<RefArg<SecretRef>>,

    /// A file with an age identity (AGE-SECRET-KEY-1…), for a keyring that is sealed to recipients
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl KeyringArgs {
    /// Nothing said: what the configuration says counts.
    pub fn unsaid() -> Self {
        Self {
            keyring: PathBuf::from(KEYRING_DEFAULT),
            unlock: None,
            identity: None,
        }
    }

    /// The keyring that a configuration names, opened as it says unless the command line says otherwise.
    pub fn configured(&self, settings: Option<&KeyringSettings>) -> Self {
        let Some(settings) = settings else {
            return Self {
                keyring: self.keyring.clone(),
                unlock: self.unlock.clone(),
                identity: self.identity.clone(),
            };
        };
        let is_said = self.unlock.is_some() || self.identity.is_some();
        Self {
            keyring: settings.file.clone(),
            unlock: if is_said {
                self.unlock.clone()
            } else {
                settings.unlock.clone().map(RefArg::of)
            },
            identity: if is_said {
                self.identity.clone()
            } else {
                settings.identity.clone()
            },
        }
    }

    /// Whether a configuration speaks of this keyring: no other file is named on the command line.
    pub fn is_of(&self, config: &Config) -> bool {
        let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let settings = config.keyring.as_ref();
        self.keyring == Path::new(KEYRING_DEFAULT)
            || settings.is_none_or(|settings| resolved(&settings.file) == resolved(&self.keyring))
    }

    /// Whether the keyring is there and something to open it with was given: nobody need be asked.
    pub fn opens_unasked(&self) -> Result<bool, CliError> {
        let given = self.unlock.is_some() || self.identity.is_some() || std::env::var_os(PASSPHRASE_VARIABLE).is_some();
        Ok(given && self.exists()?)
    }

    /// What opens the keyring, which must exist.
    pub fn unlock_existing(&self, context: &mut Context<'_>) -> Result<Unlock, CliError> {
        self.require_file()?;
        self.unlock(context)
    }

    /// Opens the keyring for reading.
    pub fn open(&self, context: &mut Context<'_>) -> Result<Keyring, CliError> {
        self.require_file()?;
        Ok(Keyring::open(&self.keyring, &self.unlock(context)?, ANY_GENERATION)?)
    }

    /// Locks and opens the keyring for a change.
    pub fn edit(&self, context: &mut Context<'_>) -> Result<KeyringEdit, CliError> {
        self.require_file()?;
        Ok(KeyringEdit::begin(
            &self.keyring,
            self.unlock(context)?,
            ANY_GENERATION,
            LOCK_WAIT,
        )?)
    }

    /// The keyring for a change if the file exists; a new one, sealed to `recipients` or else to the passphrase, if not.
    pub fn edit_or_create(&self, context: &mut Context<'_>, recipients: &[String]) -> Result<KeyringEdit, CliError> {
        if self.exists()? {
            if !recipients.is_empty() {
                return Err(CliError::usage("--recipient is for a keyring that does not exist yet")
                    .at(format!("keyring {}", self.keyring.display()))
                    .next("change what a keyring is sealed to with: reseal keys rewrap --recipient age1…"));
            }
            return self.edit(context);
        }
        if let Some(before) = self.version_before() {
            let keyring = self.keyring.display();
            return Err(CliError::new(
                Exit::Refused,
                format!("there is no keyring {keyring}, and its version before is still there: a new keyring would replace the last copy of its keys"),
            )
            .touched_nothing()
            .next(format!(
                "put it back: cp {0} {keyring}; or, if nothing needs its keys, move {0} away",
                before.display()
            )));
        }
        let seal = self.first_seal(context, recipients)?;
        let edit = KeyringEdit::create(&self.keyring, seal, LOCK_WAIT)?;
        context
            .output
            .say(&format!("There is no keyring {} yet: making it.", self.keyring.display()));
        Ok(edit)
    }

    /// Without a file there is nothing to unlock, and nobody should be asked for a passphrase.
    fn require_file(&self) -> Result<(), CliError> {
        if self.exists()? {
            return Ok(());
        }
        let error = self.error(KeyringFault::Missing);
        Err(match self.version_before() {
            Some(before) => error.next(format!(
                "put the version before back: cp {} {}; then see what it holds: reseal keys list",
                before.display(),
                self.keyring.display()
            )),
            None => error,
        })
    }

    /// The version before of a keyring that is missing, if that is still there.
    fn version_before(&self) -> Option<PathBuf> {
        let mut path = self.keyring.clone().into_os_string();
        path.push(".bak");
        let path = PathBuf::from(path);
        path.exists().then_some(path)
    }

    /// Whether the file is there.
    pub fn exists(&self) -> Result<bool, CliError> {
        // A dangling link is a file that is refused later, not a missing one.
        match std::fs::symlink_metadata(&self.keyring) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error(KeyringFault::Folder(error))),
        }
    }

    fn unlock(&self, context: &mut Context<'_>) -> Result<Unlock, CliError> {
        match &self.identity {
            Some(path) => read_identities(context, path).map(Unlock::Identities),
            None => Ok(Unlock::passphrase(
                self.read_passphrase(context, Asked::Once)?.into_passphrase()?,
            )),
        }
    }

    fn first_seal(&self, context: &mut Context<'_>, recipients: &[String]) -> Result<Seal, CliError> {
        let passphrase = match (&self.unlock, &self.identity, recipients) {
            (Some(_), _, _) | (None, None, []) => Some(self.read_passphrase(context, Asked::Twice)?.into_passphrase()?),
            (None, Some(_), _) | (None, None, [_, ..]) => None,
        };
        let mut recipients = recipients.to_vec();
        if let Some(path) = &self.identity {
            // Whoever names an identity for a new keyring wants to open it again.
            let own = read_identities(context, path)?
                .into_iter()
                .map(|identity| identity.to_public().to_string());
            recipients.extend(own.collect::<Vec<_>>());
            recipients.sort();
            recipients.dedup();
        }
        Seal::from_parts(passphrase, &recipients).map_err(|fault| self.error(fault))
    }

    fn read_passphrase(&self, context: &mut Context<'_>, asked: Asked) -> Result<Secret, CliError> {
        let by_default = SecretRef::Env(PASSPHRASE_VARIABLE.to_owned());
        let reference = match &self.unlock {
            Some(reference) => reference.get()?,
            None => &by_default,
        };
        let what = format!("passphrase of {}", self.keyring.display());
        context.secrets.keep_from_children(reference);
        let secret = match asked {
            Asked::Once => context.secrets.read(reference, &what),
            Asked::Twice => context.secrets.read_new(reference, &what),
        };
        secret.map_err(|error| CliError::from(error).at(format!("the passphrase of keyring {}", self.keyring.display())))
    }

    fn error(&self, fault: KeyringFault) -> CliError {
        KeyringError {
            path: self.keyring.clone(),
            fault,
        }
        .into()
    }
}

/// The keyset of this name, or an error that says what there is.
pub fn keyset<'a>(keyring: &'a Keyring, name: &KeysetName) -> Result<&'a Keyset, CliError> {
    keyring.keyset(name).ok_or_else(|| {
        let names: Vec<_> = keyring.keysets().iter().map(|keyset| keyset.name().as_str()).collect();
        let there_is = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        CliError::new(Exit::Unusable, format!("there is no keyset {name}")).next(format!("choose one of: {there_is}"))
    })
}

/// A key id as it is typed.
pub fn parse_key_id(text: &str) -> Result<KeyId, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a key id is a number from 1 to 4294967295; see reseal keys list"),
        Ok(id) => Ok(KeyId(id)),
    }
}

/// A time as it is typed: 30s, 10m, 1h 30m.
pub fn parse_time(text: &str) -> Result<Duration, &'static str> {
    let time: Option<SignedDuration> = text.parse().ok();
    time.and_then(|time| Duration::try_from(time).ok())
        .filter(|time| !time.is_zero())
        .ok_or("a time such as 30s, 10m or 1h")
}

/// A time as people write it: 35d, 12h, 1w 2d. Days have 24 hours.
pub fn parse_days(text: &str) -> Result<SignedDuration, &'static str> {
    let span: Span = text.parse().map_err(|_| "a time such as 35d or 12h")?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "a time in weeks, days or hours, such as 35d")?;
    if duration.is_negative() {
        Err("a time that is not negative")
    } else {
        Ok(duration)
    }
}

fn read_identities(context: &mut Context<'_>, path: &std::path::Path) -> Result<Vec<Identity>, CliError> {
    let secret = context.secrets.read(&SecretRef::File(path.to_owned()), "age identity")?;
    let lines = secret
        .expose_text()?
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let identities: Result<Vec<Identity>, _> = lines.map(str::parse).collect();
    match identities {
        Ok(identities) if !identities.is_empty() => Ok(identities),
        Ok(_) | Err(_) => Err(CliError::new(
            Exit::Unusable,
            "the file does not hold age X25519 identities (AGE-SECRET-KEY-1…)",
        )
        .at(format!("file {}", path.display()))
        .next("make one with: age-keygen -o FILE")),
    }
}

/// How often a prompt asks.
#[derive(Clone, Copy)]
enum Asked {
    Once,
    Twice,
}

const KEYRING_DEFAULT: &str = "reseal.keyring";

const PASSPHRASE_VARIABLE: &str = "RESEAL_PASSPHRASE";

/// Any generation is accepted: on the command line nothing is known of earlier ones.
const ANY_GENERATION: u64 = 0;

/// How long another writer of the keyring is waited for. A change takes about a second, most of it for scrypt.
const LOCK_WAIT: Duration = Duration::from_secs(10);
