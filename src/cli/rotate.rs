//! `reseal rotate`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::documents::{self, FindingEntry, GuardEntry, LateEntry, Outcome, VacuumEntry};
use super::managed::rotate::WishArgs;
use super::managed::{self, ManagedArgs};
use super::rotation_error::{rotation_error, rotation_error_after};
use super::selection::Selection;
use super::summary::Scope;
use super::tuning::{self, Tuning};
use super::unfinished::Unfinished;
use super::{CliError, Context, Exit};
use crate::rotation::plan::{Prepared, prepare};
use crate::rotation::progress::Progress;
use crate::rotation::{Guarding, OnUnreadable, RotationReport, rotate};

/// Re-encrypt a table from the old key to the new one while the application works, and prove it
///
/// Every value is opened under the old key, sealed under the new one, opened again and compared, and swapped in only if the row is
/// still the one that was read. Progress is committed with the rows: after kill -9, a lost connection or Ctrl-C, run the same command
/// again. At the end everything is read twice over and every value opened; only then is the exit code 0.
///
/// One table (--table): before, the application must read with both keys, and write with the new one.
///
/// A keyset (KEYSET, described in reseal.toml): a new key is made and given to readers; when every live instance has it, it becomes
/// primary; when every one seals with it, the values of all datasets are moved and verified; when nothing needs the old key any more, it
/// is taken from readers. Instances say by themselves what they have (Keyring::report_to), or through reseal ack. With --compromised
/// the sessions of every [session.NAME] end before values are moved; by schedule those with in_scheduled = true.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RotateArgs {
    #[command(flatten)]
    managed: ManagedArgs,

    #[command(flatten)]
    wish: WishArgs,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    tuning: Tuning,

    /// What a value does that opens under neither key
    #[arg(long, value_enum, default_value_t = OnUnreadableArg::Skip, value_name = "POLICY")]
    on_unreadable: OnUnreadableArg,

    /// My word that every instance of the application reads with both keys and writes with the new one
    #[arg(long, requires = "table")]
    dual_read_confirmed: bool,

    /// The old key is in other hands. Values that appear under it late, after the ranges were worked through, may be forged: they
    /// are quarantined as they are instead of being sealed anew, and the exit code is 7. In managed use it also becomes compromised,
    /// and instances that do not follow are evicted instead of waited for
    #[arg(long, conflicts_with = "rollback")]
    compromised: bool,

    /// Let the database itself refuse new values under the old key while the rotation runs (PostgreSQL; formats that write the key's
    /// id into the value: tink, tink-base64). Triggers refuse them, and updates of other columns go through; at the end a CHECK
    /// constraint is validated as the database's own proof, and all of it is removed. In managed use it goes up when every instance
    /// seals with the new key, and goes before the rotation ends or turns back. A run that ends early leaves the guard, and the next
    /// one goes on with it; reseal guard remove takes it away
    #[arg(long, conflicts_with = "no_state")]
    guard: bool,

    /// Wait while a replica is further behind than this, such as 2s or 500ms (PostgreSQL; needs GRANT pg_monitor). Batches go on when
    /// lag has been below it for 3 s; when it cannot be measured for 15 s, they wait, too
    #[arg(long, value_name = "TIME", value_parser = parse_lag)]
    max_replica_lag: Option<Duration>,

    /// Vacuum the table beside the rotation (PostgreSQL): each time that one in twenty of its rows has been rewritten, so that it grows by
    /// a tenth or so instead of by a third or more, and once with its indexes in the end. Makes way for whoever waits for the table.
    /// Needs its owner
    #[arg(long)]
    vacuum: bool,

    /// In managed use: take the old key from readers also while a replica has not replayed the last values that were moved
    #[arg(long, conflicts_with = "table")]
    no_replica_check: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    /// Accept a finding by its name, such as trigger:audit, or, in managed use, undeclared:TABLE.COLUMN: that column may become unreadable
    /// without the old key (undeclared alone looks at no column beside the datasets); repeat for more
    #[arg(long, value_name = "FINDING")]
    accept: Vec<String>,

    /// Keep no progress in the database: no control tables, no resuming, no fence
    #[arg(long, requires = "table")]
    no_state: bool,

    /// Wrest the table from a run that hangs; its batches are rejected from then on
    #[arg(long)]
    take_over: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum OnUnreadableArg {
    /// Quarantine it and go on
    Skip,
    /// Stop the run
    Stop,
}

