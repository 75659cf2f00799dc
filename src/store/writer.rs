//! How a database takes new values: in sets that are sent to it, or inside its own statement.

use std::time::Duration;

use async_trait::async_trait;

use super::control::{Advance, Fence, Interval};
use super::page::{Page, Swaps};
use super::value::Key;
use super::waves::{Wave, Waves};
use super::{PageEnd, PageLimits, StoreError};

/// How a database takes new values: sent to it in sets, or computed inside its own statement.
pub enum Writer<'a> {
    /// Pages are read, new values computed, and the set is swapped in one statement.
    Set(&'a mut dyn SetWriter),
    /// The statement calls the rewriter for each row it passes (SQLite).
    InPlace(&'a mut dyn InPlaceWriter),
}

/// What a batch wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows whose new values were written.
    pub rows: u64,
    /// Values written in those rows.
    pub values: u64,
    /// Rows that were no longer the version that was read.
    pub lost_races: u64,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.values += other.values;
        self.lost_races += other.lost_races;
    }
}

/// How a swap recognises that a row is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// The database's version of the row, and the primary key. Any change of the row is a lost race; locked rows are waited for.
    Version,
    /// The same; rows that others hold locked count as lost races at once.
    VersionSkipLocked,
    /// The primary key, the old values and the context columns, byte for byte. Survives changes of other columns.
    OldValue,
}

/// Databases that take new values as sets.
#[async_trait]
pub trait SetWriter: Send {
    /// One transaction: checks the fence, swaps the rows of the wave that are unchanged; with the last wave also records quarantine and
    /// late values and advances the range.
    ///
    /// Rows locked by others are waited for briefly ([`RetryClass::LockTimeout`]).
    /// On [`StoreError::Disconnected`] the batch may have been committed: the range's cursor tells.
    async fn swap_and_advance(&mut self, batch: &SetBatch<'_>, witness: Witness) -> Result<Written, StoreError>;

    /// How long the database itself worked on the last swap, where it tells: without the network.
    fn took(&self) -> Option<Duration> {
        None
    }

    /// Which transaction the last swap was, where each row bears the one that wrote it.
    fn transaction(&self) -> Option<u64> {
        None
    }

    /// How the swaps of a page are best written: in one transaction, or in several of which one makes room for the next.
    fn arrange(&mut self, _page: &Page, swaps: &Swaps, waves: &mut Waves) {
        waves.whole(swaps);
    }
}

/// A batch for a [`SetWriter`].
pub struct SetBatch<'a> {
    /// Where the rows are.
    pub relation: &'a str,
    /// The rows as they were read.
    pub page: &'a Page,
    /// Their new values.
    pub swaps: &'a Swaps,
    /// Which of them this transaction writes.
    pub wave: Wave<'a>,
    /// Ownership of the range; `None` with `--no-state`.
    pub fence: Option<&'a Fence>,
    /// How the range follows.
    pub follow: Follow<'a>,
}

/// How a range follows what a transaction writes.
#[derive(Debug, Clone, Copy)]
pub enum Follow<'a> {
    /// It stays: a sweep writes where its cursor has passed.
    Stays,
    /// Its cursor follows later. Should the run end before, these values are met again, as current ones; that every value is counted
    /// once, they are taken off beforehand.
    Later,
    /// It follows now.
    Now {
        /// Where it goes.
        advance: &'a Advance,
        /// Values that were written ahead of its cursor, and are not met again.
        ahead: u64,
        /// It follows only if no row of this transaction lost its race; otherwise as `Later`.
        only_whole: bool,
    },
}

/// Computes new values for the rows of a page. Implemented by `rotation`; a store only calls it.
pub trait Rewriter: Send {
    /// Judges every value of `page` and appends to `swaps`. Fails only when going on would be dangerous (a value that did not read
    /// back): the batch is then abandoned, nothing of it is written.
    fn rewrite(&mut self, page: &Page, swaps: &mut Swaps) -> Result<(), RewriteStopped>;

    /// Whether what it makes of a row depends on the row alone: what was made of it before, by another rewriter of the same recipe, is
    /// as good.
    fn judges_rows_alone(&self) -> bool {
        false
    }
}

/// The rewriter refused to go on; it keeps the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewriteStopped;

/// What one in-place batch did.
#[derive(Debug)]
pub struct InPlaceBatch {
    /// Everything up to this key was worked through: the last key of the batch, or one behind it before the next row. `None` when the
    /// interval had no row left.
    pub cursor: Option<Key>,
    /// How it ended.
    pub end: PageEnd,
    /// What was written.
    pub written: Written,
    /// Bytes of the values read and written.
    pub bytes: usize,
    /// How long it waited for its turn. Not at its end: whoever waits there keeps others waiting.
    pub waited: Duration,
}

/// Databases that compute new values inside their own statement, where no other writer can come between.
#[async_trait]
pub trait InPlaceWriter: Send {
    /// From the next batch on, rows may be read, and new values computed by `rewriter`, ahead of the batch that writes them. What a
    /// batch writes is the same.
    fn read_ahead(&mut self, rewriter: Box<dyn Rewriter>);

    /// One transaction: checks the fence, runs `rewriter` over the next rows of `interval`, records quarantine and late values,
    /// advances the range.
    ///
    /// The rewriter comes back with the result; its tally of this batch is in `swaps`.
    async fn rewrite_and_advance(
        &mut self,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        rewriter: Box<dyn Rewriter>,
        fence: Option<&Fence>,
        advance: bool,
    ) -> (Box<dyn Rewriter>, Swaps, Result<InPlaceBatch, StoreError>);
}
