//! Where the rotation stands, by the state that it keeps in the database: what a stranger with a connection can see.

use super::DrillError;
use super::stage::Stage;
use crate::rotation::protocol::Phase;
use crate::store::control::PlanStatus;
use crate::store::ledger::rotation::Rotations;
use crate::store::{self, Control, StoreError};

/// Looks at the control tables.
pub struct Watch {
    runtime: tokio::runtime::Runtime,
    control: Box<dyn Control>,
    table: String,
    keyset: String,
}

/// Where a rotation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its id.
    pub rotation: String,
    /// Grows whenever a run takes it up.
    pub generation: i64,
    /// The phase that it has entered.
    pub phase: Phase,
    /// The key that it leads to.
    pub to_key: u32,
    /// The pass over the table, once it has begun.
    pub plan: Option<String>,
    /// Rows that it has worked through and committed.
    pub rows: u64,
    /// Whether it has worked through all of them once: sweeps and verification follow.
    pub is_swept: bool,
}

impl Watch {
    /// Over the stage's database, on the straight way.
    pub fn new(stage: &Stage) -> Result<Self, DrillError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DrillError::Stage)?;
        let store = store::open(&stage.place().url, &stage.role("watch"))?;
        let control = runtime.block_on(async {
            let mut control = store.control().await?;
            // What the instances would make: tables of another version are found out before anything begins.
            control.migrate().await?;
            Ok::<_, StoreError>(control)
        })?;
        Ok(Self {
            runtime,
            control,
            table: stage.place().table.clone(),
            keyset: stage.keyset_name(),
        })
    }

    /// Where the rotation of the stage's keyset stands; `None` before it has begun.
    pub fn position(&mut self) -> Result<Option<Position>, DrillError> {
        let Self {
            runtime,
            control,
            table,
            keyset,
        } = self;
        runtime.block_on(async {
            let mut rotations = Rotations::of(&mut **control);
            let record = match rotations.open(keyset).await? {
                Some(record) => record,
                None => match rotations.latest_finished(keyset).await? {
                    Some(record) => record,
                    None => return Ok(None),
                },
            };
            let plans = control.plans().await?;
            let plan = plans.into_iter().find(|plan| plan.identity.table.replace('"', "") == *table);
            let rows = match &plan {
                Some(plan) => control.totals(&plan.identity.id).await?.rows_scanned,
                None => 0,
            };
            Ok(Some(Position {
                rotation: record.id,
                generation: record.generation,
                // A word that this version does not know is none that this version wrote.
                phase: Phase::parse(&record.phase).unwrap_or(Phase::Introduce),
                to_key: record.to_key,
                is_swept: plan.as_ref().is_some_and(|plan| plan.status != PlanStatus::Running),
                plan: plan.map(|plan| plan.identity.id),
                rows,
            }))
        })
    }
}

impl Position {
    /// What is being done, as reports name it.
    pub fn doing(&self) -> &'static str {
        match self.phase {
            Phase::ReEncrypt if self.is_swept => "sweep",
            phase => phase.as_str(),
        }
    }

    /// Whether all values have been moved once and are being proven.
    pub fn is_proving(&self) -> bool {
        match self.phase {
            Phase::ReEncrypt => self.is_swept,
            phase => phase == Phase::Verify,
        }
    }
}
