//! What a page statement answers, row by row, and what of it is believed.

use sqlx::postgres::PgRow;
use sqlx::{Row as _, ValueRef as _};

use super::parameters::context_class;
use super::types;
use crate::store::page::{Page, RowVersion};
use crate::store::survey::Survey;
use crate::store::value::{Cell, Kind};
use crate::store::{PageLimits, StoreError};

/// Copies a result row into the page: ctid and xmin if it wants them, keys, contexts, then value or size of a larger one for each encrypted column.
pub fn push(survey: &Survey, row: &PgRow, page: &mut Page) -> Result<(), sqlx::Error> {
    let wire = |at: usize| -> Result<Option<&[u8]>, sqlx::Error> {
        let value = row.try_get_raw(at)?;
        if value.is_null() {
            return Ok(None);
        }
        value.as_bytes().map(Some).map_err(sqlx::Error::Decode)
    };
    let malformed = || sqlx::Error::Protocol("unexpected ctid or xmin".to_owned());
    let mut at = 0;
    let mut version = RowVersion::default();
    if page.is_for_swaps() {
        version = RowVersion {
            tid: wire(0)?.and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?,
            xmin: wire(1)?
                .and_then(|bytes| bytes.try_into().ok())
                .map(u32::from_be_bytes)
                .ok_or_else(malformed)?,
        };
        at = 2;
    }
    page.begin_row(version);
    let mut scratch = [0; 8];
    for column in &survey.key {
        page.push(types::cell(column.class, wire(at)?, &mut scratch));
        at += 1;
    }
    for column in &survey.contexts {
        page.push(types::cell(context_class(column), wire(at)?, &mut scratch));
        at += 1;
    }
    for column in &survey.values {
        let (value, size) = (wire(at)?, wire(at + 1)?);
        at += 2;
        match (value, size) {
            (None, Some(size)) => {
                let size = size.try_into().map(i32::from_be_bytes).unwrap_or(i32::MAX);
                scratch = u64::from(size.unsigned_abs()).to_be_bytes();
                page.push(Cell {
                    kind: Kind::Oversize,
                    bytes: &scratch,
                });
            }
            (value, _) => page.push(types::cell(column.class, value, &mut scratch)),
        }
    }
    Ok(())
}

/// The statement has these limits; a server that sends more all the same is not to be believed, nor to be given memory.
pub fn require_asked_for(page: &Page, limits: PageLimits) -> Result<(), StoreError> {
    if page.len() > limits.rows {
        return Err(StoreError::Implausible(format!(
            "more than the {} rows asked for",
            limits.rows
        )));
    }
    let row = page.len() - 1;
    let bytes = (0..page.shape().values)
        .map(|at| page.value(row, at).bytes.len() as u64)
        .max();
    match bytes {
        Some(bytes) if bytes > limits.value_bytes_max => Err(StoreError::Implausible(format!(
            "a value of {bytes} bytes where at most {} were asked for",
            limits.value_bytes_max
        ))),
        _ => Ok(()),
    }
}
