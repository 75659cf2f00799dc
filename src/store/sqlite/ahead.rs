//! Rows that were read and sealed ahead of the batch that writes them, on another thread and over another connection.
//!
//! Everybody waits for the one writer of a database: what can be computed outside of its transaction is computed before. Inside, a new
//! value is taken only where the row is, byte for byte, the one that it was made of; any other row is judged there and then, as if
//! nothing had been read ahead. What is prepared can therefore be old, or missing, and cost no more than time.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::task::JoinHandle;

use super::connect::{DatabaseFile, blocking};
use super::error::from_sqlite;
use super::read::{limit_length, read_page};
use super::statement::Dataset;
use crate::store::page::{Page, Swaps, Tally};
use crate::store::value::{Key, Kind};
use crate::store::{PageEnd, PageLimits, Rewriter, StoreError};

/// A page with what the rewriter made of it.
pub(super) struct Prepared {
    page: Page,
    end: PageEnd,
    swaps: Swaps,
    /// The row and the swap that come next.
    row: usize,
    swap: usize,
}

impl Prepared {
    /// With room for values of so many bytes, and for the one more that ends a page: arenas that grow on changing threads leave their
    /// smaller selves in the memory of each.
    fn new(dataset: &Dataset, bytes: usize) -> Self {
        let mut prepared = Self {
            page: Page::new(dataset.shape),
            end: PageEnd::More,
            swaps: Swaps::new(dataset.shape.values),
            row: 0,
            swap: 0,
        };
        let room = bytes + bytes / 8;
        prepared.page.reserve(room);
        prepared.swaps.arena().reserve(room);
        prepared
    }

    /// Begins again with the first row.
    pub(super) fn rewind(&mut self) {
        (self.row, self.swap) = (0, 0);
    }

    /// The last row, and whether more followed when it was read.
    pub(super) fn last(&self) -> (Option<Key>, PageEnd) {
        let last = self.page.len().checked_sub(1).map(|row| self.page.owned_key(row));
        (last, self.end)
    }

    /// What the rewriter made of the only row of `now`, appended to `judged`, if the row is the one that was read. Rows are asked for in
    /// the order of the page.
    pub(super) fn serve(&mut self, now: &Page, judged: &mut Swaps) -> bool {
        let ahead = self.row..self.page.len().min(self.row + GONE_MAX);
        let Some(row) = ahead.into_iter().find(|row| self.page.has_key_of(*row, now, 0)) else {
            return false;
        };
        self.row = row + 1;
        while self.swap < self.swaps.len() && self.swaps.row(self.swap) < row {
            self.swap += 1;
        }
        if !self.page.has_cells_of(row, now, 0) {
            return false;
        }
        let values = now.shape().values;
        let mut tally = Tally {
            rows: 1,
            ..Tally::default()
        };
        for column in 0..values {
            let new = match self.swap < self.swaps.len() && self.swaps.row(self.swap) == row {
                true => self.swaps.new_value(self.swap, column),
                false => None,
            };
            match new {
                Some(new) => {
                    let start = judged.byte_len();
                    judged.arena().extend_from_slice(new);
                    judged.assign(0, column, start);
                    tally.due += 1;
                }
                None if now.value(0, column).kind == Kind::Null => tally.nulls += 1,
                // Nothing else was on the page.
                None => tally.current += 1,
            }
        }
        judged.tally += tally;
        true
    }

    /// Whether every value of the page is NULL, current, or due and nothing else.
    fn is_plain(&self) -> bool {
        let Tally {
            rows: _,
            due,
            current,
            nulls,
            plaintext: _,
            quarantined: _,
            nested: 0,
        } = self.swaps.tally
        else {
            return false;
        };
        let values = self.page.len() * self.page.shape().values;
        due + current + nulls == values as u64 && self.swaps.late.is_empty()
    }
}

/// Reads ahead, one page at a time.
pub(super) struct ReadAhead {
    dataset: Arc<Dataset>,
    /// Away while a page is under way, for good if that panicked.
    desk: Option<Desk>,
    under_way: Option<UnderWay>,
    spare: Option<Prepared>,
}

struct UnderWay {
    after: Option<Key>,
    upto: Option<Key>,
    task: JoinHandle<Result<(Desk, Option<Prepared>), StoreError>>,
}

