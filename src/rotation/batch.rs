//! One batch: read, seal, swap, advance; and what follows when it does not go through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::census::{Census, Counter};
use super::judge::Depth;
use super::pace::Sample;
use super::progress::Progress;
use super::rewriter::Rewriters;
use super::shared::Shared;
use crate::format::RandomFailed;
use crate::store::control::{Advance, Fence, Interval};
use crate::store::page::{Page, Swaps, Tally};
use crate::store::value::Key;
use crate::store::waves::Waves;
use crate::store::{
    Follow, PageEnd, PageLimits, RetryClass, RewriteStopped, Rewriter, Session, SetBatch, StoreError, Witness, Writer, Written,
};

/// A worker's buffers: reused from batch to batch.
pub struct Buffers {
    page: Page,
    ahead: Ahead,
    swaps: Swaps,
    waves: Waves,
    /// What the transactions of the present page have committed.
    committed: Written,
    /// Which they were, where rows bear them and each row was recognised by its version.
    transactions: Vec<u64>,
    rewriters: Rewriters,
    rewriter: Option<Box<dyn Rewriter>>,
    /// The rewriter that seals, while one that withholds has its place.
    resting: Option<Box<dyn Rewriter>>,
    /// Whether the session was given a rewriter to read ahead with.
    reads_ahead: bool,
}

impl Buffers {
    /// For a session of this shape.
    pub fn new(session: &dyn Session, rewriters: Rewriters) -> Result<Self, RandomFailed> {
        Ok(Self {
            page: Page::new(session.shape()),
            ahead: Ahead::new(Page::new(session.shape())),
            swaps: Swaps::new(session.shape().values),
            waves: Waves::default(),
            committed: Written::default(),
            transactions: Vec::new(),
            rewriter: Some(rewriters.sealing()?),
            rewriters,
            resting: None,
            reads_ahead: false,
        })
    }

    /// Looks at values of the same recipe, believing key ids.
    pub fn counter(&self) -> Counter {
        Counter::new(Arc::clone(&self.rewriters.recipe), Depth::Hint)
    }

    /// What a batch that failed had written before: the waves of a page commit one by one.
    pub fn take_committed(&mut self) -> Written {
        std::mem::take(&mut self.committed)
    }

    /// The next batch writes no value: what is due in it is quarantined for `reason`.
    pub fn withhold(&mut self, reason: &str) -> Result<(), RandomFailed> {
        let withholding = self.rewriters.withholding(reason.to_owned())?;
        self.resting = self.rewriter.replace(withholding);
        Ok(())
    }

    /// Lets the sealing rewriter go on. Whether another one had its place.
    fn resume(&mut self) -> bool {
        let resting = self.resting.take();
        let withheld = resting.is_some();
        if withheld {
            self.rewriter = resting;
        }
        withheld
    }
}

/// Where a batch works.
pub struct Place<'a> {
    /// The interval.
    pub interval: &'a Interval,
    /// After this key of it.
    pub cursor: Option<&'a Key>,
    /// Ownership of the range.
    pub fence: Option<&'a Fence>,
    /// What the batch is to its range.
    pub step: Step,
    /// How rows are recognised.
    pub witness: Witness,
    /// At most so many rows.
    pub rows_max: usize,
}

/// What a batch is to its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next page: cursor and counters move. With `hold` the range stays where a race was lost, so that whoever goes on after a
    /// crash meets those rows before the sweeps do, which would take them for late ones.
    Next {
        /// Whether it does.
        hold: bool,
    },
    /// Once more over a page that was held.
    Again,
    /// A sweep, which leaves cursor and counters.
    Sweep,
}

impl Step {
    fn moves(self) -> bool {
        matches!(self, Self::Next { .. })
    }
}

/// What a batch did.
#[derive(Debug)]
pub struct Done {
    /// The last key that was looked at.
    pub cursor: Option<Key>,
    /// Whether the interval ended.
    pub end: PageEnd,
    /// Whether the range was held where it stood, because a race was lost.
    pub held: bool,
    /// What was written.
    pub written: Written,
    /// What the values were.
    pub tally: Tally,
    /// How long it waited for its turn.
    pub waited: Duration,
}

/// An error of a batch: the database's, or the rewriter's refusal.
pub enum BatchError {
    /// The database's.
    Store(StoreError),
    /// The rewriter left a refusal.
    Refused,
}

