//! `reseal secrets rotate`: new values where applications read them.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::config::ConfigArgs;
use crate::cli::{CliError, Context, Exit};
use crate::config::Config;
use crate::secret::{
    FieldError, FileFault, Occasion, Record, RecordFault, RotateError, RotateFault, Rotated, SecretSettings, Surroundings,
    rotate,
};

/// Give secrets of the configuration new values, where their applications read them
///
/// [secret.NAME] in reseal.toml says what a secret looks like and where it goes: a variable of an env file, a key of a Kubernetes
/// Secret manifest, a systemd credential, or a command that takes it on standard input. In files everything else stays byte for
/// byte; the version before is kept as .bak.
///
/// In a scheduled rotation the old value stays acceptable where the configuration says so (previous = "SECRET_KEY_FALLBACKS", or
/// list = true). With --compromised no old value stays. The applications must read the new values afterwards: restart them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RotateArgs {
    /// The secrets, by their names in the configuration
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// The old values leaked: keep none of them
    #[arg(long)]
    compromised: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Serialize)]
struct RotateDocument<'a> {
    command: &'static str,
    compromised: bool,
    secrets: Vec<RotatedView<'a>>,
}

#[derive(Serialize)]
struct RotatedView<'a> {
    name: &'a str,
    place: &'a str,
    old_values_accepted: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
}

pub(super) fn run(args: RotateArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let config = args.config.read()?;
    let secrets = chosen(&config, &args.names)?;
    let occasion = if args.compromised {
        Occasion::Compromised
    } else {
        Occasion::Scheduled
    };
    args.confirm(&secrets, context)?;
    let around = surroundings(&config, context);
    let rotated = rotate(&secrets, occasion, &around).map_err(|error| failure(error, context))?;
    tell(&rotated, context);
    let document = RotateDocument {
        command: "rotate",
        compromised: args.compromised,
        secrets: rotated.iter().map(RotatedView::of).collect(),
    };
    context.output.document("reseal.secrets/1", &document)?;
    Ok(Exit::Done)
}

/// The secrets of these names, each once.
pub(super) fn chosen<'a>(config: &'a Config, names: &[String]) -> Result<Vec<&'a SecretSettings>, CliError> {
    let mut secrets: Vec<&SecretSettings> = Vec::new();
    for name in names {
        let known = config.secrets.iter().find(|secret| secret.name == *name);
        let secret = known.ok_or_else(|| {
            let names: Vec<_> = config.secrets.iter().map(|secret| secret.name.as_str()).collect();
            let there_is = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            CliError::usage("there is no secret of that name in the configuration")
                .at(format!("configuration {}", config.path.display()))
                .next(format!("choose one of: {there_is}"))
        })?;
        if secrets.iter().any(|chosen| chosen.name == secret.name) {
            return Err(CliError::usage(format!("{name} is named twice")));
        }
        secrets.push(secret);
    }
    Ok(secrets)
}

/// What rotations and checks of secrets have around them.
pub(super) fn surroundings(config: &Config, context: &Context<'_>) -> Surroundings {
    Surroundings {
        lock_wait: LOCK_WAIT,
        command_timeout: COMMAND_TIMEOUT,
        kept_from_children: context.secrets.kept_from_children().to_vec(),
        record: Record::beside(&config.path),
        now: (context.now)(),
    }
}

impl RotateArgs {
    /// On a terminal a person is asked; elsewhere naming the secrets is consent, and --yes is accepted for scripts that always pass it.
    fn confirm(&self, secrets: &[&SecretSettings], context: &mut Context<'_>) -> Result<(), CliError> {
        if self.yes || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        let names: Vec<_> = secrets.iter().map(|secret| secret.name.as_str()).collect();
        let fate = if self.compromised {
            "No old value stays acceptable"
        } else {
            "Old values stay acceptable where the configuration says so"
        };
        context
            .output
            .say(&format!("New values for {}. {fate}. Type yes to go on:", names.join(", ")));
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() == "yes" {
            Ok(())
        } else {
            Err(CliError::new(Exit::Refused, "not confirmed; nothing was written"))
        }
    }
}

