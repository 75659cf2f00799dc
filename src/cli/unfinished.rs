//! The JSON of a rotation or a verification that did not come to its end: what is known by then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::CliError;
use super::documents::{Phase, ValueEntry, census, entries, phases, rate, seconds, throttled};
use super::error::ErrorDocument;
use crate::rotation::progress::{Progress, Step};

/// What is known of a rotation or a verification that did not come to its end, by the names of one that did.
#[derive(Default, Serialize)]
pub struct SoFar {
    rows_scanned: u64,
    values_reencrypted: u64,
    values_already_current: u64,
    values_null: u64,
    values_plaintext: u64,
    lost_races: u64,
    quarantined: Vec<ValueEntry>,
    quarantined_total: u64,
    not_current: Vec<ValueEntry>,
    not_current_total: u64,
    census: BTreeMap<String, u64>,
    elapsed_seconds: f64,
    rows_per_second: f64,
    throttled_seconds: BTreeMap<&'static str, f64>,
    phases: Vec<Phase>,
    verified: bool,
}

impl SoFar {
    /// Without `progress` nothing was begun.
    pub fn of(progress: Option<&Progress>, begun: Instant) -> Self {
        let elapsed_seconds = seconds(begun.elapsed());
        let Some(progress) = progress else {
            return Self {
                elapsed_seconds,
                ..Self::default()
            };
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut sum = Self {
            rows_scanned: count(&progress.rows_scanned),
            values_reencrypted: count(&progress.values_reencrypted),
            lost_races: count(&progress.lost_races),
            elapsed_seconds,
            rows_per_second: rate(count(&progress.rows_reencrypted), progress.time_of(Step::ReEncrypt)),
            throttled_seconds: throttled(progress),
            phases: phases(progress),
            ..Self::default()
        };
        for table in progress.tables() {
            let found = &table.census;
            sum.values_already_current += found.current;
            sum.values_null += found.nulls;
            sum.values_plaintext += found.plaintext;
            sum.quarantined_total += found.quarantined();
            sum.not_current_total += found.due;
            sum.quarantined
                .extend(entries(&table.survey, &table.columns, &found.quarantined_values));
            sum.not_current
                .extend(entries(&table.survey, &table.columns, &found.due_values));
            for (key, count) in census(found) {
                *sum.census.entry(key).or_default() += count;
            }
        }
        sum
    }
}

/// The document of a rotation or a verification that did not come to its end.
#[derive(Serialize)]
pub struct Unfinished<'a> {
    #[serde(flatten)]
    so_far: SoFar,
    exit: u8,
    error: ErrorDocument<'a>,
}

impl<'a> Unfinished<'a> {
    /// What `error` left.
    pub fn of(error: &'a CliError, progress: Option<&Progress>, begun: Instant) -> Self {
        Self {
            so_far: SoFar::of(progress, begun),
            exit: error.exit().code(),
            error: error.document(),
        }
    }
}
