//! Rotating secrets where their applications read them.
//!
//! Everything is generated, read and decided before the first write, so that a mistake in one secret leaves all as they were. Each
//! file is then replaced once, whatever number of secrets it holds. What cannot be undone, a command, comes last. What is written is
//! on record before and after (`record.rs`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::child::{self, ChildFault};
use super::keyset_file::KeySetFile;
use super::list::Values;
use super::record::{RecordEdit, RecordFault};
use super::settings::{History, ListForm, SecretSettings, Target};
use super::{Dotenv, FieldError, Fields, FileFault, GenerateError, Generated, Manifest, SecretFile, SecretText, credential};

/// Why the secrets are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// In its time: what the configuration says about old values holds.
    Scheduled,
    /// A secret leaked: no old value is accepted any more.
    Compromised,
}

/// What a rotation needs from its surroundings.
pub struct Surroundings {
    /// How long another writer of a file is waited for.
    pub lock_wait: Duration,
    /// How long a command may take.
    pub command_timeout: Duration,
    /// Environment variables that commands do not inherit.
    pub kept_from_children: Vec<String>,
    /// Where it is recorded when which value was written.
    pub record: PathBuf,
    /// The time that is recorded.
    pub now: Timestamp,
}

/// One secret that was rotated.
#[derive(Debug)]
pub struct Rotated {
    /// Its name in the configuration.
    pub name: String,
    /// Where it was written, for people.
    pub place: String,
    /// How many old values its application still accepts.
    pub old_values: usize,
    /// The name of the new key in tokens.
    pub kid: Option<String>,
    /// Where the version before is, if there is one.
    pub backup: Option<PathBuf>,
    /// The mode of a file that others could read, and no longer can.
    pub mode_lost: Option<u32>,
}

/// A rotation that stopped.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct RotateError {
    /// The secret at which it stopped.
    pub name: String,
    /// The file or program, for people.
    pub place: String,
    /// Why.
    #[source]
    pub fault: RotateFault,
    /// The secrets that were rotated before it stopped.
    pub done: Vec<Rotated>,
}

/// Why a secret was not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateFault {
    /// No new secret could be made.
    #[error(transparent)]
    Generate(GenerateError),
    /// The file cannot be changed, or was not.
    #[error(transparent)]
    File(FileFault),
    /// The value cannot be read or written in the file.
    #[error(transparent)]
    Field(FieldError),
    /// The old values cannot be kept in the form that is configured.
    #[error("the old value of {0} does not fit into a list of that form")]
    List(String),
    /// The file is no JSON Web Key Set.
    #[error("it is not a JSON Web Key Set")]
    KeySet,
    /// The program did not do it.
    #[error("{0}")]
    Child(#[source] ChildFault),
    /// It cannot be recorded when the value was written.
    #[error("the record of secrets, {}: {fault}", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        fault: Box<RecordFault>,
    },
}

/// A file with the new values of one or several secrets.
struct PreparedFile {
    file: SecretFile,
    fields: Box<dyn Fields>,
    /// The Secret of a manifest that is meant.
    object: Option<String>,
    variables: Vec<String>,
    secrets: Vec<Pending>,
}

/// A secret that is decided and not written yet.
struct Pending {
    name: String,
    old_values: usize,
    kid: Option<String>,
}

/// A secret that goes to a program.
struct Delivery {
    pending: Pending,
    value: SecretText,
    to: DeliveryTo,
}

enum DeliveryTo {
    Systemd { file: PathBuf, credential: String },
    Command(String),
}

/// What will be written, in this order.
#[derive(Default)]
struct Prepared {
    /// First the public keys: no token is signed with a key that verifiers do not have.
    keysets: Vec<(String, KeySetFile)>,
    files: Vec<PreparedFile>,
    deliveries: Vec<Delivery>,
    /// The new values for the record; none for those that cannot be read back.
    values: Vec<(String, Option<SecretText>)>,
}

