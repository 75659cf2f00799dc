//! The JSON of a rotation or a verification that did not come to its end: what is known by then, by the names of one that did.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::CliError;
use super::documents::{Outcome, Phase, Totals, found, phases, rate, seconds, throttled};
use super::error::ErrorDocument;
use crate::rotation::progress::{Progress, Step, Table};

/// The document.
#[derive(Serialize)]
pub struct Unfinished<'a> {
    #[serde(flatten)]
    counted: Totals,
    elapsed_seconds: f64,
    rows_per_second: f64,
    throttled_seconds: BTreeMap<&'static str, f64>,
    phases: Vec<Phase>,
    verified: bool,
    exit: u8,
    error: ErrorDocument<'a>,
}

impl<'a> Unfinished<'a> {
    /// What `error` left. Without `progress` nothing was begun.
    pub fn of(error: &'a CliError, progress: Option<&Progress>, begun: Instant) -> Self {
        Self {
            counted: progress.map(|progress| counted(progress, begun)).unwrap_or_default(),
            elapsed_seconds: seconds(begun.elapsed()),
            rows_per_second: progress.map_or(0.0, |progress| {
                rate(count(&progress.rows_reencrypted), progress.time_of(Step::ReEncrypt))
            }),
            throttled_seconds: progress.map(throttled).unwrap_or_default(),
            phases: progress.map(phases).unwrap_or_default(),
            verified: false,
            exit: error.exit().code(),
            error: error.document(),
        }
    }
}

fn counted(progress: &Progress, begun: Instant) -> Totals {
    let tables = progress.tables();
    let outcome = |table: &Table| found(&table.survey, &table.columns, &table.census, progress, begun);
    let outcomes: Vec<Outcome> = tables.iter().map(outcome).collect();
    let mut sum = Totals::of(outcomes.iter());
    sum.rows_scanned = count(&progress.rows_scanned);
    sum.values_reencrypted = count(&progress.values_reencrypted);
    sum.lost_races = count(&progress.lost_races);
    sum
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
