//! An instance that writes: inserts, updates, deletes; it tells before and after each what it does.
//!
//! A row belongs to one writer, so that its history has an order that is known and not guessed. A writer whose reply was lost looks at
//! the row before it goes on, once nothing that it sent can be under way any more; so does the successor of a writer that died.

use std::collections::HashSet;
use std::time::Instant;

use rand::rngs::ChaCha20Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::arrivals::Arrivals;
use super::reader::microseconds_since;
use super::seat::Seat;
use super::{Assignment, InstanceError};
use crate::drill::clock::now;
use crate::drill::customer::{Content, Customer};
use crate::drill::failure::Failure;
use crate::drill::journal::Event;
use crate::drill::table::{Table, TableError};

/// A writing instance.
pub(super) struct Writer {
    seat: Seat,
    rng: ChaCha20Rng,
    arrivals: Arrivals,
    /// The id of its next insert; it moves in steps of `stride`.
    next_id: i64,
    stride: i64,
    /// Its rows that exist, in no order.
    alive: Vec<i64>,
    /// Ids of its rows that were deleted.
    buried: Vec<i64>,
}

/// Why a write is not done.
enum Undone {
    /// It failed.
    Failed(Failure),
    /// The connection was lost before anything was sent that could change the row: it can be done again.
    NotSent,
    /// The connection was lost after it was sent.
    Unconfirmed,
}

impl Writer {
    /// Writer `number` of `writers`. What it owns stands in the table.
    pub(super) fn new(mut seat: Seat, assignment: &Assignment, number: i64, writers: i64) -> Result<Self, InstanceError> {
        let last = seat.ask(Table::id_max)?;
        let alive = seat.ask(|table| table.owned(number, writers))?;
        let known: HashSet<i64> = alive.iter().copied().collect();
        Ok(Self {
            seat,
            rng: ChaCha20Rng::seed_from_u64(assignment.seed),
            arrivals: Arrivals::new(assignment.per_second, Instant::now()),
            next_id: (last + 1..).find(|id| id % writers == number).unwrap_or(i64::MAX),
            stride: writers,
            buried: (1..=last)
                .filter(|id| id % writers == number && !known.contains(id))
                .take(BURIED_MAX)
                .collect(),
            alive,
        })
    }

    /// Writes until told to stop. `unconfirmed` is a row that a predecessor was writing when it died.
    pub(super) fn run(mut self, unconfirmed: Option<i64>) -> Result<(), InstanceError> {
        if let Some(id) = unconfirmed {
            self.settle(id, Instant::now())?;
        }
        while self.seat.goes_on()? {
            let early = self.arrivals.next(&mut self.rng);
            self.seat.wait(early)?;
            let due = self.arrivals.begins();
            match self.rng.random_range(0..100) {
                0..15 => self.insert(due)?,
                15..28 => self.delete(due)?,
                28..70 => self.replace(due)?,
                _ => self.amend(due)?,
            }
        }
        Ok(self.seat.journal.flush()?)
    }

    /// A new customer, sometimes under the id of a deleted one.
    fn insert(&mut self, due: Instant) -> Result<(), InstanceError> {
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
        if self.write(id, Some(&customer), due, Change::Insert)? {
            self.alive.push(id);
        }
        Ok(())
    }

    fn delete(&mut self, due: Instant) -> Result<(), InstanceError> {
        let Some(at) = self.choose() else { return Ok(()) };
        let id = self.alive[at];
        if self.write(id, None, due, Change::Delete)? {
            self.alive.swap_remove(at);
            self.buried.push(id);
        }
        Ok(())
    }

    /// All columns at once, in one statement.
    fn replace(&mut self, due: Instant) -> Result<(), InstanceError> {
        let Some(at) = self.choose() else { return Ok(()) };
        let customer = Customer::invent(&mut self.rng);
        self.write(self.alive[at], Some(&customer), due, Change::Replace)?;
        Ok(())
    }

    /// Reads a customer, changes the notes, writes them back, in one transaction: what it read goes into what it writes.
    fn amend(&mut self, due: Instant) -> Result<(), InstanceError> {
        let Some(at) = self.choose() else { return Ok(()) };
        let id = self.alive[at];
        let notes = Customer::invent_notes(&mut self.rng);
        loop {
            let done = self.amend_notes(id, notes.as_deref())?;
            if self.conclude(id, done, due)?.is_some() {
                return Ok(());
            }
        }
    }

    fn amend_notes(&mut self, id: i64, notes: Option<&str>) -> Result<Result<(), Undone>, InstanceError> {
        let begun = now();
        let row = match self.seat.table.lock(id) {
            Ok(row) => row,
            Err(TableError::Lost(_)) => return Ok(Err(Undone::NotSent)),
            Err(error) => return Ok(Err(self.taken_back(error))),
        };
        let read = |seen, unopened| Event::Read {
            first: id,
            seen: vec![seen],
            unopened,
            begun,
            ended: now(),
            took: None,
        };
        let Some(row) = row else {
            self.seat.journal.tell(&read(None, vec![]))?;
            return Ok(Err(self.failed_inside(Failure::RowGone)));
        };
        let mut customer = match self.seat.cabinet.open(id, &row) {
            Ok(customer) => customer,
            Err(error) => return Ok(Err(self.failed_inside(error.into()))),
        };
        self.seat.journal.tell(&read(Some(customer.content()), vec![]))?;
        customer.notes = notes.map(str::to_owned);
        let sealed = match self.seat.cabinet.seal_notes(id, notes) {
            Ok(sealed) => sealed,
            Err(error) => return Ok(Err(self.failed_inside(error.into()))),
        };
        self.begin(id, Some(customer.content()))?;
        let done = self.seat.table.amend(id, sealed.as_deref());
        Ok(match done {
            Ok(1..) => Ok(()),
            Ok(0) => Err(Undone::Failed(Failure::RowGone)),
            Err(TableError::Lost(_)) => Err(Undone::Unconfirmed),
            Err(error) => Err(self.taken_back(error)),
        })
    }

