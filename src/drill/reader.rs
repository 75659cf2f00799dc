//! An instance that reads: single customers and pages of them, every one compared with the model.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rand::rngs::ChaCha20Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::DrillError;
use super::customer::{Content, Row};
use super::latency::Arrivals;
use super::load::Seat;
use super::tally::{Failure, Tally};
use crate::app::OpenError;

/// A reading instance.
pub struct Reader {
    seat: Seat,
    rng: ChaCha20Rng,
    tally: Tally,
}

/// What a read saw of one row.
type Seen = (i64, Result<Content, OpenError>);

impl Reader {
    /// A reader that has done nothing yet.
    pub fn new(seat: Seat) -> Result<Self, DrillError> {
        Ok(Self {
            rng: ChaCha20Rng::seed_from_u64(seat.seed),
            tally: Tally::new()?,
            seat,
        })
    }

    /// Reads until told to stop.
    pub fn run(mut self) -> Result<Tally, DrillError> {
        let mut arrivals = Arrivals::new(READS_PER_SECOND, Instant::now());
        while self.seat.goes_on() {
            let due = arrivals.wait(&mut self.rng);
            let id_max = i64::try_from(self.seat.scene.id_max.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            let first = self.rng.random_range(1..=id_max);
            let last = if self.rng.random_bool(PAGES_SHARE) {
                (first + PAGE_IDS - 1).min(id_max)
            } else {
                first
            };
            self.read(first, last, due);
        }
        Ok(self.tally)
    }

    fn read(&mut self, first: i64, last: i64, due: Instant) {
        let scene = &self.seat.scene;
        let window = scene.window();
        let begun = scene.now();
        let fetched = self.fetch(first, last);
        let ended = scene.now();
        self.tally.reads += 1;
        let rows = match fetched {
            Ok(rows) => rows,
            Err(error) => return self.tally.read_failed(first, error.into()),
        };
        let seen: Vec<Seen> = rows
            .iter()
            .map(|(id, row)| (*id, self.seat.cabinet.open(*id, row).map(|customer| customer.content())))
            .collect();
        self.tally.read_latencies.record(window, due.elapsed());

        // One operation fails once, however many of its rows are wrong.
        let mut failure: Option<(i64, Failure)> = None;
        let mut seen = seen.into_iter().peekable();
        for id in first..=last {
            let found = seen.next_if(|(seen, _)| *seen == id).map(|(_, content)| content);
            self.tally.rows_checked += 1;
            let judged = match found.transpose() {
                Ok(content) => scene.model.judge(id, content, begun, ended).map_err(Failure::Deviates),
                Err(error) => Err(error.into()),
            };
            if let Err(why) = judged {
                failure.get_or_insert((id, why));
            }
        }
        if let Some((id, why)) = failure {
            self.tally.read_failed(id, why);
        }
    }

    fn fetch(&self, first: i64, last: i64) -> rusqlite::Result<Vec<(i64, Row)>> {
        let mut select = self.seat.connection.prepare_cached(SELECT)?;
        let rows = select.query_map((first, last), |row| {
            let customer = Row {
                name: row.get(1)?,
                email: row.get(2)?,
                notes: row.get(3)?,
                tier: row.get(4)?,
            };
            Ok((row.get(0)?, customer))
        })?;
        rows.collect()
    }
}

const SELECT: &str = "SELECT id, name, email, notes, tier FROM customers WHERE id BETWEEN ?1 AND ?2 ORDER BY id";

/// A busy application on the two cores that the rehearsal may count on, without making them the thing that is measured.
const READS_PER_SECOND: f64 = 700.0;
/// One read in ten is a page.
const PAGES_SHARE: f64 = 0.1;
const PAGE_IDS: i64 = 20;
