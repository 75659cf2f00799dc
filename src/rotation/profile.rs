//! How much of the database's time a rotation may take, in numbers.
//!
//! The gentle profile works for moments, and rests for much longer. A scheduler lets whoever wakes up wait until the slice of whoever
//! runs is over, some milliseconds: how long an application waits once in a while is how long the work lasts that it waits for, and how
//! often, the share of time that is worked. While that is below a hundredth, the slowest hundredth of the application's reads hardly knows
//! of it, however long a batch of milliseconds takes; and since half of a small batch is its commit, batches of a millisecond with longer
//! rests move as many rows as smaller ones with shorter rests. On servers each connection therefore rewrites for less than a hundredth of
//! the time, and since a page costs a round trip, several batches share one.

use std::str::FromStr;
use std::time::Duration;

/// How much of the database's time a rotation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Small batches and long rests: for a database that is busy with its application.
    Gentle,
    /// Batches of milliseconds, no rests.
    #[default]
    Balanced,
    /// Larger batches.
    Fast,
}

/// What a batch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Rows are rewritten, in a transaction.
    Rewrite,
    /// Rows are read and their values opened: sweeps and verification.
    Read,
}

/// The numbers of a profile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceLimits {
    /// What a batch should take. Shorter locks and bursts below, less overhead above.
    pub target: Duration,
    /// Rows of the first batch.
    pub rows_start: usize,
    /// Never fewer rows: below this, round trips are most of the work.
    pub rows_min: usize,
    /// Never more rows: bounds locks and memory.
    pub rows_max: usize,
    /// Old and new bytes of a batch. Each worker holds about two to three times this at its peak.
    pub bytes_max: usize,
    /// Batches that share a page.
    pub batches_a_page: usize,
    /// Rest after a batch, as a share of the time that it took.
    pub rest_ratio: f64,
    /// Whether there is a longer rest now and then, because the database's other writers wait without a queue.
    pub gives_turns: bool,
    /// Workers, as a share of what the store proposes.
    pub workers_share: f64,
}

impl FromStr for Profile {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let all = [Self::Gentle, Self::Balanced, Self::Fast];
        all.into_iter().find(|profile| profile.as_str() == word).ok_or(())
    }
}

impl Profile {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gentle => "gentle",
            Self::Balanced => "balanced",
            Self::Fast => "fast",
        }
    }

    /// What to reckon with on a busy server, an ordinary one and a fast one, in rows a second over so many connections.
    pub fn rows_per_second(self, single_writer: bool, connections: usize) -> [u32; 3] {
        match (self, single_writer) {
            // Each connection rests for itself.
            (Self::Gentle, false) => {
                [500, 700, 900].map(|rate: u32| rate.saturating_mul(u32::try_from(connections).unwrap_or(u32::MAX)))
            }
            _ => [10_000, 50_000, 150_000],
        }
    }

    /// The numbers. `single_writer` is a database that stops all other writers while a batch is rewritten (SQLite).
    pub fn limits(self, task: Task, single_writer: bool) -> PaceLimits {
        let (target_us, rows_start, rows_max, rest_ratio, workers_share) = match (self, single_writer) {
            (Self::Gentle, false) => (1_000, 20, 100, 160.0, 0.25),
            (Self::Balanced, false) => (100_000, 1_000, 4_000, 0.0, 1.0),
            (Self::Fast, false) => (250_000, 2_000, 8_000, 0.0, 1.0),
            (Self::Gentle, true) => (2_000, 50, 500, 5.0, 1.0),
            (Self::Balanced, true) => (50_000, 1_000, 2_000, 0.1, 1.0),
            (Self::Fast, true) => (50_000, 2_000, 5_000, 0.0, 1.0),
        };
        let rewriting = PaceLimits {
            target: Duration::from_micros(target_us),
            rows_start,
            rows_min: match (self, single_writer) {
                (Self::Gentle, false) => 5,
                (Self::Gentle, true) | (_, false) => 10,
                // Small transactions are mostly overhead.
                (_, true) => 100,
            },
            rows_max,
            // In SQLite the rows of a batch pass one by one: only its journal of old pages follows the cap.
            bytes_max: if single_writer { 4 << 20 } else { 2 << 20 },
            batches_a_page: match (self, single_writer) {
                (Self::Gentle, false) => 4,
                _ => 1,
            },
            rest_ratio,
            gives_turns: single_writer,
            workers_share,
        };
        match (task, self) {
            (Task::Rewrite, _) => rewriting,
            // Nobody waits for a lock, only for the processor; in SQLite whoever waits for that goes first.
            (Task::Read, Self::Gentle) => PaceLimits {
                target: Duration::from_micros(1_000),
                rows_start: 50,
                rows_min: if single_writer { rewriting.rows_min } else { 20 },
                rows_max: 500,
                batches_a_page: 1,
                rest_ratio: if single_writer { 5.0 } else { 60.0 },
                gives_turns: false,
                ..rewriting
            },
            (Task::Read, Self::Balanced | Self::Fast) => PaceLimits {
                rest_ratio: 0.0,
                gives_turns: false,
                ..rewriting
            },
        }
    }
}