    /// Tells, runs one statement that changes one row, and tells how it went. Says whether the row is now what it should be.
    fn write(&mut self, id: i64, customer: Option<&Customer>, due: Instant, change: Change) -> Result<bool, InstanceError> {
        let row = match customer.map(|customer| self.seat.cabinet.seal(id, customer)).transpose() {
            Ok(row) => row,
            Err(error) => {
                self.conclude(id, Err(Undone::Failed(error.into())), due)?;
                return Ok(false);
            }
        };
        self.begin(id, customer.map(Customer::content))?;
        let table = &mut self.seat.table;
        let done = match (change, &row) {
            (Change::Insert, Some(row)) => table.insert(id, row),
            (Change::Replace, Some(row)) => table.replace(id, row),
            (Change::Delete, _) | (_, None) => table.delete(id),
        };
        let done = match done {
            Ok(1..) => Ok(()),
            Ok(0) => Err(Undone::Failed(Failure::RowGone)),
            Err(TableError::Lost(_)) => Err(Undone::Unconfirmed),
            // A statement that fails has changed nothing.
            Err(error) => Err(Undone::Failed(error.into())),
        };
        Ok(self.conclude(id, done, due)? == Some(true))
    }

    fn begin(&mut self, id: i64, content: Option<Content>) -> Result<(), InstanceError> {
        let event = Event::Begins { id, content, at: now() };
        Ok(self.seat.journal.tell_now(&event)?)
    }

    /// Tells how a write went. `None`: it did not happen and is to be done again.
    fn conclude(&mut self, id: i64, done: Result<(), Undone>, due: Instant) -> Result<Option<bool>, InstanceError> {
        match done {
            Ok(()) => {
                let took = microseconds_since(due);
                self.seat.journal.tell_now(&Event::Confirmed { id, at: now(), took })?;
                Ok(Some(true))
            }
            Err(Undone::Failed(failure)) => {
                let event = Event::WriteFailed { id, at: now(), failure };
                self.seat.journal.tell_now(&event)?;
                Ok(Some(false))
            }
            Err(Undone::NotSent) => {
                self.seat.reconnect()?;
                Ok(None)
            }
            Err(Undone::Unconfirmed) => {
                self.seat.reconnect()?;
                self.settle(id, due)?;
                // Whether it happened decides the model; this writer reads its rows anew.
                self.recount(id)?;
                Ok(Some(false))
            }
        }
    }

    /// A look at a row whose last write was not confirmed.
    fn settle(&mut self, id: i64, due: Instant) -> Result<(), InstanceError> {
        loop {
            let begun = now();
            let rows = match self.seat.table.fetch(id, id) {
                Ok(rows) => rows,
                Err(TableError::Lost(_)) => {
                    self.seat.reconnect()?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let ended = now();
            let content = match rows.first().map(|(id, row)| self.seat.cabinet.open(*id, row)).transpose() {
                Ok(customer) => customer.map(|customer| customer.content()),
                Err(error) => {
                    // Neither confirmed nor revoked: both stay possible.
                    let failure = error.into();
                    let event = Event::ReadFailed {
                        first: id,
                        at: begun,
                        failure,
                    };
                    self.seat.journal.tell_now(&event)?;
                    return Ok(());
                }
            };
            let took = microseconds_since(due);
            self.seat.journal.tell_now(&Event::Looked {
                id,
                content,
                begun,
                ended,
                took,
            })?;
            return Ok(());
        }
    }

    /// Puts a row where it belongs after a write that may have happened or not.
    fn recount(&mut self, id: i64) -> Result<(), InstanceError> {
        let is_there = loop {
            match self.seat.table.fetch(id, id) {
                Ok(rows) => break !rows.is_empty(),
                Err(TableError::Lost(_)) => self.seat.reconnect()?,
                Err(error) => return Err(error.into()),
            }
        };
        self.alive.retain(|alive| *alive != id);
        self.buried.retain(|buried| *buried != id);
        if is_there {
            self.alive.push(id)
        } else {
            self.buried.push(id)
        }
        Ok(())
    }

    /// An error inside a transaction of ours.
    fn taken_back(&mut self, error: TableError) -> Undone {
        self.failed_inside(error.into())
    }

    /// Ends the transaction that is open; where that fails, it ends with its connection.
    fn failed_inside(&mut self, failure: Failure) -> Undone {
        let _ = self.seat.table.roll_back();
        Undone::Failed(failure)
    }

    fn choose(&mut self) -> Option<usize> {
        (!self.alive.is_empty()).then(|| self.rng.random_range(0..self.alive.len()))
    }
}

/// A statement that changes one row.
#[derive(Clone, Copy)]
enum Change {
    Insert,
    Replace,
    Delete,
}

/// One insert in five takes the id of a deleted row.
const REBIRTHS_SHARE: f64 = 0.2;
/// Enough to be reborn; more would only take room.
const BURIED_MAX: usize = 1_000;
