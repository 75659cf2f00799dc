//! Managed use: a keyset of `reseal.toml` with all its datasets, instead of one table named on the command line.

#[cfg(debug_assertions)]
mod broken_gates;
pub mod error;
pub mod look;
pub mod report;
pub mod retire;
pub mod rotate;
pub mod sessions;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::arg::{KeyringArgs, parse_time};
use super::config::CONFIG_DEFAULT;
use super::sessions::store_of;
use super::{CliError, Context, Exit};
use crate::config::{Config, ConfigFault, Dataset, SessionPlace, UrlRef};
use crate::format;
use crate::key::KeysetName;
use crate::rotation::Options;
use crate::rotation::protocol::{
    EVICT_AFTER_DEFAULT, GATE_TIMEOUT_DEFAULT, GateRules, Managed, ManagedColumn, ManagedDataset, ManagedSessions, Place,
};
use crate::store;

/// Which keyset of which configuration.
#[derive(Args)]
#[command(next_help_heading = "Managed use: a keyset with all its datasets")]
pub struct ManagedArgs {
    /// The keyset, in managed use; may be left out where the configuration has only one
    #[arg(value_name = "KEYSET", conflicts_with = "table")]
    keyset: Option<KeysetName>,

    /// The configuration that names keyring, databases and datasets [default: reseal.toml]; not read with --table
    #[arg(long, value_name = "FILE", env = "RESEAL_CONFIG")]
    config: Option<PathBuf>,
}

/// How gates wait for instances.
#[derive(Args)]
#[command(next_help_heading = "Managed use: gates")]
pub struct GateArgs {
    /// How many instances must acknowledge; needed where none is known, 0 for none [default: every live one, and at least one]
    #[arg(long, value_name = "N")]
    expect_instances: Option<u64>,

    /// How long a gate waits for instances
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    gate_timeout: Option<Duration>,

    /// With --compromised: how long a gate waits before it evicts whoever is missing
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    evict_after: Option<Duration>,
}

impl GateArgs {
    fn rules(&self) -> GateRules {
        GateRules {
            expect: self.expect_instances,
            timeout: self.gate_timeout.unwrap_or(GATE_TIMEOUT_DEFAULT),
            evict_after: Some(self.evict_after.unwrap_or(EVICT_AFTER_DEFAULT)),
        }
    }
}

/// Gates of a command that only asks how they stand.
pub fn ask_only() -> GateRules {
    GateRules {
        expect: None,
        timeout: Duration::ZERO,
        evict_after: None,
    }
}

impl ManagedArgs {
    /// This keyset of this configuration.
    pub fn of(keyset: KeysetName, config: PathBuf) -> Self {
        Self {
            keyset: Some(keyset),
            config: Some(config),
        }
    }

    /// Reads the configuration and everything that it refers to, where sessions are only if that is needed, and chooses the keyset.
    /// Connects to nothing yet.
    pub fn managed(
        &self,
        keyring: &KeyringArgs,
        gates: GateRules,
        options: Options,
        with_sessions: bool,
        context: &mut Context<'_>,
    ) -> Result<Managed, CliError> {
        let path = self.config.clone().unwrap_or_else(|| PathBuf::from(CONFIG_DEFAULT));
        let config = Config::read(&path).map_err(|error| {
            let nobody_named_it = self.config.is_none() && matches!(error.fault, ConfigFault::Absent);
            let error = CliError::from(error);
            match nobody_named_it {
                true => error.next_or("one table needs none: --table, --column, --format, --from and --to"),
                false => error,
            }
        })?;
        let at = |error: CliError| error.at(format!("configuration {}", path.display()));
        let keyset = self.choose(&config).map_err(at)?;
        let datasets: Vec<&Dataset> = config.datasets.iter().filter(|dataset| dataset.keyset == keyset).collect();
        let databases: Vec<_> = config
            .databases
            .iter()
            .filter(|database| datasets.iter().any(|dataset| dataset.database == database.name))
            .collect();
        let mut places = Vec::new();
        for database in &databases {
            if let UrlRef::Secret(secret) = &database.url {
                context.secrets.keep_from_children(secret);
            }
            let url = context.secrets.read_url(&database.url)?;
            let store = store::open(url.trim(), &options.owner)
                .map_err(|error| super::rotation_error::store_error(&error, &format!("connecting to {}", database.name)))?;
            places.push(Place {
                name: database.name.clone(),
                store,
            });
        }
        let datasets = datasets
            .into_iter()
            .map(|dataset| {
                let place = databases
                    .iter()
                    .position(|database| database.name == dataset.database)
                    .unwrap_or(0);
                managed_dataset(dataset, place).map_err(at)
            })
            .collect::<Result<_, _>>()?;
        let sessions = sessions_of(&config, with_sessions, context);
        let keyring = keyring.configured(config.keyring.as_ref());
        Ok(Managed {
            unlock: keyring.unlock_existing(context)?,
            keyring: keyring.keyring,
            keyset,
            places,
            datasets,
            // Whoever still has a transaction open is waited for as long as whoever still has the old keys.
            options: Options {
                outlast_max: gates.timeout,
                ..options
            },
            gates,
            backup_horizon: config.policy.backup_horizon,
            now: context.now,
            sessions,
        })
    }

    fn choose(&self, config: &Config) -> Result<KeysetName, CliError> {
        let mut names: Vec<&KeysetName> = config.datasets.iter().map(|dataset| &dataset.keyset).collect();
        names.sort_unstable_by_key(|name| name.as_str());
        names.dedup();
        let listed = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        match (&self.keyset, names.as_slice()) {
            (Some(wanted), names) if names.contains(&wanted) => Ok(wanted.clone()),
            (None, [only]) => Ok((*only).clone()),
            (_, []) => Err(CliError::new(Exit::Unusable, "the configuration has no dataset")
                .next("describe one: [dataset.NAME] with database, table, keyset and columns; or name a --table")),
            (Some(wanted), _) => Err(CliError::new(Exit::Unusable, format!("no dataset has the keyset {wanted}"))
                .next(format!("choose one of: {listed}"))),
            (None, _) => Err(CliError::usage("the configuration has several keysets").next(format!("name one: {listed}"))),
        }
    }
}

/// A reference that leads nowhere matters only when those sessions are to end; one that is not needed is not read.
fn sessions_of(config: &Config, are_needed: bool, context: &mut Context<'_>) -> Vec<ManagedSessions> {
    let sessions = config.sessions.iter().map(|settings| ManagedSessions {
        name: settings.name.clone(),
        store: match are_needed {
            true => store_of(&settings.place, context).map_err(|error| error.what_failed().to_owned()),
            false => Err("the URL was not asked for".to_owned()),
        },
        is_of_tokens: matches!(settings.place, SessionPlace::Tokens { .. }),
        in_scheduled: settings.in_scheduled,
    });
    sessions.collect()
}

fn managed_dataset(dataset: &Dataset, place: usize) -> Result<ManagedDataset, CliError> {
    let columns = dataset.columns.iter().map(|column| {
        let format = column.format.as_deref().map(format::by_name).transpose();
        Ok(ManagedColumn {
            name: column.name.clone(),
            format: format.map_err(|error| {
                CliError::from_error(Exit::Unusable, &error).next(format!("dataset {}, column {}", dataset.name, column.name))
            })?,
            associated_data: column.aad.clone(),
        })
    });
    Ok(ManagedDataset {
        name: dataset.name.clone(),
        place,
        table: dataset.table.clone(),
        columns: columns.collect::<Result<_, CliError>>()?,
        filter: dataset.filter.clone(),
    })
}
