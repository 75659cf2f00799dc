//! Decides what a rotation writes, and writes it: public keys, files, what waits, and programs, in this order.

use std::path::{Path, PathBuf};

use super::accepted::{Accepted, Done};
use super::delivery::Delivery;
use super::in_file::PreparedFile;
use super::keyset_file::{KeySetFile, Keys};
use super::list::Values;
use super::record::{Record, Staged};
use super::rotate::{Occasion, OrderFault, RotateError, RotateFault, Rotated, Surroundings, stopped};
use super::settings::{History, ListForm, SecretSettings, Target};
use super::waiting::Waiting;
use super::{FieldError, FileFault, Generated, SecretFile, SecretText};

/// What will be written, in this order.
pub(super) struct Prepared {
    occasion: Occasion,
    /// First the public keys: no token is signed with a key that verifiers do not have.
    keysets: Vec<(String, KeySetFile)>,
    files: Vec<PreparedFile>,
    deliveries: Vec<Delivery>,
    /// The new values for the record; none for those that cannot be read back.
    values: Vec<(String, Option<SecretText>)>,
}

/// A secret that is decided and not written yet.
pub(super) struct Pending {
    pub(super) name: String,
    pub(super) is_changed: bool,
    pub(super) old_values: usize,
    pub(super) kid: Option<String>,
    /// What waits beside it from now on.
    pub(super) waits: Option<(Waiting, Option<SecretText>)>,
}

/// One secret and what is done with it.
pub(super) struct Step<'s> {
    pub(super) secret: &'s SecretSettings,
    pub(super) occasion: Occasion,
    pub(super) new: Option<SecretText>,
    pub(super) staged: Option<Staged>,
}

/// Where the values beside the one that signs are.
pub(super) enum Others<'h> {
    Nowhere,
    Variable {
        name: &'h str,
        form: ListForm,
        keep: Option<usize>,
    },
    Inside {
        keep: Option<usize>,
    },
    Waiting(Waiting),
}

impl Others<'_> {
    /// The values where the one that signs stands among them, or the others wait beside it; `None` when what is `present` is no list.
    pub(super) fn beside(&self, present: Option<SecretText>, around: &Surroundings) -> Result<Option<Accepted>, RotateFault> {
        Ok(match self {
            Self::Inside { .. } => {
                let text = present.as_ref().map_or("", |present| present.expose());
                Values::read(text, ListForm::Comma).map(|mut others| Accepted {
                    primary: others.take_first(),
                    others,
                })
            }
            Self::Waiting(waiting) => Some(Accepted {
                others: waiting.read(present.as_ref(), around)?,
                primary: present,
            }),
            Self::Nowhere | Self::Variable { .. } => Some(Accepted::nothing()),
        })
    }
}

impl Prepared {
    pub(super) fn new(occasion: Occasion) -> Self {
        Self {
            occasion,
            keysets: Vec::new(),
            files: Vec::new(),
            deliveries: Vec::new(),
            values: Vec::new(),
        }
    }

    /// The new values, for the record.
    pub(super) fn take_values(&mut self) -> Vec<(String, Option<SecretText>)> {
        std::mem::take(&mut self.values)
    }