/// Rotates secrets: all, or, when a write fails, those before it. Each name may occur once.
pub fn rotate(secrets: &[&SecretSettings], occasion: Occasion, around: &Surroundings) -> Result<Vec<Rotated>, RotateError> {
    let mut prepared = Prepared::default();
    for secret in secrets {
        prepared
            .add(secret, occasion, around)
            .map_err(|fault| stopped(&secret.name, describe(secret), fault, Vec::new()))?;
    }
    let unrecorded = |fault| {
        let name = secrets.first().map_or("", |secret| &secret.name);
        let place = secrets.first().map_or_else(String::new, |secret| describe(secret));
        stopped(name, place, around.unrecorded(fault), Vec::new())
    };
    let mut record = RecordEdit::begin(&around.record, around.lock_wait).map_err(unrecorded)?;
    for (name, value) in &prepared.values {
        record.intend(name, value.as_ref(), around.now).map_err(unrecorded)?;
    }
    record.save().map_err(unrecorded)?;
    drop(std::mem::take(&mut prepared.values));

    let (done, stop) = match prepared.write(around) {
        Ok(done) => (done, None),
        Err(mut stop) => (std::mem::take(&mut stop.done), Some(stop)),
    };
    for rotated in &done {
        record.confirm(&rotated.name);
    }
    // Without this, a check takes the entries for what they are: values that were about to be written, and are found there.
    let saved = record.save();
    match (stop, saved) {
        (Some(stop), _) => Err(RotateError { done, ..stop }),
        (None, Err(fault)) => {
            let last = done
                .last()
                .map_or((String::new(), String::new()), |last| (last.name.clone(), last.place.clone()));
            Err(stopped(&last.0, last.1, around.unrecorded(fault), done))
        }
        (None, Ok(())) => Ok(done),
    }
}

impl Surroundings {
    fn unrecorded(&self, fault: RecordFault) -> RotateFault {
        RotateFault::Record {
            path: self.record.clone(),
            fault: Box::new(fault),
        }
    }
}

impl Prepared {
    fn add(&mut self, secret: &SecretSettings, occasion: Occasion, around: &Surroundings) -> Result<(), RotateFault> {
        let Generated { secret: value, public } = secret.recipe.generate().map_err(RotateFault::Generate)?;
        let kid = public.as_ref().and_then(|public| public.kid()).map(str::to_owned);
        if let (Some(path), Some(jwk)) = (&secret.jwks, public.as_ref().and_then(|public| public.jwk.as_ref())) {
            let keep_old = occasion == Occasion::Scheduled;
            let keyset = KeySetFile::prepare(path, jwk, keep_old, around.lock_wait)?;
            self.keysets.push((secret.name.clone(), keyset));
        }
        let read_back = !matches!(secret.target, Target::Command(_));
        let recorded = read_back.then(|| SecretText::new(value.expose().to_owned()));
        self.values.push((secret.name.clone(), recorded));
        let pending = |old_values| Pending {
            name: secret.name.clone(),
            old_values,
            kid,
        };
        match &secret.target {
            Target::EnvFile { file, variable, history } => {
                let prepared = self.file(file, None, false, around)?;
                let old_values = prepared.change(variable, history, &value, occasion)?;
                prepared.secrets.push(pending(old_values));
            }
            Target::Manifest {
                file,
                object,
                variable,
                history,
            } => {
                let prepared = self.file(file, object.as_deref(), true, around)?;
                let old_values = prepared.change(variable, history, &value, occasion)?;
                prepared.secrets.push(pending(old_values));
            }
            Target::Systemd {
                file,
                credential,
                history,
            } => {
                credential::require(around)?;
                let (value, old_values) = match (history, occasion) {
                    (History::Inside { keep }, Occasion::Scheduled) => {
                        let present = credential::decrypt(file, credential, around)?;
                        let (text, old_values) = in_front(credential, present.as_ref(), &value, *keep)?;
                        (SecretText::from(text), old_values)
                    }
                    _ => (value, 0),
                };
                let to = DeliveryTo::Systemd {
                    file: file.clone(),
                    credential: credential.clone(),
                };
                self.deliveries.push(Delivery {
                    pending: pending(old_values),
                    value,
                    to,
                });
            }
            Target::Command(command) => self.deliveries.push(Delivery {
                pending: pending(0),
                value,
                to: DeliveryTo::Command(command.clone()),
            }),
        }
        Ok(())
    }

