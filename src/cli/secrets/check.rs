//! `reseal secrets check`: for cron and CI, whether a secret is due.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::rotate::{chosen, record_fault, surroundings};
use crate::cli::max_age::{MaxAgeArgs, describe, no_limit};
use crate::cli::{CliError, Context, Exit};
use crate::secret::{Record, SecretAge, SecretSettings, Surroundings, Unfinished, age, unfinished};

/// Check that no secret is older than it may be; exit 7 when one is
///
/// `secrets rotate` records when it wrote a value, with a salted digest of it, in a file beside the configuration
/// (reseal.secrets.json). A secret is as old as the entry of the value that its application reads now. A value that no rotation
/// wrote, or that was replaced and is back, is a finding whatever its file's time says; so is a secret that was never rotated.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Only these secrets, by their names in the configuration
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    limit: MaxAgeArgs,
}

#[derive(Serialize)]
struct CheckDocument<'a> {
    command: &'static str,
    record: String,
    secrets: Vec<SecretView<'a>>,
    findings: Vec<Finding<'a>>,
    exit: u8,
}

#[derive(Serialize)]
struct SecretView<'a> {
    name: &'a str,
    age_seconds: Option<i64>,
    max_age_seconds: i64,
    /// Whether the value that was seen is the one that the age speaks of.
    confirmed: bool,
    /// A rotation in steps that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<UnfinishedView>,
}

#[derive(Serialize)]
struct UnfinishedView {
    step: &'static str,
    introduced_at: Timestamp,
    next: String,
}

/// One thing that is not as the policy wants it.
#[derive(Serialize)]
struct Finding<'a> {
    secret: &'a str,
    finding: &'static str,
    what: String,
    age_seconds: Option<i64>,
    next: String,
}

pub(super) fn run(args: CheckArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let config = args.limit.config.read()?;
    let secrets: Vec<&SecretSettings> = if args.names.is_empty() {
        config.secrets.iter().collect()
    } else {
        chosen(&config, &args.names)?
    };
    if secrets.is_empty() {
        // Nothing was checked: that must not look like a pass.
        return Err(CliError::new(
            Exit::Unusable,
            "the configuration names no secrets: there is nothing to check",
        )
        .at(format!("configuration {}", config.path.display()))
        .next("describe them in [secret.NAME]"));
    }
    let around = surroundings(&config, context);
    let record = Record::read(&around.record).map_err(|fault| {
        let (exit, next) = record_fault(&fault);
        let failure = CliError::from_error(exit, &fault).at(format!("record of secrets {}", around.record.display()));
        if next.is_empty() { failure } else { failure.next(next) }
    })?;
    let mut views = Vec::new();
    let mut findings = Vec::new();
    for secret in secrets {
        let limit = args.limit.max_age.or(secret.max_age);
        let max_age = limit.ok_or_else(|| no_limit(&format!("secret {}", secret.name), &config.path))?;
        let judged = check(secret, &record, max_age, &around);
        match judged.1 {
            Some(finding) => {
                context.output.say(&format!("{}: {}", secret.name, finding.what));
                context.output.say(&format!("     next: {}", finding.next));
                findings.push(finding);
            }
            None => context.output.say(&format!(
                "{}: {} old, {} at most.",
                secret.name,
                judged.0.duration().map_or_else(String::new, describe),
                describe(max_age)
            )),
        }
        let unfinished = unfinished(secret, &record, &around).map(|unfinished| UnfinishedView::of(&secret.name, unfinished));
        if let Some(unfinished) = &unfinished {
            context.output.say(&unfinished.sentence(&secret.name));
        }
        views.push(SecretView {
            name: &secret.name,
            age_seconds: judged.0.duration().map(|age| age.as_secs()),
            max_age_seconds: max_age.as_secs(),
            unfinished,
            confirmed: matches!(judged.0, SecretAge::Known(_) | SecretAge::PutBack(_)),
        });
    }
    let exit = if findings.is_empty() { Exit::Done } else { Exit::Findings };
    let document = CheckDocument {
        command: "check",
        record: around.record.display().to_string(),
        secrets: views,
        findings,
        exit: exit.code(),
    };
    context.output.document("reseal.secrets/1", &document)?;
    Ok(exit)
}

impl UnfinishedView {
    fn of(name: &str, unfinished: Unfinished) -> Self {
        let (step, introduced_at, flag) = match unfinished {
            Unfinished::Introduced(at) => ("introduce", at, "--promote"),
            Unfinished::Promoted(at) => ("promote", at, "--retire"),
        };
        Self {
            step,
            introduced_at,
            next: format!("reseal secrets rotate {name} {flag}"),
        }
    }

    fn sentence(&self, name: &str) -> String {
        let stands = match self.step {
            "introduce" => "its new value is accepted and signs nothing yet",
            _ => "its new value signs, and old ones are still accepted",
        };
        format!(
            "{name}: a rotation is under way, begun at {}: {stands}; next: {}",
            self.introduced_at, self.next
        )
    }
}

fn check<'a>(
    secret: &'a SecretSettings,
    record: &Record,
    max_age: SignedDuration,
    around: &Surroundings,
) -> (SecretAge, Option<Finding<'a>>) {
    let age = age(secret, record, around.now, around);
    let rotate = format!("reseal secrets rotate {}", secret.name);
    let judged = match &age {
        SecretAge::Known(old) | SecretAge::Delivered(old) if *old <= max_age => None,
        SecretAge::Known(old) | SecretAge::Delivered(old) => Some((
            "overdue",
            format!("{} old, {} at most", describe(*old), describe(max_age)),
            rotate,
        )),
        SecretAge::PutBack(old) => Some((
            "put-back",
            format!(
                "a value from {} ago stands there, which was replaced since: an old file was put back",
                describe(*old)
            ),
            format!("{rotate}; with --compromised if that value had leaked"),
        )),
        SecretAge::Stranger => Some((
            "age-unknown",
            "no rotation wrote the value that stands there: it was edited by hand, or comes from elsewhere".to_owned(),
            rotate,
        )),
        SecretAge::NeverRotated => Some((
            "age-unknown",
            "no rotation of it is on record: how old it is nobody knows".to_owned(),
            rotate,
        )),
        SecretAge::Absent => Some(("absent", "there is no value".to_owned(), rotate)),
        SecretAge::Future => Some((
            "age-unknown",
            "it was written in the future, says its record: this clock is wrong, or the one of its writing was".to_owned(),
            "compare the clock, then run the command again".to_owned(),
        )),
        SecretAge::Unreadable(fault) => Some((
            "unreadable",
            format!("the value cannot be read: {fault}"),
            "correct the place in the configuration, or make it readable".to_owned(),
        )),
    };
    let finding = judged.map(|(finding, what, next)| Finding {
        secret: &secret.name,
        finding,
        what,
        age_seconds: age.duration().map(|age| age.as_secs()),
        next,
    });
    (age, finding)
}

const EXAMPLES: &str = "\
Examples:
  reseal secrets check --max-age 90d
  reseal secrets check SECRET_KEY --config /etc/app/reseal.toml --json";
