//! SQLite's values as cells, and back.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use crate::store::StoreError;
use crate::store::page::Page;
use crate::store::value::{Cell, Key, Kind};

/// How values of encrypted columns arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValueForm {
    /// Larger ones are not copied.
    pub(super) bytes_max: u64,
    /// The statement sends the size of a large value in its place, and 0 for numbers.
    pub(super) guarded: bool,
}

/// A part of a key: integers, text and bytes.
pub(super) fn push_key(page: &mut Page, value: ValueRef<'_>) -> Result<(), InexactKey> {
    match value {
        ValueRef::Null | ValueRef::Real(_) => return Err(InexactKey),
        value => push_context(page, value),
    }
    Ok(())
}

/// A column that associated data refers to.
pub(super) fn push_context(page: &mut Page, value: ValueRef<'_>) {
    match value {
        ValueRef::Integer(number) => page.push(Cell {
            kind: Kind::Int,
            bytes: &number.to_be_bytes(),
        }),
        ValueRef::Text(bytes) => page.push(Cell { kind: Kind::Text, bytes }),
        ValueRef::Blob(bytes) => page.push(Cell {
            kind: Kind::Bytes,
            bytes,
        }),
        ValueRef::Null => page.push(Cell::NULL),
        ValueRef::Real(_) => page.push(OTHER),
    }
}

/// A value of an encrypted column.
pub(super) fn push_value(page: &mut Page, value: ValueRef<'_>, form: ValueForm) {
    let (kind, bytes) = match value {
        ValueRef::Text(bytes) => (Kind::Text, bytes),
        ValueRef::Blob(bytes) => (Kind::Bytes, bytes),
        ValueRef::Null => (Kind::Null, &[][..]),
        ValueRef::Integer(size) if form.guarded && size > 0 => return push_oversize(page, size.unsigned_abs()),
        ValueRef::Integer(_) | ValueRef::Real(_) => (Kind::Other, &[][..]),
    };
    if bytes.len() as u64 > form.bytes_max {
        return push_oversize(page, bytes.len() as u64);
    }
    page.push(Cell { kind, bytes });
}

fn push_oversize(page: &mut Page, size: u64) {
    page.push(Cell {
        kind: Kind::Oversize,
        bytes: &size.to_be_bytes(),
    });
}

/// A key column holds NULL or a floating point number: no exact identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InexactKey;

impl From<InexactKey> for StoreError {
    fn from(_: InexactKey) -> Self {
        Self::Refused("a row has NULL or a floating point number in its key: no exact identity".to_owned())
    }
}

/// A part of a stored key as a parameter.
pub(super) struct Parameter<'a>(Cell<'a>);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let bytes = self.0.bytes;
        Ok(match (self.0.kind, self.0.as_int()) {
            (_, Some(number)) => ToSqlOutput::Owned(Value::Integer(number)),
            (Kind::Text, _) => ToSqlOutput::Borrowed(ValueRef::Text(bytes)),
            _ => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

/// The parts of a stored key as parameters; a key of another shape is a damaged cursor.
pub(super) fn parameters(key: &Key, parts: usize) -> Result<impl Iterator<Item = Parameter<'_>>, StoreError> {
    let fits = key.cells().count() == parts
        && key
            .cells()
            .all(|cell| matches!(cell.kind, Kind::Int | Kind::Text | Kind::Bytes));
    if !fits {
        return Err(StoreError::State(
            "a stored cursor does not fit the table's key: the table changed, or the state is damaged".to_owned(),
        ));
    }
    Ok(key.cells().map(Parameter))
}

/// The key in the first columns of a result row.
pub(super) fn key_of_row(row: &rusqlite::Row<'_>, parts: usize) -> Result<Key, StoreError> {
    let mut page = Page::new(crate::store::page::Shape {
        keys: parts,
        contexts: 0,
        values: 0,
    });
    page.begin_row(crate::store::page::RowVersion::default());
    for part in 0..parts {
        push_key(&mut page, row.get_ref(part).map_err(super::error::from_sqlite)?)?;
    }
    Ok(page.owned_key(0))
}

const OTHER: Cell<'static> = Cell {
    kind: Kind::Other,
    bytes: &[],
};
