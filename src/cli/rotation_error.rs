//! Errors of a rotation in the four parts that an operator needs, and their exit codes.

use std::sync::atomic::Ordering;

use super::{CliError, Exit};
use crate::rotation::RotationError;
use crate::rotation::preflight::{Finding, Severity};
use crate::rotation::progress::Progress;
use crate::rotation::recipe::RecipeError;
use crate::store::StoreError;

/// What a failed rotation, plan or verification says.
pub fn rotation_error(error: &RotationError) -> CliError {
    match error {
        RotationError::Refused(findings) => refused(findings),
        RotationError::Recipe(cause) => recipe_error(cause),
        // What is stored of earlier runs is read before the first batch.
        RotationError::Store {
            step,
            cause: cause @ StoreError::State(_),
        } => store_error(cause, step),
        RotationError::Store { step, cause } => {
            let error = store_error(cause, step);
            if matches!(*step, "preflight" | "scan") { error } else { error.once_begun(DURABLE, ALTERED) }
        }
        RotationError::Stopped => CliError::new(Exit::Incomplete, "stopped on request")
            .durable(DURABLE)
            .next("run the same command again to continue"),
        RotationError::Ended(_) => CliError::from_error(Exit::Incomplete, error)
            .durable(DURABLE)
            .next("run the same command again to go on; the way back is --rollback (a keyset), or --from and --to exchanged (a table)"),
        RotationError::ReadBack { .. } => CliError::from_error(Exit::Integrity, error)
            .durable(DURABLE)
            .next("do not go on with this machine: check its memory, then run the same command elsewhere"),
        RotationError::Unreadable { .. } => CliError::from_error(Exit::Findings, error)
            .durable(DURABLE)
            .next("look at that row, or run again with --on-unreadable skip"),
        RotationError::Twins { .. } => CliError::from_error(Exit::Integrity, error)
            .durable(DURABLE)
            .next("find the rows of that key without the index, keep one of them, and make the index anew (REINDEX); then run the same command again"),
        RotationError::Exhausted(_) => CliError::from_error(Exit::Incomplete, error)
            .durable(DURABLE)
            .next("reseal keys generate KEYSET, promote the new key, then rotate to it"),
        RotationError::Random(_) => CliError::from_error(Exit::Unusable, error),
        RotationError::WorkerDied => CliError::from_error(Exit::Bug, error)
            .durable(DURABLE)
            .next("run the same command again to continue, and report this"),
    }
}

/// The same of a rotation that has come this far.
pub fn rotation_error_after(error: &RotationError, progress: &Progress) -> CliError {
    let error = rotation_error(error);
    match progress.values_reencrypted.load(Ordering::Relaxed) {
        0 => error,
        _ => error.once_begun(DURABLE, ALTERED),
    }
}

/// What keys, formats and associated data say that make no rotation.
pub fn recipe_error(error: &RecipeError) -> CliError {
    let exit = match error {
        RecipeError::NoColumns
        | RecipeError::Template { .. }
        | RecipeError::TemplateColumn { .. }
        | RecipeError::TemplateRewritten { .. }
        | RecipeError::NoAssociatedData { .. } => Exit::Usage,
        RecipeError::Unfit { .. } | RecipeError::SameKey(_) => Exit::Unusable,
    };
    CliError::from_error(exit, error)
}

/// What a failed database says.
pub fn store_error(error: &StoreError, step: &str) -> CliError {
    let failure = |exit| CliError::new(exit, error.to_string()).at(format!("step {step}"));
    match error {
        StoreError::Unreachable { .. } | StoreError::Disconnected(_) | StoreError::ReadOnly(_) => failure(Exit::Unreachable)
            .durable(DURABLE)
            .next("check that the database is up and takes this user, then run the same command again"),
        StoreError::Unusable { .. } => failure(Exit::Unusable)
            .durable(DURABLE)
            .next("check the database's URL, user and password; nothing is ever created in its place"),
        StoreError::UnknownScheme => CliError::new(Exit::Unusable, error.to_string()).next("use sqlite:PATH or postgres://…"),
        StoreError::Held { .. } => failure(Exit::Conflict)
            .durable("nothing was touched by this run")
            .next("wait for it; or, if it hangs, run again with --take-over: its batches are then rejected"),
        StoreError::Superseded => failure(Exit::Conflict)
            .durable(DURABLE)
            .next("see who took over: reseal status"),
        StoreError::Pooled(_) => failure(Exit::Refused)
            .touched_nothing()
            .next("connect to the server itself, or to a pool in session mode"),
        StoreError::OtherServer(_) => failure(Exit::Integrity)
            .durable("every batch that was committed to the first server")
            .next("find out which server is the primary and stop the other; then run the same command again"),
        StoreError::Restored(_) => failure(Exit::Integrity)
            .durable("what the database holds now: each value opens under a key that was in use when it was copied")
            .next("make sure that this is the database that is meant, and that its applications have the old key too; then run the same command again: it goes on from what is there"),
        StoreError::Implausible(_) => failure(Exit::Integrity)
            .durable(DURABLE)
            .next("find out what answers there: a damaged server, or somebody in between"),
        StoreError::Vanished(_) | StoreError::Refused(_) | StoreError::State(_) => failure(Exit::Refused).touched_nothing(),
        StoreError::Storage { .. } => failure(Exit::Incomplete)
            .durable(DURABLE)
            .next("make room, then run the same command again to continue"),
        StoreError::Retry { .. } => failure(Exit::Incomplete)
            .durable(DURABLE)
            .next("let whoever holds rows or the file for so long come to an end; then run the same command again to continue"),
        StoreError::Row { .. } | StoreError::Statement { .. } => failure(Exit::Incomplete)
            .durable(DURABLE)
            .next("find what refused the statement (a trigger, a constraint), then run the same command again to continue"),
        StoreError::Rewriter => failure(Exit::Bug).durable(DURABLE),
    }
}

fn refused(findings: &[Finding]) -> CliError {
    let blocking: Vec<&Finding> = findings.iter().filter(|finding| finding.severity != Severity::Note).collect();
    let what: Vec<String> = blocking.iter().map(|finding| finding.what.clone()).collect();
    let mut advice: Vec<&str> = blocking
        .iter()
        .map(|finding| finding.advice.as_str())
        .filter(|advice| !advice.is_empty())
        .collect();
    advice.dedup();
    let error = CliError::new(Exit::Refused, what.join("; ")).touched_nothing();
    if advice.is_empty() {
        error
    } else {
        error.next(advice.join("; "))
    }
}

const DURABLE: &str = "every batch that was committed; each value opens under the old or the new key";

/// What to do about a table that is no longer what the run began with.
const ALTERED: &str = "undo what was altered (a table or column renamed or dropped, a permission revoked) or name it as it is now, then run the same command again to continue";
