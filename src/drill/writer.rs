//! An instance that writes: inserts, updates, deletes; the model is told before and after each.
//!
//! A row belongs to one writer, so that its history has an order that is known and not guessed.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rand::rngs::ChaCha20Rng;
use rand::{RngExt as _, SeedableRng as _};
use rusqlite::TransactionBehavior;

use super::DrillError;
use super::customer::{Customer, Row};
use super::latency::Arrivals;
use super::load::Seat;
use super::stage::INSERT;
use super::tally::{Failure, Tally};
use crate::app::SealError;

/// A writing instance.
pub struct Writer {
    seat: Seat,
    rng: ChaCha20Rng,
    tally: Tally,
    /// The id of its next insert; it moves in steps of `stride`.
    next_id: i64,
    stride: i64,
    /// Its rows that exist, in no order.
    alive: Vec<i64>,
    /// Its rows that were deleted.
    buried: Vec<i64>,
}

impl Writer {
    /// Writer `number` of `writers`, which owns every id that leaves the remainder `number`.
    pub fn new(seat: Seat, number: usize, writers: usize) -> Result<Self, DrillError> {
        let last = i64::try_from(seat.scene.id_max.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let (number, stride) = (number as i64, writers as i64);
        Ok(Self {
            rng: ChaCha20Rng::seed_from_u64(seat.seed),
            tally: Tally::new()?,
            next_id: (last + 1..).find(|id| id % stride == number).unwrap_or(i64::MAX),
            stride,
            alive: (1..=last).filter(|id| id % stride == number).collect(),
            buried: Vec::new(),
            seat,
        })
    }

    /// Writes until told to stop.
    pub fn run(mut self) -> Result<Tally, DrillError> {
        let mut arrivals = Arrivals::new(WRITES_PER_SECOND, Instant::now());
        while self.seat.goes_on() {
            let due = arrivals.wait(&mut self.rng);
            let window = self.seat.scene.window();
            let (id, done) = match self.rng.random_range(0..100) {
                0..15 => self.insert(),
                15..28 => self.delete(),
                28..70 => self.replace(),
                _ => self.amend(),
            };
            self.tally.writes += 1;
            match done {
                Ok(()) => self.tally.write_latencies.record(window, due.elapsed()),
                Err(failure) => self.tally.write_failed(id, failure),
            }
        }
        Ok(self.tally)
    }

    /// A new customer, sometimes under the id of a deleted one.
    fn insert(&mut self) -> (i64, Result<(), Failure>) {
        let id = match self.buried.pop() {
            Some(id) if self.rng.random_bool(REBIRTHS_SHARE) => id,
            other => {
                self.buried.extend(other);
                let id = self.next_id;
                self.next_id += self.stride;
                id
            }
        };
        let customer = Customer::invent(&mut self.rng);
        let done = self.write(id, Some(&customer), |seat| {
            let Row {
                name,
                email,
                notes,
                tier,
            } = seat.cabinet.seal(id, &customer)?;
            let mut insert = seat.connection.prepare_cached(INSERT)?;
            Ok(insert.execute((id, name, email, notes, tier))?)
        });
        if done.is_ok() {
            self.seat.scene.id_max.fetch_max(id.unsigned_abs(), Ordering::Relaxed);
            self.alive.push(id);
        }
        (id, done)
    }

    fn delete(&mut self) -> (i64, Result<(), Failure>) {
        let Some(at) = self.choose() else { return (0, Ok(())) };
        let id = self.alive[at];
        let done = self.write(id, None, |seat| {
            let mut delete = seat.connection.prepare_cached("DELETE FROM customers WHERE id = ?1")?;
            Ok(delete.execute([id])?)
        });
        if done.is_ok() {
            self.alive.swap_remove(at);
            self.buried.push(id);
        }
        (id, done)
    }

    /// All columns at once, in one statement.
    fn replace(&mut self) -> (i64, Result<(), Failure>) {
        let Some(at) = self.choose() else { return (0, Ok(())) };
        let id = self.alive[at];
        let customer = Customer::invent(&mut self.rng);
        let done = self.write(id, Some(&customer), |seat| {
            let Row {
                name,
                email,
                notes,
                tier,
            } = seat.cabinet.seal(id, &customer)?;
            let mut update = seat.connection.prepare_cached(REPLACE)?;
            Ok(update.execute((id, name, email, notes, tier))?)
        });
        (id, done)
    }

    /// Reads a customer, changes the notes, writes them back, in one transaction: what it read goes into what it writes.
    fn amend(&mut self) -> (i64, Result<(), Failure>) {
        let Some(at) = self.choose() else { return (0, Ok(())) };
        let id = self.alive[at];
        let notes = Customer::invent_notes(&mut self.rng);
        (id, self.amend_notes(id, notes))
    }

    fn amend_notes(&mut self, id: i64, notes: Option<String>) -> Result<(), Failure> {
        let Seat {
            scene,
            cabinet,
            connection,
            ..
        } = &mut self.seat;
        let begun = scene.now();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = transaction.prepare_cached(SELECT)?.query_row([id], |row| {
            Ok(Row {
                name: row.get(0)?,
                email: row.get(1)?,
                notes: row.get(2)?,
                tier: row.get(3)?,
            })
        });
        let row = match found {
            Err(rusqlite::Error::QueryReturnedNoRows) => return Err(Failure::RowGone),
            other => other?,
        };
        let mut customer = cabinet.open(id, &row)?;
        let read = scene.model.judge(id, Some(customer.content()), begun, scene.now());
        read.map_err(Failure::Deviates)?;
        customer.notes = notes;
        let sealed = cabinet.seal_notes(id, customer.notes.as_deref())?;
        scene.model.begin(id, Some(customer.content()), scene.now());
        let written = transaction
            .prepare_cached("UPDATE customers SET notes = ?2 WHERE id = ?1")
            .and_then(|mut update| update.execute((id, sealed)))
            .and_then(|_| transaction.commit());
        match written {
            Ok(()) => {
                scene.model.acknowledge(id, scene.now());
                Ok(())
            }
            Err(error) => {
                scene.model.revoke(id);
                Err(error.into())
            }
        }
    }

    /// Tells the model, runs one statement that changes one row, and tells the model how it went.
    fn write(
        &self,
        id: i64,
        customer: Option<&Customer>,
        statement: impl FnOnce(&Seat) -> Result<usize, Failure>,
    ) -> Result<(), Failure> {
        let scene = &self.seat.scene;
        scene.model.begin(id, customer.map(Customer::content), scene.now());
        let done = match statement(&self.seat) {
            Ok(0) => Err(Failure::RowGone),
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(()) => scene.model.acknowledge(id, scene.now()),
            // A statement of SQLite that fails has changed nothing.
            Err(_) => scene.model.revoke(id),
        }
        done
    }

    fn choose(&mut self) -> Option<usize> {
        (!self.alive.is_empty()).then(|| self.rng.random_range(0..self.alive.len()))
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Self::Unopened(error.to_string())
    }
}

const SELECT: &str = "SELECT name, email, notes, tier FROM customers WHERE id = ?1";
const REPLACE: &str = "UPDATE customers SET name = ?2, email = ?3, notes = ?4, tier = ?5 WHERE id = ?1";

/// Each write is a transaction of its own; SQLite has one writer, and the rotation wants its turn, too.
const WRITES_PER_SECOND: f64 = 100.0;
/// One insert in five takes the id of a deleted row.
const REBIRTHS_SHARE: f64 = 0.2;
