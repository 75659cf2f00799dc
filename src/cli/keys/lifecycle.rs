//! `reseal keys stage|promote|retire|compromise|destroy`: one arrow of a key's life each.

use std::path::PathBuf;

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::view;
use crate::cli::arg::{KeyringArgs, keyset, parse_days, parse_key_id};
use crate::cli::config::{CONFIG_DEFAULT, read_if_there};
use crate::cli::managed::{self, ManagedArgs};
use crate::cli::{CliError, Context, Exit};
use crate::key::{Key, KeyId, KeyState, Keyring, Keyset, KeysetError, KeysetName, OldPrimary, Previous};
use crate::rotation::Options;
use crate::rotation::protocol::{self, Managed};

/// Give a pending key to readers, or give a retired one back to them
#[derive(Args)]
pub struct StageArgs {
    #[command(flatten)]
    which: WhichKey,
}

/// Make a staged key primary: writers seal with it from now on
///
/// The old primary becomes retiring and keeps opening the values under it. Only when every reader has the new key may it be
/// promoted; a retiring key may be promoted again, to undo a rotation.
#[derive(Args)]
pub struct PromoteArgs {
    /// The old primary leaked: it becomes compromised, and applications are no longer given it
    #[arg(long)]
    compromised: bool,

    #[command(flatten)]
    which: WhichKey,
}

/// Take a key from readers, once nothing needs it
///
/// With a configuration that has datasets of the keyset every value of them is opened first, every live instance must have acknowledged,
/// every replica must have replayed what was moved, and no sampled value of another column of those databases may be under the key: while
/// anything needs the key, it is refused, with each reason and its count.
/// Without one nobody checks. The key stays in the keyring and can be staged again.
#[derive(Args)]
pub struct RetireArgs {
    /// The configuration that names the datasets of the keyset [default: reseal.toml, where there is one]
    #[arg(long, value_name = "FILE", env = "RESEAL_CONFIG")]
    config: Option<PathBuf>,

    /// Also while a replica has not replayed the last values that were moved from it; needs a configuration
    #[arg(long)]
    no_replica_check: bool,

    /// Also while columns that no dataset declares hold values under the key, or cannot be looked at: undeclared:TABLE.COLUMN as it was
    /// named, repeat for more; undeclared alone looks at no such column; needs a configuration
    #[arg(long, value_name = "FINDING")]
    accept: Vec<String>,

    #[command(flatten)]
    which: WhichKey,
}

/// Record that a key leaked
#[derive(Args)]
pub struct CompromiseArgs {
    #[command(flatten)]
    which: WhichKey,
}

/// Wipe a retired key for good, leaving its id as a tombstone
///
/// Nothing opens values under it any more, not even those in backups. The .bak file beside the keyring is replaced, too; copies of
/// the keyring elsewhere are yours to destroy.
///
/// With a configuration that has datasets of the keyset every value of them is opened first, every live instance must have let go of the
/// key, every replica must have replayed what was moved, and no sampled value of another column of those databases may be under it: while
/// anything needs it, it is refused, with each reason and its count; and so it is before the configuration's backup_horizon has passed, by the clocks of this machine and of every database. Without one nobody
/// checks but --backup-horizon, by this machine's clock.
#[derive(Args)]
pub struct DestroyArgs {
    /// Yes, wipe it for good
    #[arg(long)]
    yes: bool,

    /// The configuration that names the datasets of the keyset and says how long backups are kept [default: reseal.toml, where there
    /// is one]
    #[arg(long, value_name = "FILE", env = "RESEAL_CONFIG")]
    config: Option<PathBuf>,

    /// How long backups are kept, such as 35d: refuse until that long after the key was retired; never less than the configuration says
    #[arg(long, value_name = "TIME", default_value = "0d", value_parser = parse_days)]
    backup_horizon: SignedDuration,

    /// Also while a replica has not replayed the last values that were moved from it; needs a configuration
    #[arg(long)]
    no_replica_check: bool,

    /// Also while columns that no dataset declares hold values under the key, or cannot be looked at: undeclared:TABLE.COLUMN as it was
    /// named, repeat for more; undeclared alone looks at no such column; needs a configuration
    #[arg(long, value_name = "FINDING")]
    accept: Vec<String>,

