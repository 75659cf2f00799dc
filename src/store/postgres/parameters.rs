//! The parameters of a swap, in the order in which its statement names them: one array per column, written straight from the page.

use sqlx::Arguments as _;
use sqlx::postgres::PgArguments;

use super::arrays::{BinaryArray, BinaryScalar};
use super::statements::{self, FENCE_PARAMETERS, Parts, QUARANTINE_PARAMETERS};
use super::types::{self, oid};
use crate::store::survey::{Column, ColumnClass, Survey};
use crate::store::value::{Cell, Key, Kind};
use crate::store::{Follow, SetBatch, StoreError, Witness};

/// The parameters of a swap by this statement; `tidied` are the swaps that stand for the blocks to be tidied.
pub fn swap(
    survey: &Survey,
    batch: &SetBatch<'_>,
    tidied: &[u32],
    witness: Witness,
    parts: Parts,
) -> Result<PgArguments, StoreError> {
    let (page, swaps) = (batch.page, batch.swaps);
    let written = batch.wave.swaps;
    let row = |i: usize| swaps.row(written[i] as usize);
    let mut arguments = PgArguments::default();
    let old_bytes = if witness == Witness::OldValue { page.byte_len() } else { 0 };
    let new_bytes = swaps.byte_len() * written.len() / swaps.len().max(1);
    let fixed_bytes = written.len() * (survey.key.len() + 2 + 2 * survey.values.len()) * ELEMENT_BYTES;
    arguments.reserve(
        FENCE_PARAMETERS + QUARANTINE_PARAMETERS + 16,
        new_bytes + old_bytes + fixed_bytes,
    );
    if let Some(fence) = batch.fence {
        let tally = swaps.tally;
        add(&mut arguments, fence.plan.as_str())?;
        add(&mut arguments, fence.range)?;
        add(&mut arguments, fence.epoch)?;
        // A sweep looks at rows that were counted before; only what it writes is news.
        let (cursor, done, counts) = match batch.follow {
            Follow::Stays | Follow::Later => (None, false, [0; 3]),
            Follow::Now { advance, ahead, .. } => (
                advance.cursor.as_ref().map(Key::as_bytes),
                advance.done,
                [tally.rows, tally.current + ahead, tally.nulls],
            ),
        };
        add(
            &mut arguments,
            BinaryScalar {
                oid: oid::BYTEA,
                bytes: cursor,
            },
        )?;
        add(&mut arguments, done)?;
        for count in counts {
            add(&mut arguments, count.cast_signed())?;
        }
        add(&mut arguments, written.len() as i64)?;
        debug_assert_eq!(arguments.len(), FENCE_PARAMETERS);
        if parts.quarantines {
            let held = &swaps.quarantined;
            add(
                &mut arguments,
                array(oid::BYTEA_ARRAY, oid::BYTEA, held.len(), |i, out| {
                    out.extend_from_slice(held[i].key.as_bytes());
                    true
                }),
            )?;
            add(
                &mut arguments,
                array(oid::INT4_ARRAY, oid::INT4, held.len(), |i, out| {
                    out.extend_from_slice(&(held[i].column as i32).to_be_bytes());
                    true
                }),
            )?;
            add(
                &mut arguments,
                array(oid::TEXT_ARRAY, oid::TEXT, held.len(), |i, out| {
                    out.extend_from_slice(held[i].reason.as_bytes());
                    true
                }),
            )?;
            debug_assert_eq!(arguments.len(), FENCE_PARAMETERS + QUARANTINE_PARAMETERS);
        }
    }
    if witness != Witness::OldValue {
        add(
            &mut arguments,
            array(oid::TID_ARRAY, oid::TID, written.len(), |i, out| {
                out.extend_from_slice(&page.version(row(i)).tid);
                true
            }),
        )?;
        add(
            &mut arguments,
            array(oid::XID_ARRAY, oid::XID, written.len(), |i, out| {
                out.extend_from_slice(&page.version(row(i)).xmin.to_be_bytes());
                true
            }),
        )?;
    }
    for (at, column) in survey.key.iter().enumerate() {
        add(
            &mut arguments,
            array(column.type_oids.1, column.type_oids.0, written.len(), |i, out| {
                types::push_wire(column, page.key(row(i), at), out);
                true
            }),
        )?;
    }
    if witness == Witness::OldValue {
        for (at, column) in survey.contexts.iter().enumerate() {
            let is_text = context_class(column) == ColumnClass::Text;
            let (of_array, of_element) = if is_text {
                (oid::TEXT_ARRAY, oid::TEXT)
            } else {
                (column.type_oids.1, column.type_oids.0)
            };
            add(
                &mut arguments,
                array(of_array, of_element, written.len(), |i, out| {
                    let cell = page.context(row(i), at);
                    if is_text {
                        return push_cell(cell, out);
                    }
                    if cell.kind != Kind::Null {
                        types::push_wire(column, cell, out);
                    }
                    cell.kind != Kind::Null
                }),
            )?;
        }
        for (at, column) in survey.values.iter().enumerate() {
            let (of_array, of_element) = value_oids(column.class);
            add(
                &mut arguments,
                array(of_array, of_element, written.len(), |i, out| {
                    push_cell(page.value(row(i), at), out)
                }),
            )?;
        }
    }
    for (at, column) in survey.values.iter().enumerate() {
        let (of_array, of_element) = value_oids(column.class);
        add(
            &mut arguments,
            array(of_array, of_element, written.len(), |i, out| {
                match swaps.new_value(written[i] as usize, at) {
                    Some(bytes) => {
                        out.extend_from_slice(bytes);
                        true
                    }
                    None => false,
                }
            }),
        )?;
    }
    if parts.tidies {
        for (at, column) in survey.key.iter().enumerate() {
            add(
                &mut arguments,
                array(column.type_oids.1, column.type_oids.0, tidied.len(), |i, out| {
                    types::push_wire(column, page.key(swaps.row(tidied[i] as usize), at), out);
                    true
                }),
            )?;
        }
    }
    Ok(arguments)
}

