//! `reseal guard`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::rotation_error::{rotation_error, store_error};
use super::selection::DatabaseArg;
use super::tuning;
use super::{CliError, Context, Exit};
use crate::rotation::guard::take_away;
use crate::rotation::{Before, patiently};
use crate::store::guard::Guard;

/// Show or remove the guards that rotations with --guard have put up and that still stand
///
/// A guard refuses new values under the old key of its rotation, in the database itself. It goes when its rotation is verified. One
/// that stands belongs to a rotation that has not ended: run that again, or, when it is given up, remove its guard.
#[derive(Args)]
pub struct GuardArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the guards that stand; changes nothing
    List {
        #[command(flatten)]
        database: DatabaseArg,
    },
    /// Remove guards: all of the database, or those of a table or a rotation
    Remove {
        #[command(flatten)]
        database: DatabaseArg,

        /// Only of this table, as reseal guard list names it
        #[arg(long, value_name = "TABLE")]
        table: Option<String>,

        /// Only of this rotation, as reseal status names it
        #[arg(long, value_name = "ROTATION")]
        plan: Option<String>,
    },
}

#[derive(Serialize)]
struct GuardDocument {
    guards: Vec<GuardEntry>,
    exit: u8,
}

#[derive(Serialize)]
struct GuardEntry {
    table: String,
    plan: String,
    /// The ids of the keys whose values it refuses.
    refuses: Vec<String>,
    /// Whether its proof, a CHECK constraint, stands too.
    proof: bool,
    removed: bool,
}

pub(super) fn run(args: GuardArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let json = context.output.is_json();
    let failed = |error| store_error(&error, "guard");
    let guards = match args.action {
        Action::List { database } => {
            let store = database.open(context, "reseal guard list")?;
            let found = tuning::ask(json, &*store, "guard", async || Ok(store.guards().await?.list().await?))?;
            found.into_iter().map(|guard| entry(guard, false)).collect()
        }
        Action::Remove { database, table, plan } => {
            let store = database.open(context, "reseal guard remove")?;
            tuning::run(json, async |_progress, stop| {
                let list = || async { store.guards().await?.list().await };
                let mut found = patiently(&*store, Before::Unheard, list).await.map_err(failed)?;
                found.retain(|guard| {
                    table.as_ref().is_none_or(|table| guard.table == *table)
                        && plan.as_ref().is_none_or(|plan| guard.plan == *plan)
                });
                let mut removed = Vec::new();
                for guard in found {
                    take_away(&*store, &stop, guard.table_id, &guard.plan)
                        .await
                        .map_err(|error| rotation_error(&error))?;
                    removed.push(entry(guard, true));
                }
                Ok(removed)
            })?
        }
    };
    if guards.is_empty() {
        context.output.say("no guard stands");
    }
    for guard in &guards {
        let state = if guard.removed { "is removed" } else { "stands" };
        context.output.say(&format!(
            "{}: the guard of rotation {} {state}; it refuses values under key {}",
            guard.table,
            guard.plan,
            guard.refuses.join(", ")
        ));
    }
    let document = GuardDocument {
        guards,
        exit: Exit::Done.code(),
    };
    context.output.document("reseal.guard/1", &document)?;
    Ok(Exit::Done)
}

fn entry(guard: Guard, removed: bool) -> GuardEntry {
    GuardEntry {
        table: guard.table,
        plan: guard.plan,
        refuses: guard.refuses,
        proof: guard.proof,
        removed,
    }
}
