//! Where the rotation stands, by the state that it keeps in the database: what a stranger with a connection can see.

use std::sync::Arc;

use super::DrillError;
use super::stage::Stage;
use crate::rotation::protocol::Phase;
use crate::store::control::PlanStatus;
use crate::store::ledger::ending::{EndingRecord, Endings};
use crate::store::ledger::rotation::Rotations;
use crate::store::{self, Control, Store, StoreError};

/// Looks at the control tables.
pub struct Watch {
    runtime: tokio::runtime::Runtime,
    control: Box<dyn Control>,
    keyset: String,
    /// Passes over tables that were there before: of other rotations.
    before: Vec<String>,
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
    /// The first of its passes over tables, once one has begun.
    pub plan: Option<String>,
    /// Rows that it has worked through and committed.
    pub rows: u64,
    /// The cut-offs of sessions that are on record, and how their end stands.
    pub endings: Vec<EndingRecord>,
    /// Whether no pass that has begun has rows before it: sweeps and verification follow.
    pub is_swept: bool,
}

impl Watch {
    /// Over the stage's database, on the straight way.
    pub fn new(stage: &Stage) -> Result<Self, DrillError> {
        let store = store::open(&stage.place().url, &stage.role("watch"))?;
        Self::over(&store, &stage.keyset_name())
    }

    /// Over the database that keeps the record of the keyset's rotations.
    pub fn over(store: &Arc<dyn Store>, keyset: &str) -> Result<Self, DrillError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DrillError::Stage)?;
        let (control, before) = runtime.block_on(async {
            let mut control = store.control().await?;
            // What the instances would make: tables of another version are found out before anything begins.
            control.migrate().await?;
            let before = control.plans().await?.into_iter().map(|plan| plan.identity.id).collect();
            Ok::<_, StoreError>((control, before))
        })?;
        Ok(Self {
            runtime,
            control,
            keyset: keyset.to_owned(),
            before,
        })
    }

    /// Where the rotation of the keyset stands, or the last one that there was; `None` before the first.
    pub fn position(&mut self) -> Result<Option<Position>, DrillError> {
        let Self {
            runtime,
            control,
            keyset,
            before,
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
            let endings = Endings::of(&mut **control).list(&record.id).await?;
            let mut plans = control.plans().await?;
            plans.retain(|plan| !before.contains(&plan.identity.id));
            let mut rows = 0;
            for plan in &plans {
                rows += control.totals(&plan.identity.id).await?.rows_scanned;
            }
            Ok(Some(Position {
                rotation: record.id,
                endings,
                generation: record.generation,
                // A word that this version does not know is none that this version wrote.
                phase: Phase::parse(&record.phase).unwrap_or(Phase::Introduce),
                to_key: record.to_key,
                is_swept: !plans.is_empty() && plans.iter().all(|plan| plan.status != PlanStatus::Running),
                // The oldest of them, whatever the order in which a database gives them.
                plan: plans.into_iter().map(|plan| plan.identity.id).min(),
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

    /// Whether a cut-off of sessions is on record: whoever logs in from now on stays.
    pub fn is_cut_off(&self) -> bool {
        !self.endings.is_empty()
    }

    /// Whether sessions of before a cut-off are being ended.
    pub fn is_ending_sessions(&self) -> bool {
        self.endings.iter().any(|ending| ending.ended_at.is_none())
    }

    /// The cut-offs, by the clocks of their stores.
    pub fn cut_offs(&self) -> Vec<i64> {
        self.endings.iter().map(|ending| ending.cut_off_us).collect()
    }

    /// Whether all values have been moved once and are being proven.
    pub fn is_proving(&self) -> bool {
        match self.phase {
            Phase::ReEncrypt => self.is_swept,
            phase => phase == Phase::Verify,
        }
    }
}
