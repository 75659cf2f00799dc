//! `reseal keys check`: for cron and CI, whether a key is due.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::sealed::{Sealed, Tallies};
use crate::cli::arg::{KeyringArgs, keyset};
use crate::cli::config::CONFIG_DEFAULT;
use crate::cli::max_age::{MaxAgeArgs, describe};
use crate::cli::{CliError, Context, Exit};
use crate::key::{Age, Key, KeyId, KeyState, Keyset, KeysetName};

/// Check that no key is older, or has sealed more, than it may; exit 7 when one has
///
/// Looked at are the primary key of each keyset, counted from its making, and keys that no longer seal, counted from when they were
/// replaced: a rotation that never ended. A primary whose age nobody knows is a finding, too: an imported key may be of any age.
///
/// AES-GCM bounds how many values a key may seal (2^32). Applications that use the crate and rotations count them in a file beside
/// the keyring, which processes may share. Copies of the keyring on other hosts have files of their own: add them with --seals. What
/// other libraries seal is not counted.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Only these keysets
    #[arg(value_name = "KEYSET")]
    keysets: Vec<KeysetName>,

    #[command(flatten)]
    limit: MaxAgeArgs,

    /// Add the seals that were counted beside another copy of the keyring (reseal.keyring.seals); repeat for more
    #[arg(long, value_name = "FILE")]
    seals: Vec<PathBuf>,

    #[command(flatten)]
    keyring: KeyringArgs,
}

#[derive(Serialize)]
struct CheckDocument<'a> {
    command: &'static str,
    keyring: String,
    generation: u64,
    max_age_seconds: i64,
    keysets: Vec<PrimaryView<'a>>,
    findings: Vec<Finding<'a>>,
    exit: u8,
}

#[derive(Serialize)]
struct PrimaryView<'a> {
    name: &'a str,
    primary: KeyId,
    age_seconds: Option<i64>,
    age_known: bool,
    /// How many values it has sealed, where that is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    seals_counted: Option<Sealed>,
}

/// One thing that is not as the policy wants it.
#[derive(Serialize)]
struct Finding<'a> {
    keyset: &'a str,
    key: KeyId,
    finding: &'static str,
    what: String,
    age_seconds: Option<i64>,
    next: String,
}

pub(super) fn run(args: CheckArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let max_age = args.limit.for_keys()?;
    let now = (context.now)();
    let keyring = args.keyring.open(context)?;
    let tallies = Tallies::read(&args.keyring.keyring, &args.seals)?;
    let keysets: Vec<&Keyset> = if args.keysets.is_empty() {
        keyring.keysets().iter().collect()
    } else {
        let chosen = args.keysets.iter().map(|name| keyset(&keyring, name));
        chosen.collect::<Result<_, _>>()?
    };
    if keysets.is_empty() {
        // Nothing was checked: that must not look like a pass.
        return Err(
            CliError::new(Exit::Unusable, "the keyring holds no keysets: there is nothing to check")
                .at(format!("keyring {}", args.keyring.keyring.display()))
                .next("reseal keys generate KEYSET"),
        );
    }
    let advice = Advice::of(&args);
    let judge = |keyset| {
        let aged = findings(keyset, max_age, now, &advice);
        aged.into_iter().chain(worn(keyset, &tallies, &advice)).collect::<Vec<_>>()
    };
    let findings: Vec<Finding<'_>> = keysets.iter().flat_map(|keyset| judge(keyset)).collect();
    let exit = if findings.is_empty() { Exit::Done } else { Exit::Findings };
    for keyset in &keysets {
        if !findings.iter().any(|finding| finding.keyset == keyset.name().as_str()) {
            let age = keyset.primary().age(now).duration().unwrap_or_default();
            context.output.say(&format!(
                "{}: primary key {} is {} old, {} at most.",
                keyset.name(),
                keyset.primary().id(),
                describe(age),
                describe(max_age)
            ));
        }
    }
    for finding in &findings {
        context.output.say(&format!("{}: {}", finding.keyset, finding.what));
        context.output.say(&format!("     next: {}", finding.next));
    }
    let document = CheckDocument {
        command: "check",
        keyring: args.keyring.keyring.display().to_string(),
        generation: keyring.generation(),
        max_age_seconds: max_age.as_secs(),
        keysets: keysets.iter().map(|keyset| PrimaryView::of(keyset, &tallies, now)).collect(),
        findings,
        exit: exit.code(),
    };
    context.output.document("reseal.keys/1", &document)?;
    Ok(exit)
}

impl<'a> PrimaryView<'a> {
    fn of(keyset: &'a Keyset, tallies: &Tallies, now: Timestamp) -> Self {
        let age = keyset.primary().age(now);
        Self {
            name: keyset.name().as_str(),
            primary: keyset.primary().id(),
            age_seconds: age.duration().map(|age| age.as_secs()),
            age_known: matches!(age, Age::Known(_)),
            seals_counted: tallies.of(keyset.primary()),
        }
    }
}

