//! Secrets that go to a program: `systemd-creds`, or a command of the operator's.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::accepted::{Accepted, Done};
use super::prepare::{Others, Pending, Step, backup_of};
use super::record::Staged;
use super::rotate::{Occasion, OrderFault, RotateFault, Surroundings};
use super::settings::ListForm;
use super::{SecretText, child, credential};

/// A secret that goes to a program.
pub(super) struct Delivery {
    pub(super) pending: Pending,
    /// None where nothing is new for it.
    value: Option<SecretText>,
    pub(super) to: DeliveryTo,
}

pub(super) enum DeliveryTo {
    Systemd {
        file: PathBuf,
        credential: String,
    },
    Command {
        command: String,
        /// What the command is told of the step.
        step: Option<&'static str>,
    },
}

impl Delivery {
    /// A credential: the value, or the list `new,old,…`.
    pub(super) fn sealed(
        step: &Step<'_>,
        (file, name): (&Path, &str),
        others: Others<'_>,
        kid: &mut Option<String>,
        around: &Surroundings,
    ) -> Result<Self, RotateFault> {
        credential::require(around)?;
        let unfit = || RotateFault::List(name.to_owned());
        let mut values = Accepted::nothing();
        if step.occasion != Occasion::Compromised && !matches!(others, Others::Nowhere) {
            let present = credential::decrypt(file, name, around)?;
            values = others.beside(present, around)?.ok_or_else(unfit)?;
        }
        let keep = match &others {
            Others::Inside { keep } => *keep,
            Others::Nowhere | Others::Variable { .. } | Others::Waiting(_) => Some(0),
        };
        let done = step.take(&mut values, keep)?;
        let mut pending = step.pending(done, values.others.len(), kid);
        let value = match others {
            Others::Inside { .. } => {
                if let Some(primary) = values.primary.take() {
                    values.others.push_front(primary.expose(), None);
                }
                Some(SecretText::from(values.others.write(ListForm::Comma).ok_or_else(unfit)?))
            }
            Others::Waiting(waiting) => {
                pending.waits = Some((waiting, values.others.take_first()));
                // An introduction leaves alone what signs.
                values.primary.filter(|_| step.occasion != Occasion::Introduce)
            }
            Others::Nowhere | Others::Variable { .. } => values.primary,
        };
        Ok(Self {
            value: value.filter(|_| pending.is_changed),
            pending,
            to: DeliveryTo::Systemd {
                file: file.to_owned(),
                credential: name.to_owned(),
            },
        })
    }

    /// A command. What it stored cannot be read back: the record alone knows where it stands, and a step may be told it twice.
    pub(super) fn handed_over(
        step: &Step<'_>,
        command: &str,
        steps: bool,
        kid: &mut Option<String>,
    ) -> Result<Self, RotateFault> {
        let is_step = !matches!(step.occasion, Occasion::Scheduled | Occasion::Compromised);
        if is_step && !steps {
            return Err(RotateFault::Order(OrderFault::NoSteps));
        }
        let written = step.staged.as_ref().filter(|staged| staged.is_written());
        let stands = written.map(Staged::is_waiting);
        let done = match (step.occasion, stands) {
            (Occasion::Scheduled | Occasion::Retire, Some(true)) => return Err(RotateFault::Order(OrderFault::Waiting)),
            (Occasion::Promote, None) => return Err(RotateFault::Order(OrderFault::NotIntroduced)),
            (Occasion::Introduce, Some(true)) | (Occasion::Promote, Some(false)) => Done::Already,
            _ => Done::Changed,
        };
        let pending = step.pending(done, usize::from(step.occasion == Occasion::Promote), kid);
        let value = step.new.as_ref().map_or("", |new| new.expose());
        Ok(Self {
            value: pending.is_changed.then(|| SecretText::new(value.to_owned())),
            pending,
            to: DeliveryTo::Command {
                command: command.to_owned(),
                step: steps.then(|| step.occasion.as_str()),
            },
        })
    }

    /// Says where the version before is, if it is kept.
    pub(super) fn send(&self, around: &Surroundings) -> Result<Option<PathBuf>, RotateFault> {
        let Some(value) = &self.value else { return Ok(None) };
        match &self.to {
            DeliveryTo::Systemd { file, credential } => {
                let was_there = credential::encrypt(file, credential, value, around)?;
                Ok(was_there.then(|| backup_of(file)))
            }
            DeliveryTo::Command { command: text, step } => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(text);
                for name in &around.kept_from_children {
                    command.env_remove(name);
                }
                if let Some(step) = step {
                    command.env(STEP_VARIABLE, step);
                }
                let ran = child::run(command, value.expose().as_bytes(), around.command_timeout);
                ran.map(|_| None).map_err(RotateFault::Child)
            }
        }
    }
}

impl DeliveryTo {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Systemd { file, .. } => file.display().to_string(),
            // People write tokens into commands.
            Self::Command { .. } => "its command".to_owned(),
        }
    }
}

/// What a command reads the step from.
const STEP_VARIABLE: &str = "RESEAL_STEP";
