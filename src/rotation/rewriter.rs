//! The CPU stage: old bytes in, new bytes out, every new value opened again and compared before it leaves.

use std::sync::{Arc, Mutex};

use zeroize::Zeroize as _;

use super::binding::{Binder, NullContext};
use super::judge::{Depth, Reason, Verdict, judge};
use super::keyed::{KeyedCipher, Trust};
use super::late::{LatePolicy, LateWatch};
use super::recipe::{ColumnRecipe, Recipe};
use crate::format::{Carried, NonceRng, RandomFailed, looks_sealed, seal_checked, seeded};
use crate::key::Exhausted;
use crate::store::page::{Page, Quarantined, Swaps};
use crate::store::value::Kind;
use crate::store::{RewriteStopped, Rewriter};

/// What a value that cannot be read does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnreadable {
    /// It is quarantined, and the run goes on.
    #[default]
    Skip,
    /// The run stops; nothing of the batch is written.
    Stop,
}

/// Why a rewriter refused to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A value that was just sealed did not open to the same plaintext: a fault of this machine or this program.
    ReadBack {
        /// The column.
        column: String,
        /// The row, for people.
        key: String,
    },
    /// An unreadable value under [`OnUnreadable::Stop`].
    Unreadable(Box<Quarantined>),
    /// The target key has sealed as many values as it may.
    Exhausted(Exhausted),
}

/// A value of a page.
#[derive(Clone, Copy)]
struct Place<'a> {
    page: &'a Page,
    row: usize,
    column: usize,
}

/// Where a refusal is left for whoever runs the pass.
pub type RefusalSlot = Arc<Mutex<Option<Refusal>>>;

/// Makes the rewriters of a pass.
#[derive(Clone)]
pub struct Rewriters {
    /// What is done to values.
    pub recipe: Arc<Recipe>,
    /// What unreadable values do.
    pub on_unreadable: OnUnreadable,
    /// Where they leave a refusal.
    pub refusal: RefusalSlot,
    /// In sweeps: what tells late values.
    pub late: Option<LateWatch>,
}

impl Rewriters {
    /// Seals what is due, with nonces of its own.
    pub fn sealing(&self) -> Result<Box<dyn Rewriter>, RandomFailed> {
        self.make(None)
    }

    /// Seals nothing: what is due is quarantined for `reason`, because the database does not take its new value.
    pub fn withholding(&self, reason: String) -> Result<Box<dyn Rewriter>, RandomFailed> {
        self.make(Some(reason))
    }

    fn make(&self, withhold: Option<String>) -> Result<Box<dyn Rewriter>, RandomFailed> {
        Ok(Box::new(Resealer {
            recipe: Arc::clone(&self.recipe),
            on_unreadable: self.on_unreadable,
            late: self.late.clone().filter(|_| withhold.is_none()),
            withhold,
            rng: seeded()?,
            plain: Vec::new(),
            binder: Binder::default(),
            refusal: Arc::clone(&self.refusal),
        }))
    }
}

/// Seals what is due. One per worker: it has its own nonces and its own plaintext arena, which is wiped after each page.
struct Resealer {
    recipe: Arc<Recipe>,
    on_unreadable: OnUnreadable,
    withhold: Option<String>,
    late: Option<LateWatch>,
    rng: NonceRng,
    plain: Vec<u8>,
    binder: Binder,
    refusal: RefusalSlot,
}

impl Resealer {
    fn refuse(&self, refusal: Refusal) -> RewriteStopped {
        *self.refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(refusal);
        RewriteStopped
    }

    fn quarantine(&self, value: Place<'_>, reason: impl ToString, swaps: &mut Swaps) -> Result<(), RewriteStopped> {
        let entry = Quarantined {
            key: value.page.owned_key(value.row),
            column: value.column,
            reason: reason.to_string(),
        };
        if self.on_unreadable == OnUnreadable::Stop {
            return Err(self.refuse(Refusal::Unreadable(Box::new(entry))));
        }
        swaps.tally.quarantined += 1;
        swaps.quarantined.push(entry);
        Ok(())
    }

    /// Notes a value that is late, and says why it may be forged, if so.
    fn doubt(&self, source: &KeyedCipher, value: Place<'_>, swaps: &mut Swaps) -> Option<Reason> {
        let watch = self.late.as_ref()?;
        swaps.late.push(watch.late(value.page, value.row, value.column)?);
        let may_be_forged = source.trust == Trust::Leaked || watch.policy() == LatePolicy::Quarantine;
        may_be_forged.then_some(Reason::MayBeForged)
    }