    #[command(flatten)]
    which: WhichKey,
}

#[derive(Args)]
struct WhichKey {
    /// The keyset
    keyset: KeysetName,

    /// The key, as `reseal keys list` shows it; may be left out when only one comes into question
    #[arg(value_parser = parse_key_id)]
    key: Option<KeyId>,

    #[command(flatten)]
    keyring: KeyringArgs,
}

/// What a configuration says of giving a key up.
#[derive(Default)]
struct Consulted {
    /// It has datasets of the keyset, whose values are looked at.
    config: Option<PathBuf>,
    backup_horizon: SignedDuration,
}

impl WhichKey {
    /// The configuration that was named, or the one that stands where one works, if it speaks of this keyring. `needs_one` is the option
    /// that says nothing without.
    fn consults(&self, named: Option<PathBuf>, needs_one: Option<&str>) -> Result<Consulted, CliError> {
        let consulted = match named {
            Some(path) => Consulted {
                config: Some(path),
                ..Consulted::default()
            },
            None => self.consults_unasked()?,
        };
        if let (Some(option), None) = (needs_one, &consulted.config) {
            return Err(
                CliError::usage(format!("{option} needs a configuration with datasets of the keyset"))
                    .next("add --config FILE"),
            );
        }
        Ok(consulted)
    }

    fn consults_unasked(&self) -> Result<Consulted, CliError> {
        let path = PathBuf::from(CONFIG_DEFAULT);
        let Some(config) = read_if_there(&path)?.filter(|config| self.keyring.is_of(config)) else {
            return Ok(Consulted::default());
        };
        let has_datasets = config.datasets.iter().any(|dataset| dataset.keyset == self.keyset);
        Ok(Consulted {
            config: has_datasets.then_some(path),
            backup_horizon: config.policy.backup_horizon.unwrap_or_default(),
        })
    }
}

pub(super) fn stage(args: StageArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let candidate = |key: &Key| key.state() == KeyState::Pending;
    change(&args.which, "stage", candidate, Previous::Kept, context, Keyset::stage)
}

pub(super) fn promote(args: PromoteArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let candidate = |key: &Key| key.state() == KeyState::Staged;
    let old = if args.compromised {
        OldPrimary::IsCompromised
    } else {
        OldPrimary::Retires
    };
    change(
        &args.which,
        "promote",
        candidate,
        Previous::Kept,
        context,
        |keyset, id, now| keyset.promote(id, old, now),
    )
}

pub(super) fn retire(args: RetireArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let candidate = |key: &Key| matches!(key.state(), KeyState::Retiring | KeyState::Compromised) && key.retired_at().is_none();
    let Consulted { config, .. } = args
        .which
        .consults(args.config, needs_configuration(args.no_replica_check, &args.accept))?;
    let Some(config) = config else {
        let exit = change(&args.which, "retire", candidate, Previous::Kept, context, Keyset::retire)?;
        context.output.say(
            "Nobody has checked whether values or instances still need it: that takes a configuration with the datasets of the keyset.",
        );
        return Ok(exit);
    };
    let which = args.which;
    let managed = ManagedArgs::of(which.keyset.clone(), config);
    let options = Options {
        replica_check: !args.no_replica_check,
        accepted: args.accept,
        ..Default::default()
    };
    let choose = |keyring: &Keyring| match which.key {
        Some(id) => Ok(id),
        None => only_candidate(keyset(keyring, &which.keyset)?, "retire", candidate),
    };
    let step = async |managed: &Managed, key, progress: &_, stop: &_| protocol::retire(managed, key, progress, stop).await;
    let given_up = managed::retire::run("retire", &managed, &which.keyring, options, choose, step, context)?;
    tell("retire", &which.keyset, given_up, context)
}

/// An option that speaks of what only a look at databases finds.
fn needs_configuration(no_replica_check: bool, accept: &[String]) -> Option<&'static str> {
    match no_replica_check {
        true => Some("--no-replica-check"),
        false => (!accept.is_empty()).then_some("--accept"),
    }
}