    /// The file, opened once whatever number of secrets it holds.
    fn file(
        &mut self,
        path: &Path,
        object: Option<&str>,
        is_manifest: bool,
        around: &Surroundings,
    ) -> Result<&mut PreparedFile, RotateFault> {
        let at = match self.files.iter().position(|prepared| prepared.file.path() == path) {
            Some(at) if self.files[at].object.as_deref() == object => at,
            Some(_) => {
                let why = "it is used for two Kubernetes Secrets; rotate their values one after the other";
                return Err(RotateFault::Field(FieldError::Shape(why)));
            }
            None => {
                let file = SecretFile::open(path, around.lock_wait).map_err(RotateFault::File)?;
                let fields: Box<dyn Fields> = if is_manifest {
                    Box::new(Manifest::new(file.content(), object))
                } else {
                    Box::new(Dotenv::new(file.content()))
                };
                self.files.push(PreparedFile {
                    file,
                    fields,
                    object: object.map(str::to_owned),
                    variables: Vec::new(),
                    secrets: Vec::new(),
                });
                self.files.len() - 1
            }
        };
        Ok(&mut self.files[at])
    }

    fn write(self, around: &Surroundings) -> Result<Vec<Rotated>, RotateError> {
        let mut done = Vec::new();
        for (name, keyset) in &self.keysets {
            if let Err(fault) = keyset.write() {
                let fault = RotateFault::File(FileFault::Replace(fault));
                return Err(stopped(name, keyset.path.display().to_string(), fault, done));
            }
        }
        for prepared in self.files {
            let path = prepared.file.path().to_owned();
            let place = path.display().to_string();
            if let Err(fault) = prepared.file.replace(prepared.fields.text()) {
                let name = prepared.secrets.first().map_or("", |secret| &secret.name);
                return Err(stopped(name, place, RotateFault::File(fault), done));
            }
            let mode_lost = prepared.file.mode_lost();
            done.extend(prepared.secrets.into_iter().map(|pending| Rotated {
                name: pending.name,
                place: place.clone(),
                old_values: pending.old_values,
                kid: pending.kid,
                backup: Some(backup_of(&path)),
                mode_lost,
            }));
        }
        for delivery in self.deliveries {
            let place = delivery.to.describe();
            let backup = match delivery.send(around) {
                Ok(backup) => backup,
                Err(fault) => return Err(stopped(&delivery.pending.name, place, fault, done)),
            };
            done.push(Rotated {
                name: delivery.pending.name,
                place,
                old_values: delivery.pending.old_values,
                kid: delivery.pending.kid,
                backup,
                mode_lost: None,
            });
        }
        Ok(done)
    }
}

