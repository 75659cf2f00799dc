//! `reseal verify`.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::documents::{self, FindingEntry, Outcome};
use super::managed::{ManagedArgs, look};
use super::rotation_error::rotation_error;
use super::selection::Selection;
use super::tuning::{self, Tuning};
use super::unfinished::Unfinished;
use super::{CliError, Context, Exit};
use crate::rotation::plan::prepare;
use crate::rotation::progress::Progress;
use crate::rotation::verify;

/// Open every value of a table, or of every dataset of a keyset, and count them per key; writes nothing
///
/// Exit code 0 says that every non-null value opened under the key given with --to. Give old keys with --from to have the values
/// that they open counted by name instead of listed as unreadable.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    #[command(flatten)]
    managed: ManagedArgs,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    tuning: Tuning,
}

#[derive(Serialize)]
struct VerifyDocument<'a> {
    table: &'a str,
    #[serde(flatten)]
    outcome: Outcome,
    findings: Vec<FindingEntry<'a>>,
}

pub(super) fn run(args: VerifyArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let options = args.tuning.options("verify");
    if !args.selection.names_a_table() {
        args.selection.require_none()?;
        return look::verify_keyset(&args.managed, &args.selection.keyring, options, context);
    }
    let mut seen: Option<Arc<Progress>> = None;
    let verified = tuning::run(context.output.is_json(), async |progress, stop| {
        seen = Some(Arc::clone(&progress));
        let failed = |error| rotation_error(&error).touched_nothing();
        let selected = args.selection.select(context, options, false).await?;
        let prepared = prepare(&*selected.store, selected.job).await.map_err(failed)?;
        let report = verify(&selected.store, &prepared, &progress, &stop).await.map_err(failed)?;
        Ok((prepared, report, progress))
    });
    let (prepared, report, progress) = match verified {
        Ok(verified) => verified,
        Err(error) => return Ok(unfinished(&error, seen.as_deref(), begun, context)),
    };
    let census = &report.census;
    let outcome = documents::verified(&prepared.survey, &report, &progress, begun);
    let exit = documents::judged(outcome.verified);
    context.output.say(&format!(
        "{}: {} rows read, {} NULL",
        prepared.survey.table, census.rows, census.nulls
    ));
    super::summary::verification(super::summary::Scope::Part, &outcome, &mut context.output);
    let document = VerifyDocument {
        table: &prepared.survey.table,
        outcome,
        findings: documents::findings(&report.findings),
    };
    Ok(context.output.outcome("reseal.verify/1", &document, exit))
}

/// Says what stood in the way, and what is known all the same.
pub(super) fn unfinished(error: &CliError, progress: Option<&Progress>, begun: Instant, context: &mut Context<'_>) -> Exit {
    context.output.say(&error.text());
    let document = Unfinished::of(error, progress, begun);
    context.output.outcome("reseal.verify/1", &document, error.exit())
}

const EXAMPLES: &str = "\
Examples:
  reseal verify --database env:DATABASE_URL --table public.customers --column email --format fernet \\
    --from env:OLD_KEY --to env:NEW_KEY
  reseal verify customer-data        # every dataset of the keyset in reseal.toml";