impl From<StoreError> for BatchError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Runs one batch. On an error the range stands where it stood; what the waves before it have written is in
/// [`Buffers::take_committed`], and after [`StoreError::Disconnected`] the last one may be written, too.
pub async fn run(
    shared: &Shared,
    session: &mut dyn Session,
    buffers: &mut Buffers,
    place: &Place<'_>,
) -> Result<Done, BatchError> {
    let mut limits = shared.limits();
    limits.rows = limits.rows.min(place.rows_max);
    buffers.committed = Written::default();
    buffers.transactions.clear();
    let in_place = matches!(session.writer(), Writer::InPlace(_));
    let outcome = if in_place {
        run_in_place(session, buffers, place, limits).await
    } else {
        run_set(session, buffers, place, limits, shared.batches_a_page()).await
    };
    if outcome.is_err() {
        // Perhaps another server answers next, whose history is another one.
        buffers.ahead.forget();
    }
    if let Some(fence) = place.fence {
        shared.own.add(fence.range, &buffers.transactions);
    }
    let withheld = buffers.resume();
    let progress = &shared.progress;
    Progress::add(&progress.rows_reencrypted, buffers.committed.rows);
    Progress::add(&progress.values_reencrypted, buffers.committed.values);
    Progress::add(&progress.lost_races, buffers.committed.lost_races);
    let (done, sample, busy) = outcome?;
    if withheld {
        shared.withheld.add(&place.interval.relation, &buffers.swaps.quarantined);
    }
    shared
        .late
        .add(&place.interval.relation, &buffers.swaps.late, &buffers.swaps.quarantined);
    if place.step.moves() && !done.held {
        Progress::add(&progress.rows_scanned, done.tally.rows);
        Progress::add(&progress.quarantined, done.tally.quarantined);
        progress.saw(Census::of_batch(
            &place.interval.relation,
            &done.tally,
            &buffers.swaps.quarantined,
        ));
    }
    shared.waited(done.waited);
    shared.finish(sample, busy).await;
    Ok(done)
}

async fn run_set(
    session: &mut dyn Session,
    buffers: &mut Buffers,
    place: &Place<'_>,
    limits: PageLimits,
    batches_a_page: usize,
) -> Result<(Done, Sample, Duration), BatchError> {
    let (end, read) = read(session, buffers, place, limits, batches_a_page).await?;
    seal(buffers).await.map_err(|RewriteStopped| BatchError::Refused)?;

    let Writer::Set(writer) = session.writer() else {
        return Err(StoreError::State("the session changed its kind".to_owned()).into());
    };
    let (page, swaps) = (&buffers.page, &buffers.swaps);
    let cursor = page.len().checked_sub(1).map(|last| page.owned_key(last));
    let advance = Advance {
        cursor: cursor.clone(),
        done: end == PageEnd::End,
    };
    // Only the first attempt on a page takes its time: what is tried again is few rows, or better in one piece.
    if place.step.moves() && place.witness == Witness::Version {
        writer.arrange(page, swaps, &mut buffers.waves);
    } else {
        buffers.waves.whole(swaps);
    }
    // A sweep that found nothing writes nothing; a range still moves its cursor.
    let nothing_to_record = !place.step.moves() && swaps.quarantined.is_empty() && swaps.late.is_empty();
    let hold = place.step == Step::Next { hold: true };
    let (mut longest, mut busy) = (Duration::ZERO, read);
    if !(swaps.is_empty() && (place.fence.is_none() || nothing_to_record)) {
        for wave in buffers.waves.iter() {
            let writing = Instant::now();
            let is_held = hold && buffers.committed.lost_races > 0;
            let follow = match place.step {
                Step::Sweep => Follow::Stays,
                Step::Next { .. } if wave.last && !is_held => Follow::Now {
                    advance: &advance,
                    ahead: buffers.committed.values,
                    only_whole: hold,
                },
                Step::Next { .. } | Step::Again => Follow::Later,
            };
            let batch = SetBatch {
                relation: &place.interval.relation,
                page,
                swaps,
                wave,
                fence: place.fence,
                follow,
            };
            buffers.committed += writer.swap_and_advance(&batch, place.witness).await?;
            // By its old value a row is recognised whatever a column holds that was not due.
            if place.witness != Witness::OldValue {
                buffers.transactions.extend(writer.transaction());
            }
            // What the network takes burdens nobody. A server's clock may jump.
            let elapsed = writing.elapsed();
            let took = writer.took().map_or(elapsed, |took| took.min(elapsed));
            longest = longest.max(took);
            busy += took;
        }
    }
    let sample = Sample {
        took: read + longest,
        bytes: page.byte_len() + swaps.byte_len(),
        rows: page.len(),
    };
    let done = Done {
        cursor,
        end,
        held: hold && buffers.committed.lost_races > 0,
        written: buffers.committed,
        tally: swaps.tally,
        waited: Duration::ZERO,
    };
    Ok((done, sample, busy))
}

