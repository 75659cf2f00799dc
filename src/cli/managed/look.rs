//! `reseal plan` and `reseal verify` of a keyset.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::error::protocol_error;
use super::report::NeedEntry;
use super::sessions::SessionsPlanEntry;
use super::{ManagedArgs, ask_only};
use crate::cli::arg::KeyringArgs;
use crate::cli::documents::{self, Outcome};
use crate::cli::{CliError, Context, Exit, plan as one_plan, summary, tuning, verify as one_verify};
use crate::rotation::progress::Progress;
use crate::rotation::protocol::{ProtocolError, plan, plan_sessions, undeclared, verify};
use crate::rotation::{Options, preflight};

#[derive(Serialize)]
struct PlansDocument<'a> {
    keyset: &'a str,
    datasets: Vec<NamedPlan<'a>>,
    sessions: Vec<SessionsPlanEntry>,
    /// What would keep the old key with readers in the end, as far as samples tell.
    undeclared: Vec<NeedEntry>,
    allowed: bool,
    exit: u8,
}

#[derive(Serialize)]
struct NamedPlan<'a> {
    dataset: &'a str,
    #[serde(flatten)]
    plan: one_plan::PlanDocument<'a>,
}

/// What a rotation of the keyset would meet in each of its datasets.
pub fn plan_keyset(
    args: &ManagedArgs,
    keyring: &KeyringArgs,
    options: Options,
    context: &mut Context<'_>,
) -> Result<Exit, CliError> {
    let managed = args.managed(keyring, ask_only(), options, true, context)?;
    let (reports, sessions, undeclared) = tuning::run(context.output.is_json(), async |_progress, _stop| {
        let reports = plan(&managed).await.map_err(failed)?;
        let undeclared = undeclared(&managed, &reports).await;
        Ok((reports, plan_sessions(&managed).await, undeclared))
    })?;
    let sessions: Vec<SessionsPlanEntry> = sessions.iter().map(SessionsPlanEntry::of).collect();
    let allowed = reports.iter().all(|(_, report)| preflight::allows(&report.findings));
    let exit = if allowed { Exit::Done } else { Exit::Refused };
    for (name, report) in &reports {
        context.output.say(&format!("dataset {name}:"));
        one_plan::say(report, preflight::allows(&report.findings), context);
    }
    for planned in &sessions {
        context.output.say(&planned.sentence());
    }
    for note in undeclared.notes() {
        context.output.say(&note);
    }
    let document = PlansDocument {
        keyset: managed.keyset.as_str(),
        datasets: reports
            .iter()
            .map(|(dataset, report)| NamedPlan {
                dataset,
                plan: one_plan::PlanDocument::of(report),
            })
            .collect(),
        sessions,
        undeclared: undeclared.needs().iter().map(NeedEntry::of).collect(),
        allowed,
        exit: exit.code(),
    };
    context.output.document("reseal.plan/1", &document)?;
    Ok(exit)
}

#[derive(Serialize)]
struct VerificationsDocument<'a> {
    keyset: &'a str,
    #[serde(flatten)]
    total: documents::Totals,
    elapsed_seconds: f64,
    rows_per_second: f64,
    phases: Vec<documents::Phase>,
    datasets: Vec<NamedOutcome>,
    verified: bool,
    exit: u8,
}

/// What was found in a dataset.
#[derive(Serialize)]
struct NamedOutcome {
    dataset: String,
    table: String,
    #[serde(flatten)]
    outcome: Outcome,
}

/// Opens every value of the keyset's datasets.
pub fn verify_keyset(
    args: &ManagedArgs,
    keyring: &KeyringArgs,
    options: Options,
    context: &mut Context<'_>,
) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let managed = args.managed(keyring, ask_only(), options, false, context)?;
    let mut seen: Option<Arc<Progress>> = None;
    let verified = tuning::run(context.output.is_json(), async |progress, stop| {
        seen = Some(Arc::clone(&progress));
        let reports = verify(&managed, &progress, &stop).await.map_err(failed)?;
        Ok((reports, progress))
    });
    let (reports, progress) = match verified {
        Ok(verified) => verified,
        Err(error) => return Ok(one_verify::unfinished(&error, seen.as_deref(), begun, context)),
    };
    let is_clean = reports.iter().all(|(_, _, report)| report.census.is_clean());
    let exit = if is_clean { Exit::Done } else { Exit::Findings };
    let datasets: Vec<NamedOutcome> = reports
        .into_iter()
        .map(|(dataset, survey, report)| NamedOutcome {
            dataset,
            table: survey.table.clone(),
            outcome: documents::verified(&survey, &report, &progress, begun),
        })
        .collect();
    for found in &datasets {
        context.output.say(&format!(
            "dataset {} ({}): {} rows read, {} NULL",
            found.dataset, found.table, found.outcome.rows_scanned, found.outcome.values_null
        ));
        summary::verification(summary::Scope::Part, &found.outcome, &mut context.output);
    }
    let document = VerificationsDocument {
        keyset: managed.keyset.as_str(),
        total: documents::Totals::of(datasets.iter().map(|found| &found.outcome)),
        elapsed_seconds: documents::seconds(begun.elapsed()),
        rows_per_second: 0.0,
        phases: documents::phases(&progress),
        datasets,
        verified: is_clean,
        exit: exit.code(),
    };
    Ok(context.output.outcome("reseal.verify/1", &document, exit))
}

fn failed(error: ProtocolError) -> CliError {
    protocol_error(error).touched_nothing()
}
