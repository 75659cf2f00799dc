//! An instance that reads: single customers and pages of them. It tells what it saw, and others judge.

use std::time::Instant;

use rand::rngs::ChaCha20Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::arrivals::Arrivals;
use super::seat::Seat;
use super::{Assignment, InstanceError};
use crate::drill::clock::now;
use crate::drill::customer::Content;
use crate::drill::failure::Failure;
use crate::drill::journal::Event;
use crate::drill::table::{Table, TableError};

/// A reading instance.
pub(super) struct Reader {
    seat: Seat,
    rng: ChaCha20Rng,
    arrivals: Arrivals,
    /// Ids from 1 up to this one may be in the table.
    id_max: i64,
}

impl Reader {
    /// A reader that has done nothing yet.
    pub(super) fn new(seat: Seat, assignment: &Assignment) -> Self {
        Self {
            seat,
            rng: ChaCha20Rng::seed_from_u64(assignment.seed),
            arrivals: Arrivals::new(assignment.per_second, Instant::now()),
            id_max: 1,
        }
    }

    /// Reads until told to stop.
    pub(super) fn run(mut self) -> Result<(), InstanceError> {
        let mut reads = 0_u64;
        while self.seat.goes_on()? {
            let early = self.arrivals.next(&mut self.rng);
            self.seat.wait(early)?;
            let due = self.arrivals.begins();
            if reads.is_multiple_of(LOOK_FOR_NEW_ROWS_EVERY) {
                self.look_for_new_rows()?;
            }
            reads += 1;
            let first = self.rng.random_range(1..=self.id_max);
            let last = if self.rng.random_bool(PAGES_SHARE) {
                (first + PAGE_IDS - 1).min(self.id_max)
            } else {
                first
            };
            let event = self.read(first, last, due)?;
            self.seat.journal.tell(&event)?;
        }
        Ok(self.seat.journal.flush()?)
    }

    /// Reads, again on another connection as often as one is lost.
    fn read(&mut self, first: i64, last: i64, due: Instant) -> Result<Event, InstanceError> {
        let (begun, rows) = loop {
            let begun = now();
            match self.seat.table.fetch(first, last) {
                Ok(rows) => break (begun, rows),
                Err(TableError::Lost(_)) => self.seat.reconnect()?,
                Err(error) => {
                    let failure = error.into();
                    return Ok(Event::ReadFailed {
                        first,
                        at: begun,
                        failure,
                    });
                }
            }
        };
        let ended = now();
        let mut seen: Vec<Option<Content>> = vec![None; usize::try_from(last - first + 1).unwrap_or(0)];
        let mut unopened = Vec::new();
        for (id, row) in &rows {
            match self.seat.cabinet.open(*id, row) {
                Ok(customer) => {
                    let at = usize::try_from(id - first).unwrap_or(usize::MAX);
                    if let Some(place) = seen.get_mut(at) {
                        *place = Some(customer.content());
                    }
                }
                Err(error) => unopened.push((*id, Failure::from(error))),
            }
        }
        Ok(Event::Read {
            first,
            seen,
            unopened,
            begun,
            ended,
            took: Some(microseconds_since(due)),
        })
    }

    fn look_for_new_rows(&mut self) -> Result<(), InstanceError> {
        self.id_max = self.seat.ask(Table::id_max)?.max(1);
        Ok(())
    }
}

pub(super) fn microseconds_since(due: Instant) -> u64 {
    u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// One read in ten is a page.
const PAGES_SHARE: f64 = 0.1;
const PAGE_IDS: i64 = 20;
const LOOK_FOR_NEW_ROWS_EVERY: u64 = 500;
