//! The selection that `plan`, `rotate` and `verify` share: which database, table, columns, formats and keys.

mod keys;

use std::sync::Arc;

use clap::Args;
use zeroize::Zeroizing;

use self::keys::Keys;
use super::arg::{KeyringArgs, RefArg};
use super::{CliError, Context, Exit};
use crate::config::{KeyRef, SecretRef, UrlRef};
use crate::format::{self, Format};
use crate::key::SealCounts;
use crate::rotation::recipe::{ColumnSpec, PlaintextPolicy, Recipe};
use crate::rotation::{Job, Options, detect};
use crate::store::{self, Store};

/// Which database.
#[derive(Args)]
pub struct DatabaseArg {
    /// The database: sqlite:PATH, postgres://…, or where its URL is: env:NAME, file:PATH, … [default: env:DATABASE_URL]
    #[arg(long, value_name = "REF")]
    database: Option<RefArg<UrlRef>>,
}

/// Which values, and which keys.
#[derive(Args)]
#[command(next_help_heading = "Selection")]
pub struct Selection {
    #[command(flatten)]
    database: DatabaseArg,

    /// The table, as in SQL; schema-qualified where the database has schemas
    #[arg(long, value_name = "TABLE", requires = "columns", requires = "to")]
    table: Option<String>,

    /// An encrypted column; repeat for more: all of them are rewritten in one pass
    #[arg(long = "column", value_name = "COLUMN", requires = "table")]
    columns: Vec<String>,

    /// How the values are sealed now: fernet, tink, aes-gcm, …; one for all columns, or one for each. Detected when certain
    #[arg(long = "format", value_name = "FORMAT")]
    formats: Vec<String>,

    /// How they shall be sealed, when that changes
    #[arg(long = "to-format", value_name = "FORMAT")]
    to_formats: Vec<String>,

    /// Associated data of a column's values, such as "customers.email:{id}" or "auto:customers.email"; one for each column
    #[arg(long = "aad", value_name = "TEMPLATE")]
    associated_data: Vec<String>,

    /// Only rows for which this SQL condition holds
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,

    /// The old key: env:NAME, file:PATH, fd:N, prompt, cmd:COMMAND, keyring:KEYSET[@KEYID]; repeat for several old keys
    #[arg(long = "from", value_name = "REF")]
    from: Vec<RefArg<KeyRef>>,

    /// The new key
    #[arg(long = "to", value_name = "REF", requires = "table")]
    to: Option<RefArg<KeyRef>>,

    /// What values get that are not sealed at all [default: refuse]
    #[arg(long, value_enum, value_name = "POLICY")]
    plaintext: Option<PlaintextArg>,

    /// The keyring; in managed use that of the configuration comes first.
    #[command(flatten)]
    pub keyring: KeyringArgs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum PlaintextArg {
    /// Quarantine them
    Refuse,
    /// Seal them under the new key
    Seal,
    /// Leave them as they are; while there are any, the exit code is 7
    Skip,
}

/// A selection with its secrets read and its database chosen.
pub struct Selected {
    /// The database.
    pub store: Arc<dyn Store>,
    /// What to do there.
    pub job: Job,
    /// Whether every key came from the keyring: then the keyset's states say who reads with what.
    pub managed: bool,
}

impl DatabaseArg {
    /// Reads the URL and chooses the store; `role` names this program to the server.
    pub fn open(&self, context: &mut Context<'_>, role: &str) -> Result<Arc<dyn Store>, CliError> {
        let default = UrlRef::Secret(SecretRef::Env("DATABASE_URL".to_owned()));
        let reference = match &self.database {
            Some(argument) => argument.get()?,
            None => &default,
        };
        let url = read_database_url(reference, context)?;
        store::open(&url, role).map_err(|error| super::rotation_error::store_error(&error, "connecting"))
    }
}

/// Reads a database URL, and warns of a password that everybody can see.
pub(super) fn read_database_url(reference: &UrlRef, context: &mut Context<'_>) -> Result<Zeroizing<String>, CliError> {
    if let UrlRef::Literal(url) = reference
        && has_password(url)
    {
        context
            .output
            .say("warning: the database password stands in the command line, where every user of this machine can read it; pass env:NAME instead");
    }
    if let UrlRef::Secret(secret) = reference {
        context.secrets.keep_from_children(secret);
    }
    let url = context.secrets.read_url(reference)?;
    Ok(Zeroizing::new(url.trim().to_owned()))
}

impl Selection {
    /// Whether one table is named; otherwise a keyset of the configuration is meant.
    pub fn names_a_table(&self) -> bool {
        self.table.is_some()
    }