#[derive(Serialize)]
struct RotateDocument<'a> {
    table: &'a str,
    plan: &'a str,
    #[serde(flatten)]
    outcome: Outcome,
    /// Values that appeared under the old key after the ranges were worked through; the first ten thousand.
    late_values: Vec<LateEntry>,
    /// All of them, counted.
    late_values_total: u64,
    /// For how long batches waited, for each reason.
    throttled_seconds: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<GuardEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vacuum: Option<VacuumEntry>,
    sweeps: u32,
    findings: Vec<FindingEntry<'a>>,
}

pub(super) fn run(args: RotateArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let mut options = args.tuning.options("rotate");
    options.on_unreadable = match args.on_unreadable {
        OnUnreadableArg::Skip => OnUnreadable::Skip,
        OnUnreadableArg::Stop => OnUnreadable::Stop,
    };
    options.state = !args.no_state;
    options.take_over = args.take_over;
    options.compromised = args.compromised;
    if args.guard {
        options.guard = Guarding::Wanted;
    }
    options.max_replica_lag = args.max_replica_lag;
    options.vacuum = args.vacuum;
    options.replica_check = !args.no_replica_check;
    options.accepted.clone_from(&args.accept);

    if !args.selection.names_a_table() {
        args.selection.require_none()?;
        agree(&args, context)?;
        let wish = args.wish.wish(args.compromised);
        return managed::rotate::run(
            &args.managed,
            wish,
            args.wish.rules(),
            &args.selection.keyring,
            options,
            context,
        );
    }
    let mut seen: Option<Arc<Progress>> = None;
    let json = context.output.is_json();
    let outcome = tuning::run(json, async |progress, stop| {
        let selected = args.selection.select(context, options, true).await?;
        confirm(&args, selected.managed, context)?;
        #[cfg(debug_assertions)]
        let selected = {
            let mut selected = selected;
            super::broken_memory::spoil_as_ordered(&mut selected.job.recipe);
            selected
        };
        let prepared = prepare(&*selected.store, selected.job)
            .await
            .map_err(|error| rotation_error(&error))?;
        seen = Some(Arc::clone(&progress));
        let report = rotate(&selected.store, &prepared, &progress, &stop)
            .await
            .map_err(|error| rotation_error_after(&error, &progress))?;
        Ok((prepared, report, progress))
    });
    match outcome {
        Ok((prepared, report, progress)) => finish(&prepared, &report, &progress, begun, context),
        Err(error) => {
            let may_have_written = !matches!(error.exit(), Exit::Usage | Exit::Unusable | Exit::Refused | Exit::Conflict);
            if args.guard && may_have_written {
                context.output.say(
                    "guard: if it was put up, it stays for the next run, and refuses new values under the old key; reseal guard remove takes it away",
                );
            }
            context.output.say(&error.text());
            let document = Unfinished::of(&error, seen.as_deref(), begun);
            Ok(context.output.outcome("reseal.rotate/1", &document, error.exit()))
        }
    }
}

/// A time with its unit. Less than the time between two measurements makes no sense, and more than an hour is no limit.
fn parse_lag(text: &str) -> Result<Duration, String> {
    let lag = text
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|lag| Duration::try_from(lag).ok());
    lag.filter(|lag| LAG_LIMITS.contains(lag))
        .ok_or_else(|| "a time with its unit, from 100ms to 1h, such as 2s".to_owned())
}

