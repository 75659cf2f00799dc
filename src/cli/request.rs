//! `reseal pause`, `resume`, `throttle` and `abort`: what operators ask of a rotation that is under way, from whatever machine.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::selection::DatabaseArg;
use super::tuning::{self, ProfileArg, Unanswered};
use super::{CliError, Context, Exit};
use crate::store::Control;
use crate::store::control::{Plan, PlanStatus};
use crate::store::ledger::request::{Asked, Order, Request, Requests, Subject};
use crate::store::ledger::rotation::{RotationRecord, Rotations};
use crate::store::ledger::running::Runs;

/// Let a rotation wait: its batches at hand are finished, and no other begins until reseal resume
///
/// Nothing is held meanwhile, neither a lock on rows nor a transaction. The pause stands in the database: a run that is started while it
/// stands waits as well. Ctrl-C ends a run that waits (exit code 5); a run that has waited for a day ends by itself. Where nobody runs the
/// rotation at this moment, nothing is asked (exit code 4).
#[derive(Args)]
pub struct PauseArgs {
    #[command(flatten)]
    which: Which,
}

/// Let a paused rotation go on
#[derive(Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,
}

/// Let a rotation go slower, or in another profile, from its next batch on
///
/// What is asked replaces what was asked before, and stands in the database, for later runs too, until --off takes it away. The limit
/// counts rows that are rewritten, of all workers together; verification scans only read and are not limited. Where nobody runs the
/// rotation at this moment, nothing is asked (exit code 4).
#[derive(Args)]
pub struct ThrottleArgs {
    #[command(flatten)]
    which: Which,

    /// At most so many rows a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    max_rows_per_second: Option<u64>,

    /// How much of the database's time it may take
    #[arg(long, value_enum)]
    profile: Option<ProfileArg>,

    /// No limit and no other profile than the run's own any more
    #[arg(long, required_unless_present_any = ["max_rows_per_second", "profile"], conflicts_with_all = ["max_rows_per_second", "profile"])]
    off: bool,
}

/// End a rotation after its batch at hand (exit code 5 there)
///
/// What was committed stays: each value opens under the old or the new key, so that both stay needed. The same rotate command goes on
/// from there; the way back is --rollback (a keyset), or --from and --to exchanged (a table). Where nobody runs the rotation at this moment,
/// there is nothing to end (exit code 4).
#[derive(Args)]
pub struct AbortArgs {
    #[command(flatten)]
    which: Which,
}

/// Which rotation. May be left out where only one is unfinished.
#[derive(Args)]
struct Which {
    #[command(flatten)]
    database: DatabaseArg,

    /// The rotation of a table, as reseal status names it
    #[arg(long, value_name = "ROTATION")]
    plan: Option<String>,

    /// The rotation of this keyset, with everything in it; its record stands in the first database of its configuration
    #[arg(long, value_name = "KEYSET", conflicts_with = "plan")]
    keyset: Option<String>,
}

#[derive(Serialize)]
struct RequestDocument {
    request: RequestEntry,
    exit: u8,
}

/// Which rotation, in a document: `plan` or `keyset`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SubjectEntry {
    Plan(String),
    Keyset(String),
}

/// A request as it stands.
#[derive(Serialize)]
pub(super) struct RequestEntry {
    #[serde(flatten)]
    subject: SubjectEntry,
    /// `pause`, `abort`, or nothing.
    order: Option<&'static str>,
    max_rows_per_second: Option<u64>,
    profile: Option<String>,
    by: String,
    at: String,
}

pub(super) fn pause(args: &PauseArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let order = Some(Some(Order::Pause));
    ask(&args.which, "pause", Asked { order, speed: None }, context)
}

pub(super) fn resume(args: &ResumeArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let order = Some(None);
    ask(&args.which, "resume", Asked { order, speed: None }, context)
}

pub(super) fn throttle(args: &ThrottleArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let profile = args.profile.map(|profile| profile.profile().as_str().to_owned());
    let speed = Some((args.max_rows_per_second, profile));
    ask(&args.which, "throttle", Asked { order: None, speed }, context)
}

pub(super) fn abort(args: &AbortArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let order = Some(Some(Order::Abort));
    ask(&args.which, "abort", Asked { order, speed: None }, context)
}

fn ask(which: &Which, command: &'static str, asked: Asked, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let store = which.database.open(context, &format!("reseal {command}"))?;
    let request = tuning::ask(context.output.is_json(), &*store, "request", async || {
        let mut control = store.control().await?;
        if !control.exists().await? {
            return Err(nothing_unfinished().into());
        }
        let plans = control.plans().await?;
        let rotations = Rotations::of(&mut *control).list().await?;
        let subject = subject(which, &plans, &rotations)?;
        if asked.asks_something() && !runs(&subject, &mut *control).await? {
            return Err(nobody_hears(&subject, command).into());
        }
        control.migrate().await?;
        let by = tuning::operator();
        Ok(Requests::of(&mut *control).ask(&subject, &asked, &by).await?)
    })?;
    context.output.say(&describe(&request));
    match (command, &request.subject) {
        ("abort", subject) => {
            let back = match subject {
                Subject::Keyset(_) => "--rollback",
                Subject::Plan(_) => "--from and --to exchanged",
            };
            context.output.say(&format!(
                "the run ends after its batch at hand; each value opens under the old or the new key, and both stay needed; go on with the same rotate command, or back with {back}"
            ));
        }
        ("pause", _) => context.output.say("it goes on after reseal resume"),
        _ => {}
    }
    let document = RequestDocument {
        request: RequestEntry::of(request),
        exit: Exit::Done.code(),
    };
    context.output.document(&format!("reseal.{command}/1"), &document)?;
    Ok(Exit::Done)
}