impl PreparedFile {
    /// Gives a variable its new value, and the old value its place. Says how many old values stay in use.
    fn change(
        &mut self,
        variable: &str,
        history: &History,
        new: &SecretText,
        occasion: Occasion,
    ) -> Result<usize, RotateFault> {
        let fields = self.fields.as_mut();
        if !fields.has(variable).map_err(RotateFault::Field)? {
            return Err(RotateFault::Field(FieldError::Missing(variable.to_owned())));
        }
        for touched in history.variable().into_iter().chain([variable]) {
            if self.variables.iter().any(|known| known == touched) {
                return Err(RotateFault::Field(FieldError::Twice(touched.to_owned())));
            }
            self.variables.push(touched.to_owned());
        }
        let mut old_values = 0;
        match (history, occasion) {
            (History::Forgotten, _) | (History::Inside { .. }, Occasion::Compromised) => {
                fields.put(variable, new.expose(), variable).map_err(RotateFault::Field)?;
            }
            (History::Inside { keep }, Occasion::Scheduled) => {
                let present = fields.value(variable).map_err(RotateFault::Field)?;
                let (text, kept) = in_front(variable, present.as_ref(), new, *keep)?;
                fields.put(variable, &text, variable).map_err(RotateFault::Field)?;
                old_values = kept;
            }
            (
                History::Beside {
                    variable: list, form, ..
                },
                Occasion::Compromised,
            ) => {
                fields.put(variable, new.expose(), variable).map_err(RotateFault::Field)?;
                if fields.has(list).map_err(RotateFault::Field)? {
                    let empty = match form {
                        ListForm::Comma => "",
                        ListForm::Json => "[]",
                    };
                    fields.put(list, empty, list).map_err(RotateFault::Field)?;
                }
            }
            (
                History::Beside {
                    variable: list,
                    form,
                    keep,
                },
                Occasion::Scheduled,
            ) => {
                let present = fields.value(variable).map_err(RotateFault::Field)?;
                let kept = fields.value(list).map_err(RotateFault::Field)?;
                fields.put(variable, new.expose(), variable).map_err(RotateFault::Field)?;
                if let Some(old) = present.filter(|old| !old.is_empty()) {
                    let unfit = || RotateFault::List(variable.to_owned());
                    let mut values = Values::read(kept.as_ref().map_or("", |kept| kept.expose()), *form).ok_or_else(unfit)?;
                    values.push_front(old.expose(), *keep);
                    let text = values.write(*form).ok_or_else(unfit)?;
                    fields.put(list, &text, variable).map_err(RotateFault::Field)?;
                    old_values = values.len();
                }
            }
        }
        Ok(old_values)
    }
}

impl Delivery {
    /// Says where the version before is, if it is kept.
    fn send(&self, around: &Surroundings) -> Result<Option<PathBuf>, RotateFault> {
        match &self.to {
            DeliveryTo::Systemd { file, credential } => {
                let was_there = credential::encrypt(file, credential, &self.value, around)?;
                Ok(was_there.then(|| backup_of(file)))
            }
            DeliveryTo::Command(text) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(text);
                for name in &around.kept_from_children {
                    command.env_remove(name);
                }
                let ran = child::run(command, self.value.expose().as_bytes(), around.command_timeout);
                ran.map(|_| None).map_err(RotateFault::Child)
            }
        }
    }
}

impl DeliveryTo {
    fn describe(&self) -> String {
        match self {
            Self::Systemd { file, .. } => file.display().to_string(),
            // People write tokens into commands.
            Self::Command(_) => "its command".to_owned(),
        }
    }
}

/// The list `new,old,…` of what was there.
fn in_front(
    name: &str,
    present: Option<&SecretText>,
    new: &SecretText,
    keep: Option<usize>,
) -> Result<(Zeroizing<String>, usize), RotateFault> {
    let unfit = || RotateFault::List(name.to_owned());
    let present = present.map_or("", |present| present.expose());
    let mut values = Values::read(present, ListForm::Comma).ok_or_else(unfit)?;
    values.push_front(new.expose(), keep.map(|keep| keep.saturating_add(1)));
    let text = values.write(ListForm::Comma).ok_or_else(unfit)?;
    Ok((text, values.len() - 1))
}

fn describe(secret: &SecretSettings) -> String {
    match &secret.target {
        Target::EnvFile { file, .. } | Target::Manifest { file, .. } | Target::Systemd { file, .. } => {
            file.display().to_string()
        }
        Target::Command(_) => "its command".to_owned(),
    }
}

fn stopped(name: &str, place: String, fault: RotateFault, done: Vec<Rotated>) -> RotateError {
    RotateError {
        name: name.to_owned(),
        place,
        fault,
        done,
    }
}

fn backup_of(path: &Path) -> PathBuf {
    let mut backup = path.as_os_str().to_owned();
    backup.push(".bak");
    backup.into()
}
