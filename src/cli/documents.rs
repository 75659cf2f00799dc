//! The JSON of rotations: fields that scripts rely on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use super::Exit;
use crate::rotation::census::Census;
use crate::rotation::guard::GuardReport;
use crate::rotation::preflight::{Finding, Severity};
use crate::rotation::progress::Progress;
use crate::rotation::{RotationReport, VacuumReport, VerifyReport};
use crate::store::control::LateValues;
use crate::store::page::Quarantined;
use crate::store::survey::Survey;
use crate::store::value::{Cell, Key};

/// A value that was left untouched, or is still due.
#[derive(Clone, Serialize)]
pub struct ValueEntry {
    table: String,
    column: String,
    primary_key: Map<String, Value>,
    reason: String,
}

/// A value that appeared under the old key when every writer was to have switched.
#[derive(Serialize)]
pub struct LateEntry {
    table: String,
    column: String,
    primary_key: Map<String, Value>,
    seen_at: String,
    last_seen_at: String,
}

/// A phase and its time.
#[derive(Serialize)]
pub struct Phase {
    name: &'static str,
    seconds: f64,
}

/// A judged fact.
#[derive(Serialize)]
pub struct FindingEntry<'a> {
    severity: &'static str,
    name: &'a str,
    what: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'a str,
}

/// The fields that `rotate` and `verify` share.
#[derive(Serialize)]
pub struct Outcome {
    /// Rows read.
    pub rows_scanned: u64,
    /// Values rewritten.
    pub values_reencrypted: u64,
    /// Values that were under the target key already.
    pub values_already_current: u64,
    /// NULLs.
    pub values_null: u64,
    /// Values that are not sealed, and were left so (`--plaintext skip`).
    pub values_plaintext: u64,
    /// Rows that somebody else wrote first.
    pub lost_races: u64,
    /// Values left untouched; the first ten thousand.
    pub quarantined: Vec<ValueEntry>,
    /// All of them, counted.
    pub quarantined_total: u64,
    /// Values not under the target key, though readable; the first ten thousand.
    pub not_current: Vec<ValueEntry>,
    /// All of them, counted.
    pub not_current_total: u64,
    /// Values whose plaintext is itself a sealed value; the first ten thousand.
    pub nested: Vec<ValueEntry>,
    /// All of them, counted.
    pub nested_total: u64,
    /// Values per key.
    pub census: BTreeMap<String, u64>,
    /// From start to end.
    pub elapsed_seconds: f64,
    /// Rows rewritten over the time of the re-encrypt phase alone.
    pub rows_per_second: f64,
    /// Where the time went.
    pub phases: Vec<Phase>,
    /// Whether every non-null value opened under the target key.
    pub verified: bool,
    /// The exit code.
    pub exit: u8,
}

/// Sums over the datasets of a keyset: the fields that scripts know from single tables.
#[derive(Default, Serialize)]
pub struct Totals {
    /// Rows read.
    pub rows_scanned: u64,
    /// Values rewritten.
    pub values_reencrypted: u64,
    values_already_current: u64,
    values_null: u64,
    values_plaintext: u64,
    /// Rows that somebody else wrote first.
    pub lost_races: u64,
    quarantined: Vec<ValueEntry>,
    quarantined_total: u64,
    not_current: Vec<ValueEntry>,
    not_current_total: u64,
    census: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds up.
    pub fn of<'o>(outcomes: impl Iterator<Item = &'o Outcome>) -> Self {
        let mut sum = Self::default();
        for outcome in outcomes {
            sum.rows_scanned += outcome.rows_scanned;
            sum.values_reencrypted += outcome.values_reencrypted;
            sum.values_already_current += outcome.values_already_current;
            sum.values_null += outcome.values_null;
            sum.values_plaintext += outcome.values_plaintext;
            sum.lost_races += outcome.lost_races;
            sum.quarantined.extend(outcome.quarantined.iter().cloned());
            sum.quarantined_total += outcome.quarantined_total;
            sum.not_current.extend(outcome.not_current.iter().cloned());
            sum.not_current_total += outcome.not_current_total;
            for (key, count) in &outcome.census {
                *sum.census.entry(key.clone()).or_default() += count;
            }
        }
        sum
    }
}

/// What a rotation of a table did and found.
pub fn rotated(survey: &Survey, report: &RotationReport, progress: &Progress, begun: Instant) -> Outcome {
    let (counters, census) = (&report.counters, &report.census);
    let verified = report.verified && census.opened_in_full();
    Outcome {
        rows_scanned: counters.rows_scanned,
        values_reencrypted: counters.values_reencrypted,
        values_already_current: counters.values_already_current,
        values_null: counters.values_null,
        lost_races: counters.lost_races,
        rows_per_second: rate(report.this_run.0, report.this_run.1),
        verified,
        exit: judged(verified).code(),
        ..found(survey, &report.columns, census, progress, begun)
    }
}

/// What a verification of a table found.
pub fn verified(survey: &Survey, report: &VerifyReport, progress: &Progress, begun: Instant) -> Outcome {
    found(survey, &report.columns, &report.census, progress, begun)
}

/// What was counted in a table.
pub fn found(survey: &Survey, columns: &[String], counted: &Census, progress: &Progress, begun: Instant) -> Outcome {
    Outcome {
        rows_scanned: counted.rows,
        values_reencrypted: 0,
        values_already_current: counted.current,
        values_null: counted.nulls,
        values_plaintext: counted.plaintext,
        lost_races: 0,
        quarantined: entries(survey, columns, &counted.quarantined_values),
        quarantined_total: counted.quarantined(),
        not_current: entries(survey, columns, &counted.due_values),
        not_current_total: counted.due,
        nested: entries(survey, columns, &counted.nested_values),
        nested_total: counted.nested,
        census: census(counted),
        elapsed_seconds: seconds(begun.elapsed()),
        rows_per_second: 0.0,
        phases: phases(progress),
        verified: counted.opened_in_full(),
        exit: judged(counted.opened_in_full()).code(),
    }
}