/// The list of transactions that a page has no rows of.
pub fn transactions(list: &[u32]) -> impl sqlx::Encode<'_, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> {
    array(oid::XID_ARRAY, oid::XID, list.len(), |i, out| {
        out.extend_from_slice(&list[i].to_be_bytes());
        true
    })
}

/// What the cells of a context column are.
pub fn context_class(column: &Column) -> ColumnClass {
    match statements::context_type(column) {
        "text" => ColumnClass::Text,
        _ => column.class,
    }
}

fn push_cell(cell: Cell<'_>, out: &mut Vec<u8>) -> bool {
    match cell.kind {
        Kind::Text | Kind::Bytes => {
            out.extend_from_slice(cell.bytes);
            true
        }
        _ => false,
    }
}

fn value_oids(class: ColumnClass) -> (u32, u32) {
    match class {
        ColumnClass::Bytes => (oid::BYTEA_ARRAY, oid::BYTEA),
        _ => (oid::TEXT_ARRAY, oid::TEXT),
    }
}

fn array<F: Fn(usize, &mut Vec<u8>) -> bool>(array_oid: u32, element_oid: u32, len: usize, write: F) -> BinaryArray<F> {
    BinaryArray {
        array_oid,
        element_oid,
        len,
        write,
    }
}

/// Adds a parameter.
pub fn add<'q, T>(arguments: &mut PgArguments, value: T) -> Result<(), StoreError>
where
    T: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + 'q,
{
    arguments.add(value).map_err(|error| StoreError::Statement {
        code: "client".to_owned(),
        message: crate::store::error::without_content(&error.to_string()),
    })
}

/// Length and bytes of an array element of fixed size; a guess that only saves growing the buffer.
const ELEMENT_BYTES: usize = 12;