    /// Fails when a part of the selection was given without its table: a keyset is rotated as the configuration says, whatever else
    /// was meant.
    pub fn require_none(&self) -> Result<(), CliError> {
        let given = [
            ("--database", self.database.database.is_some()),
            ("--column", !self.columns.is_empty()),
            ("--format", !self.formats.is_empty()),
            ("--to-format", !self.to_formats.is_empty()),
            ("--aad", !self.associated_data.is_empty()),
            ("--where", self.filter.is_some()),
            ("--from", !self.from.is_empty()),
            ("--to", self.to.is_some()),
            ("--plaintext", self.plaintext.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((option, _)) => Err(
                CliError::usage(format!("{option} belongs to --table, which is missing")).next(
                    "name the table with --table; or leave the option out: what a keyset covers stands in the configuration",
                ),
            ),
        }
    }

    fn table(&self) -> Result<&str, CliError> {
        self.table.as_deref().ok_or_else(|| CliError::usage("--table is missing"))
    }

    fn to(&self) -> Result<&RefArg<KeyRef>, CliError> {
        self.to
            .as_ref()
            .ok_or_else(|| CliError::usage("--to is missing: which key shall open the values?"))
    }

    /// Reads URL and keys, detects formats where they were left out. Connects; writes nothing.
    pub async fn select(&self, context: &mut Context<'_>, options: Options, needs_from: bool) -> Result<Selected, CliError> {
        if needs_from && self.from.is_empty() {
            return Err(CliError::usage("--from is missing: which key opens the values now?")
                .next("add --from env:OLD_KEY, or another reference to the old key"));
        }
        // A key on the command line is told before anything else that may be missing.
        for reference in std::iter::once(self.to()?).chain(&self.from) {
            reference.get()?;
        }
        let store = self.database.open(context, &options.owner)?;
        let keys = self.keys(context)?;
        if needs_from {
            self.refuse_repetition(&keys, &options.accepted)?;
        }
        let formats = self.formats(&*store, &keys).await?;
        let managed = [self.to()?]
            .into_iter()
            .chain(&self.from)
            .all(|reference| matches!(reference.get(), Ok(KeyRef::Keyring(_))));
        let specs = self.specs(formats)?;
        let plaintext = match self.plaintext {
            None | Some(PlaintextArg::Refuse) => PlaintextPolicy::Refuse,
            Some(PlaintextArg::Seal) => PlaintextPolicy::Seal,
            Some(PlaintextArg::Skip) => PlaintextPolicy::Skip,
        };
        let now = u64::try_from((context.now)().as_second()).unwrap_or(0);
        let recipe = Recipe::new(specs, &keys.from, &keys.to, plaintext, now).map_err(|error| {
            super::rotation_error::recipe_error(&error).next("check --from, --to, --format and --aad; see reseal plan --help")
        })?;
        let mut recipe = recipe.with_destroyed(&keys.destroyed);
        // A key from elsewhere has no keyring beside which its seals could be counted.
        if let KeyRef::Keyring(_) = self.to()?.get()? {
            recipe = recipe.with_seals_counted(SealCounts::beside(&self.keyring.keyring));
        }
        Ok(Selected {
            store,
            job: Job {
                table: self.table()?.to_owned(),
                filter: self.filter.clone(),
                recipe,
                options,
            },
            managed,
        })
    }

    /// For each column the format now and the format to be.
    async fn formats(
        &self,
        store: &dyn Store,
        keys: &Keys,
    ) -> Result<Vec<(&'static dyn Format, &'static dyn Format)>, CliError> {
        let count = self.columns.len();
        let now = match spread("--format", &self.formats, count)? {
            Some(names) => names.into_iter().map(named_format).collect::<Result<Vec<_>, _>>()?,
            None => self.detected(store, keys).await?,
        };
        let to = match spread("--to-format", &self.to_formats, count)? {
            Some(names) => names.into_iter().map(named_format).collect::<Result<Vec<_>, _>>()?,
            None => now.clone(),
        };
        Ok(now.into_iter().zip(to).collect())
    }

    async fn detected(&self, store: &dyn Store, keys: &Keys) -> Result<Vec<&'static dyn Format>, CliError> {
        let ids: Vec<_> = keys.from.iter().chain([&keys.to]).filter_map(|key| key.id).collect();
        let found = detect::formats(store, self.table()?, &self.columns, self.filter.as_deref(), &ids)
            .await
            .map_err(|error| super::rotation_error::rotation_error(&error))?;
        self.columns
            .iter()
            .zip(found)
            .map(|(column, verdict)| match verdict {
                format::Verdict::Certain(name) => named_format(name),
                verdict => Err(
                    CliError::new(Exit::Refused, format!("column {column}: {}", uncertain(&verdict)))
                        .next(format!("name it with --format; one of: {}", format_names())),
                ),
            })
            .collect()
    }

