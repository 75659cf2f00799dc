//! The ranges that a run works through: those of an earlier run, new ones, and those of partitions that have come since.

use super::super::RotationError;
use super::Run;
use crate::store::control::{Counters, Interval, Plan, Range};
use crate::store::survey::Relation;
use crate::store::{Control, StoreError};

impl Run<'_> {
    /// The plan's ranges: those of an earlier run, or new ones up to the largest key now.
    pub(super) async fn ranges(&self) -> Result<Vec<Range>, RotationError> {
        let Some(plan) = &self.plan else {
            let intervals = self.intervals(true).await?;
            return Ok((0..).zip(intervals).map(|(id, interval)| unclaimed(id, interval)).collect());
        };
        self.patiently("re-encrypt", || self.planned_ranges(plan)).await
    }

    /// The plan's ranges in what is the table now. Those of a partition that was detached stay behind: its rows are nobody's to rewrite.
    pub(super) async fn planned_ranges(&self, plan: &Plan) -> Result<Vec<Range>, StoreError> {
        let mut control = self.control().await?;
        let mut ranges = own_ranges(&mut *control, plan).await?;
        if ranges.is_empty() {
            let intervals = self.store.intervals(&self.prepared.survey, self.pieces(), true).await?;
            control.add_ranges(plan, &intervals).await?;
            ranges = own_ranges(&mut *control, plan).await?;
        }
        self.controls.put_back(control);
        keep_those_of(&self.store.relations(&self.prepared.survey).await?, &mut ranges);
        Ok(ranges)
    }

    /// Gives ranges to relations that have none yet. Returns what is left to be re-encrypted, if anything is.
    pub(super) async fn ranges_of_new_relations(&self) -> Result<Option<Vec<Range>>, RotationError> {
        let Some(plan) = &self.plan else { return Ok(None) };
        let mut left = self.patiently("re-encrypt", || self.ranges_of_all_relations(plan)).await?;
        left.retain(|range| !range.done);
        Ok((!left.is_empty()).then_some(left))
    }

    /// The ranges of every relation that is there now. Those of a partition that is gone stay behind, unfinished for good.
    async fn ranges_of_all_relations(&self, plan: &Plan) -> Result<Vec<Range>, StoreError> {
        let mut control = self.control().await?;
        let mut ranges = own_ranges(&mut *control, plan).await?;
        let relations = self.store.relations(&self.prepared.survey).await?;
        let fresh: Vec<Interval> = relations
            .iter()
            .filter(|relation| !ranges.iter().any(|range| range.interval.relation == relation.sql_name))
            .map(|relation| Interval {
                relation: relation.sql_name.clone(),
                after: None,
                upto: None,
            })
            .collect();
        if !fresh.is_empty() {
            control.add_ranges(plan, &fresh).await?;
            ranges = own_ranges(&mut *control, plan).await?;
        }
        self.controls.put_back(control);
        keep_those_of(&relations, &mut ranges);
        Ok(ranges)
    }

    pub(super) async fn intervals(&self, frozen: bool) -> Result<Vec<Interval>, RotationError> {
        let pieces = self.pieces();
        self.patiently("preflight", || self.store.intervals(&self.prepared.survey, pieces, frozen))
            .await
    }

    /// How many intervals the table is divided into.
    fn pieces(&self) -> usize {
        let by_size = usize::try_from(self.prepared.survey.rows_estimate / ROWS_PER_RANGE).unwrap_or(RANGES_MAX);
        by_size.clamp(self.writers.max(self.readers), RANGES_MAX)
    }
}

/// The ranges of a plan, unless it was claimed by another run since: they would be fenced by that one's epoch.
async fn own_ranges(control: &mut dyn Control, plan: &Plan) -> Result<Vec<Range>, StoreError> {
    let ranges = control.ranges(&plan.identity.id).await?;
    match ranges.iter().all(|range| range.epoch == plan.generation) {
        true => Ok(ranges),
        false => Err(StoreError::Superseded),
    }
}

fn keep_those_of(relations: &[Relation], ranges: &mut Vec<Range>) {
    ranges.retain(|range| relations.iter().any(|relation| relation.sql_name == range.interval.relation));
}

fn unclaimed(id: i64, interval: Interval) -> Range {
    Range {
        id,
        interval,
        cursor: None,
        epoch: 0,
        done: false,
        counters: Counters::default(),
    }
}

/// A range this small is worked through in a fraction of a second, and a table of a billion rows still has only [`RANGES_MAX`].
const ROWS_PER_RANGE: u64 = 25_000;
/// Rows of the control table.
const RANGES_MAX: usize = 4_096;
