//! Secrets in an env file or a manifest: what the values become, decided before the file is replaced once.

use super::accepted::{Accepted, Done};
use super::list::Values;
use super::prepare::{Others, Pending, Step};
use super::rotate::{Occasion, RotateFault, Surroundings};
use super::settings::ListForm;
use super::{Dotenv, FieldError, Fields, Manifest, SecretFile};

/// A file with the new values of one or several secrets.
pub(super) struct PreparedFile {
    pub(super) file: SecretFile,
    pub(super) fields: Box<dyn Fields>,
    /// The Secret of a manifest that is meant.
    pub(super) object: Option<String>,
    variables: Vec<String>,
    pub(super) is_changed: bool,
    pub(super) secrets: Vec<Pending>,
}

impl PreparedFile {
    /// A file of which nothing is decided yet.
    pub(super) fn of(file: SecretFile, object: Option<&str>, is_manifest: bool) -> Self {
        let fields: Box<dyn Fields> = if is_manifest {
            Box::new(Manifest::new(file.content(), object))
        } else {
            Box::new(Dotenv::new(file.content()))
        };
        Self {
            file,
            fields,
            object: object.map(str::to_owned),
            variables: Vec::new(),
            is_changed: false,
            secrets: Vec::new(),
        }
    }

    /// Decides the values of a variable. Says whether anything changes.
    pub(super) fn change(
        &mut self,
        step: &Step<'_>,
        variable: &str,
        others: Others<'_>,
        kid: &mut Option<String>,
        around: &Surroundings,
    ) -> Result<bool, RotateFault> {
        let fields = self.fields.as_mut();
        if !fields.has(variable).map_err(RotateFault::Field)? {
            return Err(RotateFault::Field(FieldError::Missing(variable.to_owned())));
        }
        let list = match &others {
            Others::Variable { name, .. } => Some(*name),
            Others::Nowhere | Others::Inside { .. } | Others::Waiting(_) => None,
        };
        for touched in list.into_iter().chain([variable]) {
            if self.variables.iter().any(|known| known == touched) {
                return Err(RotateFault::Field(FieldError::Twice(touched.to_owned())));
            }
            self.variables.push(touched.to_owned());
        }
        let mut values = read(fields, step.occasion, variable, &others, around)?;
        let keep = match &others {
            Others::Variable { keep, .. } | Others::Inside { keep } => *keep,
            Others::Nowhere | Others::Waiting(_) => Some(0),
        };
        let done = step.take(&mut values, keep)?;
        let mut pending = step.pending(done, values.others.len(), kid);
        if let Others::Waiting(waiting) = &others {
            pending.waits = Some((waiting.clone(), values.others.take_first()));
        }
        if done == Done::Changed {
            self.is_changed |= write(fields, step.occasion, variable, &others, values)?;
        }
        self.secrets.push(pending);
        Ok(done == Done::Changed)
    }
}

/// The values as they stand in a file. A leak is answered whatever stands there: then nothing is read.
fn read(
    fields: &dyn Fields,
    occasion: Occasion,
    variable: &str,
    others: &Others<'_>,
    around: &Surroundings,
) -> Result<Accepted, RotateFault> {
    let unfit = || RotateFault::List(variable.to_owned());
    let mut values = Accepted::nothing();
    if occasion == Occasion::Compromised || matches!(others, Others::Nowhere) {
        return Ok(values);
    }
    // A private key that is replaced need not be legible.
    let reads_primary = !(occasion == Occasion::Scheduled && matches!(others, Others::Waiting(_)));
    let present = match reads_primary {
        true => fields.value(variable).map_err(RotateFault::Field)?,
        false => None,
    };
    match others {
        Others::Variable { name, form, .. } => {
            let kept = fields.value(name).map_err(RotateFault::Field)?;
            let kept = kept.as_ref().map_or("", |kept| kept.expose());
            values.others = Values::read(kept, *form).ok_or_else(unfit)?;
            values.primary = present;
        }
        Others::Inside { .. } | Others::Waiting(_) | Others::Nowhere => {
            values = others.beside(present, around)?.ok_or_else(unfit)?;
        }
    }
    Ok(values)
}

/// Puts the values into a file. Says whether it is another one now.
fn write(
    fields: &mut dyn Fields,
    occasion: Occasion,
    variable: &str,
    others: &Others<'_>,
    mut values: Accepted,
) -> Result<bool, RotateFault> {
    let unfit = || RotateFault::List(variable.to_owned());
    // These leave alone what signs, to the byte.
    let keeps_primary = matches!(occasion, Occasion::Introduce | Occasion::Retire);
    match others {
        Others::Inside { .. } => {
            if let Some(primary) = values.primary.take() {
                values.others.push_front(primary.expose(), None);
            }
            let text = values.others.write(ListForm::Comma).ok_or_else(unfit)?;
            fields.put(variable, &text, variable).map_err(RotateFault::Field)?;
            return Ok(true);
        }
        Others::Variable { name, form, .. } => {
            if values.others.len() > 0 || fields.has(name).map_err(RotateFault::Field)? {
                let text = values.others.write(*form).ok_or_else(unfit)?;
                fields.put(name, &text, variable).map_err(RotateFault::Field)?;
            }
        }
        Others::Waiting(_) if keeps_primary => return Ok(false),
        Others::Waiting(_) | Others::Nowhere => {}
    }
    if !keeps_primary && let Some(primary) = &values.primary {
        fields.put(variable, primary.expose(), variable).map_err(RotateFault::Field)?;
    }
    Ok(true)
}
