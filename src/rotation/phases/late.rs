//! What a run keeps of late values: which of them its own leavings explain, what becomes of them, and what is reported in the end.

use super::super::RotationError;
use super::super::census::LISTED_MAX;
use super::super::late::LatePolicy;
use super::Run;
use crate::store::StoreError;
use crate::store::control::{LateValues, Plan, StoredQuarantine};

impl Run<'_> {
    /// Values that were quarantined and have been mended since are not late, unless a key is in other hands.
    pub(super) async fn remember_quarantine(&self) -> Result<(), RotationError> {
        if let Some(plan) = &self.plan
            && !self.prepared.is_wary()
        {
            let quarantined = self.patiently("sweep", || self.stored_quarantine(plan)).await?;
            self.workshop.shared().left_behind.add_quarantined(&quarantined);
        }
        Ok(())
    }

    async fn stored_quarantine(&self, plan: &Plan) -> Result<Vec<StoredQuarantine>, StoreError> {
        let mut control = self.control().await?;
        let answer = control.quarantine(&plan.identity.id, QUARANTINE_REMEMBERED_MAX).await?;
        self.controls.put_back(control);
        Ok(answer)
    }

    /// Late values of this rotation, those of earlier runs included; without control tables those of this run.
    pub(super) async fn late(&self) -> Result<LateValues, RotationError> {
        match &self.plan {
            Some(plan) => self.patiently("sweep", || self.stored_late(plan)).await,
            None => Ok(self.workshop.shared().late.values()),
        }
    }

    async fn stored_late(&self, plan: &Plan) -> Result<LateValues, StoreError> {
        let mut control = self.control().await?;
        let answer = control.late(&plan.identity.id, LISTED_MAX).await?;
        self.controls.put_back(control);
        Ok(answer)
    }

    pub(super) fn late_policy(&self) -> LatePolicy {
        if self.prepared.options.compromised {
            LatePolicy::Quarantine
        } else {
            LatePolicy::Report
        }
    }

    pub(super) async fn database_time(&self) -> Result<String, StoreError> {
        let mut control = self.control().await?;
        let answer = control.now().await?;
        self.controls.put_back(control);
        Ok(answer)
    }
}

/// Entries, of about 100 bytes each, in which a value that is mended can be told from a late one. Whoever has more in quarantine sees
/// mended values beyond them reported as late, and is not blamed for more than that.
const QUARANTINE_REMEMBERED_MAX: usize = 100_000;
