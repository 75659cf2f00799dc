//! What the values of a column look like, before any key is at hand. Reads a sample, writes nothing.

use std::ops::ControlFlow;

use super::error::RotationError;
use super::retry::{Before, again, before_the_first_write};
use crate::format::{self, Verdict};
use crate::key::KeyId;
use crate::store::page::Page;
use crate::store::survey::Target;
use crate::store::{ColumnSample, PageLimits, SampleLimits, Store, StoreError};

/// For each column the format of a sample of its values. `ids` are the key ids that may stand in them.
pub async fn formats(
    store: &dyn Store,
    table: &str,
    columns: &[String],
    filter: Option<&str>,
    ids: &[KeyId],
) -> Result<Vec<Verdict>, RotationError> {
    let target = Target {
        table: table.to_owned(),
        columns: columns.to_vec(),
        context_columns: Vec::new(),
        filter: filter.map(ToOwned::to_owned),
    };
    let pages = before_the_first_write(store, Before::Unheard, || sample(store, &target)).await?;
    Ok((0..columns.len())
        .map(|at| {
            let values = pages
                .iter()
                .flat_map(|page| (0..page.len()).map(move |row| page.value(row, at).bytes));
            format::detect(values, ids).verdict()
        })
        .collect())
}

/// Values from several places of a table.
async fn sample(store: &dyn Store, target: &Target) -> Result<Vec<Page>, StoreError> {
    let survey = store.survey(target).await?;
    let intervals = store.intervals(&survey, PLACES, false).await?;
    let mut session = store.session(&survey).await?;
    let mut pages = Vec::new();
    for interval in intervals.iter().take(PLACES * 2) {
        let mut page = Page::to_look_at(session.shape());
        let limits = PageLimits {
            rows: ROWS / PLACES,
            bytes: BYTES / PLACES,
            value_bytes_max: BYTES as u64 / PLACES as u64,
            stands_back: false,
        };
        session.page(interval, None, limits, &mut page).await?;
        pages.push(page);
    }
    Ok(pages)
}

/// A column that was looked at.
#[derive(Debug, Clone)]
pub struct Found {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// What its sampled values look like; or why they could not be read.
    pub verdict: Result<Verdict, String>,
    /// How many values were looked at.
    pub sampled: usize,
}

/// Looks at every column of a database. With `ids`, Tink values under those keys are recognised; without, only formats that give
/// themselves away. When the connection is lost in passing, it begins again: what changes meanwhile is of no account in a sample.
pub async fn scan(store: &dyn Store, ids: &[KeyId]) -> Result<Vec<Found>, RotationError> {
    again(Before::Unheard, || scan_once(store, ids))
        .await
        .map_err(RotationError::store("scan"))
}

async fn scan_once(store: &dyn Store, ids: &[KeyId]) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    let mut look = |sample: ColumnSample| {
        let sampled = sample.values.as_ref().map_or(0, Vec::len);
        let verdict = sample
            .values
            .map(|values| format::detect(values.iter().map(Vec::as_slice), ids).verdict());
        found.push(Found {
            table: sample.table,
            column: sample.column,
            verdict,
            sampled,
        });
        ControlFlow::Continue(())
    };
    store.column_samples(SCAN, &mut look).await?;
    Ok(found)
}

/// Enough to meet the odd sealed value in a column of plaintext, few enough for a database of thousands of columns.
const SCAN: SampleLimits = SampleLimits {
    rows: 200,
    value_bytes_max: 64 << 10,
};
const ROWS: usize = 1_000;
const PLACES: usize = 10;
const BYTES: usize = 4 << 20;