impl<'a> RotatedView<'a> {
    fn of(rotated: &'a Rotated) -> Self {
        Self {
            name: &rotated.name,
            place: &rotated.place,
            old_values_accepted: rotated.old_values,
            kid: rotated.kid.as_deref(),
            backup: rotated.backup.as_ref().map(|path| path.display().to_string()),
        }
    }
}

fn tell(rotated: &[Rotated], context: &mut Context<'_>) {
    for one in rotated {
        let old = match one.old_values {
            0 => "no old value is accepted".to_owned(),
            1 => "one old value is still accepted".to_owned(),
            more => format!("{more} old values are still accepted"),
        };
        context
            .output
            .say(&format!("{}: new value in {}; {old}.", one.name, one.place));
        if let Some(kid) = &one.kid {
            context.output.say(&format!("  Its key id is {kid}."));
        }
        if let Some(backup) = &one.backup {
            let backup = backup.display();
            context.output.say(&format!(
                "  The version before, with the old value, is {backup}: remove it when nothing needs it."
            ));
        }
        if let Some(mode) = one.mode_lost {
            context.output.say(&format!(
                "  The file had mode {mode:04o} and has 0600 now: an application that runs as another user cannot read it."
            ));
        }
    }
}

fn failure(error: RotateError, context: &mut Context<'_>) -> CliError {
    tell(&error.done, context);
    let (exit, next) = match &error.fault {
        RotateFault::Generate(_) => (Exit::Unusable, ""),
        RotateFault::File(fault) => file_fault(fault),
        RotateFault::Field(FieldError::Missing(_)) => {
            (Exit::Refused, "add the variable with an empty value, or correct its name")
        }
        RotateFault::Field(FieldError::Twice(_)) => (Exit::Refused, "leave one of them"),
        RotateFault::Field(_) | RotateFault::List(_) => (
            Exit::Refused,
            "write the value in single quotes, or rotate without keeping the old value",
        ),
        RotateFault::KeySet => (
            Exit::Refused,
            "name another file with jwks = \"…\"; it must hold public keys only",
        ),
        RotateFault::Child(_) => (Exit::Unusable, "run the command by hand, then run this again"),
        RotateFault::Record { fault, .. } => record_fault(fault),
    };
    let done: Vec<_> = error.done.iter().map(|rotated| rotated.name.as_str()).collect();
    let durable = if done.is_empty() {
        "all secrets as they were".to_owned()
    } else {
        format!("new values of {}", done.join(", "))
    };
    let failure = CliError::from_error(exit, &error.fault).at(format!("secret {}, {}", error.name, error.place));
    let failure = if exit == Exit::Integrity {
        failure
    } else {
        failure.durable(durable)
    };
    if next.is_empty() { failure } else { failure.next(next) }
}

pub(super) fn record_fault(fault: &RecordFault) -> (Exit, &'static str) {
    match fault {
        RecordFault::File(fault) => file_fault(fault),
        RecordFault::Shape => (
            Exit::Unusable,
            "look at the file; moved away, it begins anew, and the ages of secrets are unknown until they are rotated",
        ),
        RecordFault::Random => (Exit::Unusable, ""),
    }
}

fn file_fault(fault: &FileFault) -> (Exit, &'static str) {
    use crate::key::{LockFault, ReplaceFault};
    match fault {
        FileFault::Missing => (Exit::Unusable, "correct the path in the configuration, or make the file"),
        FileFault::Folder(_) | FileFault::Read(_) => (Exit::Unusable, ""),
        FileFault::Lock(LockFault::Held { .. }) => (Exit::Conflict, "wait until it has finished, then run the command again"),
        FileFault::Lock(_) => (Exit::Unusable, ""),
        FileFault::Replace(ReplaceFault::Changed | ReplaceFault::Exists) => (Exit::Conflict, "run the command again"),
        FileFault::Replace(ReplaceFault::Before { .. }) => (Exit::Unusable, "check the folder, its rights and its free space"),
        FileFault::Replace(ReplaceFault::NotDurable { .. }) => (Exit::Integrity, "check the disk and the file"),
    }
}

/// How long another writer of a file is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Long enough for a secret store far away.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  reseal secrets rotate SECRET_KEY ENCRYPTION_KEYS
  reseal secrets rotate SECRET_KEY --compromised --yes --json";