/// The rows of the batch, and what reading them says about its size: where batches share a page, nothing.
async fn read(
    session: &mut dyn Session,
    buffers: &mut Buffers,
    place: &Place<'_>,
    limits: PageLimits,
    batches_a_page: usize,
) -> Result<(PageEnd, Duration), StoreError> {
    let begun = Instant::now();
    let (interval, cursor) = (place.interval, place.cursor);
    // What is tried again is read again.
    if batches_a_page == 1 || !place.step.moves() || place.witness != Witness::Version {
        let end = session.page(interval, cursor, limits, &mut buffers.page).await?;
        return Ok((end, begun.elapsed()));
    }
    let ahead = &mut buffers.ahead;
    if !ahead.follows(&interval.relation, cursor, begun) {
        let shared = PageLimits {
            rows: limits.rows.saturating_mul(batches_a_page),
            ..limits
        };
        let end = session.page(interval, cursor, shared, ahead.page()).await?;
        ahead.filled(&interval.relation, end, begun);
    }
    Ok((ahead.take(limits.rows, &mut buffers.page), Duration::ZERO))
}

/// The CPU stage, on rayon's threads: the runtime's own stay free for the other workers' connections. A small page is sealed sooner than
/// another thread wakes up, looks for more to do, and falls asleep again, which on a busy machine is time of the application's.
async fn seal(buffers: &mut Buffers) -> Result<(), RewriteStopped> {
    if buffers.page.byte_len() <= SEALED_AT_ONCE {
        let rewriter = buffers.rewriter.as_mut().ok_or(RewriteStopped)?;
        buffers.swaps.clear();
        return rewriter.rewrite(&buffers.page, &mut buffers.swaps);
    }
    let shape = buffers.page.shape();
    let page = std::mem::replace(&mut buffers.page, Page::new(shape));
    let mut swaps = std::mem::replace(&mut buffers.swaps, Swaps::new(shape.values));
    let mut rewriter = buffers.rewriter.take().ok_or(RewriteStopped)?;
    let (send, receive) = tokio::sync::oneshot::channel();
    rayon::spawn(move || {
        swaps.clear();
        let outcome = rewriter.rewrite(&page, &mut swaps);
        // The receiver is gone only when the whole rotation is being dropped.
        let _ = send.send((page, swaps, rewriter, outcome));
    });
    let (page, swaps, rewriter, outcome) = receive.await.map_err(|_| RewriteStopped)?;
    buffers.page = page;
    buffers.swaps = swaps;
    buffers.rewriter = Some(rewriter);
    outcome
}

async fn run_in_place(
    session: &mut dyn Session,
    buffers: &mut Buffers,
    place: &Place<'_>,
    limits: PageLimits,
) -> Result<(Done, Sample, Duration), BatchError> {
    let rewriter = buffers.rewriter.take().ok_or(BatchError::Refused)?;
    let Writer::InPlace(writer) = session.writer() else {
        return Err(StoreError::State("the session changed its kind".to_owned()).into());
    };
    if !buffers.reads_ahead && place.step.moves() {
        buffers.reads_ahead = true;
        // Without one, everything is judged inside the batch.
        if let Ok(rewriter) = buffers.rewriters.sealing() {
            writer.read_ahead(rewriter);
        }
    }
    let writing = Instant::now();
    let (rewriter, swaps, outcome) = writer
        .rewrite_and_advance(
            place.interval,
            place.cursor,
            limits,
            rewriter,
            place.fence,
            place.step.moves(),
        )
        .await;
    buffers.rewriter = Some(rewriter);
    let batch = match outcome {
        Ok(batch) => batch,
        Err(StoreError::Rewriter) => return Err(BatchError::Refused),
        Err(error) => return Err(error.into()),
    };
    // The turns of others say nothing about the size of a batch, and while it waited for its own, others had theirs.
    let sample = Sample {
        took: writing.elapsed().saturating_sub(batch.waited),
        bytes: batch.bytes,
        rows: usize::try_from(swaps.tally.rows).unwrap_or(usize::MAX),
    };
    buffers.committed = batch.written;
    let done = Done {
        cursor: batch.cursor,
        end: batch.end,
        // Nobody can come between the statement and the row.
        held: false,
        written: batch.written,
        tally: swaps.tally,
        waited: batch.waited,
    };
    buffers.swaps = swaps;
    Ok((done, sample, sample.took))
}

/// Bytes of a page: some tens of microseconds of work.
const SEALED_AT_ONCE: usize = 64 << 10;

/// The witness of the next try: rows that somebody holds locked are passed over instead of waited for a second time.
pub fn next_witness(class: RetryClass, present: Witness) -> Witness {
    match (class, present) {
        (RetryClass::LockTimeout, Witness::Version) => Witness::VersionSkipLocked,
        _ => present,
    }
}
