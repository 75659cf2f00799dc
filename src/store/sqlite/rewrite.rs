//! Two SQL functions on the connection, through which an UPDATE calls the rewriter.
//!
//! `reseal_due(key…, context…, value…)` stands in WHERE: it shows the row to the rewriter, queues the new values and says whether
//! there are any. `reseal_new(i, value, key…)` stands in SET: it gives the new value of column `i` of the row with that key, or the
//! old one back. SQLite may update each row as soon as it is found, or find all rows first; and it may then visit them in another
//! order and evaluate columns in any order. The queue serves all of these, and each new value only goes where the old one still is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

use super::ahead::Prepared;
use super::cell::{ValueForm, push_context, push_key, push_value};
use super::error::from_sqlite;
use super::queue::{Answer, Queue, encode};
use super::read::stand_back;
use super::statement::{DUE, NEW};
use crate::store::page::{Page, RowVersion, Shape, Swaps};
use crate::store::{RewriteStopped, Rewriter, StoreError, Written};

/// The work of one batch, shared between the functions and whoever runs the statement. One thread at a time uses it.
#[derive(Clone)]
pub(super) struct SharedBatch(Arc<Mutex<Batch>>);

impl SharedBatch {
    /// An idle batch, and its two functions on `connection`.
    pub(super) fn attach(connection: &Connection, shape: Shape) -> Result<Self, StoreError> {
        let shared = Self(Arc::new(Mutex::new(Batch::new(shape))));
        // Only statements of ours may call them: not triggers, views or indexes of the schema.
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        let (due, new) = (shared.clone(), shared.clone());
        let arguments = |count: usize| {
            i32::try_from(count)
                .ok()
                .filter(|&count| count <= ARGUMENTS_MAX)
                .ok_or_else(|| StoreError::Refused(format!("{count} columns at once are too many for SQLite")))
        };
        connection
            .create_scalar_function(
                DUE,
                arguments(shape.keys + shape.contexts + shape.values)?,
                flags,
                move |context| due.lock().due(context),
            )
            .map_err(from_sqlite)?;
        connection
            .create_scalar_function(NEW, arguments(2 + shape.keys)?, flags, move |context| {
                new.lock().new_value(context)
            })
            .map_err(from_sqlite)?;
        Ok(shared)
    }

    /// The batch. A panic of the rewriter inside the statement leaves it readable: see [`Batch::failure`].
    pub(super) fn lock(&self) -> MutexGuard<'_, Batch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a statement was made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The rewriter stopped, or panicked.
    Rewriter,
    /// The rows are larger than the batch may be: fewer of them.
    TooManyBytes,
    /// A key that has no exact identity.
    InexactKey,
}

/// State of the functions. All memory is reused from batch to batch.
pub(super) struct Batch {
    rewriter: Option<Box<dyn Rewriter>>,
    /// What was read ahead of this batch.
    pub(super) prepared: Option<Prepared>,
    form: ValueForm,
    bytes_max: usize,
    stands_back: bool,
    shape: Shape,
    /// One row: the one being judged.
    page: Page,
    /// What the rewriter made of it.
    judged: Swaps,
    queue: Queue,
    /// Key of the row whose new value is asked for.
    wanted: Vec<u8>,
    /// Tally and quarantine of the whole batch.
    pub(super) found: Swaps,
    /// Rows judged, their bytes, and the bytes of new values.
    pub(super) rows: u64,
    pub(super) bytes_read: usize,
    pub(super) bytes_new: usize,
    pub(super) failure: Option<Failure>,
    rows_due: u64,
    rows_served: u64,
    values_served: u64,
}

impl Batch {
    fn new(shape: Shape) -> Self {
        Self {
            rewriter: None,
            prepared: None,
            form: ValueForm {
                bytes_max: 0,
                guarded: false,
            },
            bytes_max: 0,
            stands_back: false,
            shape,
            page: Page::new(shape),
            judged: Swaps::new(shape.values),
            queue: Queue::default(),
            wanted: Vec::new(),
            found: Swaps::new(shape.values),
            rows: 0,
            bytes_read: 0,
            bytes_new: 0,
            failure: None,
            rows_due: 0,
            rows_served: 0,
            values_served: 0,
        }
    }

