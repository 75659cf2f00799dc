//! How large a batch is, and how long to rest between two: the application comes first.
//!
//! Batches that are rewritten hold locks, pages that are only read and opened hold none: each has sizes of its own, found by a controller
//! of its own. A controller is a pure function of its samples (time and bytes of each batch), so that recorded traces can test it.

use std::time::Duration;

use super::profile::{PaceLimits, Profile, Task};

/// What a batch cost.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Of a batch that is rewritten, statement and commit: no queueing, no encryption. Of a page that is read, opening its values, too.
    pub took: Duration,
    /// Old and new values.
    pub bytes: usize,
    /// Rows read.
    pub rows: usize,
}

/// Finds the number of rows whose batch takes the target time and stays under the byte cap.
#[derive(Debug)]
pub struct BatchController {
    task: Task,
    /// The run's own profile, and the one that it follows now.
    own: Profile,
    followed: Profile,
    single_writer: bool,
    fixed: Option<usize>,
    limits: PaceLimits,
    rows: usize,
    samples: Vec<Sample>,
    since_turn: Duration,
    /// Seconds of rest that are due; less than nothing where a rest was longer than asked for.
    owed: f64,
}

impl BatchController {
    /// Starts with the profile's first batch. `fixed` is the operator's own number, which then never grows.
    pub fn new(task: Task, own: Profile, single_writer: bool, fixed: Option<usize>) -> Self {
        let limits = with_rows(own.limits(task, single_writer), fixed);
        Self {
            task,
            rows: limits.rows_start,
            own,
            followed: own,
            single_writer,
            fixed,
            limits,
            samples: Vec::with_capacity(WINDOW),
            since_turn: Duration::ZERO,
            owed: 0.0,
        }
    }

    /// Goes on with the numbers of the profile that operators ask for, or of the run's own.
    pub fn follow(&mut self, asked: Option<Profile>) {
        let asked = asked.unwrap_or(self.own);
        if self.followed != asked {
            self.followed = asked;
            self.limits = with_rows(asked.limits(self.task, self.single_writer), self.fixed);
            self.resize(self.rows);
        }
    }

    /// Rows of the next batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many batches share a page, whose rows are read at once.
    pub fn batches_a_page(&self) -> usize {
        self.limits.batches_a_page
    }

    /// The byte cap of a page: half of a batch's, since new values are about as large as old ones.
    pub fn page_bytes(&self) -> usize {
        self.limits.bytes_max / 2
    }

    /// Whether whoever waits for the processor goes first.
    pub fn stands_back(&self) -> bool {
        self.followed == Profile::Gentle
    }

    /// Learns from a batch. Every [`WINDOW`] batches the size moves, by a half at most; a batch far beyond the target cuts it at once.
    pub fn record(&mut self, sample: Sample) {
        if sample.took > (self.limits.target * PANIC_FACTOR).max(PANIC_MIN) {
            self.cut();
            return;
        }
        // A short page at the end of a range says nothing about a full one.
        if sample.rows * 2 < self.rows {
            return;
        }
        self.samples.push(sample);
        if self.samples.len() < WINDOW {
            return;
        }
        let target = self.limits.target.as_secs_f64();
        let time = percentile_90(self.samples.iter().map(|s| s.took.as_secs_f64()));
        let bytes = percentile_90(self.samples.iter().map(|s| s.bytes as f64));
        let by_time = if time > 0.0 { target / time } else { f64::INFINITY };
        let bytes_max = match self.task {
            Task::Rewrite => self.limits.bytes_max,
            // There are no new values.
            Task::Read => self.page_bytes(),
        };
        let by_bytes = if bytes > 0.0 {
            BYTES_AIMED_AT * bytes_max as f64 / bytes
        } else {
            f64::INFINITY
        };
        let factor = by_time.min(by_bytes).clamp(SHRINK_MOST, GROW_MOST);
        self.resize((self.rows as f64 * factor) as usize);
    }

    /// Something timed out or deadlocked: a tenth, at once.
    pub fn cut(&mut self) {
        self.resize(self.rows / 10);
    }

    /// The rest after a batch that took `busy`. Short ones are saved up: a timer makes no difference between them.
    pub fn rest(&mut self, busy: Duration) -> Duration {
        self.owed += busy.as_secs_f64() * self.limits.rest_ratio;
        let rest = if self.owed < REST_LEAST {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(std::mem::take(&mut self.owed).min(REST_MOST))
        };
        self.since_turn += busy + rest;
        if !self.limits.gives_turns || self.since_turn < TURN_EVERY {
            return rest;
        }
        self.since_turn = Duration::ZERO;
        rest.max(TURN_REST)
    }

