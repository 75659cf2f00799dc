//! `reseal drill --config`: a rehearsal on the datasets of a staging environment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::arg::KeyringArgs;
use super::drill::{DrillArgs, UNFINISHED, cancel_on_signal, conclude, parse_time};
use super::managed::{ManagedArgs, ask_only};
use super::{CliError, Context, Exit};
use crate::config::Config;
use crate::drill::{Cancel, DrillError, FaultKind, Faults, Staging, rehearse, told_of_staging};
use crate::key::KeysetName;
use crate::rotation::Options;
use crate::rotation::protocol::Managed;

/// A rehearsal on the tables of a staging environment.
#[derive(Args)]
#[command(next_help_heading = "In a staging environment")]
pub struct StagingArgs {
    /// Rotate a keyset of this configuration for good, in a staging environment, while readers and probes watch
    ///
    /// The rotation is the real one (reseal rotate KEYSET), with its gates and the application's own instances; it is killed once and
    /// continued, unless --faults none. One that is open already is not rehearsed any further: exit 4. Readers open existing values with the keys that applications are given; nothing but the rotation
    /// writes to the tables. What writers of the application suffer, only a --probe can tell.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["database", "rows", "writers", "writes_per_second", "sessions", "keep"])]
    config: Option<PathBuf>,

    /// Datasets whose keyset is rotated, with all its datasets [default: the only keyset of the configuration]
    #[arg(value_name = "DATASET", requires = "config")]
    datasets: Vec<String>,

    /// My word that these databases are no production
    #[arg(long, requires = "config")]
    staging_confirmed: bool,

    /// How many instances of the application must acknowledge; 0 for none [default: every live one, and at least one]
    #[arg(long, value_name = "N", requires = "config")]
    expect_instances: Option<u64>,

    /// How long a gate waits for instances
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "config")]
    gate_timeout: Option<Duration>,

    /// Accept a finding by its name, as the rotation in production will have to: trigger:audit, or undeclared:TABLE.COLUMN, say;
    /// repeat for more
    #[arg(long, value_name = "FINDING", requires = "config")]
    accept: Vec<String>,
}

impl StagingArgs {
    /// Whether it is about a staging environment.
    pub fn is_wanted(&self) -> bool {
        self.config.is_some()
    }
}

