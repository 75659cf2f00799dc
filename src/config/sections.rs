//! The sections of `reseal.toml`, each as its type.

use jiff::SignedDuration;

use super::UrlRef;
use super::file::ConfigFault;
use super::table::Section;
use crate::key::KeysetName;
use crate::secret::{Classes, History, Kind, ListForm, Recipe, SecretSettings, Target};

/// `[database.NAME]`.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub url: UrlRef,
}

/// `[dataset.NAME]`.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its name in the configuration.
    pub name: String,
    /// The name of its database.
    pub database: String,
    /// The table, schema-qualified where the database has schemas.
    pub table: String,
    /// The keyset of its values.
    pub keyset: KeysetName,
    /// The encrypted columns.
    pub columns: Vec<Column>,
    /// The condition on its rows, in SQL; without one it has all rows of the table.
    pub filter: Option<String>,
}

/// An encrypted column of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column.
    pub name: String,
    /// The format of its values; detected when left out.
    pub format: Option<String>,
    /// The template of the associated data.
    pub aad: Option<String>,
}

/// `[policy]`.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// How old keys and secrets may become.
    pub max_key_age: Option<SignedDuration>,
    /// How long backups are kept.
    pub backup_horizon: Option<SignedDuration>,
}

pub(super) fn database(name: String, mut section: Section<'_>) -> Result<Database, ConfigFault> {
    let url: Option<UrlRef> = section.parsed("url")?;
    let url = url.ok_or_else(|| ConfigFault::Missing {
        key: section.path("url"),
    })?;
    if matches!(&url, UrlRef::Literal(text) if has_password(text)) {
        return Err(ConfigFault::LooksSecret {
            key: section.path("url"),
        });
    }
    section.finish()?;
    Ok(Database { name, url })
}

pub(super) fn dataset(name: String, mut section: Section<'_>, databases: &[Database]) -> Result<Dataset, ConfigFault> {
    let database = section.required("database")?;
    if !databases.iter().any(|known| known.name == database) {
        return Err(section.wrong("database", "names a database that is not in the configuration"));
    }
    let table = section.required("table")?;
    let keyset = section.parsed("keyset")?.ok_or_else(|| ConfigFault::Missing {
        key: section.path("keyset"),
    })?;
    let filter = section.text("where")?;
    let mut columns = Vec::new();
    for mut column in section.array("columns")? {
        columns.push(Column {
            name: column.required("name")?,
            format: column.text("format")?,
            aad: column.text("aad")?,
        });
        column.finish()?;
    }
    if columns.is_empty() {
        return Err(ConfigFault::Missing {
            key: section.path("columns"),
        });
    }
    section.finish()?;
    Ok(Dataset {
        name,
        database,
        table,
        keyset,
        columns,
        filter,
    })
}

pub(super) fn policy(mut section: Section<'_>) -> Result<Policy, ConfigFault> {
    let policy = Policy {
        max_key_age: section.duration("max_key_age")?,
        backup_horizon: section.duration_or_none("backup_horizon")?,
    };
    section.finish()?;
    Ok(policy)
}

pub(super) fn secret(
    name: String,
    mut section: Section<'_>,
    max_age: Option<SignedDuration>,
) -> Result<SecretSettings, ConfigFault> {
    let kind: Option<Kind> = section.parsed("kind")?;
    let kind = kind.ok_or_else(|| ConfigFault::Missing {
        key: section.path("kind"),
    })?;
    let sizes = [
        ("bytes", section.count("bytes")?),
        ("characters", section.count("length")?),
        ("bits", section.count("bits")?),
    ];
    let mut given = sizes.into_iter().filter_map(|(unit, size)| Some((unit, size?)));
    let size = given.next();
    if given.next().is_some() || size.is_some_and(|(unit, _)| unit != kind.unit()) {
        return Err(section.wrong("kind", format!("{kind} takes its size in {}", kind.unit())));
    }
    let recipe = Recipe::new(kind, size.map(|(_, size)| size), Classes::default());
    let recipe = recipe.map_err(|error| section.wrong("kind", format!("cannot be made: {error}")))?;

    let history = history(&mut section)?;
    let target = target(&name, &mut section, history)?;
    let jwks = section.file("jwks")?;
    if jwks.is_some() && !kind.signs() {
        return Err(section.wrong("jwks", format!("makes no sense: {kind} does not sign")));
    }
    let max_age = section.duration("max_age")?.or(max_age);
    section.finish()?;
    Ok(SecretSettings {
        name,
        recipe,
        target,
        jwks,
        max_age,
    })
}

