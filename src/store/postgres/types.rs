//! PostgreSQL's types: which the catalogue names, what their cells are, and the bytes on the wire.

use crate::store::survey::{Column, ColumnClass};
use crate::store::value::{Cell, Kind};

/// Type oids that never change (`pg_type.dat`).
pub mod oid {
    /// `bytea`
    pub const BYTEA: u32 = 17;
    /// `text`
    pub const TEXT: u32 = 25;
    /// `tid`
    pub const TID: u32 = 27;
    /// `xid`
    pub const XID: u32 = 28;
    /// `int4`
    pub const INT4: u32 = 23;
    /// `bytea[]`
    pub const BYTEA_ARRAY: u32 = 1001;
    /// `text[]`
    pub const TEXT_ARRAY: u32 = 1009;
    /// `tid[]`
    pub const TID_ARRAY: u32 = 1010;
    /// `xid[]`
    pub const XID_ARRAY: u32 = 1011;
    /// `int4[]`
    pub const INT4_ARRAY: u32 = 1007;
}

/// What a column of this base type holds. `kind` is `pg_type.typtype`, `name` is `pg_type.typname`.
pub fn class(base_oid: u32, kind: char, name: &str) -> ColumnClass {
    match (base_oid, kind, name) {
        (21, ..) => ColumnClass::Int(2),
        (23, ..) => ColumnClass::Int(4),
        (20, ..) => ColumnClass::Int(8),
        (oid::TEXT | 1043, ..) => ColumnClass::Text,
        // Enumerations travel as their label; the server keeps their order.
        (_, 'e', _) | (_, _, "citext") => ColumnClass::Text,
        (1042, ..) => ColumnClass::Padded,
        (oid::BYTEA, ..) => ColumnClass::Bytes,
        (2950, ..) => ColumnClass::Uuid,
        (1114, ..) => ColumnClass::Timestamp,
        (1184, ..) => ColumnClass::TimestampTz,
        (1082, ..) => ColumnClass::Date,
        (700 | 701, ..) => ColumnClass::Float,
        _ => ColumnClass::Unsupported,
    }
}

/// The cell of a wire value. Integers are widened into `scratch`, so that equal keys have equal bytes in every width.
pub fn cell<'a>(class: ColumnClass, wire: Option<&'a [u8]>, scratch: &'a mut [u8; 8]) -> Cell<'a> {
    let Some(wire) = wire else { return Cell::NULL };
    let kind = match class {
        ColumnClass::Int(_) => {
            let number = match *wire {
                [a, b] => i64::from(i16::from_be_bytes([a, b])),
                [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
                _ => {
                    return Cell {
                        kind: Kind::Int,
                        bytes: wire,
                    };
                }
            };
            *scratch = number.to_be_bytes();
            return Cell {
                kind: Kind::Int,
                bytes: scratch,
            };
        }
        ColumnClass::Text => Kind::Text,
        ColumnClass::Bytes => Kind::Bytes,
        ColumnClass::Uuid => Kind::Uuid,
        ColumnClass::Timestamp => Kind::Timestamp,
        ColumnClass::TimestampTz => Kind::TimestampTz,
        ColumnClass::Date => Kind::Date,
        ColumnClass::Dynamic | ColumnClass::Padded | ColumnClass::Float | ColumnClass::Unsupported => Kind::Other,
    };
    Cell { kind, bytes: wire }
}

/// Whether a stored key cell is one that a column of this class can have had.
pub fn is_of(class: ColumnClass, cell: Cell<'_>) -> bool {
    let has = |kind, len| cell.kind == kind && cell.bytes.len() == len;
    match class {
        ColumnClass::Int(width) => cell.as_int().is_some_and(|number| {
            let bits = 8 * (size_of::<i64>() - usize::from(width));
            number << bits >> bits == number
        }),
        ColumnClass::Text => cell.kind == Kind::Text,
        ColumnClass::Bytes => cell.kind == Kind::Bytes,
        ColumnClass::Uuid => has(Kind::Uuid, 16),
        ColumnClass::Timestamp => has(Kind::Timestamp, 8),
        ColumnClass::TimestampTz => has(Kind::TimestampTz, 8),
        ColumnClass::Date => has(Kind::Date, 4),
        ColumnClass::Dynamic | ColumnClass::Padded | ColumnClass::Float | ColumnClass::Unsupported => cell.kind == Kind::Other,
    }
}

/// Appends a key cell as the column's type wants it on the wire.
pub fn push_wire(column: &Column, cell: Cell<'_>, out: &mut Vec<u8>) {
    match column.class {
        // The canonical form is 8 bytes, big-endian: narrower types are its tail. Another one the server refuses.
        ColumnClass::Int(width) => {
            let head = cell.bytes.len().saturating_sub(usize::from(width));
            out.extend_from_slice(&cell.bytes[head..]);
        }
        _ => out.extend_from_slice(cell.bytes),
    }
}