fn findings<'a>(keyset: &'a Keyset, max_age: SignedDuration, now: Timestamp, advice: &Advice) -> Vec<Finding<'a>> {
    let primary = keyset.primary();
    let age = primary.age(now);
    let judged = match age {
        Age::Known(age) if age <= max_age => None,
        Age::Known(age) => Some((
            "overdue",
            format!(
                "primary key {} is {} old, {} at most",
                primary.id(),
                describe(age),
                describe(max_age)
            ),
        )),
        Age::AtLeast(age) if age > max_age => Some((
            "overdue",
            format!(
                "primary key {} was imported {} ago and is older than that, {} at most",
                primary.id(),
                describe(age),
                describe(max_age)
            ),
        )),
        Age::AtLeast(age) => Some((
            "age-unknown",
            format!(
                "primary key {} was imported {} ago; how old it was then is not known",
                primary.id(),
                describe(age)
            ),
        )),
        Age::Unknown => Some((
            "age-unknown",
            format!(
                "primary key {} was made in the future, says its record: this clock is wrong, or the one of its making was",
                primary.id()
            ),
        )),
    };
    let mut found: Vec<Finding<'_>> = judged
        .map(|(finding, what)| Finding {
            keyset: keyset.name().as_str(),
            key: primary.id(),
            finding,
            what,
            age_seconds: age.duration().map(|age| age.as_secs()),
            next: advice.successor(keyset),
        })
        .into_iter()
        .collect();
    for key in keyset.keys() {
        let Some(retiring) = key.retiring_for(now).filter(|retiring| *retiring > max_age) else {
            continue;
        };
        found.push(Finding {
            keyset: keyset.name().as_str(),
            key: key.id(),
            finding: "unfinished",
            what: format!(
                "key {} was replaced {} ago, and applications are still given it",
                key.id(),
                describe(retiring)
            ),
            age_seconds: Some(retiring.as_secs()),
            next: advice.retirement(keyset, key.id()),
        });
    }
    found
}

/// Whether the primary has sealed so much that a successor is due.
fn worn<'a>(keyset: &'a Keyset, tallies: &Tallies, advice: &Advice) -> Option<Finding<'a>> {
    let primary = keyset.primary();
    let sealed = tallies.of(primary)?;
    let counted = sealed.counted.filter(|counted| *counted >= sealed.warned_at)?;
    let (finding, rest) = if counted >= sealed.refused_at {
        ("exhausted", "it seals no more".to_owned())
    } else {
        ("worn", format!("from {} on it seals no more", sealed.refused_at))
    };
    let what = format!("primary key {} has sealed {counted} values: {rest}", primary.id());
    Some(Finding {
        keyset: keyset.name().as_str(),
        key: primary.id(),
        finding,
        what,
        age_seconds: None,
        next: advice.successor(keyset),
    })
}

/// What to do about a key. Where a configuration says what is sealed with it, a rotation does all of it in its order, and waits at its
/// gates; a command for one key alone would pass them by.
struct Advice {
    /// Keysets that have datasets.
    managed: Vec<KeysetName>,
    /// How commands are led to the configuration, where they do not find it by themselves.
    config: String,
}

impl Advice {
    /// By the configuration, if there is one that can be read and speaks of this keyring.
    fn of(args: &CheckArgs) -> Self {
        let path = args.limit.config.path();
        let config = args.limit.config.read_if_there().ok().flatten();
        let config = config.filter(|config| args.keyring.is_of(config));
        Self {
            managed: config.map_or_else(Vec::new, |config| {
                config.datasets.into_iter().map(|dataset| dataset.keyset).collect()
            }),
            config: match path == Path::new(CONFIG_DEFAULT) {
                true => String::new(),
                false => format!(" --config {}", path.display()),
            },
        }
    }

    /// How the primary gets a successor: there may be one waiting.
    fn successor(&self, keyset: &Keyset) -> String {
        let name = keyset.name();
        if self.managed.contains(name) {
            return format!("reseal rotate {name}{}", self.config);
        }
        let waits = |state| {
            keyset
                .keys()
                .iter()
                .find(|key: &&Key| key.state() == state && key.retired_at().is_none())
        };
        if let Some(staged) = waits(KeyState::Staged) {
            format!("reseal keys promote {name} {}", staged.id())
        } else if let Some(pending) = waits(KeyState::Pending) {
            format!("reseal keys stage {name} {}", pending.id())
        } else {
            format!("reseal keys generate {name}")
        }
    }

    /// How a key that no longer seals leaves the applications.
    fn retirement(&self, keyset: &Keyset, key: KeyId) -> String {
        let name = keyset.name();
        if self.managed.contains(name) {
            let config = &self.config;
            return format!("reseal verify {name}{config}, then: reseal keys retire {name} {key}{config}");
        }
        format!("reseal verify, then: reseal keys retire {name} {key}")
    }
}

const EXAMPLES: &str = "\
Examples:
  reseal keys check --max-age 90d
  reseal keys check customer-data --config /etc/app/reseal.toml --json";