    /// Seals the plaintext at `self.plain[start..]`, bound to the place that was judged last, into the arena and reads it back from there.
    fn reseal(
        &mut self,
        column: &ColumnRecipe,
        value: Place<'_>,
        start: usize,
        carried: Carried,
        swaps: &mut Swaps,
    ) -> Result<(), RewriteStopped> {
        if let Some(reason) = &self.withhold {
            return self.quarantine(value, reason, swaps);
        }
        if value.page.value(value.row, value.column).kind == Kind::Text && !column.to.is_text() {
            return self.quarantine(value, Reason::NotText, swaps);
        }
        if looks_sealed(&self.plain[start..]).is_some() {
            swaps.tally.nested += 1;
        }
        let carried = Carried {
            timestamp: carried.timestamp.or(Some(self.recipe.now_seconds)),
            ..carried
        };
        let sealed_at = swaps.byte_len();
        let sealed = seal_checked(
            &*column.target.cipher,
            &mut self.plain,
            start,
            self.binder.bound(),
            carried,
            &mut self.rng,
            swaps.arena(),
        );
        if sealed.is_err() {
            return Err(self.refuse(Refusal::ReadBack {
                column: column.name.clone(),
                key: describe_key(value.page, value.row),
            }));
        }
        let needs = swaps.byte_len() - sealed_at;
        if let Some(holds) = column.max_len
            && needs as u64 > holds
        {
            swaps.arena().truncate(sealed_at);
            return self.quarantine(value, Reason::DoesNotFit { needs, holds }, swaps);
        }
        swaps.assign(value.row, value.column, sealed_at);
        swaps.tally.due += 1;
        Ok(())
    }
}

impl Rewriter for Resealer {
    fn rewrite(&mut self, page: &Page, swaps: &mut Swaps) -> Result<(), RewriteStopped> {
        let recipe = Arc::clone(&self.recipe);
        let due_before = swaps.tally.due;
        for row in 0..page.len() {
            swaps.tally.rows += 1;
            for (at, column) in recipe.columns.iter().enumerate() {
                let value = Place { page, row, column: at };
                let start = self.plain.len();
                let verdict = match self.binder.bind(column.associated_data.as_ref(), page, row) {
                    Ok(bound) => judge(
                        column,
                        recipe.plaintext,
                        page.value(row, at),
                        bound,
                        Depth::Hint,
                        &mut self.plain,
                    ),
                    Err(NullContext) => Verdict::Unreadable(Reason::NullContext),
                };
                match verdict {
                    Verdict::Null => swaps.tally.nulls += 1,
                    Verdict::Current => swaps.tally.current += 1,
                    Verdict::Plaintext => swaps.tally.plaintext += 1,
                    Verdict::Due { source, carried } => match self.doubt(&column.sources[source], value, swaps) {
                        Some(reason) => self.quarantine(value, reason, swaps)?,
                        None => self.reseal(column, value, start, carried, swaps)?,
                    },
                    Verdict::DuePlaintext => self.reseal(column, value, start, Carried::default(), swaps)?,
                    Verdict::Unreadable(reason) => self.quarantine(value, reason, swaps)?,
                }
                if self.plain.len() > PLAIN_BYTES_KEPT {
                    self.plain.zeroize();
                }
            }
        }
        wipe(&mut self.plain, page.len());
        // Before they leave: what is counted may be lost with the batch, what is written is always counted.
        let sealed = swaps.tally.due - due_before;
        match &recipe.seals {
            Some(seals) if sealed > 0 => seals
                .take(sealed)
                .map_err(|exhausted| self.refuse(Refusal::Exhausted(exhausted))),
            _ => Ok(()),
        }
    }

    fn judges_rows_alone(&self) -> bool {
        self.withhold.is_none() && self.late.is_none()
    }
}

impl Drop for Resealer {
    fn drop(&mut self) {
        self.plain.zeroize();
    }
}

/// The primary key of a row, for people.
pub fn describe_key(page: &Page, row: usize) -> String {
    let parts: Vec<String> = page.owned_key(row).cells().map(|cell| cell.to_text()).collect();
    parts.join(", ")
}

/// Wipes an arena of plaintexts with all of its capacity, after a page of `rows`. Wiping takes as long as the capacity is large: what
/// one huge value has blown up is given back, or every page after it, which in SQLite is a row, would pay for it.
pub fn wipe(plain: &mut Vec<u8>, rows: usize) {
    plain.zeroize();
    if plain.capacity() > (2 * PLAIN_BYTES_KEPT).min(rows.max(1) * PLAIN_BYTES_KEPT_PER_ROW) {
        *plain = Vec::new();
    }
}

/// Plaintexts of a page are wiped together, or earlier when they pass this many bytes.
const PLAIN_BYTES_KEPT: usize = 256 * 1024;
const PLAIN_BYTES_KEPT_PER_ROW: usize = 4 * 1024;
