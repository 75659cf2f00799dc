//! The phases of a run, one after another.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Guarding;
use super::census::{Census, LISTED_MAX};
use super::error::RotationError;
use super::guard::{self, Guard, GuardReport, Proof};
use super::hold::hold;
use super::judge::Reason;
use super::lag::LagCollector;
use super::outcome::{RotationReport, VerifyReport};
use super::overseer::{Overseer, announce, take_leave};
use super::phases::Run;
use super::plan::{self, PlanReport, Prepared};
use super::preflight::{self, Finding, Purpose};
use super::progress::{Progress, Stop};
use super::retry::{ANSWERS_AN_ATTEMPT, Before, answered, before_the_first_write};
use super::vacuum::Upkeep;
use crate::store::control::{Counters, LateValues, Plan, PlanIdentity, PlanStatus};
use crate::store::ledger::request::Subject;
use crate::store::{Control, Store, StoreError};

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
    let census = run.verify_one_era().await?;
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
    let owner = &prepared.options.owner;
    let lock = before_the_first_write(&**store, Before::Answered, || {
        store.lock(&prepared.survey, owner, prepared.options.take_over)
    })
    .await?;
    let identity = prepared.recipe.identity(&prepared.survey.table, &prepared.target);
    let lag = match prepared.options.max_replica_lag {
        Some(limit) => Some(LagCollector::ready(&**store, limit, progress, stop).await?),
        None => None,
    };
    let upkeep = match prepared.options.vacuum {
        true => Some(Upkeep::ready(&**store, prepared, progress, stop).await?),
        false => None,
    };
    let subject = Subject::Plan(identity.id.clone());
    let overseer = match prepared.options.state {
        true => Some(
            before_the_first_write(&**store, Before::Answered, || {
                Overseer::start(store, subject.clone(), owner, (progress, stop))
            })
            .await?,
        ),
        false => None,
    };
    let claimed = OnceLock::new();
    let work = async {
        tokio::select! {
            outcome = locked(store, prepared, (progress, stop), (lag, upkeep), &identity, findings, &claimed) => outcome,
            lost = hold(&**store, lock, prepared.options.away_max, || require_current(store, claimed.get())) => {
                // Workers end after their batch; the fence stops those of a run that was taken over.
                stop.request();
                Err(RotationError::store("re-encrypt")(lost))
            }
        }
    };
    let outcome = match overseer {
        Some(overseer) => overseer.beside(work).await,
        None => work.await,
    };
    if claimed.get().is_some() {
        take_leave(&**store, &subject, owner).await;
    }
    match (outcome, claimed.get()) {
        (Err(RotationError::Store { step, cause }), Some(plan)) => {
            // What a phase asks before it writes is still asked after the plan was claimed.
            let step = if step == "preflight" { "re-encrypt" } else { step };
            Err(RotationError::store(step)(taken_over_or_restored(store, plan, cause).await))
        }
        (outcome, _) => outcome.map_err(|error| error.or_ended(stop)),
    }
}