fn tell(
    command: &'static str,
    name: &KeysetName,
    given_up: Result<(Keyring, KeyId, PathBuf), Exit>,
    context: &mut Context<'_>,
) -> Result<Exit, CliError> {
    let (keyring, id, path) = match given_up {
        Ok(given_up) => given_up,
        Err(exit) => return Ok(exit),
    };
    let keyset = keyset(&keyring, name)?;
    context.output.say(&view::table(keyset));
    view::document(context, command, &path, &keyring, [keyset], Some(id))?;
    Ok(Exit::Done)
}

pub(super) fn compromise(args: CompromiseArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    // Never guessed: it cannot be undone.
    change(
        &args.which,
        "compromise",
        |_| false,
        Previous::Kept,
        context,
        Keyset::mark_compromised,
    )
}

pub(super) fn destroy(args: DestroyArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    if !args.yes {
        return Err(CliError::new(Exit::Refused, "destroying a key cannot be undone")
            .next("check that no backup needs it, then add --yes"));
    }
    let consulted = args
        .which
        .consults(args.config, needs_configuration(args.no_replica_check, &args.accept))?;
    let horizon = args.backup_horizon.max(consulted.backup_horizon);
    if let Some(config) = consulted.config {
        let which = args.which;
        let managed = ManagedArgs::of(which.keyset.clone(), config);
        let options = Options {
            replica_check: !args.no_replica_check,
            accepted: args.accept,
            ..Default::default()
        };
        let choose = |keyring: &Keyring| match which.key {
            Some(id) => Ok(id),
            // Never guessed: it cannot be undone.
            None => only_candidate(keyset(keyring, &which.keyset)?, "destroy", |_| false),
        };
        let step = async |managed: &Managed, key, progress: &_, stop: &_| {
            protocol::destroy(managed, key, horizon, progress, stop).await
        };
        let given_up = managed::retire::run("destroy", &managed, &which.keyring, options, choose, step, context)?;
        return tell("destroy", &which.keyset, given_up, context);
    }
    change(
        &args.which,
        "destroy",
        |_| false,
        Previous::Forgotten,
        context,
        |keyset, id, now| {
            // Asked again, for instance after a crash: the bytes are gone, and the commit makes sure that .bak has none either.
            if keyset.get(id).is_some_and(|key| key.state() == KeyState::Destroyed) {
                return Ok(());
            }
            keyset.destroy(id, horizon, now)
        },
    )
}

fn change(
    which: &WhichKey,
    command: &'static str,
    candidate: impl Fn(&Key) -> bool,
    previous: Previous,
    context: &mut Context<'_>,
    step: impl FnOnce(&mut Keyset, KeyId, Timestamp) -> Result<(), KeysetError>,
) -> Result<Exit, CliError> {
    let now = (context.now)();
    let mut edit = which.keyring.edit(context)?;
    let id = match which.key {
        Some(id) => id,
        None => only_candidate(keyset(edit.keyring(), &which.keyset)?, command, candidate)?,
    };
    match edit.keyring_mut().keyset_mut(&which.keyset) {
        Some(keyset) => step(keyset, id, now)?,
        // Says which keysets there are.
        None => keyset(edit.keyring(), &which.keyset).map(|_| ())?,
    }
    let keyring = edit.commit(previous)?;
    let keyset = keyset(&keyring, &which.keyset)?;
    context.output.say(&view::table(keyset));
    view::document(context, command, &which.keyring.keyring, &keyring, [keyset], Some(id))?;
    Ok(Exit::Done)
}

fn only_candidate(keyset: &Keyset, command: &str, candidate: impl Fn(&Key) -> bool) -> Result<KeyId, CliError> {
    let ids: Vec<_> = keyset.keys().iter().filter(|key| candidate(key)).map(Key::id).collect();
    match ids.as_slice() {
        [id] => Ok(*id),
        [] => Err(CliError::new(
            Exit::Refused,
            format!("no key of keyset {} can be taken without naming it", keyset.name()),
        )
        .next(format!(
            "reseal keys list {0}, then: reseal keys {command} {0} KEY",
            keyset.name()
        ))),
        several => {
            let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
            Err(CliError::new(
                Exit::Refused,
                format!("keyset {} has several such keys: {}", keyset.name(), ids.join(", ")),
            )
            .next(format!("reseal keys {command} {} {}", keyset.name(), ids[0])))
        }
    }
}