/// `previous = "SECRET_KEY_FALLBACKS"`, `previous_form = "json"`, or `list = true`; `keep = N`.
fn history(section: &mut Section<'_>) -> Result<History, ConfigFault> {
    let previous = section.text("previous")?;
    let form = match section.text("previous_form")?.as_deref() {
        None => None,
        Some("comma") => Some(ListForm::Comma),
        Some("json") => Some(ListForm::Json),
        Some(_) => return Err(section.wrong("previous_form", "is neither comma nor json")),
    };
    let is_list = section.flag("list")?.unwrap_or(false);
    let keep = section.count("keep")?;
    match previous {
        Some(_) if is_list => Err(section.wrong("list", "and previous exclude each other")),
        Some(variable) => {
            check_variable(section, "previous", &variable)?;
            let form = form.unwrap_or(ListForm::Comma);
            Ok(History::Beside { variable, form, keep })
        }
        None if form.is_some() => Err(section.wrong("previous_form", "is for previous = \"NAME\"")),
        None if is_list => Ok(History::Inside { keep }),
        None if keep.is_some() => Err(section.wrong("keep", "is for previous = \"NAME\" or list = true")),
        None => Ok(History::Forgotten),
    }
}

fn target(name: &str, section: &mut Section<'_>, history: History) -> Result<Target, ConfigFault> {
    let env_file = section.file("env_file")?;
    let manifest = section.section("kubernetes")?;
    let credential = section.section("systemd")?;
    let command = section.text("command")?;
    let steps = section.flag("steps")?.unwrap_or(false);
    if steps && command.is_none() {
        return Err(section.wrong("steps", "is for command: files know steps anyway"));
    }
    let variable = section.text("variable")?;
    let targets = [
        env_file.is_some(),
        manifest.is_some(),
        credential.is_some(),
        command.is_some(),
    ];
    if targets.into_iter().filter(|given| *given).count() != 1 {
        return Err(section.wrong(
            "env_file",
            "or kubernetes, systemd or command: exactly one of them says where the secret goes",
        ));
    }
    let in_file = env_file.is_some() || manifest.is_some();
    if !in_file && variable.is_some() {
        return Err(section.wrong("variable", "is for env_file and kubernetes"));
    }
    if !in_file && matches!(history, History::Beside { .. }) {
        return Err(section.wrong("previous", "is for env_file and kubernetes"));
    }
    let variable = variable.unwrap_or_else(|| name.to_owned());
    if in_file {
        check_variable(section, "variable", &variable)?;
    }
    if let Some(file) = env_file {
        return Ok(Target::EnvFile { file, variable, history });
    }
    if let Some(mut inner) = manifest {
        let file = inner
            .file("file")?
            .ok_or_else(|| ConfigFault::Missing { key: inner.path("file") })?;
        let object = inner.text("name")?;
        inner.finish()?;
        return Ok(Target::Manifest {
            file,
            object,
            variable,
            history,
        });
    }
    if let Some(mut inner) = credential {
        let file = inner
            .file("file")?
            .ok_or_else(|| ConfigFault::Missing { key: inner.path("file") })?;
        let credential = inner.text("name")?.unwrap_or_else(|| name.to_owned());
        check_variable(&inner, "name", &credential)?;
        inner.finish()?;
        return Ok(Target::Systemd {
            file,
            credential,
            history,
        });
    }
    match command {
        Some(_) if history != History::Forgotten => {
            Err(section.wrong("list", "makes no sense with command: what it stored cannot be read back"))
        }
        Some(command) if !command.trim().is_empty() => Ok(Target::Command { command, steps }),
        Some(_) | None => Err(section.wrong("command", "is empty")),
    }
}

/// What can be the name of a variable, of a key of a Secret, and of a credential, and stands in files without quotes.
fn check_variable(section: &Section<'_>, key: &str, name: &str) -> Result<(), ConfigFault> {
    let begins_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if begins_well && is_plain {
        Ok(())
    } else {
        Err(section.wrong(key, "is not a name of letters, digits, '_', '.' and '-'"))
    }
}

/// Whether a URL holds a password: `scheme://user:password@host`.
fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || url.contains("password=")
}
