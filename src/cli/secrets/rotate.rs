//! `reseal secrets rotate`: new values where applications read them.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::config::ConfigArgs;
use crate::cli::{CliError, Context, Exit};
use crate::config::Config;
use crate::secret::{
    FieldError, FileFault, Occasion, OrderFault, Record, RecordFault, RotateError, RotateFault, Rotated, SecretSettings,
    Surroundings, rotate,
};

/// Give secrets of the configuration new values, where their applications read them
///
/// [secret.NAME] in reseal.toml says what a secret looks like and where it goes: a variable of an env file, a key of a Kubernetes
/// Secret manifest, a systemd credential, or a command that takes it on standard input. In files everything else stays byte for
/// byte; the version before is kept as .bak.
///
/// In a scheduled rotation the old value stays acceptable where the configuration says so (previous = "SECRET_KEY_FALLBACKS", or
/// list = true). With --compromised no old value stays. The applications must read the new values afterwards: restart them.
///
/// Where several instances are restarted one after the other, an old one would meet what a new one has signed with a value that it
/// has not got, and refuse it. There a rotation has three steps, each with a restart of every instance behind it: --introduce (the
/// new value is accepted and signs nothing), --promote (it signs, the old one is still accepted), and, when nothing signed with
/// the old one lives any more, --retire (the old one is refused). Each may be repeated; the wrong one is refused.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RotateArgs {
    /// The secrets, by their names in the configuration
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// First step of three: make the new value, and let it be accepted; it signs nothing yet
    #[arg(long, group = "step", conflicts_with = "compromised")]
    introduce: bool,

    /// Second step: sign with the introduced value; the old one stays accepted
    #[arg(long, group = "step", conflicts_with = "compromised")]
    promote: bool,

    /// Last step: let old values no longer be accepted
    #[arg(long, group = "step", conflicts_with = "compromised")]
    retire: bool,

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
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    secrets: Vec<RotatedView<'a>>,
}

#[derive(Serialize)]
struct RotatedView<'a> {
    name: &'a str,
    place: &'a str,
    changed: bool,
    old_values_accepted: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
}

pub(super) fn run(args: RotateArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let config = args.config.read()?;
    let secrets = chosen(&config, &args.names)?;
    let occasion = args.occasion();
    args.confirm(&secrets, context)?;
    let around = surroundings(&config, context);
    let rotated = rotate(&secrets, occasion, &around).map_err(|error| failure(error, occasion, context))?;
    tell(&rotated, occasion, context);
    let document = RotateDocument {
        command: "rotate",
        compromised: args.compromised,
        step: args.is_step().then(|| occasion.as_str()),
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
    fn is_step(&self) -> bool {
        self.introduce || self.promote || self.retire
    }

    fn occasion(&self) -> Occasion {
        match (self.compromised, self.introduce, self.promote, self.retire) {
            (true, ..) => Occasion::Compromised,
            (_, true, ..) => Occasion::Introduce,
            (_, _, true, _) => Occasion::Promote,
            (.., true) => Occasion::Retire,
            _ => Occasion::Scheduled,
        }
    }

    /// On a terminal a person is asked; elsewhere naming the secrets is consent, and --yes is accepted for scripts that always pass it.
    fn confirm(&self, secrets: &[&SecretSettings], context: &mut Context<'_>) -> Result<(), CliError> {
        if self.yes || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        let names: Vec<_> = secrets.iter().map(|secret| secret.name.as_str()).collect();
        let names = names.join(", ");
        let what = match self.occasion() {
            Occasion::Compromised => format!("New values for {names}. No old value stays acceptable"),
            Occasion::Scheduled => {
                format!("New values for {names}. Old values stay acceptable where the configuration says so")
            }
            Occasion::Introduce => format!("New values for {names} are accepted and sign nothing yet"),
            Occasion::Promote => {
                format!("{names}: the introduced values sign. Does every instance accept them, by a restart since?")
            }
            Occasion::Retire => {
                format!("{names}: old values are refused from now on, and whatever was signed or sealed with them")
            }
        };
        context.output.say(&format!("{what}. Type yes to go on:"));
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
            changed: rotated.is_changed,
            old_values_accepted: rotated.old_values,
            kid: rotated.kid.as_deref(),
            backup: rotated.backup.as_ref().map(|path| path.display().to_string()),
        }
    }
}

fn tell(rotated: &[Rotated], occasion: Occasion, context: &mut Context<'_>) {
    for one in rotated {
        if !one.is_changed {
            context
                .output
                .say(&format!("{}: done before in {}; nothing was written.", one.name, one.place));
            continue;
        }
        let old = match one.old_values {
            0 => "no old value is accepted".to_owned(),
            1 => "one old value is still accepted".to_owned(),
            more => format!("{more} old values are still accepted"),
        };
        let (name, place) = (&one.name, &one.place);
        context.output.say(&match occasion {
            Occasion::Scheduled | Occasion::Compromised => format!("{name}: new value in {place}; {old}."),
            Occasion::Introduce => format!(
                "{name}: a new value in {place} is accepted and signs nothing. Restart every instance; then reseal secrets rotate {name} --promote."
            ),
            Occasion::Promote => format!(
                "{name}: the new value in {place} signs; {old}. Restart every instance; when nothing signed with the old one lives any more, reseal secrets rotate {name} --retire."
            ),
            Occasion::Retire => format!("{name}: no old value in {place} is accepted. Restart every instance."),
        });
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

fn failure(error: RotateError, occasion: Occasion, context: &mut Context<'_>) -> CliError {
    tell(&error.done, occasion, context);
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
        RotateFault::Order(fault) => (Exit::Refused, order_fault(*fault)),
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

fn order_fault(fault: OrderFault) -> &'static str {
    match fault {
        OrderFault::NotIntroduced => {
            "introduce one with --introduce, restart every instance, then run this; an application of one process needs no steps"
        }
        OrderFault::Waiting => "restart every instance, then run --promote; or leave it behind with --compromised",
        OrderFault::OneValueOnly => {
            "configure previous = \"NAME\" or list = true, if the application can read it; or rotate in one step"
        }
        OrderFault::NoSteps => "if it reads RESEAL_STEP (introduce, promote, retire), say steps = true; or rotate in one step",
    }
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

  With several instances, each restarted after each step:
    reseal secrets rotate SECRET_KEY --introduce
    reseal secrets rotate SECRET_KEY --promote
    reseal secrets rotate SECRET_KEY --retire

  reseal secrets rotate SECRET_KEY --compromised --yes --json";
