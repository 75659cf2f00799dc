//! New values on their way from the judgement of a row to its update.
//!
//! Usually SQLite updates each row at once, and the queue holds one row. With triggers it finds all rows first and then visits them
//! in the order of the rowid; then the queue holds the batch, and rows are found by key.

use std::collections::HashMap;
use std::ops::Range;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::store::page::{Page, Swaps};
use crate::store::value::Kind;

/// Rows with new values, in the order in which they were judged.
#[derive(Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    pub(super) rows: Vec<Queued>,
    /// As many for each row as there are value columns.
    cells: Vec<Option<Swap>>,
    /// The row that is expected next, and how many of its columns were asked for.
    head: usize,
    head_asked: usize,
    /// Made when rows come in another order than they were judged.
    by_key: HashMap<Box<[u8]>, usize>,
}

/// A row.
pub(super) struct Queued {
    key: Range<usize>,
    /// Whether one of its new values was handed out.
    pub(super) served: bool,
}

struct Swap {
    kind: Kind,
    old: Range<usize>,
    new: Range<usize>,
}

/// What the SQL function returns.
pub(super) enum Answer {
    /// Its second argument: the value as it stands.
    Old,
    /// A new text.
    Text(Vec<u8>),
    /// New bytes.
    Bytes(Vec<u8>),
}

impl Queue {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
        self.cells.clear();
        self.head = 0;
        self.head_asked = 0;
        self.by_key.clear();
    }

    /// Queues the new values of the page's only row.
    pub(super) fn push(&mut self, page: &Page, judged: &Swaps) {
        if self.head == self.rows.len() {
            self.clear();
        }
        let key_start = self.bytes.len();
        for part in 0..page.shape().keys {
            let cell = page.key(0, part);
            encode_cell(cell.kind, cell.bytes, &mut self.bytes);
        }
        self.rows.push(Queued {
            key: key_start..self.bytes.len(),
            served: false,
        });
        for column in 0..page.shape().values {
            let swap = judged.new_value(0, column).map(|new| {
                let old = page.value(0, column);
                let old_start = self.bytes.len();
                self.bytes.extend_from_slice(old.bytes);
                let new_start = self.bytes.len();
                self.bytes.extend_from_slice(new);
                Swap {
                    kind: old.kind,
                    old: old_start..new_start,
                    new: new_start..self.bytes.len(),
                }
            });
            self.cells.push(swap);
        }
    }

    /// The row with this encoded key.
    pub(super) fn find(&mut self, key: &[u8]) -> Option<usize> {
        if let Some(head) = self.rows.get(self.head)
            && self.bytes[head.key.clone()] == *key
        {
            return Some(self.head);
        }
        if self.by_key.is_empty() {
            let keys = self.rows.iter().enumerate();
            self.by_key = keys.map(|(at, row)| (self.bytes[row.key.clone()].into(), at)).collect();
        }
        self.by_key.get(key).copied()
    }

    /// The answer for a column: its new value, if there is one and the column still holds what was judged.
    pub(super) fn answer(&mut self, row: usize, column: usize, now: ValueRef<'_>) -> Answer {
        let width = self.cells.len() / self.rows.len().max(1);
        let mut answer = Answer::Old;
        if column < width
            && let Some(swap) = &self.cells[row * width + column]
        {
            let old = &self.bytes[swap.old.clone()];
            let new = || self.bytes[swap.new.clone()].to_vec();
            match (swap.kind, now) {
                (Kind::Text, ValueRef::Text(now)) if now == old => answer = Answer::Text(new()),
                (Kind::Bytes, ValueRef::Blob(now)) if now == old => answer = Answer::Bytes(new()),
                _ => {}
            }
            self.rows[row].served |= !matches!(answer, Answer::Old);
        }
        if row == self.head {
            self.head_asked += 1;
            if self.head_asked == width {
                self.head += 1;
                self.head_asked = 0;
            }
        }
        answer
    }
}

impl ToSql for Answer {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Old => ToSqlOutput::Arg(1),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text)),
            Self::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

/// Appends one part of a key. Equal keys have equal bytes, and no key is the beginning of another.
pub(super) fn encode(part: ValueRef<'_>, out: &mut Vec<u8>) {
    match part {
        ValueRef::Integer(number) => encode_cell(Kind::Int, &number.to_be_bytes(), out),
        ValueRef::Text(bytes) => encode_cell(Kind::Text, bytes, out),
        ValueRef::Blob(bytes) => encode_cell(Kind::Bytes, bytes, out),
        ValueRef::Null | ValueRef::Real(_) => encode_cell(Kind::Other, &[], out),
    }
}

fn encode_cell(kind: Kind, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind as u8);
    out.extend_from_slice(&bytes.len().to_ne_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::page::{RowVersion, Shape};
    use crate::store::value::Cell;

    fn queue(rows: &[(i64, &[u8], &[u8])]) -> Queue {
        let mut queue = Queue::default();
        for (id, old, new) in rows {
            let mut page = Page::new(Shape {
                keys: 1,
                contexts: 0,
                values: 2,
            });
            page.begin_row(RowVersion::default());
            page.push(Cell {
                kind: Kind::Int,
                bytes: &id.to_be_bytes(),
            });
            page.push(Cell {
                kind: Kind::Text,
                bytes: old,
            });
            page.push(Cell::NULL);
            let mut swaps = Swaps::new(2);
            swaps.arena().extend_from_slice(new);
            swaps.assign(0, 0, 0);
            queue.push(&page, &swaps);
        }
        queue
    }

    fn key(id: i64) -> Vec<u8> {
        let mut key = Vec::new();
        encode(ValueRef::Integer(id), &mut key);
        key
    }

    #[test]
    fn rows_are_found_in_any_order_and_columns_are_asked_in_any_order() {
        let mut queue = queue(&[(1, b"a", b"A"), (2, b"b", b"B"), (3, b"c", b"C")]);
        for (id, old, new) in [(3, b"c", b"C"), (1, b"a", b"A"), (2, b"b", b"B")] {
            let row = queue.find(&key(id)).unwrap();
            assert!(matches!(queue.answer(row, 1, ValueRef::Null), Answer::Old));
            assert!(matches!(queue.answer(row, 0, ValueRef::Text(old)), Answer::Text(text) if text == new));
        }
        assert_eq!(queue.find(&key(4)), None);
    }

    #[test]
    fn a_value_that_is_not_the_one_that_was_judged_stays() {
        let mut queue = queue(&[(1, b"a", b"A")]);
        let row = queue.find(&key(1)).unwrap();
        for now in [ValueRef::Text(b"x"), ValueRef::Blob(b"a"), ValueRef::Null] {
            assert!(matches!(queue.answer(row, 0, now), Answer::Old));
        }
        assert!(!queue.rows[row].served);
    }
}