/// The exit code of a run that came to its end.
pub fn judged(verified: bool) -> Exit {
    if verified { Exit::Done } else { Exit::Findings }
}

/// Entries of a census with names instead of positions.
pub fn entries(survey: &Survey, columns: &[String], values: &[(String, Quarantined)]) -> Vec<ValueEntry> {
    values
        .iter()
        .map(|(relation, entry)| ValueEntry {
            table: table(survey, relation),
            column: columns.get(entry.column).cloned().unwrap_or_default(),
            primary_key: primary_key(survey, &entry.key),
            reason: entry.reason.clone(),
        })
        .collect()
}

/// Late values with names instead of positions.
pub fn late(survey: &Survey, columns: &[String], late: &LateValues) -> Vec<LateEntry> {
    late.values
        .iter()
        .map(|stored| LateEntry {
            table: table(survey, &stored.relation),
            column: columns.get(stored.value.column).cloned().unwrap_or_default(),
            primary_key: primary_key(survey, &stored.value.key),
            seen_at: stored.seen_at.clone(),
            last_seen_at: stored.last_seen_at.clone(),
        })
        .collect()
}

fn table(survey: &Survey, relation: &str) -> String {
    if survey.relations.len() > 1 {
        relation.replace('"', "")
    } else {
        survey.table.clone()
    }
}

fn primary_key(survey: &Survey, key: &Key) -> Map<String, Value> {
    let cells = survey.key.iter().zip(key.cells());
    cells.map(|(column, cell)| (column.name.clone(), json(cell))).collect()
}

/// A key value: numbers as numbers, everything else as its canonical text.
fn json(cell: Cell<'_>) -> Value {
    match cell.as_int() {
        Some(number) => Value::from(number),
        None => Value::from(cell.to_text()),
    }
}

/// Values per key, with what opened under none.
pub fn census(census: &Census) -> BTreeMap<String, u64> {
    let mut counts = census.per_key.clone();
    for (name, count) in [("plaintext", census.plaintext), ("unreadable", census.unreadable)] {
        if count > 0 {
            counts.insert(name.to_owned(), count);
        }
    }
    counts
}

/// The phases so far.
pub fn phases(progress: &Progress) -> Vec<Phase> {
    progress
        .times()
        .into_iter()
        .map(|(step, time)| Phase {
            name: step.name(),
            seconds: seconds(time),
        })
        .collect()
}

/// For how long batches waited, for each reason, in seconds.
pub fn throttled(progress: &Progress) -> BTreeMap<&'static str, f64> {
    let waited = progress.throttle.waited();
    waited
        .into_iter()
        .map(|(reason, time)| (reason.name(), seconds(time)))
        .collect()
}

/// How a guard ended.
#[derive(Serialize)]
pub struct GuardEntry {
    /// The database validated that no value under the old key is left.
    proved: bool,
    /// The guard was taken away.
    removed: bool,
}

impl GuardEntry {
    /// The same for scripts.
    pub fn of(guard: GuardReport) -> Self {
        Self {
            proved: guard.proved,
            removed: guard.removed,
        }
    }
}

/// How the upkeep of a table went.
#[derive(Serialize)]
pub struct VacuumEntry {
    /// How often a physical table was vacuumed.
    runs: u64,
    /// How often it was not, because somebody else held it or waited for it.
    made_way: u64,
    /// Whether all of it was vacuumed in the end, indexes included.
    finished: bool,
    /// Without indexes, when this run began.
    table_bytes_before: u64,
    /// When it ended.
    table_bytes_after: u64,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl VacuumEntry {
    /// The same for scripts.
    pub fn of(report: &VacuumReport) -> Self {
        Self {
            runs: report.runs,
            made_way: report.made_way,
            finished: report.finished,
            table_bytes_before: report.bytes_before,
            table_bytes_after: report.bytes_after,
            failed: report.failed.clone(),
        }
    }
}

/// Findings with their severity as a word.
pub fn findings(findings: &[Finding]) -> Vec<FindingEntry<'_>> {
    findings
        .iter()
        .map(|finding| FindingEntry {
            severity: severity(finding.severity),
            name: &finding.name,
            what: &finding.what,
            advice: &finding.advice,
        })
        .collect()
}

/// The word for a severity.
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Ask => "ask",
        Severity::Refuse => "refuse",
    }
}

/// Seconds with microseconds.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

/// Rows per second, 0 where nothing was done.
pub fn rate(rows: u64, time: Duration) -> f64 {
    if rows == 0 || time.is_zero() {
        return 0.0;
    }
    (rows as f64 / time.as_secs_f64()).round()
}

impl ValueEntry {
    /// For people: where and why.
    pub fn describe(&self) -> String {
        format!("{}: {}", place(&self.table, &self.column, &self.primary_key), self.reason)
    }
}

impl LateEntry {
    /// For people: where and when.
    pub fn describe(&self) -> String {
        let place = place(&self.table, &self.column, &self.primary_key);
        if self.seen_at == self.last_seen_at {
            format!("{place}: seen at {}", self.seen_at)
        } else {
            format!("{place}: seen at {}, last at {}", self.seen_at, self.last_seen_at)
        }
    }
}

fn place(table: &str, column: &str, primary_key: &Map<String, Value>) -> String {
    let key: Vec<String> = primary_key.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{table}.{column} at {}", key.join(", "))
}
