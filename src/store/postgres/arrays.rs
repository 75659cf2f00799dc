//! Parameters in PostgreSQL's binary form, written straight from the page: one array per column, no copy per value.
//!
//! Layout of an array: dimensions, null flag, element type, length, lower bound; then length and bytes of each element
//! (PostgreSQL `array_send`).

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, Postgres};
use sqlx::types::Type;

/// An array parameter: `write` appends element number `i` and says `false` for NULL.
pub struct BinaryArray<F> {
    /// Type of the array.
    pub array_oid: u32,
    /// Type of its elements.
    pub element_oid: u32,
    /// Elements.
    pub len: usize,
    /// Appends one element's bytes; returns whether it is not NULL.
    pub write: F,
}

impl<F> Type<Postgres> for BinaryArray<F> {
    fn type_info() -> PgTypeInfo {
        // Never used: `produces` names the type of each value.
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl<F: Fn(usize, &mut Vec<u8>) -> bool> Encode<'_, Postgres> for BinaryArray<F> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let out: &mut Vec<u8> = buffer;
        out.extend_from_slice(&1i32.to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
        out.extend_from_slice(&self.element_oid.to_be_bytes());
        out.extend_from_slice(&i32::try_from(self.len)?.to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
        for index in 0..self.len {
            let length_at = out.len();
            out.extend_from_slice(&NULL_LENGTH.to_be_bytes());
            if (self.write)(index, out) {
                let length = i32::try_from(out.len() - length_at - 4)?;
                out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.array_oid)))
    }
}

/// A single value of a type that is known by its oid.
pub struct BinaryScalar<'a> {
    /// Its type.
    pub oid: u32,
    /// Its bytes; `None` is NULL.
    pub bytes: Option<&'a [u8]>,
}

impl Type<Postgres> for BinaryScalar<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for BinaryScalar<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match self.bytes {
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.oid)))
    }
}

const NULL_LENGTH: i32 = -1;
