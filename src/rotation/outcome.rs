//! What a rotation and a verification report when they ran to their end.

use std::time::Duration;

use super::census::Census;
use super::guard::GuardReport;
use super::judge::Reason;
use super::preflight::Finding;
use super::vacuum::VacuumReport;
use crate::store::control::{Counters, LateValues};

/// What a rotation did, and what the verification found.
#[derive(Debug)]
pub struct RotationReport {
    /// The rotation's id: the same for every run that continues it.
    pub plan: String,
    /// What was done to rows, over all runs of this rotation. A run that finds it verified already reports what it saw itself.
    pub counters: Counters,
    /// Rows that this run rewrote in its re-encrypt phase, and how long that took.
    pub this_run: (u64, Duration),
    /// The final scan.
    pub census: Census,
    /// Column names, for entries of the census.
    pub columns: Vec<String>,
    /// Sweeps that were needed.
    pub sweeps: u32,
    /// What preflight had to say.
    pub findings: Vec<Finding>,
    /// Values that appeared under an old key after the ranges were worked through, over all runs of this rotation.
    pub late: LateValues,
    /// How the guard ended, if one was asked for.
    pub guard: Option<GuardReport>,
    /// How the upkeep went, if it was asked for.
    pub vacuum: Option<VacuumReport>,
    /// Whether every value that is to be sealed opened under the target key, and the database agrees. Plaintext that was left alone stands
    /// in the census.
    pub verified: bool,
}

impl RotationReport {
    /// Whether the database found values under an old key where the verification found none.
    pub fn is_refuted(&self) -> bool {
        self.census.is_clean() && !self.verified
    }

    /// Whether values were left as they are because they may be forged.
    pub fn has_forged(&self) -> bool {
        let mut quarantined = self.census.quarantined_values.iter();
        quarantined.any(|(_, entry)| Reason::MayBeForged.is(entry))
    }
}

/// What a verification found.
#[derive(Debug)]
pub struct VerifyReport {
    /// The scan.
    pub census: Census,
    /// Column names, for entries of the census.
    pub columns: Vec<String>,
    /// What preflight had to say.
    pub findings: Vec<Finding>,
}