    fn specs(&self, formats: Vec<(&'static dyn Format, &'static dyn Format)>) -> Result<Vec<ColumnSpec>, CliError> {
        let given = self.associated_data.len();
        if given != 0 && given != self.columns.len() {
            return Err(CliError::usage(format!(
                "{given} --aad for {} --column: give one for each column, in the same order, or none",
                self.columns.len()
            )));
        }
        let mut repeated = self.columns.clone();
        repeated.sort();
        if repeated.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(CliError::usage("a column is named twice"));
        }
        Ok(self
            .columns
            .iter()
            .zip(formats)
            .enumerate()
            .map(|(at, (name, (from, to)))| ColumnSpec {
                name: name.clone(),
                from,
                to,
                associated_data: self.associated_data.get(at).filter(|template| !template.is_empty()).cloned(),
            })
            .collect())
    }
}

fn has_password(url: &str) -> bool {
    let authority = url
        .split_once("://")
        .map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || url.contains("password=")
}

/// One value for all columns, or one for each.
fn spread<'a>(option: &str, given: &'a [String], count: usize) -> Result<Option<Vec<&'a str>>, CliError> {
    match given {
        [] => Ok(None),
        [one] => Ok(Some(vec![one.as_str(); count])),
        many if many.len() == count => Ok(Some(many.iter().map(String::as_str).collect())),
        many => Err(CliError::usage(format!(
            "{} {option} for {count} --column: give one for all, or one for each in the same order",
            many.len()
        ))),
    }
}

fn named_format(name: &str) -> Result<&'static dyn Format, CliError> {
    format::by_name(name).map_err(|error| CliError::from_error(Exit::Usage, &error))
}

/// Why a sample does not decide the format.
fn uncertain(verdict: &format::Verdict) -> String {
    match verdict {
        format::Verdict::Certain(name) => format!("its format is {name}"),
        format::Verdict::Mixed(names) => format!("values of several formats stand in it: {}", names.join(", ")),
        format::Verdict::Foreign(system) => format!("its values are sealed by {system}, which is not rotated here"),
        format::Verdict::Ask(names) => format!("its values have the shape of {}, which proves nothing", names.join(" or ")),
        format::Verdict::Plain => "no sampled value looks sealed".to_owned(),
        format::Verdict::Nothing => "it holds no value from which its format could be told".to_owned(),
    }
}

fn format_names() -> String {
    let mut names: Vec<&str> = format::all().map(|format| format.name()).collect();
    names.sort_unstable();
    names.join(", ")
}
