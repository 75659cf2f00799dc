//! Sweeps, until two in a row are clean. Where the database tells what was written since the first of them began, the second looks at
//! that alone: whatever was not written since is as it was then. The verification reads everything all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::RotationError;
use super::super::census::Census;
use super::super::crew::Labour;
use super::super::judge::Depth;
use super::super::late::LateWatch;
use super::super::passes::{Sweep, SweepPiece};
use super::super::progress::Step;
use super::{Run, SWEEPS_MAX};
use crate::store::Moment;
use crate::store::control::{Counters, Fence};
use crate::store::page::Page;

impl Run<'_> {
    /// Sweeps until two in a row found nothing to do, or until there have been too many. Returns what was rewritten.
    pub(super) async fn sweep_until_clean(&self, before: u32) -> Result<(Counters, u32), RotationError> {
        let (mut counters, mut sweeps, mut clean) = (Counters::default(), before, 0);
        let mut clean_since: Option<Moment> = None;
        while clean < CLEAN_SWEEPS && sweeps < SWEEPS_MAX {
            let now = self.moment().await?;
            let since = clean_since.filter(|since| now.as_ref().is_some_and(|now| since.reaches(now)));
            let (census, written) = self.sweep(since.as_ref()).await?;
            counters += written;
            sweeps += 1;
            clean = if census.due == 0 { clean + 1 } else { 0 };
            clean_since = now.filter(|_| census.due == 0 && census.withheld == 0);
        }
        Ok((counters, sweeps))
    }

    /// Looks at everything, or, knowing that nothing was due in a sweep that began at `since`, at what was written from then on.
    async fn sweep(&self, since: Option<&Moment>) -> Result<(Census, Counters), RotationError> {
        let mut fences: BTreeMap<String, Fence> = BTreeMap::new();
        if let Some(plan) = &self.plan {
            // A partition attached since has no range to fence its rows: it gets one, and is re-encrypted by it.
            if let Some(more) = self.ranges_of_new_relations().await? {
                self.re_encrypt(more).await?;
            }
            let ranges = self.patiently("sweep", || self.planned_ranges(plan)).await?;
            for range in ranges {
                let fence = Fence {
                    plan: plan.identity.id.clone(),
                    range: range.id,
                    epoch: range.epoch,
                };
                fences.insert(range.interval.relation, fence);
            }
        }
        let pieces: Vec<SweepPiece> = self
            .intervals(false)
            .await?
            .into_iter()
            .filter_map(|interval| {
                let fence = fences.get(&interval.relation);
                // Attached within this very moment: the next sweep has its range.
                if self.plan.is_some() && fence.is_none() {
                    return None;
                }
                Some(SweepPiece {
                    fence: fence.cloned(),
                    since: since
                        .filter(|since| since.has(&interval.relation))
                        .map(|since| since.position),
                    interval,
                })
            })
            .collect();
        self.begin(Step::Sweep, pieces.len());
        let mut workshop = self.workshop.clone();
        workshop.work.step = "sweep";
        let shared = self.workshop.shared();
        workshop.rewriters.late = Some(LateWatch::new(
            self.late_policy(),
            Arc::clone(&shared.left_behind),
            Arc::clone(&shared.withheld),
        ));
        let yields = self
            .crew("sweep", self.readers, pieces, move |session| {
                let labour: Box<dyn Labour<Piece = SweepPiece, Yield = (Census, Counters)>> = Box::new(Sweep {
                    buffers: workshop.buffers(session)?,
                    counter: workshop.counter(Depth::Hint),
                    page: Page::to_look_at(session.shape()),
                    work: workshop.work.clone(),
                    counters: Counters::default(),
                });
                Ok(labour)
            })
            .await?;
        let mut census = Census::default();
        let mut counters = Counters::default();
        for (part, written) in yields {
            census.merge(part);
            counters += written;
        }
        shared.left_behind.keep_what_is_still_due(self.late_policy(), &census);
        if self.plan.is_none() && shared.late.wants_time() {
            shared.late.seen_by(&self.patiently("sweep", || self.database_time()).await?);
        }
        self.withhold(&mut census);
        Ok((census, counters))
    }

    /// Now, where this database tells what is written later.
    async fn moment(&self) -> Result<Option<Moment>, RotationError> {
        self.patiently("sweep", || self.store.moment(&self.prepared.survey)).await
    }
}

/// One clean sweep may have looked behind a writer's back; two in a row bracket every write between them.
const CLEAN_SWEEPS: u32 = 2;