    /// Lends the rewriter to the functions, and what was read ahead for it.
    pub(super) fn lend(&mut self, rewriter: Box<dyn Rewriter>, prepared: Option<Prepared>) {
        self.rewriter = Some(rewriter);
        self.prepared = prepared;
    }

    /// Takes both back.
    pub(super) fn take_back(&mut self) -> (Option<Box<dyn Rewriter>>, Option<Prepared>) {
        (self.rewriter.take(), self.prepared.take())
    }

    /// Forgets what an earlier statement did.
    pub(super) fn start(&mut self, form: ValueForm, bytes_max: usize, stands_back: bool) {
        self.form = form;
        self.bytes_max = bytes_max;
        self.stands_back = stands_back;
        self.queue.clear();
        self.found.clear();
        if let Some(prepared) = &mut self.prepared {
            prepared.rewind();
        }
        self.rows = 0;
        self.bytes_read = 0;
        self.bytes_new = 0;
        self.failure = None;
        self.rows_due = 0;
        self.rows_served = 0;
        self.values_served = 0;
    }

    /// What the statement wrote, given how many rows it changed: a trigger may have made SQLite skip some.
    pub(super) fn written(&self, rows_changed: u64) -> Written {
        let rows = self.rows_served.min(rows_changed);
        Written {
            rows,
            values: self.values_served,
            lost_races: self.rows_due.saturating_sub(rows),
        }
    }

    fn due(&mut self, context: &Context<'_>) -> rusqlite::Result<bool> {
        if self.bytes_read > self.bytes_max {
            return self.fail(Failure::TooManyBytes);
        }
        if self.stands_back {
            stand_back(self.rows);
        }
        self.page.clear();
        self.page.begin_row(RowVersion::default());
        let Shape { keys, contexts, values } = self.shape;
        for at in 0..keys {
            if push_key(&mut self.page, context.get_raw(at)).is_err() {
                return self.fail(Failure::InexactKey);
            }
        }
        for at in keys..keys + contexts {
            push_context(&mut self.page, context.get_raw(at));
        }
        for at in keys + contexts..keys + contexts + values {
            push_value(&mut self.page, context.get_raw(at), self.form);
        }
        self.judged.clear();
        let served = match &mut self.prepared {
            Some(prepared) => prepared.serve(&self.page, &mut self.judged),
            None => false,
        };
        if !served {
            // Stands until the rewriter returns, so that a panic counts as a stop.
            self.failure = Some(Failure::Rewriter);
            let judged = match &mut self.rewriter {
                Some(rewriter) => rewriter.rewrite(&self.page, &mut self.judged),
                None => Err(RewriteStopped),
            };
            if judged.is_err() {
                return self.fail(Failure::Rewriter);
            }
            self.failure = None;
        }
        self.rows += 1;
        self.bytes_read += self.page.byte_len();
        self.bytes_new += self.judged.byte_len();
        self.found.tally += self.judged.tally;
        self.found.quarantined.append(&mut self.judged.quarantined);
        self.found.late.append(&mut self.judged.late);
        if self.judged.is_empty() {
            return Ok(false);
        }
        self.rows_due += 1;
        self.queue.push(&self.page, &self.judged);
        Ok(true)
    }

    fn new_value(&mut self, context: &Context<'_>) -> rusqlite::Result<Answer> {
        let ValueRef::Integer(column) = context.get_raw(0) else {
            return Ok(Answer::Old);
        };
        self.wanted.clear();
        for at in 2..2 + self.shape.keys {
            encode(context.get_raw(at), &mut self.wanted);
        }
        let Some(row) = self.queue.find(&self.wanted) else {
            return Ok(Answer::Old);
        };
        let served_before = self.queue.rows[row].served;
        let answer = self.queue.answer(row, column as usize, context.get_raw(1));
        if !matches!(answer, Answer::Old) {
            self.rows_served += u64::from(!served_before);
            self.values_served += 1;
        }
        Ok(answer)
    }

    fn fail<T>(&mut self, failure: Failure) -> rusqlite::Result<T> {
        self.failure = Some(failure);
        Err(rusqlite::Error::InvalidQuery)
    }
}

/// SQLite's own limit was 127 for most of its life.
const ARGUMENTS_MAX: i32 = 127;