    /// A rest took longer than it was to take: that much less is due next.
    pub fn rested(&mut self, asked: Duration, took: Duration) {
        let over = took.saturating_sub(asked).as_secs_f64();
        self.owed = (self.owed - over).max(-OVERDRAWN_MOST);
    }

    fn resize(&mut self, rows: usize) {
        self.rows = rows.clamp(self.limits.rows_min, self.limits.rows_max);
        self.samples.clear();
    }
}

/// The operator's own number of rows stays.
fn with_rows(mut limits: PaceLimits, fixed: Option<usize>) -> PaceLimits {
    if let Some(rows) = fixed {
        limits.rows_start = rows.max(1);
        limits.rows_max = rows.max(1);
        limits.rows_min = limits.rows_min.min(rows.max(1));
    }
    limits
}

fn percentile_90(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * 9 / 10).copied().unwrap_or(0.0)
}

/// Writers of SQLite look again every 100 ms in the end (`sqliteDefaultBusyCallback`), and give up after 5 s in most drivers: between two
/// batches they would hardly ever look.
const TURN_REST: Duration = Duration::from_millis(120);
const TURN_EVERY: Duration = Duration::from_secs(3);
/// Seconds; timers count in milliseconds.
const REST_LEAST: f64 = 0.001;
/// Seconds. What took long was perhaps held up by somebody; and who asks for another profile meanwhile is heard after the rest.
const REST_MOST: f64 = 2.0;
/// Seconds: whoever was kept from its work for long does not make up for it without any rest.
const OVERDRAWN_MOST: f64 = 0.005;
/// Batches between two changes of size: fewer chase noise, more are slow to yield.
pub const WINDOW: usize = 10;
/// A batch this many times over the target is not noise.
const PANIC_FACTOR: u32 = 5;
/// Shorter, it may have waited for a processor.
const PANIC_MIN: Duration = Duration::from_millis(30);
/// A page that meets the cap ends early, and what the server sent beyond it was for nothing: aim below.
const BYTES_AIMED_AT: f64 = 0.85;
const SHRINK_MOST: f64 = 0.5;
const GROW_MOST: f64 = 1.5;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Runs `cost(rows) -> (milliseconds, bytes)` for a number of batches and returns the sizes that were used.
    fn trace(batches: usize, cost: impl Fn(usize, usize) -> (f64, usize)) -> Vec<usize> {
        let mut controller = BatchController::new(Task::Rewrite, Profile::Balanced, false, None);
        (0..batches)
            .map(|at| {
                let rows = controller.rows();
                let (ms, bytes) = cost(at, rows);
                controller.record(Sample {
                    took: Duration::from_secs_f64(ms / 1000.0),
                    bytes,
                    rows,
                });
                rows
            })
            .collect()
    }

    #[test]
    fn fast_narrow_rows_grow_to_the_ceiling_and_stay() {
        let sizes = trace(200, |_, rows| (rows as f64 * 0.01, rows * 100));
        assert_eq!(sizes[199], 4_000);
    }

    #[test]
    fn wide_rows_settle_at_the_byte_cap() {
        let sizes = trace(300, |_, rows| (rows as f64 * 0.001, rows * 8_192));
        let settled = &sizes[200..];
        assert!(settled.iter().all(|rows| rows * 8_192 <= (2 << 20) * 3 / 2), "{settled:?}");
        assert!(settled.iter().all(|rows| *rows >= 64), "{settled:?}");
    }

    #[test]
    fn pages_settle_below_the_cap_at_which_they_would_end_early() {
        for task in [Task::Rewrite, Task::Read] {
            let mut controller = BatchController::new(task, Profile::Balanced, false, None);
            let mut settled = 0;
            for batch in 0..200 {
                let rows = controller.rows();
                let bytes = rows * 300;
                if batch >= 100 {
                    assert!(bytes < controller.page_bytes(), "{task:?}: {bytes}");
                    settled = rows;
                }
                controller.record(Sample {
                    took: Duration::from_millis(1),
                    bytes: if task == Task::Read { bytes } else { 2 * bytes },
                    rows,
                });
            }
            assert!(settled > 2_000, "{task:?}: {settled}");
        }
    }

    #[test]
    fn a_tenfold_slow_down_is_followed_and_left_again_without_a_sawtooth() {
        let sizes = trace(600, |at, rows| {
            let slow = if (200..400).contains(&at) { 10.0 } else { 1.0 };
            (rows as f64 * 0.05 * slow, rows * 100)
        });
        let during = &sizes[300..400];
        assert!(during.iter().all(|rows| *rows as f64 * 0.5 <= 150.0), "{during:?}");
        assert!(
            during.iter().max().unwrap() <= &(during.iter().min().unwrap() * 2),
            "{during:?}"
        );
        assert!(sizes[599] >= 1_500, "{}", sizes[599]);
    }

    #[test]
    fn a_stall_cuts_to_a_tenth_at_once() {
        let sizes = trace(2, |at, _| (if at == 0 { 5_000.0 } else { 1.0 }, 100));
        assert_eq!(sizes, [1_000, 100]);
    }

    #[test]
    fn short_pages_of_a_sparse_range_do_not_teach_anything() {
        let mut controller = BatchController::new(Task::Rewrite, Profile::Balanced, false, None);
        for _ in 0..100 {
            controller.record(Sample {
                took: Duration::from_micros(50),
                bytes: 10,
                rows: 3,
            });
        }
        assert_eq!(controller.rows(), 1_000);
    }

    #[test]
    fn writers_that_look_every_tenth_of_a_second_find_their_turn_before_they_give_up() {
        for profile in [Profile::Gentle, Profile::Balanced, Profile::Fast] {
            let mut controller = BatchController::new(Task::Rewrite, profile, true, None);
            let busy = Duration::from_millis(50);
            let (mut waited, mut longest) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..1_000 {
                let rest = controller.rest(busy);
                waited += busy + rest;
                longest = longest.max(waited);
                if rest > Duration::from_millis(100) {
                    waited = Duration::ZERO;
                }
            }
            assert!(longest < Duration::from_secs(4), "{profile:?}: {longest:?}");
        }
        let mut with_a_queue = BatchController::new(Task::Rewrite, Profile::Fast, false, None);
        assert!((0..1_000).all(|_| with_a_queue.rest(Duration::from_millis(50)).is_zero()));
    }

    #[test]
    fn short_rests_are_saved_up_and_long_ones_set_off() {
        let mut controller = BatchController::new(Task::Rewrite, Profile::Gentle, false, None);
        let batch = Duration::from_nanos(2_500);
        let rests: Vec<u128> = (0..6).map(|_| controller.rest(batch).as_micros()).collect();
        assert_eq!(rests, [0, 0, 1_200, 0, 0, 1_200]);
        controller.rested(Duration::from_micros(1_200), Duration::from_micros(2_000));
        let rests: Vec<u128> = (0..5).map(|_| controller.rest(batch).as_micros()).collect();
        assert_eq!(rests, [0, 0, 0, 0, 1_200], "the timer was late by two batches' rests");
        // A process that was stopped for a minute does not go on without rests for a minute.
        controller.rested(Duration::from_millis(1), Duration::from_secs(60));
        assert!((0..20).any(|_| !controller.rest(batch).is_zero()));
    }

    #[test]
    fn nobody_rests_for_minutes_after_a_batch_that_was_held_up() {
        let mut controller = BatchController::new(Task::Rewrite, Profile::Gentle, false, None);
        assert_eq!(controller.rest(Duration::from_secs(1)), Duration::from_secs(2));
        assert_eq!(controller.rest(Duration::from_millis(1)), Duration::from_millis(160));
    }

    #[test]
    fn another_profile_is_followed_from_the_next_batch_on_and_back_again() {
        let mut controller = BatchController::new(Task::Rewrite, Profile::Fast, false, None);
        assert_eq!(controller.rows(), 2_000);
        assert_eq!(controller.batches_a_page(), 1);
        controller.follow(Some(Profile::Gentle));
        assert_eq!(controller.rows(), 100);
        assert!(
            controller.batches_a_page() > 1,
            "a page for each would be a round trip for each"
        );
        assert_eq!(controller.rest(Duration::from_millis(10)), Duration::from_millis(1_600));
        assert!(controller.stands_back());
        controller.follow(None);
        assert!(!controller.stands_back());
        assert_eq!(controller.rest(Duration::from_millis(10)), Duration::ZERO);
        let mut fixed = BatchController::new(Task::Rewrite, Profile::Fast, false, Some(7));
        fixed.follow(Some(Profile::Gentle));
        assert_eq!(fixed.rows(), 7, "the operator's own number stays");
    }

    #[test]
    fn the_operators_number_is_kept() {
        let mut controller = BatchController::new(Task::Rewrite, Profile::Fast, false, Some(7));
        for _ in 0..50 {
            controller.record(Sample {
                took: Duration::from_micros(1),
                bytes: 1,
                rows: 7,
            });
        }
        assert_eq!(controller.rows(), 7);
    }
}
