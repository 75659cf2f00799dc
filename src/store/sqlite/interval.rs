//! Dividing a table into adjacent intervals of its key.

use rusqlite::Connection;

use super::cell::key_of_row;
use super::error::from_sqlite;
use super::read::{bind_interval, to_i64};
use super::statement::{Bounds, Dataset};
use crate::store::StoreError;
use crate::store::control::Interval;
use crate::store::value::{Cell, Key, Kind};

/// About `pieces` intervals that cover every key; `frozen` ends the last one at the largest key now. An empty table has one interval
/// without an end, or none when frozen.
pub(super) fn divide(
    connection: &Connection,
    dataset: &Dataset,
    rows_estimate: u64,
    pieces: usize,
    frozen: bool,
) -> Result<Vec<Interval>, StoreError> {
    let Some(last) = last_key(connection, dataset)? else {
        return Ok(if frozen {
            Vec::new()
        } else {
            chain(dataset, Vec::new(), None)
        });
    };
    let pieces = pieces.clamp(1, PIECES_MAX);
    let bounds = if pieces == 1 {
        Vec::new()
    } else if dataset.is_by_rowid() {
        even_rowids(connection, dataset, &last, pieces)?
    } else if rows_estimate <= SAMPLED_ROWS_MAX {
        every_nth_key(connection, dataset, (rows_estimate / pieces as u64).max(1), pieces)?
    } else {
        Vec::new()
    };
    Ok(chain(dataset, bounds, frozen.then_some(last)))
}

/// Intervals between the bounds, from the beginning to `end`.
fn chain(dataset: &Dataset, bounds: Vec<Key>, end: Option<Key>) -> Vec<Interval> {
    let mut after = None;
    let mut intervals = Vec::with_capacity(bounds.len() + 1);
    for upto in bounds.into_iter().map(Some).chain([end]) {
        intervals.push(Interval {
            relation: dataset.relation.clone(),
            after: after.take(),
            upto: upto.clone(),
        });
        after = upto;
    }
    intervals
}

fn last_key(connection: &Connection, dataset: &Dataset) -> Result<Option<Key>, StoreError> {
    one_key(connection, dataset, &dataset.last_key(EVERYTHING), None, None)
}

/// Bounds at equal distances: a look at both ends, however large the table.
fn even_rowids(connection: &Connection, dataset: &Dataset, last: &Key, pieces: usize) -> Result<Vec<Key>, StoreError> {
    let first = one_key(connection, dataset, &dataset.key_at_offset(EVERYTHING), None, Some(0))?;
    let number = |key: &Key| key.cells().next().and_then(|cell| cell.as_int());
    let (Some(low), Some(high)) = (first.as_ref().and_then(number), number(last)) else {
        return Ok(Vec::new());
    };
    let mut bounds: Vec<i64> = evenly(low, high, pieces).collect();
    bounds.dedup();
    Ok(bounds
        .into_iter()
        .map(|bound| {
            Key::new([Cell {
                kind: Kind::Int,
                bytes: &bound.to_be_bytes(),
            }])
        })
        .collect())
}

/// Inner bounds of `pieces` equal parts of `low..=high`, ascending, all below `high`.
fn evenly(low: i64, high: i64, pieces: usize) -> impl Iterator<Item = i64> {
    // In 128 bits: between the extremes of i64 lie 2^64 numbers.
    let span = i128::from(high) - i128::from(low);
    let pieces = pieces as i128;
    (1..pieces)
        .filter_map(move |piece| i64::try_from(i128::from(low) + span * piece / pieces).ok())
        .filter(move |&bound| bound < high)
}

fn every_nth_key(connection: &Connection, dataset: &Dataset, step: u64, pieces: usize) -> Result<Vec<Key>, StoreError> {
    let mut bounds: Vec<Key> = Vec::new();
    while bounds.len() + 1 < pieces {
        let after = bounds.last();
        let sql = dataset.key_at_offset(Bounds {
            after: after.is_some(),
            upto: false,
        });
        match one_key(connection, dataset, &sql, after, Some(step - 1))? {
            Some(key) => bounds.push(key),
            None => break,
        }
    }
    // The last one found may be the largest key: nothing would be left for the interval behind it.
    if bounds.last() == last_key(connection, dataset)?.as_ref() {
        bounds.pop();
    }
    Ok(bounds)
}

fn one_key(
    connection: &Connection,
    dataset: &Dataset,
    sql: &str,
    after: Option<&Key>,
    offset: Option<u64>,
) -> Result<Option<Key>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sqlite)?;
    bind_interval(&mut statement, dataset, after, None)?;
    if let Some(offset) = offset {
        statement
            .raw_bind_parameter(dataset.number(), to_i64(offset))
            .map_err(from_sqlite)?;
    }
    let mut rows = statement.raw_query();
    match rows.next().map_err(from_sqlite)? {
        Some(row) => key_of_row(row, dataset.shape.keys).map(Some),
        None => Ok(None),
    }
}

const EVERYTHING: Bounds = Bounds {
    after: false,
    upto: false,
};
/// More would only fill the control tables.
const PIECES_MAX: usize = 4_096;
/// Walking an index past this many entries takes about a second; larger tables stay in one piece, which costs nothing but the
/// parallel reading of a verification.
const SAMPLED_ROWS_MAX: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_even_up_to_the_extremes() {
        assert_eq!(evenly(0, 100, 4).collect::<Vec<_>>(), [25, 50, 75]);
        assert_eq!(evenly(5, 5, 4).count(), 0);
        assert_eq!(evenly(i64::MIN, i64::MAX, 2).collect::<Vec<_>>(), [-1]);
        let many: Vec<i64> = evenly(i64::MIN, i64::MAX, 4096).collect();
        assert_eq!(many.len(), 4095);
        assert!(many.is_sorted());
    }
}
