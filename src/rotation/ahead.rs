//! Rows that were read ahead: small batches share a page, since reading costs a round trip each.

use std::time::{Duration, Instant};

use crate::store::PageEnd;
use crate::store::page::Page;
use crate::store::value::Key;

/// A page that is worked through batch by batch. Rows keep the versions that they were read with, so that what others write meanwhile is
/// a lost race as always; after a pause the rows are read anew, and those that were added meanwhile with them.
pub struct Ahead {
    page: Page,
    next: usize,
    relation: String,
    end: PageEnd,
    read_at: Option<Instant>,
}

impl Ahead {
    /// Nothing yet. `page` gives the shape and the memory.
    pub fn new(page: Page) -> Self {
        Self {
            page,
            next: 0,
            relation: String::new(),
            end: PageEnd::More,
            read_at: None,
        }
    }

    /// Whether the rows that are left are those behind `cursor` in this relation, and were read just now.
    pub fn follows(&self, relation: &str, cursor: Option<&Key>, now: Instant) -> bool {
        let is_fresh = self.read_at.is_some_and(|read| now.duration_since(read) <= FRESH_MAX);
        let last = self.next.checked_sub(1).filter(|_| self.next < self.page.len());
        is_fresh && self.relation == relation && last.is_some_and(|last| cursor == Some(&self.page.owned_key(last)))
    }

    /// The page, to be read into; until [`filled`](Self::filled) there is nothing ahead.
    pub fn page(&mut self) -> &mut Page {
        self.forget();
        &mut self.page
    }

    /// The page holds rows of this relation, which it had at this moment or later.
    pub fn filled(&mut self, relation: &str, end: PageEnd, at: Instant) {
        relation.clone_into(&mut self.relation);
        self.end = end;
        self.read_at = Some(at);
    }

    /// Moves so many rows at most into the page of a batch. Says whether the interval ends with them.
    pub fn take(&mut self, rows: usize, batch: &mut Page) -> PageEnd {
        batch.clear();
        let upto = self.page.len().min(self.next + rows);
        for row in self.next..upto {
            batch.copy_row(&self.page, row);
        }
        self.next = upto;
        if upto < self.page.len() { PageEnd::More } else { self.end }
    }

    /// Forgets the rows that are left.
    pub fn forget(&mut self) {
        self.page.clear();
        self.next = 0;
    }
}

/// Some batches and their rests take a tenth of it.
const FRESH_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::page::{RowVersion, Shape};
    use crate::store::value::{Cell, Kind};

    const SHAPE: Shape = Shape {
        keys: 1,
        contexts: 0,
        values: 1,
    };

    fn filled(rows: u8, at: Instant) -> Ahead {
        let mut ahead = Ahead::new(Page::new(SHAPE));
        for row in 0..rows {
            let page = if row == 0 { ahead.page() } else { &mut ahead.page };
            page.begin_row(RowVersion {
                tid: [row; 6],
                xmin: u32::from(row),
            });
            for bytes in [[row], [row + 100]] {
                page.push(Cell {
                    kind: Kind::Bytes,
                    bytes: &bytes,
                });
            }
        }
        ahead.filled("t", PageEnd::End, at);
        ahead
    }

    #[test]
    fn a_page_is_taken_batch_by_batch_with_versions_and_values_and_ends_with_its_last() {
        let (mut ahead, mut batch) = (filled(5, Instant::now()), Page::new(SHAPE));
        let mut seen = Vec::new();
        loop {
            let end = ahead.take(2, &mut batch);
            for row in 0..batch.len() {
                seen.push((batch.version(row).xmin, batch.value(row, 0).bytes[0]));
            }
            if end == PageEnd::End {
                break;
            }
            assert_eq!(batch.len(), 2);
        }
        assert_eq!(seen, [(0, 100), (1, 101), (2, 102), (3, 103), (4, 104)]);
    }

    #[test]
    fn rows_ahead_follow_the_cursor_that_was_reached_in_their_relation_and_no_other() {
        let now = Instant::now();
        let (mut ahead, mut batch) = (filled(3, now), Page::new(SHAPE));
        assert!(!ahead.follows("t", None, now), "nothing was taken yet");
        ahead.take(1, &mut batch);
        let first = batch.owned_key(0);
        assert!(ahead.follows("t", Some(&first), now));
        assert!(!ahead.follows("u", Some(&first), now));
        assert!(
            !ahead.follows("t", Some(&first), now + 2 * FRESH_MAX),
            "others have added rows since"
        );
        assert!(!ahead.follows("t", None, now));
        ahead.take(1, &mut batch);
        assert!(!ahead.follows("t", Some(&first), now), "the range was held where it stood");
        let second = batch.owned_key(0);
        ahead.take(1, &mut batch);
        assert!(!ahead.follows("t", Some(&batch.owned_key(0)), now), "nothing is left");
        assert!(!ahead.follows("t", Some(&second), now));
        ahead.forget();
        assert!(!ahead.follows("t", Some(&first), now));
    }
}
