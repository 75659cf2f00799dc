//! The phases of a run, one after another.

use std::sync::Arc;
use std::time::Duration;

use super::census::{Census, LISTED_MAX};
use super::error::RotationError;
use super::judge::Reason;
use super::outcome::{RotationReport, VerifyReport};
use super::phases::Run;
use super::plan::{self, PlanReport, Prepared};
use super::preflight::{self, Purpose};
use super::progress::{Progress, Stop};
use super::retry::{Patience, Remedy};
use crate::store::control::{Counters, PlanStatus};
use crate::store::{OperatorLock, Store, StoreError};

/// Opens every value. Writes nothing.
pub async fn verify(
    store: &Arc<dyn Store>,
    prepared: &Prepared,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
) -> Result<VerifyReport, RotationError> {
    let report = plan::plan(store, prepared, Purpose::Read).await?;
    if !preflight::allows(&report.findings) {
        return Err(RotationError::Refused(report.findings));
    }
    let run = Run::new(store, prepared, progress, stop, None);
    let census = run.verify().await?;
    Ok(VerifyReport {
        census,
        columns: run.columns(),
        findings: report.findings,
    })
}

/// Rotates. Errors leave everything readable and everything committed in place; the same call continues.
pub async fn rotate(
    store: &Arc<dyn Store>,
    prepared: &Prepared,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
) -> Result<RotationReport, RotationError> {
    let PlanReport { findings, .. } = plan::plan(store, prepared, Purpose::Write).await?;
    if !preflight::allows(&findings) {
        return Err(RotationError::Refused(findings));
    }
    let failed = RotationError::store("preflight");
    let lock = store
        .lock(&prepared.survey, &prepared.options.owner, prepared.options.take_over)
        .await
        .map_err(&failed)?;
    let identity = prepared.recipe.identity(&prepared.survey.table, &prepared.target);

    let mut control = if prepared.options.state {
        Some(store.control().await.map_err(&failed)?)
    } else {
        None
    };
    // A rotation that was verified before is verified again, and then there is nothing to write, not even a note of it.
    if let Some(control) = &mut control
        && control.exists().await.map_err(&failed)?
        && let Some(plan) = control.plan(&identity.id).await.map_err(&failed)?
        && plan.status == PlanStatus::Verified
    {
        let run = Run::new(store, prepared, progress, stop, None);
        let census = run.verify().await?;
        if census.is_clean() {
            let mut report = run.report(&identity.id, seen(&census), (0, Duration::ZERO), census, 0, findings);
            report.late = control.late(&identity.id, LISTED_MAX).await.map_err(&failed)?;
            return Ok(report);
        }
    }

    let claimed = match &mut control {
        None => None,
        Some(control) => {
            control.migrate().await.map_err(&failed)?;
            Some(
                control
                    .claim_plan(&identity, &prepared.options.owner)
                    .await
                    .map_err(&failed)?,
            )
        }
    };
    if let (Some(control), Some(plan)) = (&mut control, &claimed)
        && !prepared.options.compromised
        && !prepared.options.accepted.iter().any(|name| name == preflight::FORGED)
    {
        let quarantined = control.quarantine(&plan.identity.id).await.map_err(&failed)?;
        let forged = quarantined
            .iter()
            .filter(|stored| Reason::MayBeForged.is(&stored.entry))
            .count();
        if forged > 0 {
            return Err(RotationError::Refused(vec![preflight::may_be_forged(forged)]));
        }
    }
    drop(control);
    let run = Run::new(store, prepared, progress, stop, claimed);
    tokio::select! {
        outcome = run.all(&identity.id, findings) => outcome,
        lost = keep_lock(store, prepared, lock) => {
            // Workers end after their batch; the fence stops those of a run that was taken over.
            stop.request();
            Err(RotationError::store("re-encrypt")(lost))
        }
    }
}

/// Holds the operator's lock. Returns when it is lost for good: somebody else has it, or the database stays away.
async fn keep_lock(store: &Arc<dyn Store>, prepared: &Prepared, mut lock: Box<dyn OperatorLock>) -> StoreError {
    let options = &prepared.options;
    let mut patience = Patience::new(options.away_max);
    loop {
        tokio::time::sleep(LOCK_CHECK_EVERY).await;
        let Err(mut error) = lock.still_held().await else {
            continue;
        };
        // A lock may die with its connection. It is taken again, unless somebody was faster; rows are guarded by their fence.
        loop {
            let Remedy::Reconnect { wait } = patience.after(&error) else {
                return error;
            };
            tokio::time::sleep(wait).await;
            match store.lock(&prepared.survey, &options.owner, false).await {
                Ok(taken) => lock = taken,
                Err(refused) => {
                    error = refused;
                    continue;
                }
            }
            patience.reset();
            break;
        }
    }
}

/// What a verification saw, as counters: nothing was written.
fn seen(census: &Census) -> Counters {
    Counters {
        rows_scanned: census.rows,
        values_already_current: census.current,
        values_null: census.nulls,
        ..Counters::default()
    }
}

/// An error that a store could not even begin with.
impl From<StoreError> for RotationError {
    fn from(cause: StoreError) -> Self {
        RotationError::store("preflight")(cause)
    }
}

const LOCK_CHECK_EVERY: Duration = Duration::from_secs(3);