/// The same, under the operator's lock. Leaves the plan in `noted`, once it is this run's own.
async fn locked(
    store: &Arc<dyn Store>,
    prepared: &Prepared,
    (progress, stop): (&Arc<Progress>, &Arc<Stop>),
    (lag, upkeep): (Option<LagCollector>, Option<Upkeep<'_>>),
    identity: &PlanIdentity,
    findings: Vec<Finding>,
    noted: &OnceLock<Plan>,
) -> Result<RotationReport, RotationError> {
    let owner = &prepared.options.owner;
    let guard = match prepared.options.guard {
        Guarding::ByCaller => None,
        Guarding::IfItStands if !guard::stands(prepared) => None,
        Guarding::IfItStands | Guarding::Wanted => {
            guard::require_possible(&**store, prepared).await?;
            Guard::of(store, prepared, stop).map_err(|finding| RotationError::Refused(vec![finding]))?
        }
    };

    let known = match prepared.options.state {
        true => before_the_first_write(&**store, Before::Answered, || known_plan(store, identity)).await?,
        false => None,
    };
    // A rotation that was verified before is verified again, and then there is nothing to write, not even a note of it.
    let mut due_again = false;
    if known.is_some_and(|plan| plan.status == PlanStatus::Verified) {
        if prepared.options.take_over {
            // Whoever it was taken from may not know of it yet.
            before_the_first_write(&**store, Before::Answered, || claim(store, identity, owner, false)).await?;
        }
        let run = Run::new(store, prepared, progress, stop, None);
        let census = run.verify_one_era().await?;
        let proof = match &guard {
            Some(guard) if census.is_clean() => Some(guard.prove().await?),
            _ => None,
        };
        if census.is_clean() && proof != Some(Proof::Refuted) {
            let mut report = run.report(&identity.id, seen(&census), (0, Duration::ZERO), census, 0, findings);
            report.late = before_the_first_write(&**store, Before::Answered, || late(store, identity)).await?;
            // A run that died between its verification and its end has left the guard.
            if let Some(guard) = &guard {
                report.guard = Some(GuardReport {
                    proved: proof == Some(Proof::Given),
                    removed: guard.take_away().await?,
                });
            }
            return Ok(report);
        }
        // Few are late: the sweeps find them, and say so. After a leak all are, or a forger of many would have them sealed anew.
        due_again = census.due > census.current && !prepared.is_wary();
    }
    let claimed = match prepared.options.state {
        true => Some(before_the_first_write(&**store, Before::Answered, || claim(store, identity, owner, due_again)).await?),
        false => None,
    };
    if let Some(plan) = &claimed {
        let _ = noted.set(plan.clone());
    }
    if let Some(plan) = &claimed
        && !prepared.is_wary()
        && !prepared.options.accepted.iter().any(|name| name == preflight::FORGED)
    {
        let forged = before_the_first_write(&**store, Before::Answered, || forged(store, plan)).await?;
        if forged > 0 {
            return Err(RotationError::Refused(vec![preflight::may_be_forged(forged)]));
        }
    }
    if let Some(guard) = &guard {
        guard.put_up().await?;
    }
    let run = Run::new(store, prepared, progress, stop, claimed).guarded_by(guard);
    let lag = match lag {
        Some(mut collector) => {
            collector.look().await;
            Some(collector)
        }
        None => None,
    };
    let all = async {
        let phases = run.all(&identity.id, findings);
        match upkeep {
            Some(upkeep) => upkeep.beside(run.wear(), phases).await,
            None => phases.await,
        }
    };
    tokio::select! {
        outcome = all => outcome,
        never = measure(lag) => match never {},
    }
}

/// Whoever takes a plan over leaves it with a higher generation. A lower one, or none, is that of the past.
async fn taken_over_or_restored(store: &Arc<dyn Store>, claimed: &Plan, cause: StoreError) -> StoreError {
    if !matches!(cause, StoreError::Superseded | StoreError::Vanished(_)) {
        return cause;
    }
    let Ok(found) = answered(&**store, ANSWERS_AN_ATTEMPT, known_plan(store, &claimed.identity)).await else {
        return cause;
    };
    match found {
        None => StoreError::Restored("this rotation is not known there".to_owned()),
        Some(plan) if plan.generation < claimed.generation => StoreError::Restored(format!(
            "run {} of this rotation is the latest there, and this is run {}",
            plan.generation, claimed.generation
        )),
        Some(_) => cause,
    }
}

/// Fails when a plan of the table was claimed after this run's own. What it has not claimed yet it claims under its lock.
async fn require_current(store: &Arc<dyn Store>, claimed: Option<&Plan>) -> Result<(), StoreError> {
    let Some(claimed) = claimed else { return Ok(()) };
    match known_plan(store, &claimed.identity).await? {
        Some(plan) if plan.generation == claimed.generation => Ok(()),
        _ => Err(StoreError::Superseded),
    }
}

/// Measures replica lag beside the run, where that was asked for.
async fn measure(lag: Option<LagCollector>) -> Infallible {
    match lag {
        Some(collector) => collector.run().await,
        None => std::future::pending().await,
    }
}

/// The plan as an earlier run left it.
async fn known_plan(store: &Arc<dyn Store>, identity: &PlanIdentity) -> Result<Option<Plan>, StoreError> {
    let mut control = store.control().await?;
    if control.exists().await? {
        control.plan(&identity.id).await
    } else {
        Ok(None)
    }
}

/// Makes the plan this run's own. Asked again after a lost reply, it only takes it once more. The ranges of a verified plan whose
/// values are `due_again` for the greater part (rotated back meanwhile, or restored) begin afresh: such values are everywhere.
async fn claim(store: &Arc<dyn Store>, identity: &PlanIdentity, owner: &str, due_again: bool) -> Result<Plan, StoreError> {
    let mut control = store.control().await?;
    control.migrate().await?;
    let plan = control.claim_plan(identity, owner).await?;
    if due_again {
        control.restart(&plan).await?;
    }
    announce(&mut *control, &Subject::Plan(identity.id.clone()), owner).await?;
    Ok(plan)
}

/// How many values an earlier run of the plan quarantined as perhaps forged.
async fn forged(store: &Arc<dyn Store>, plan: &Plan) -> Result<u64, StoreError> {
    forged_of(&mut *store.control().await?, &plan.identity.id).await
}

/// The same, of a plan by its id.
pub(super) async fn forged_of(control: &mut dyn Control, plan: &str) -> Result<u64, StoreError> {
    control.quarantined(plan, Some(&Reason::MayBeForged.to_string())).await
}

/// What appeared late in earlier runs of the plan.
async fn late(store: &Arc<dyn Store>, identity: &PlanIdentity) -> Result<LateValues, StoreError> {
    store.control().await?.late(&identity.id, LISTED_MAX).await
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
