//! Reading everything and opening every value: what the verification is made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroize as _;

use super::binding::{Binder, NullContext};
use super::judge::{Depth, Reason, Verdict, judge, nested_in};
use super::recipe::Recipe;
use super::rewriter::wipe;
use crate::store::page::{Page, Quarantined, Tally};

/// Values counted per key, and those that are not as they should be.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Rows read.
    pub rows: u64,
    /// Values that opened, by the name of their key.
    pub per_key: BTreeMap<String, u64>,
    /// Values under the target key.
    pub current: u64,
    /// Values under a source key, or plaintext that is to be sealed.
    pub due: u64,
    /// NULLs.
    pub nulls: u64,
    /// Plaintext that is left alone.
    pub plaintext: u64,
    /// Values that cannot be read, or whose new form does not fit.
    pub unreadable: u64,
    /// Values that open under a source key and stay there, because the database refuses their new form.
    pub withheld: u64,
    /// The first of both, by relation.
    pub quarantined_values: Vec<(String, Quarantined)>,
    /// The first values that are still due, by relation: who still writes with the old key?
    pub due_values: Vec<(String, Quarantined)>,
    /// Values whose plaintext is itself a sealed value: encrypted twice by accident, rotated as they are.
    pub nested: u64,
    /// The first of them, by relation.
    pub nested_values: Vec<(String, Quarantined)>,
    /// Values that are due and whose new form does not fit into the column; counted as unreadable, too.
    pub too_wide: u64,
}

impl Census {
    /// What a batch found, as far as it counts: which key had sealed what is due, nobody asks while it is rewritten.
    pub fn of_batch(relation: &str, tally: &Tally, quarantined: &[Quarantined]) -> Self {
        Self {
            rows: tally.rows,
            current: tally.current,
            nulls: tally.nulls,
            plaintext: tally.plaintext,
            unreadable: tally.quarantined,
            quarantined_values: quarantined.iter().map(|entry| (relation.to_owned(), entry.clone())).collect(),
            ..Self::default()
        }
    }

    /// Adds another part of the table.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.current += other.current;
        self.due += other.due;
        self.nulls += other.nulls;
        self.plaintext += other.plaintext;
        self.unreadable += other.unreadable;
        self.withheld += other.withheld;
        self.nested += other.nested;
        self.too_wide += other.too_wide;
        for (key, count) in other.per_key {
            *self.per_key.entry(key).or_default() += count;
        }
        for (mine, theirs) in [
            (&mut self.quarantined_values, other.quarantined_values),
            (&mut self.nested_values, other.nested_values),
            (&mut self.due_values, other.due_values),
        ] {
            let room = LISTED_MAX.saturating_sub(mine.len());
            mine.extend(theirs.into_iter().take(room));
        }
    }

    /// Whether nothing is left to be moved: every value that is to be sealed opened under the target key.
    pub fn is_clean(&self) -> bool {
        self.due == 0 && self.quarantined() == 0
    }

    /// Whether every non-null value opened under the target key: clean, and no plaintext was left alone either.
    pub fn opened_in_full(&self) -> bool {
        self.is_clean() && self.plaintext == 0
    }

    /// Values that were left as they are because they cannot be moved.
    pub fn quarantined(&self) -> u64 {
        self.unreadable + self.withheld
    }

    /// Values that the database refused are quarantined, not waiting.
    pub fn withhold(&mut self, withheld: &[(String, Quarantined)]) {
        self.due_values.retain(|(relation, due)| {
            let same =
                |(of, entry): &&(String, Quarantined)| of == relation && entry.key == due.key && entry.column == due.column;
            let Some(found) = withheld.iter().find(same) else {
                return true;
            };
            self.due -= 1;
            self.withheld += 1;
            if self.quarantined_values.len() < LISTED_MAX {
                self.quarantined_values.push(found.clone());
            }
            false
        });
    }
}

/// Opens values and counts. One per worker.
pub struct Counter {
    recipe: Arc<Recipe>,
    depth: Depth,
    plain: Vec<u8>,
    binder: Binder,
    /// What was counted so far.
    pub census: Census,
}