    /// Decides one secret. Changes nothing.
    pub(super) fn add(&mut self, secret: &SecretSettings, record: &Record, around: &Surroundings) -> Result<(), RotateFault> {
        let occasion = self.occasion;
        let (new, public) = if occasion.makes_a_value() {
            let Generated { secret: value, public } = secret.recipe.generate().map_err(RotateFault::Generate)?;
            (Some(value), public)
        } else {
            (None, None)
        };
        let mut kid = public.as_ref().and_then(|public| public.kid()).map(str::to_owned);
        let recorded = new.as_ref().map(|value| SecretText::new(value.expose().to_owned()));
        let step = Step {
            secret,
            occasion,
            new,
            staged: record.staged(&secret.name),
        };
        let is_changed = match &secret.target {
            Target::EnvFile { file, variable, history } => {
                let others = step.others(history, || Waiting::beside(file, variable))?;
                self.file(file, None, false, around)?
                    .change(&step, variable, others, &mut kid, around)?
            }
            Target::Manifest {
                file,
                object,
                variable,
                history,
            } => {
                let others = step.others(history, || Waiting::beside(file, variable))?;
                let prepared = self.file(file, object.as_deref(), true, around)?;
                prepared.change(&step, variable, others, &mut kid, around)?
            }
            Target::Systemd {
                file,
                credential,
                history,
            } => {
                let others = step.others(history, || Waiting::beside_credential(file, credential))?;
                let delivery = Delivery::sealed(&step, (file, credential), others, &mut kid, around)?;
                let is_changed = delivery.pending.is_changed;
                self.deliveries.push(delivery);
                is_changed
            }
            Target::Command { command, steps } => {
                let delivery = Delivery::handed_over(&step, command, *steps, &mut kid)?;
                let is_changed = delivery.pending.is_changed;
                self.deliveries.push(delivery);
                is_changed
            }
        };
        if let Some(path) = &secret.jwks {
            let key = public.as_ref().and_then(|public| public.jwk.as_ref()).filter(|_| is_changed);
            let keys = match (occasion, key) {
                (Occasion::Scheduled | Occasion::Introduce, Some(key)) => Some(Keys::With(key)),
                (Occasion::Compromised, Some(key)) => Some(Keys::Only(key)),
                (Occasion::Retire, _) => Some(Keys::Newest),
                _ => None,
            };
            if let Some(keys) = keys {
                let keyset = KeySetFile::prepare(path, &keys, around.lock_wait)?;
                if keyset.is_change() {
                    self.keysets.push((secret.name.clone(), keyset));
                }
            }
        }
        if is_changed && let Some(value) = recorded {
            let is_read_back = !matches!(secret.target, Target::Command { .. });
            self.values.push((secret.name.clone(), is_read_back.then_some(value)));
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
                self.files.push(PreparedFile::of(file, object, is_manifest));
                self.files.len() - 1
            }
        };
        Ok(&mut self.files[at])
    }

    /// Writes it all.
    pub(super) fn write(self, around: &Surroundings) -> Result<Vec<Rotated>, RotateError> {
        let mut done: Vec<Rotated> = Vec::new();
        for (name, keyset) in &self.keysets {
            if let Err(fault) = keyset.write() {
                let fault = RotateFault::File(FileFault::Replace(fault));
                return Err(stopped(name, keyset.path.display().to_string(), fault, done));
            }
        }
        for prepared in self.files {
            let path = prepared.file.path().to_owned();
            let place = path.display().to_string();
            // What is introduced must wait durably before it is on record as written.
            for pending in prepared.secrets.iter().filter(|_| self.occasion == Occasion::Introduce) {
                if let Err(fault) = pending.settle(around) {
                    return Err(stopped(&pending.name, place, fault, done));
                }
            }
            if prepared.is_changed
                && let Err(fault) = prepared.file.replace(prepared.fields.text())
            {
                let name = prepared.secrets.first().map_or("", |secret| &secret.name);
                return Err(stopped(name, place, RotateFault::File(fault), done));
            }
            let mode_lost = prepared.file.mode_lost().filter(|_| prepared.is_changed);
            let backup = prepared.is_changed.then(|| backup_of(&path));
            for pending in prepared.secrets {
                if self.occasion != Occasion::Introduce
                    && let Err(fault) = pending.settle(around)
                {
                    return Err(stopped(&pending.name, place, fault, done));
                }
                done.push(pending.rotated(place.clone(), backup.clone(), mode_lost));
            }
        }
        for delivery in self.deliveries {
            let place = delivery.to.describe();
            let sent = delivery.send(around).and_then(|backup| {
                delivery.pending.settle(around)?;
                Ok(backup)
            });
            match sent {
                Ok(backup) => done.push(delivery.pending.rotated(place, backup, None)),
                Err(fault) => return Err(stopped(&delivery.pending.name, place, fault, done)),
            }
        }
        // Verifiers may have another set of keys where nothing changed for the signer.
        for (name, _) in &self.keysets {
            if let Some(rotated) = done.iter_mut().find(|rotated| rotated.name == *name) {
                rotated.is_changed = true;
            }
        }
        Ok(done)
    }
}

impl Step<'_> {
    /// Where the other values are; refused where a step needs them and there is no such place.
    pub(super) fn others<'h>(
        &self,
        history: &'h History,
        waiting: impl FnOnce() -> Waiting,
    ) -> Result<Others<'h>, RotateFault> {
        let is_step = !matches!(self.occasion, Occasion::Scheduled | Occasion::Compromised);
        match history {
            History::Beside { variable, form, keep } => Ok(Others::Variable {
                name: variable,
                form: *form,
                keep: *keep,
            }),
            History::Inside { keep } => Ok(Others::Inside { keep: *keep }),
            // Whoever verifies reads the public keys; whoever signs has one private key, and the next one waits.
            History::Forgotten if self.secret.jwks.is_some() => Ok(Others::Waiting(waiting())),
            History::Forgotten if is_step => Err(RotateFault::Order(OrderFault::OneValueOnly)),
            History::Forgotten => Ok(Others::Nowhere),
        }
    }

    pub(super) fn take(&self, values: &mut Accepted, keep: Option<usize>) -> Result<Done, RotateFault> {
        let done = values.step(self.occasion, self.new.as_ref(), self.staged.as_ref(), keep);
        done.map_err(RotateFault::Order)
    }

    pub(super) fn pending(&self, done: Done, old_values: usize, kid: &mut Option<String>) -> Pending {
        let is_changed = done == Done::Changed;
        Pending {
            name: self.secret.name.clone(),
            is_changed,
            old_values,
            kid: kid.take().filter(|_| is_changed),
            waits: None,
        }
    }
}

impl Pending {
    /// What waits beside it becomes what should.
    pub(super) fn settle(&self, around: &Surroundings) -> Result<(), RotateFault> {
        match &self.waits {
            Some((waiting, value)) => waiting.write(value.as_ref(), around),
            None => Ok(()),
        }
    }

    pub(super) fn rotated(self, place: String, backup: Option<PathBuf>, mode_lost: Option<u32>) -> Rotated {
        Rotated {
            name: self.name,
            place,
            is_changed: self.is_changed,
            old_values: self.old_values,
            kid: self.kid,
            backup: backup.filter(|_| self.is_changed),
            mode_lost,
        }
    }
}

/// Where the version before is.
pub(super) fn backup_of(path: &Path) -> PathBuf {
    let mut backup = path.as_os_str().to_owned();
    backup.push(".bak");
    backup.into()
}
