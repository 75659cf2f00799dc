//! What a rotation tells while it runs, and how it is asked to stop. Written by workers, read by whoever draws.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::census::Census;
use super::throttle::Throttle;
use crate::store::survey::{Survey, Target};

/// The steps of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading the catalogue and a sample.
    Preflight,
    /// Rewriting values, range by range.
    ReEncrypt,
    /// Reading everything again and rewriting what is still old.
    Sweep,
    /// Opening every value.
    Verify,
    /// Making free what dead row versions take.
    Vacuum,
}

impl Step {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::ReEncrypt => "re-encrypt",
            Self::Sweep => "sweep",
            Self::Verify => "verify",
            Self::Vacuum => "vacuum",
        }
    }
}

/// Counters that workers raise and a display reads. What values turned out to be is behind a lock, which a batch takes once.
#[derive(Debug)]
pub struct Progress {
    /// Rows of the table, as estimated; per pass.
    pub rows_expected: AtomicU64,
    /// Rows read in this pass.
    pub rows_scanned: AtomicU64,
    /// Rows rewritten.
    pub rows_reencrypted: AtomicU64,
    /// Values rewritten.
    pub values_reencrypted: AtomicU64,
    /// Rows that somebody else wrote first.
    pub lost_races: AtomicU64,
    /// Values left untouched.
    pub quarantined: AtomicU64,
    /// Ranges of this pass.
    pub ranges: AtomicU64,
    /// Ranges finished.
    pub ranges_done: AtomicU64,
    /// Rows of the present batches.
    pub batch_rows: AtomicU64,
    /// What batches wait for.
    pub throttle: Throttle,
    /// Milliseconds spent waiting on purpose.
    pub waited_ms: AtomicU64,
    tables: Mutex<Vec<Table>>,
    state: Mutex<StepState>,
}

/// A table that is or was at work, and what its values turned out to be: those that ranges have passed, until a verification counts anew.
#[derive(Debug, Clone)]
pub struct Table {
    /// Which table of which store, as it describes itself: the same again is counted anew.
    pub of: (String, Target),
    /// The catalogue's facts.
    pub survey: Arc<Survey>,
    /// Column names, for entries of the census.
    pub columns: Arc<Vec<String>>,
    /// What was counted so far.
    pub census: Census,
}

#[derive(Debug)]
struct StepState {
    step: Step,
    since: Instant,
    finished: Vec<(Step, Duration)>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            rows_expected: AtomicU64::new(0),
            rows_scanned: AtomicU64::new(0),
            rows_reencrypted: AtomicU64::new(0),
            values_reencrypted: AtomicU64::new(0),
            lost_races: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            ranges: AtomicU64::new(0),
            ranges_done: AtomicU64::new(0),
            batch_rows: AtomicU64::new(0),
            throttle: Throttle::default(),
            waited_ms: AtomicU64::new(0),
            tables: Mutex::default(),
            state: Mutex::new(StepState {
                step: Step::Preflight,
                since: Instant::now(),
                finished: Vec::new(),
            }),
        }
    }
}

impl Progress {
    /// Ends the present step and begins the next: its counters start at nothing.
    pub fn begin(&self, step: Step, ranges: usize, rows_expected: u64) {
        self.rows_expected.store(rows_expected, Ordering::Relaxed);
        self.rows_scanned.store(0, Ordering::Relaxed);
        self.ranges.store(ranges as u64, Ordering::Relaxed);
        self.ranges_done.store(0, Ordering::Relaxed);
        if step == Step::Verify
            && let Some(table) = self.lock_tables().last_mut()
        {
            table.census = Census::default();
        }
        let mut state = self.state();
        let (old, since) = (state.step, state.since);
        state.finished.push((old, since.elapsed()));
        state.step = step;
        state.since = Instant::now();
    }

    /// The present step and how long it has been going on.
    pub fn now(&self) -> (Step, Duration) {
        let state = self.state();
        (state.step, state.since.elapsed())
    }

    /// Time spent in each step so far, the present one included; repeated steps are added up.
    pub fn times(&self) -> Vec<(Step, Duration)> {
        let state = self.state();
        let mut sums: Vec<(Step, Duration)> = Vec::new();
        let present = (state.step, state.since.elapsed());
        for (step, time) in state.finished.iter().copied().chain([present]) {
            match sums.iter_mut().find(|(known, _)| *known == step) {
                Some((_, sum)) => *sum += time,
                None => sums.push((step, time)),
            }
        }
        sums
    }

    /// Time spent in a step so far.
    pub fn time_of(&self, step: Step) -> Duration {
        let of = |(known, time): (Step, Duration)| (known == step).then_some(time);
        self.times().into_iter().find_map(of).unwrap_or_default()
    }

    /// What is counted from now on is of this table.
    pub fn turn_to(&self, table: Table) {
        let mut tables = self.lock_tables();
        tables.retain(|other| other.of != table.of);
        tables.push(table);
    }

    /// Values of the present table were looked at.
    pub fn saw(&self, part: Census) {
        if let Some(table) = self.lock_tables().last_mut() {
            table.census.merge(part);
        }
    }

    /// The tables so far.
    pub fn tables(&self) -> Vec<Table> {
        self.lock_tables().clone()
    }

    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    fn lock_tables(&self) -> std::sync::MutexGuard<'_, Vec<Table>> {
        self.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, StepState> {
        // Nothing panics while it is held; and a poisoned clock is still a clock.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A request to stop after the present batch.
#[derive(Debug, Default)]
pub struct Stop {
    requested: AtomicBool,
    why: Mutex<Option<String>>,
    wake: tokio::sync::Notify,
}

impl Stop {
    /// Asks. Batches under way are finished, nothing new is begun.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
        self.wake.notify_waiters();
    }

    /// Asks, and says why it was not the one at the terminal. The first reason counts.
    pub fn end(&self, why: String) {
        let mut known = self.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !self.requested() {
            known.get_or_insert(why);
        }
        drop(known);
        self.request();
    }

    /// Why, if not because of whoever started it.
    pub fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Sleeps, unless asked to stop. Cancel safe.
    pub async fn sleep(&self, time: Duration) {
        if time.is_zero() || self.requested() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.wake.notified() => {}
        }
    }
}
