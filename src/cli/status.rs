//! `reseal status`.

use clap::Args;
use serde::Serialize;

use super::rotation_error::store_error;
use super::selection::DatabaseArg;
use super::tuning;
use super::{CliError, Context, Exit};
use crate::store::control::Plan;

/// Show the rotations of a database and how far they are; changes nothing
#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    database: DatabaseArg,
}

#[derive(Serialize)]
struct StatusDocument {
    rotations: Vec<RotationEntry>,
    exit: u8,
}

#[derive(Serialize)]
struct RotationEntry {
    plan: String,
    table: String,
    columns: String,
    from: String,
    to: String,
    status: &'static str,
    owner: String,
    created_at: String,
    updated_at: String,
    ranges: usize,
    ranges_done: usize,
    rows_scanned: u64,
    values_reencrypted: u64,
    lost_races: u64,
    quarantined: usize,
}

pub(super) fn run(args: StatusArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let store = args.database.open(context, "reseal status")?;
    let failed = |error| store_error(&error, "status");
    let rotations = tuning::run(context.output.is_json(), async |_progress, _stop| {
        let mut control = store.control().await.map_err(failed)?;
        if !control.exists().await.map_err(failed)? {
            return Ok(Vec::new());
        }
        let mut rotations = Vec::new();
        for plan in control.plans().await.map_err(failed)? {
            let ranges = control.ranges(&plan.identity.id).await.map_err(failed)?;
            let totals = control.totals(&plan.identity.id).await.map_err(failed)?;
            let quarantined = control.quarantine(&plan.identity.id).await.map_err(failed)?.len();
            let done = ranges.iter().filter(|range| range.done).count();
            rotations.push(entry(plan, (ranges.len(), done), totals, quarantined));
        }
        Ok(rotations)
    })?;
    if rotations.is_empty() {
        context.output.say("no rotation has left a trace in this database");
    }
    for rotation in &rotations {
        context.output.say(&format!(
            "{}  {}  {} ({}): {}/{} ranges, {} rows, {} values re-encrypted, {} quarantined; {} since {}",
            rotation.plan,
            rotation.status,
            rotation.table,
            rotation.columns,
            rotation.ranges_done,
            rotation.ranges,
            rotation.rows_scanned,
            rotation.values_reencrypted,
            rotation.quarantined,
            rotation.owner,
            rotation.updated_at
        ));
    }
    let document = StatusDocument {
        rotations,
        exit: Exit::Done.code(),
    };
    context.output.document("reseal.status/1", &document)?;
    Ok(Exit::Done)
}

fn entry(plan: Plan, ranges: (usize, usize), totals: crate::store::control::Counters, quarantined: usize) -> RotationEntry {
    RotationEntry {
        plan: plan.identity.id,
        table: plan.identity.table,
        columns: plan.identity.columns,
        from: plan.identity.from,
        to: plan.identity.to,
        status: plan.status.as_str(),
        owner: plan.owner,
        created_at: plan.created_at,
        updated_at: plan.updated_at,
        ranges: ranges.0,
        ranges_done: ranges.1,
        rows_scanned: totals.rows_scanned,
        values_reencrypted: totals.values_reencrypted,
        lost_races: totals.lost_races,
        quarantined,
    }
}