/// The operator's word, by flag or by answer.
fn confirm(args: &RotateArgs, managed: bool, context: &mut Context<'_>) -> Result<(), CliError> {
    let terminal = std::io::stdin().is_terminal();
    if !managed && !args.dual_read_confirmed {
        let question = "Does every instance of the application read with both keys, and write with the new one?";
        if !(terminal && ask(question, context)?) {
            return Err(CliError::new(
                Exit::Refused,
                "nobody confirmed that the application reads with both keys: rows under the new key would be unreadable to it",
            )
            .touched_nothing()
            .next("give every instance both keys, the new one first; then add --dual-read-confirmed"));
        }
    }
    agree(args, context)
}

impl RotateArgs {
    fn question(&self) -> &'static str {
        if self.compromised && !self.selection.names_a_table() {
            "End all sessions of the configuration, and rewrite the values now?"
        } else {
            "Rewrite the values now?"
        }
    }
}

fn agree(args: &RotateArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let terminal = std::io::stdin().is_terminal();
    let agreed = args.yes || (terminal && ask(args.question(), context)?);
    if !agreed {
        return Err(CliError::new(Exit::Refused, "not confirmed")
            .touched_nothing()
            .next("see what would happen with reseal plan; then add --yes"));
    }
    Ok(())
}

fn ask(question: &str, context: &mut Context<'_>) -> Result<bool, CliError> {
    context.output.say(&format!("{question} Type yes:"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

/// Counting too little must not go unsaid.
fn tell_unrecorded(prepared: &Prepared, context: &mut Context<'_>) {
    if let Some(seals) = prepared.recipe.seals.as_ref().filter(|seals| seals.is_unrecorded()) {
        context.output.say(&format!(
            "warning: {} could not be written: what this run sealed is not counted against the limit of the new key",
            seals.path().display()
        ));
    }
}

fn finish(
    prepared: &Prepared,
    report: &RotationReport,
    progress: &Progress,
    begun: Instant,
    context: &mut Context<'_>,
) -> Result<Exit, CliError> {
    let outcome = documents::rotated(&prepared.survey, report, progress, begun);
    let exit = documents::judged(outcome.verified);
    let scope = match prepared.target.filter {
        None => Scope::Table,
        Some(_) => Scope::Part,
    };
    super::summary::rotation(&prepared.survey.table, scope, &outcome, &mut context.output);
    super::summary::throttled(&documents::throttled(progress), &mut context.output);
    let late_values = documents::late(&prepared.survey, &report.columns, &report.late);
    let compromised = prepared.options.compromised;
    if let Some(guard) = report.guard {
        super::summary::guard("guard", guard, report.verified, &mut context.output);
    }
    if let Some(vacuum) = &report.vacuum {
        super::summary::vacuum("vacuum", vacuum, &mut context.output);
    }
    super::summary::late(report.late.total, &late_values, compromised, &mut context.output);
    tell_unrecorded(prepared, context);
    let document = RotateDocument {
        table: &prepared.survey.table,
        plan: &report.plan,
        outcome,
        late_values,
        late_values_total: report.late.total,
        throttled_seconds: documents::throttled(progress),
        guard: report.guard.map(GuardEntry::of),
        vacuum: report.vacuum.as_ref().map(VacuumEntry::of),
        sweeps: report.sweeps,
        findings: documents::findings(&report.findings),
    };
    Ok(context.output.outcome("reseal.rotate/1", &document, exit))
}

const LAG_LIMITS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

const EXAMPLES: &str = "\
Examples:
  A leaked Fernet key, the old and the new one in the environment:
    reseal rotate --database env:DATABASE_URL --table public.customers --column email --column notes \\
      --format fernet --from env:OLD_KEY --to env:NEW_KEY --dual-read-confirmed --yes

  A keyset with all its datasets, as reseal.toml describes them; the same command goes on after any stop:
    reseal rotate customer-data --yes

  Its key has leaked; or back, while the old key is still there:
    reseal rotate customer-data --compromised --policy lock-down --yes
    reseal rotate customer-data --rollback --yes

  Keys of a keyring, Tink format, values bound to their rows:
    reseal rotate --database sqlite:app.db --table customers --column email --format tink \\
      --aad 'customers.email:{id}' --from keyring:customer-data --to keyring:customer-data --yes";
