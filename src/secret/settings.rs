//! A secret of the configuration: what it looks like, where its application reads it, and what becomes of the old value.

use std::path::PathBuf;

use jiff::SignedDuration;

use super::Recipe;

/// `[secret.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSettings {
    /// Its name in the configuration.
    pub name: String,
    /// What a new one looks like.
    pub recipe: Recipe,
    /// Where the application reads it.
    pub target: Target,
    /// The JSON Web Key Set of the public keys, for kinds that sign.
    pub jwks: Option<PathBuf>,
    /// How old it may become.
    pub max_age: Option<SignedDuration>,
}

/// Where the application reads a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A variable of an env file.
    EnvFile {
        /// The file.
        file: PathBuf,
        /// The variable.
        variable: String,
        /// What becomes of the old value.
        history: History,
    },
    /// A key of a Kubernetes Secret manifest.
    Manifest {
        /// The file.
        file: PathBuf,
        /// `metadata.name`, where the file holds several Secrets.
        object: Option<String>,
        /// The key below `data` or `stringData`.
        variable: String,
        /// What becomes of the old value.
        history: History,
    },
    /// A credential encrypted by `systemd-creds`.
    Systemd {
        /// The encrypted file.
        file: PathBuf,
        /// The name that is sealed into it.
        credential: String,
        /// Whether the credential is a list that keeps its old values: `new,old`.
        history: History,
    },
    /// A shell command that takes the secret on standard input. What it stored cannot be read back, so that nothing old is kept.
    Command {
        /// The command.
        command: String,
        /// Whether it understands the steps of a rotation, which it finds in `RESEAL_STEP`: introduce (the new value is on standard
        /// input), promote and retire (nothing is).
        steps: bool,
    },
}

/// What becomes of the old value in a scheduled rotation. In a compromise nothing old is kept, whatever this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// It goes.
    Forgotten,
    /// It joins the front of a list in another variable: `SECRET_KEY_FALLBACKS`, `APP_PREVIOUS_KEYS`.
    Beside {
        /// The variable of the list.
        variable: String,
        /// How the list is written.
        form: ListForm,
        /// How many old values are kept; `None` keeps all, for dropping one that still opens data loses the data.
        keep: Option<usize>,
    },
    /// The value itself is a list, newest first: `ENCRYPTION_KEYS=new,old`.
    Inside {
        /// How many old values are kept; `None` keeps all.
        keep: Option<usize>,
    },
}

/// How a list of values is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListForm {
    /// Separated by commas.
    Comma,
    /// A JSON array of strings.
    Json,
}