impl ReadAhead {
    /// With a rewriter of its own. Nothing is opened yet.
    pub(super) fn new(file: DatabaseFile, dataset: Arc<Dataset>, rewriter: Box<dyn Rewriter>) -> Self {
        Self {
            dataset,
            desk: Some(Desk {
                file,
                connection: None,
                rewriter,
            }),
            under_way: None,
            spare: None,
        }
    }

    /// Begins with the page behind `after`, if no other is under way.
    pub(super) fn begin(&mut self, after: Option<Key>, upto: Option<Key>, limits: PageLimits) {
        if self.under_way.is_some() {
            return;
        }
        let Some(mut desk) = self.desk.take() else { return };
        let limits = PageLimits {
            bytes: limits.bytes / SHARE_OF_BATCH,
            ..limits
        };
        let dataset = Arc::clone(&self.dataset);
        let mut prepared = self.spare.take().unwrap_or_else(|| Prepared::new(&dataset, limits.bytes));
        let (from, to) = (after.clone(), upto.clone());
        let task = tokio::spawn(blocking(move || {
            let outcome = desk.prepare(&dataset, from.as_ref(), to.as_ref(), limits, &mut prepared);
            if let Err(error) = &outcome {
                // Whatever it was: the batch meets it, too, and says so.
                tracing::debug!(%error, "nothing was read ahead");
                desk.connection = None;
            }
            let is_of_use = outcome.is_ok_and(|judged| judged && prepared.is_plain());
            Ok((desk, is_of_use.then_some(prepared)))
        }));
        self.under_way = Some(UnderWay { after, upto, task });
    }

    /// The page behind `after`, if that is the one that was begun with and it is of use.
    pub(super) async fn take(&mut self, after: Option<&Key>, upto: Option<&Key>) -> Option<Prepared> {
        let under_way = self.under_way.as_mut()?;
        let done = (&mut under_way.task).await;
        let is_wanted = under_way.after.as_ref() == after && under_way.upto.as_ref() == upto;
        self.under_way = None;
        let (desk, prepared) = done.ok()?.ok()?;
        self.desk = Some(desk);
        if is_wanted {
            return prepared;
        }
        self.spare = prepared;
        None
    }

    /// Takes the memory of a page back.
    pub(super) fn give_back(&mut self, prepared: Prepared) {
        self.spare = Some(prepared);
    }
}

/// What reads and seals.
struct Desk {
    file: DatabaseFile,
    connection: Option<Connection>,
    rewriter: Box<dyn Rewriter>,
}

impl Desk {
    /// Whether the rewriter went through with the page.
    fn prepare(
        &mut self,
        dataset: &Dataset,
        after: Option<&Key>,
        upto: Option<&Key>,
        limits: PageLimits,
        prepared: &mut Prepared,
    ) -> Result<bool, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = self.file.open_query_only()?;
                // A batch does not wait for this, and no page of the file is read twice.
                connection.busy_timeout(Duration::ZERO).map_err(from_sqlite)?;
                connection.pragma_update(None, "cache_size", CACHE_KIB).map_err(from_sqlite)?;
                connection
            }
        };
        let connection = self.connection.insert(connection);
        prepared.rewind();
        prepared.page.clear();
        prepared.swaps.clear();
        limit_length(connection, limits, false)?;
        prepared.end = read_page(connection, dataset, after, upto, limits, false, &mut prepared.page)?;
        Ok(self.rewriter.rewrite(&prepared.page, &mut prepared.swaps).is_ok())
    }
}