/// Runs `reseal drill --config`.
pub(super) fn run(args: &DrillArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let wanted = &args.staging;
    let path = wanted.config.clone().unwrap_or_default();
    let config = Config::read(&path)?;
    let keyset = keyset(&config, &wanted.datasets).map_err(|error| error.at(format!("configuration {}", path.display())))?;
    let options = Options {
        owner: "reseal drill".to_owned(),
        accepted: wanted.accept.clone(),
        ..Options::default()
    };
    let managed = ManagedArgs::of(keyset, path.clone()).managed(&KeyringArgs::unsaid(), ask_only(), options, false, context)?;
    refuse_production(&managed, wanted)?;
    let mut gates = Vec::new();
    if let Some(count) = wanted.expect_instances {
        gates.extend(["--expect-instances".to_owned(), count.to_string()]);
    }
    if let Some(time) = wanted.gate_timeout {
        gates.extend(["--gate-timeout".to_owned(), format!("{}s", time.as_secs().max(1))]);
    }
    let staging = Staging {
        managed: Arc::new(managed),
        config: path,
        readers: usize::from(args.readers),
        reads_per_second: f64::from(args.reads_per_second).min(READS_PER_SECOND_MAX),
        duration: args.duration(),
        kills: kills(args.faults.as_ref())?,
        compromised: args.compromised,
        profile: args.profile.profile(),
        gates,
        thresholds: args.thresholds.limits(),
        probes: args.probes.clone(),
        hidden_variables: context.secrets.kept_from_children().to_vec(),
        seed: args.seed(context),
        program: std::env::current_exe()?,
    };
    let cancel = Cancel::default();
    cancel_on_signal(&cancel)?;
    let output = &mut context.output;
    let managed = &staging.managed;
    output.say(&format!(
        "Rehearsing in staging: a rotation of keyset {} ({}) in {}; {} readers (seed {}).",
        managed.keyset,
        managed
            .datasets
            .iter()
            .map(|dataset| dataset.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        managed
            .places
            .iter()
            .map(|place| place.store.describe())
            .collect::<Vec<_>>()
            .join(", "),
        staging.readers,
        staging.seed
    ));
    let begun = (context.now)().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    args.reports.write(&told_of_staging(&staging, Err(UNFINISHED), &begun))?;
    let output = &mut context.output;
    let report = match rehearse(&staging, &cancel, &mut |phase| output.say(&format!("  {phase} …"))) {
        Ok(report) => report,
        Err(error) => {
            args.reports
                .write(&told_of_staging(&staging, Err(&error.to_string()), &begun))?;
            let is_early = matches!(error, DrillError::Planned(_) | DrillError::Unfinished(..));
            let error = CliError::from(error);
            return Err(if is_early { error } else { error.durable(DURABLE) });
        }
    };
    let told = told_of_staging(&staging, Ok(&report), &begun);
    conclude(&args.reports, &told, &report, None, output)
}

/// Whether the rotation is killed: the one harm that is done in staging, where only the rotation is ours. `all` is all that can be done.
fn kills(faults: Option<&Faults>) -> Result<bool, CliError> {
    let Some(faults) = faults.filter(|faults| **faults != Faults::of(FaultKind::ALL)) else {
        return Ok(true);
    };
    let others = faults.clone().without(FaultKind::Kill);
    if others == Faults::of([]) {
        return Ok(faults.contains(FaultKind::Kill));
    }
    Err(CliError::usage(format!(
        "{others} cannot be done in a staging environment, where only the rotation is the drill's own"
    ))
    .next("--faults kill, or none; the other kinds are rehearsed without --config"))
}

/// The one keyset of these datasets.
fn keyset(config: &Config, datasets: &[String]) -> Result<KeysetName, CliError> {
    let mut keysets: Vec<&KeysetName> = Vec::new();
    for name in datasets {
        let known = config.datasets.iter().find(|dataset| dataset.name == *name);
        let known = known.ok_or_else(|| {
            let names: Vec<&str> = config.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
            CliError::new(Exit::Unusable, format!("there is no dataset {name}"))
                .next(format!("choose of: {}", names.join(", ")))
        })?;
        keysets.push(&known.keyset);
    }
    if datasets.is_empty() {
        keysets.extend(config.datasets.iter().map(|dataset| &dataset.keyset));
    }
    keysets.sort_unstable_by_key(|keyset| keyset.as_str());
    keysets.dedup();
    match keysets.as_slice() {
        [only] => Ok((*only).clone()),
        [] => Err(CliError::new(Exit::Unusable, "the configuration has no dataset")
            .next("describe one: [dataset.NAME] with database, table, keyset and columns")),
        several => {
            let names: Vec<&str> = several.iter().map(|keyset| keyset.as_str()).collect();
            Err(
                CliError::usage(format!("these are datasets of several keysets: {}", names.join(", ")))
                    .next("name datasets of one keyset, and rehearse the others after it"),
            )
        }
    }
}

/// A rehearsal rotates for good. Nobody shall do that to a production by mistake.
fn refuse_production(managed: &Managed, wanted: &StagingArgs) -> Result<(), CliError> {
    let places: Vec<String> = managed.places.iter().map(|place| place.store.describe()).collect();
    let paths = [wanted.config.as_deref(), Some(managed.keyring.as_path())];
    let paths = paths.into_iter().flatten().filter_map(|path| path.file_name());
    let names = places
        .iter()
        .cloned()
        .chain(paths.map(|name| name.to_string_lossy().into_owned()));
    if let Some(name) = names.into_iter().find(|name| looks_like_production(name)) {
        return Err(CliError::new(
            Exit::Refused,
            format!("{name} is called like a production, and a rehearsal rotates for good"),
        )
        .touched_nothing()
        .next("rehearse on a copy that is not called so"));
    }
    if wanted.staging_confirmed {
        return Ok(());
    }
    Err(CliError::new(
        Exit::Refused,
        format!(
            "nobody confirmed that {} is a staging environment, and a rehearsal rotates for good",
            places.join(", ")
        ),
    )
    .touched_nothing()
    .next("see what would happen with reseal plan; then add --staging-confirmed"))
}

/// Whether a word of the name says so.
fn looks_like_production(name: &str) -> bool {
    let words = name.split(|c: char| !c.is_ascii_alphabetic());
    words
        .map(str::to_ascii_lowercase)
        .any(|word| PRODUCTION.contains(&word.as_str()))
}

const PRODUCTION: [&str; 4] = ["prod", "production", "prd", "live"];
/// For each reader: a staging database has users of its own.
const READS_PER_SECOND_MAX: f64 = 50.0;
const DURABLE: &str = "whatever the rotation had done: see reseal status";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_into_words() {
        for name in [
            "db-prod-3.example.org/app",
            "/srv/app_production.db",
            "PROD",
            "live.example.org",
        ] {
            assert!(looks_like_production(name), "{name}");
        }
        for name in ["staging.example.org/products", "/srv/delivery.db", "alive"] {
            assert!(!looks_like_production(name), "{name}");
        }
    }
}