impl Counter {
    /// With [`Depth::Open`] every value is opened; with [`Depth::Hint`] key ids are believed.
    pub fn new(recipe: Arc<Recipe>, depth: Depth) -> Self {
        Self {
            recipe,
            depth,
            plain: Vec::new(),
            binder: Binder::default(),
            census: Census::default(),
        }
    }

    /// One that opens every value.
    pub fn opening(recipe: Arc<Recipe>) -> Self {
        Self::new(recipe, Depth::Open)
    }

    /// Counts a page of `relation`, and gives what that page alone adds.
    pub fn count_apart(&mut self, relation: &str, page: &Page) -> Census {
        let before = std::mem::take(&mut self.census);
        self.count(relation, page);
        let found = std::mem::replace(&mut self.census, before);
        self.census.merge(found.clone());
        found
    }

    /// Counts a page of `relation`.
    pub fn count(&mut self, relation: &str, page: &Page) {
        let recipe = Arc::clone(&self.recipe);
        let mut current = 0;
        for row in 0..page.len() {
            self.census.rows += 1;
            for (at, column) in recipe.columns.iter().enumerate() {
                self.plain.clear();
                let verdict = match self.binder.bind(column.associated_data.as_ref(), page, row) {
                    Ok(bound) => judge(
                        column,
                        recipe.plaintext,
                        page.value(row, at),
                        bound,
                        self.depth,
                        &mut self.plain,
                    ),
                    Err(NullContext) => Verdict::Unreadable(Reason::NullContext),
                };
                match verdict {
                    Verdict::Null => self.census.nulls += 1,
                    Verdict::Current => current += 1,
                    Verdict::Plaintext => self.census.plaintext += 1,
                    Verdict::Due { .. } if let Some(reason) = column.misfit(self.plain.len()) => {
                        self.census.too_wide += 1;
                        self.unreadable(relation, page, row, at, reason);
                    }
                    Verdict::Due { source, .. } => {
                        self.tally_key(&recipe.source_labels[source], 1);
                        self.due(relation, page, row, at, "still under the old key");
                    }
                    Verdict::DuePlaintext => self.due(relation, page, row, at, "still plaintext"),
                    Verdict::Unreadable(reason) => self.unreadable(relation, page, row, at, reason),
                }
                if self.depth == Depth::Open
                    && matches!(verdict, Verdict::Current | Verdict::Due { .. })
                    && let Some(format) = nested_in(column, &self.plain)
                {
                    self.nested(relation, page, row, at, format);
                }
            }
        }
        if current > 0 {
            self.tally_key(&recipe.target_label, current);
            self.census.current += current;
        }
        wipe(&mut self.plain, page.len());
    }

    fn unreadable(&mut self, relation: &str, page: &Page, row: usize, column: usize, reason: Reason) {
        self.census.unreadable += 1;
        if self.census.quarantined_values.len() < LISTED_MAX {
            self.census
                .quarantined_values
                .push((relation.to_owned(), entry(page, row, column, reason.to_string())));
        }
    }

    fn nested(&mut self, relation: &str, page: &Page, row: usize, column: usize, format: &str) {
        self.census.nested += 1;
        if self.census.nested_values.len() < LISTED_MAX {
            let reason = format!("its plaintext is itself a sealed value ({format}): encrypted twice");
            self.census
                .nested_values
                .push((relation.to_owned(), entry(page, row, column, reason)));
        }
    }

    fn due(&mut self, relation: &str, page: &Page, row: usize, column: usize, why: &str) {
        self.census.due += 1;
        if self.census.due_values.len() < LISTED_MAX {
            self.census
                .due_values
                .push((relation.to_owned(), entry(page, row, column, why.to_owned())));
        }
    }

    fn tally_key(&mut self, label: &str, count: u64) {
        match self.census.per_key.get_mut(label) {
            Some(sum) => *sum += count,
            None => {
                self.census.per_key.insert(label.to_owned(), count);
            }
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.plain.zeroize();
    }
}

fn entry(page: &Page, row: usize, column: usize, reason: String) -> Quarantined {
    Quarantined {
        key: page.owned_key(row),
        column,
        reason,
    }
}

/// Counts are exact; lists of single values stop here, so that a table that is all broken does not fill the memory.
pub const LISTED_MAX: usize = 10_000;