/// Rows in a row that may be gone since they were read; beyond that the rest of the page is judged anew.
const GONE_MAX: usize = 32;
/// Two pages are alive at a time, each with its new values.
const SHARE_OF_BATCH: usize = 8;
/// SQLite takes a negative number for KiB.
const CACHE_KIB: i64 = -256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::page::{RowVersion, Shape};
    use crate::store::value::Cell;

    const SHAPE: Shape = Shape {
        keys: 1,
        contexts: 1,
        values: 2,
    };

    fn push(page: &mut Page, id: i64, context: &str, values: [&str; 2]) {
        page.begin_row(RowVersion::default());
        let text = |bytes| Cell { kind: Kind::Text, bytes };
        page.push(Cell {
            kind: Kind::Int,
            bytes: &id.to_be_bytes(),
        });
        page.push(text(context.as_bytes()));
        for value in values {
            page.push(if value.is_empty() {
                Cell::NULL
            } else {
                text(value.as_bytes())
            });
        }
    }

    fn row(id: i64, context: &str, values: [&str; 2]) -> Page {
        let mut page = Page::new(SHAPE);
        push(&mut page, id, context, values);
        page
    }

    /// Rows 1 to 40 with an old value and NULL; row 3 is current in both columns.
    fn prepared() -> Prepared {
        let (mut page, mut swaps) = (Page::new(SHAPE), Swaps::new(2));
        for id in 1..=40 {
            if id == 3 {
                push(&mut page, id, "c", ["new", "new"]);
                swaps.tally.current += 2;
                continue;
            }
            push(&mut page, id, "c", ["old", ""]);
            let start = swaps.byte_len();
            swaps.arena().extend_from_slice(format!("new {id}").as_bytes());
            swaps.assign(page.len() - 1, 0, start);
            swaps.tally += Tally {
                due: 1,
                nulls: 1,
                ..Tally::default()
            };
        }
        Prepared {
            page,
            end: PageEnd::End,
            swaps,
            row: 0,
            swap: 0,
        }
    }

    fn serve(prepared: &mut Prepared, row: &Page) -> Option<(Option<String>, Tally)> {
        let mut judged = Swaps::new(2);
        prepared.serve(row, &mut judged).then(|| {
            let new = (!judged.is_empty()).then(|| judged.new_value(0, 0).unwrap().to_vec());
            (new.map(|bytes| String::from_utf8(bytes).unwrap()), judged.tally)
        })
    }

    #[test]
    fn a_row_that_is_what_was_read_gets_what_was_made_of_it() {
        let mut prepared = prepared();
        assert!(prepared.is_plain());
        for id in 1..=40 {
            let (new, tally) = match id {
                3 => serve(&mut prepared, &row(3, "c", ["new", "new"])).unwrap(),
                id => serve(&mut prepared, &row(id, "c", ["old", ""])).unwrap(),
            };
            assert_eq!(new, (id != 3).then(|| format!("new {id}")));
            let expected = match id {
                3 => Tally {
                    rows: 1,
                    current: 2,
                    ..Tally::default()
                },
                _ => Tally {
                    rows: 1,
                    due: 1,
                    nulls: 1,
                    ..Tally::default()
                },
            };
            assert_eq!(tally, expected);
        }
        assert_eq!(serve(&mut prepared, &row(41, "c", ["old", ""])), None);
        prepared.rewind();
        assert!(
            serve(&mut prepared, &row(1, "c", ["old", ""])).is_some(),
            "the statement is run again"
        );
    }

    #[test]
    fn whatever_differs_from_what_was_read_is_judged_anew() {
        let changed = [
            row(1, "other", ["old", ""]),
            row(1, "c", ["newer", ""]),
            row(1, "c", ["old", "more"]),
            row(1, "c", ["", ""]),
            row(0, "c", ["old", ""]),
        ];
        for changed in changed {
            let mut prepared = prepared();
            assert_eq!(serve(&mut prepared, &changed), None);
            assert!(
                serve(&mut prepared, &row(2, "c", ["old", ""])).is_some(),
                "the next one is as it was"
            );
        }
    }

    #[test]
    fn rows_that_came_or_went_do_not_keep_the_others_from_being_served() {
        let mut prepared = prepared();
        assert_eq!(serve(&mut prepared, &row(-5, "c", ["old", ""])), None, "it came");
        assert_eq!(
            serve(&mut prepared, &row(20, "c", ["old", ""])).unwrap().0.unwrap(),
            "new 20",
            "1 to 19 went"
        );
        assert_eq!(serve(&mut prepared, &row(2, "c", ["old", ""])), None, "out of order");
        assert_eq!(serve(&mut prepared, &row(21, "c", ["old", ""])).unwrap().0.unwrap(), "new 21");
    }

    #[test]
    fn a_page_with_anything_else_on_it_is_of_no_use() {
        for change in [
            |tally: &mut Tally| (tally.plaintext, tally.current) = (1, tally.current - 1),
            |tally: &mut Tally| (tally.quarantined, tally.due) = (1, tally.due - 1),
            |tally: &mut Tally| tally.nested = 1,
        ] {
            let mut prepared = prepared();
            change(&mut prepared.swaps.tally);
            assert!(!prepared.is_plain());
        }
    }
}
