//! `reseal verify`.

use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::documents::{self, FindingEntry, Outcome};
use super::rotation_error::rotation_error;
use super::selection::Selection;
use super::tuning::{self, Tuning};
use super::{CliError, Context, Exit};
use crate::rotation::plan::prepare;
use crate::rotation::verify;

/// Open every value of a table and count them per key; writes nothing
///
/// Exit code 0 says that every non-null value opened under the key given with --to. Give old keys with --from to have the values
/// that they open counted by name instead of listed as unreadable.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
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
    let (prepared, report, progress) = tuning::run(context.output.is_json(), async |progress, stop| {
        let selected = args.selection.select(context, options, false).await?;
        let prepared = prepare(&*selected.store, selected.job)
            .await
            .map_err(|error| rotation_error(&error))?;
        let report = verify(&selected.store, &prepared, &progress, &stop)
            .await
            .map_err(|error| rotation_error(&error))?;
        Ok((prepared, report, progress))
    })?;
    let census = &report.census;
    let exit = if census.is_clean() { Exit::Done } else { Exit::Findings };
    let outcome = Outcome {
        rows_scanned: census.rows,
        values_reencrypted: 0,
        values_already_current: census.current,
        values_null: census.nulls,
        lost_races: 0,
        quarantined: documents::entries(&prepared.survey, &report.columns, &census.unreadable_values),
        quarantined_total: census.unreadable,
        not_current: documents::entries(&prepared.survey, &report.columns, &census.due_values),
        census: documents::census(census),
        elapsed_seconds: documents::seconds(begun.elapsed()),
        rows_per_second: 0.0,
        phases: documents::phases(&progress),
        verified: census.is_clean(),
        exit: exit.code(),
    };
    context.output.say(&format!(
        "{}: {} rows read, {} NULL",
        prepared.survey.table, census.rows, census.nulls
    ));
    super::summary::verification(&outcome, &mut context.output);
    let document = VerifyDocument {
        table: &prepared.survey.table,
        outcome,
        findings: documents::findings(&report.findings),
    };
    context.output.document("reseal.verify/1", &document)?;
    Ok(exit)
}

const EXAMPLES: &str = "\
Example:
  reseal verify --database env:DATABASE_URL --table public.customers --column email --format fernet \\
    --from env:OLD_KEY --to env:NEW_KEY";