/// The rotation that is meant: named, or the only one that is unfinished.
fn subject(which: &Which, plans: &[Plan], rotations: &[RotationRecord]) -> Result<Subject, CliError> {
    let open: Vec<&str> = rotations
        .iter()
        .filter(|rotation| rotation.finished_at.is_none())
        .map(|rotation| rotation.keyset.as_str())
        .collect();
    if let Some(keyset) = &which.keyset {
        return match open.contains(&keyset.as_str()) {
            true => Ok(Subject::Keyset(keyset.clone())),
            false => Err(CliError::new(
                Exit::Refused,
                format!("no rotation of keyset {keyset} is open in this database"),
            )
            .touched_nothing()
            .next("see reseal status")),
        };
    }
    if let Some(id) = &which.plan {
        return match plans.iter().any(|plan| plan.identity.id == *id) {
            true => Ok(Subject::Plan(id.clone())),
            false => Err(
                CliError::new(Exit::Refused, format!("no rotation {id} is known in this database"))
                    .touched_nothing()
                    .next("see reseal status"),
            ),
        };
    }
    let unfinished: Vec<&str> = plans
        .iter()
        .filter(|plan| plan.status != PlanStatus::Verified)
        .map(|plan| plan.identity.id.as_str())
        .collect();
    match (open.as_slice(), unfinished.as_slice()) {
        // Tables that are unfinished are its own, as far as anybody can tell; another one has a name of its own.
        ([keyset], _) => Ok(Subject::Keyset((*keyset).to_owned())),
        ([], [id]) => Ok(Subject::Plan((*id).to_owned())),
        ([], []) => Err(nothing_unfinished()),
        _ => {
            let mut named = String::new();
            for keyset in &open {
                let _ = write!(named, " --keyset {keyset}");
            }
            for id in unfinished {
                let _ = write!(named, " --plan {id}");
            }
            Err(CliError::usage("several rotations are unfinished in this database").next(format!("name one:{named}")))
        }
    }
}

/// Whether anybody is there to hear it.
async fn runs(subject: &Subject, control: &mut dyn Control) -> Result<bool, Unanswered> {
    let runs = Runs::of(control).list().await?;
    Ok(runs.iter().any(|run| run.subject == *subject))
}

fn nobody_hears(subject: &Subject, command: &str) -> CliError {
    let whom = describe_subject(subject);
    CliError::new(
        Exit::Refused,
        format!("{whom} is unfinished, but nobody runs it at this moment"),
    )
    .durable("nothing was touched; each value opens under the old or the new key")
    .next(format!(
        "the same reseal rotate command goes on with it; once it runs: reseal {command}"
    ))
}

fn nothing_unfinished() -> CliError {
    CliError::new(Exit::Refused, "no rotation is unfinished in this database")
        .touched_nothing()
        .next("see reseal status")
}

/// One line of a request.
pub(super) fn describe(request: &Request) -> String {
    let whom = describe_subject(&request.subject);
    let mut asked = Vec::new();
    match request.order {
        Some(Order::Pause) => asked.push("paused".to_owned()),
        Some(Order::Abort) => asked.push("to be aborted".to_owned()),
        None => {}
    }
    asked.extend(request.rows_per_second.map(|rows| format!("at most {rows} rows a second")));
    asked.extend(request.profile.as_ref().map(|profile| format!("profile {profile}")));
    if asked.is_empty() {
        asked.push("nothing is asked any more".to_owned());
    }
    format!("{whom}: {} ({} at {})", asked.join(", "), request.by, request.at)
}

pub(super) fn describe_subject(subject: &Subject) -> String {
    match subject {
        Subject::Plan(id) => format!("rotation {id}"),
        Subject::Keyset(name) => format!("rotation of keyset {name}"),
    }
}

impl SubjectEntry {
    pub(super) fn of(subject: Subject) -> Self {
        match subject {
            Subject::Plan(id) => Self::Plan(id),
            Subject::Keyset(name) => Self::Keyset(name),
        }
    }
}

impl RequestEntry {
    pub(super) fn of(request: Request) -> Self {
        Self {
            subject: SubjectEntry::of(request.subject),
            order: request.order.map(Order::as_str),
            max_rows_per_second: request.rows_per_second,
            profile: request.profile,
            by: request.by,
            at: request.at,
        }
    }
}
