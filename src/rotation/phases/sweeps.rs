//! Sweeps: one that is clean before the verification, and one behind it, so that two in a row bracket every write that came between.
//! Where the database tells who wrote a row, the first passes over what this run has just written; and where it tells what was written
//! since the first began, the second looks at that alone: whatever was not written since is as it was then. The verification reads
//! everything all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::RotationError;
use super::super::census::Census;
use super::super::crew::Labour;
use super::super::judge::Depth;
use super::super::late::LateWatch;
use super::super::passes::{Sweep, SweepPiece};
use super::super::progress::Step;
use super::Run;
use crate::store::control::{Counters, Fence, Interval, Range};
use crate::store::page::Page;
use crate::store::{Moment, Sieve};

impl Run<'_> {
    /// Sweeps until one found nothing to do, or until there have been too many.
    pub(super) async fn sweep_until_clean(&self, swept: &mut Swept) -> Result<(), RotationError> {
        loop {
            let census = self.sweep_once(swept).await?;
            if census.due == 0 || swept.is_enough() {
                return Ok(());
            }
        }
    }

    /// Sweeps once: where the sweep before was clean, what was written since it began.
    pub(super) async fn sweep_once(&self, swept: &mut Swept) -> Result<Census, RotationError> {
        // What a crash of the server would undo, it undoes before the sweep looks.
        self.patiently("sweep", || self.store.settle()).await?;
        let now = self.moment().await?;
        let accuses = !std::mem::take(&mut swept.excuses);
        let (census, written) = self.sweep(now.as_ref(), swept.clean_since.as_ref(), accuses).await?;
        swept.counters += written;
        swept.sweeps += 1;
        swept.clean_since = now.filter(|_| census.due == 0 && census.withheld == 0);
        Ok(census)
    }

    async fn sweep(
        &self,
        now: Option<&Moment>,
        clean_since: Option<&Moment>,
        accuses: bool,
    ) -> Result<(Census, Counters), RotationError> {
        let pieces = self.pieces_to_sweep(now, clean_since).await?;
        self.begin(Step::Sweep, pieces.len());
        let mut workshop = self.workshop.clone();
        workshop.work.step = "sweep";
        let shared = self.workshop.shared();
        workshop.rewriters.late = accuses.then(|| {
            LateWatch::new(
                self.late_policy(),
                Arc::clone(&shared.left_behind),
                Arc::clone(&shared.withheld),
            )
        });
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
        match self.prepared.is_wary() {
            true => shared.left_behind.forget(),
            false => shared.left_behind.keep_what_is_still_due(&census),
        }
        if self.plan.is_none() && shared.late.wants_time() {
            shared.late.seen_by(&self.patiently("sweep", || self.database_time()).await?);
        }
        self.withhold(&mut census);
        Ok((census, counters))
    }

    /// Everything that this run has not written itself, or, where nothing was due in a sweep that began at `clean_since`, what was written
    /// from then on.
    async fn pieces_to_sweep(
        &self,
        now: Option<&Moment>,
        clean_since: Option<&Moment>,
    ) -> Result<Vec<SweepPiece>, RotationError> {
        let since = clean_since.filter(|since| now.is_some_and(|now| since.reaches(now)));
        let written_since = |interval: &Interval| {
            let since = since.filter(|since| since.has(&interval.relation));
            since.map(|since| Sieve::Since(since.position))
        };
        let Some(plan) = &self.plan else {
            let intervals = self.intervals(false).await?.into_iter();
            let piece = |interval: Interval| SweepPiece {
                fence: None,
                sieve: written_since(&interval),
                interval,
            };
            return Ok(intervals.map(piece).collect());
        };
        // A partition attached since has no range to fence its rows: it gets one, and is re-encrypted by it.
        if let Some(more) = self.ranges_of_new_relations().await? {
            self.re_encrypt(more).await?;
        }
        let mut ranges = self.patiently("sweep", || self.planned_ranges(plan)).await?;
        let own = match (now, since) {
            (Some(now), None) => self.workshop.shared().own.by_range(now.position),
            _ => BTreeMap::new(),
        };
        if !own.is_empty() {
            open_outwards(&mut ranges);
            let piece = |range: Range| SweepPiece {
                fence: Some(range.fence(&plan.identity.id)),
                sieve: own.get(&range.id).map(|own| Sieve::Except(Arc::clone(own))),
                interval: range.interval,
            };
            return Ok(ranges.into_iter().map(piece).collect());
        }
        let fences: BTreeMap<String, Fence> = ranges
            .into_iter()
            .map(|range| (range.interval.relation.clone(), range.fence(&plan.identity.id)))
            .collect();
        let piece = |interval: Interval| {
            // Attached within this very moment: the next sweep has its range.
            let fence = fences.get(&interval.relation)?.clone();
            Some(SweepPiece {
                fence: Some(fence),
                sieve: written_since(&interval),
                interval,
            })
        };
        Ok(self.intervals(false).await?.into_iter().filter_map(piece).collect())
    }

    /// Now, where this database tells what is written later.
    async fn moment(&self) -> Result<Option<Moment>, RotationError> {
        self.patiently("sweep", || self.store.moment(&self.prepared.survey)).await
    }
}

/// What the sweeps of a run have done so far.
#[derive(Default)]
pub(super) struct Swept {
    /// What they wrote.
    pub(super) counters: Counters,
    /// How many there were.
    pub(super) sweeps: u32,
    /// How many verifications were made between them.
    pub(super) verifications: u32,
    /// When the last one began, if it found nothing to do.
    clean_since: Option<Moment>,
    /// Whether the next one accuses nobody: it meets what transactions wrote that had begun before the run.
    excuses: bool,
}

impl Swept {
    /// Nothing yet. The first sweep `excuses` what it finds.
    pub(super) fn nothing(excuses: bool) -> Self {
        Self {
            excuses,
            ..Self::default()
        }
    }

    /// Whether the table was passed over so often that somebody keeps writing with the old key.
    pub(super) fn is_enough(&self) -> bool {
        self.sweeps + self.verifications >= PASSES_MAX
    }

    /// They have passed over what the verification found: from here on everything is swept.
    pub(super) fn doubt(&mut self) {
        self.clean_since = None;
    }

    /// Another server has taken over: what was seen says nothing about it.
    pub(super) fn forget(&mut self) {
        (self.sweeps, self.verifications, self.clean_since) = (0, 0, None);
    }
}

/// If the old key still appears after so many, somebody keeps writing with it.
const PASSES_MAX: u32 = 10;

/// Lets the first range of each relation begin, and the last one end, where the relation does: what has come there since is swept, too.
fn open_outwards(ranges: &mut [Range]) {
    ranges.sort_by(|one, other| (&one.interval.relation, one.id).cmp(&(&other.interval.relation, other.id)));
    for of_one in ranges.chunk_by_mut(|one, next| one.interval.relation == next.interval.relation) {
        if let Some(first) = of_one.first_mut() {
            first.interval.after = None;
        }
        if let Some(last) = of_one.last_mut() {
            last.interval.upto = None;
        }
    }
}
