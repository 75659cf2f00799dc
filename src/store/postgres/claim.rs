//! Making a plan this run's own, and fencing off whoever had the table before, by whichever plan.

use sqlx::postgres::PgConnection;

use super::control_rows::plan_of;
use super::control_sql::{CLAIM_LOCK, CLAIM_PLAN, RAISE_PLANS, RAISE_RANGES, SELECT_PLAN};
use super::error::store_error;
use crate::store::StoreError;
use crate::store::control::{Plan, PlanIdentity, PlanStatus};

/// Claims a plan, inside a transaction, and gives it as it is then.
pub async fn claim(connection: &mut PgConnection, identity: &PlanIdentity, owner: &str) -> Result<Option<Plan>, StoreError> {
    // Two claims at once: the second sees the plan that the first began, and raises it.
    sqlx::query("SELECT pg_advisory_xact_lock($1, 0)")
        .bind(CLAIM_LOCK)
        .execute(&mut *connection)
        .await
        .map_err(store_error)?;
    sqlx::query(RAISE_PLANS)
        .bind(&identity.table)
        .execute(&mut *connection)
        .await
        .map_err(store_error)?;
    for other in plans_of(connection, &identity.table).await? {
        if identity.undoes(&other.identity) {
            begin_afresh(connection, &other.identity.id, other.status).await?;
        }
    }
    sqlx::query(CLAIM_PLAN)
        .bind(&identity.id)
        .bind(&identity.table)
        .bind(&identity.columns)
        .bind(&identity.from)
        .bind(&identity.to)
        .bind(owner)
        .execute(&mut *connection)
        .await
        .map_err(store_error)?;
    sqlx::query(RAISE_RANGES)
        .bind(&identity.table)
        .execute(&mut *connection)
        .await
        .map_err(store_error)?;
    // Read here: afterwards its generation may be that of the next claim already.
    let plans = plans_of(connection, &identity.table).await?;
    Ok(plans.into_iter().find(|plan| plan.identity.id == identity.id))
}

/// Whatever was worked through is due again; the counters stay. That a plan `was` verified stays on record.
pub async fn begin_afresh(connection: &mut PgConnection, plan: &str, was: PlanStatus) -> Result<(), StoreError> {
    sqlx::query("UPDATE reseal.range SET cursor = NULL, done = false WHERE plan_id = $1")
        .bind(plan)
        .execute(&mut *connection)
        .await
        .map_err(store_error)?;
    if was == PlanStatus::Verified {
        return Ok(());
    }
    sqlx::query("UPDATE reseal.plan SET status = 'running', updated_at = clock_timestamp() WHERE id = $1")
        .bind(plan)
        .execute(&mut *connection)
        .await
        .map(drop)
        .map_err(store_error)
}

async fn plans_of(connection: &mut PgConnection, table: &str) -> Result<Vec<Plan>, StoreError> {
    sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT_PLAN} WHERE table_name = $1")))
        .bind(table)
        .fetch_all(connection)
        .await
        .map_err(store_error)?
        .iter()
        .map(plan_of)
        .collect()
}
