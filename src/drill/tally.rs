//! What one instance of the application did and met; those of all instances are added up.

use std::collections::BTreeMap;

use super::DrillError;
use super::latency::Latencies;
use super::model::Deviation;
use crate::app::OpenError;

/// Counts and latencies.
#[derive(Clone)]
pub struct Tally {
    /// Read operations.
    pub reads: u64,
    /// Rows compared with the model.
    pub rows_checked: u64,
    /// Write operations.
    pub writes: u64,
    /// Read operations that failed or saw what they must not, by why.
    pub failed_reads: BTreeMap<Failure, u64>,
    /// Write operations that failed, by why.
    pub failed_writes: BTreeMap<Failure, u64>,
    /// The first of them, told one by one.
    pub incidents: Vec<String>,
    /// Latencies of reads.
    pub read_latencies: Latencies,
    /// Latencies of writes.
    pub write_latencies: Latencies,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// It saw what the model does not allow.
    Deviates(Deviation),
    /// The instance did not have the key.
    UnknownKey(u32),
    /// The instance was no longer, or not yet, given the key.
    Withheld(u32, &'static str),
    /// The value did not open for another reason.
    Unopened(String),
    /// The row to be changed was not there.
    RowGone,
    /// The database refused.
    Database(String),
}

impl Tally {
    /// Nothing done yet.
    pub fn new() -> Result<Self, DrillError> {
        Ok(Self {
            reads: 0,
            rows_checked: 0,
            writes: 0,
            failed_reads: BTreeMap::new(),
            failed_writes: BTreeMap::new(),
            incidents: Vec::new(),
            read_latencies: Latencies::new()?,
            write_latencies: Latencies::new()?,
        })
    }

    /// Counts a failed read of row `id`.
    pub fn read_failed(&mut self, id: i64, failure: Failure) {
        self.tell(format!("read of row {id}: {}", failure.describe()));
        *self.failed_reads.entry(failure).or_default() += 1;
    }

    /// Counts a failed write to row `id`.
    pub fn write_failed(&mut self, id: i64, failure: Failure) {
        self.tell(format!("write to row {id}: {}", failure.describe()));
        *self.failed_writes.entry(failure).or_default() += 1;
    }

    /// Adds another instance's.
    pub fn merge(&mut self, other: Self) {
        self.reads += other.reads;
        self.rows_checked += other.rows_checked;
        self.writes += other.writes;
        for (mine, theirs) in [
            (&mut self.failed_reads, other.failed_reads),
            (&mut self.failed_writes, other.failed_writes),
        ] {
            for (failure, count) in theirs {
                *mine.entry(failure).or_default() += count;
            }
        }
        for incident in other.incidents {
            self.tell(incident);
        }
        self.read_latencies.merge(&other.read_latencies);
        self.write_latencies.merge(&other.write_latencies);
    }

    fn tell(&mut self, incident: String) {
        if self.incidents.len() < INCIDENTS_MAX {
            self.incidents.push(incident);
        }
    }
}

impl Failure {
    /// For a sentence: "reads met that …".
    pub fn describe(&self) -> String {
        match self {
            Self::Deviates(deviation) => format!("rows {}", deviation.describe()),
            Self::UnknownKey(id) => format!("a value under key {id}, which the instance did not have"),
            Self::Withheld(id, standing) => format!("a value under key {id}, which is {standing}"),
            Self::Unopened(why) => format!("a value that did not open: {why}"),
            Self::RowGone => "the row to be changed was not there".to_owned(),
            Self::Database(why) => format!("the database refused: {why}"),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::UnknownKey { id, .. } => Self::UnknownKey(id.0),
            OpenError::Withheld { id, standing, .. } => Self::Withheld(id.0, standing),
            other => Self::Unopened(other.to_string()),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

/// Enough to see what went wrong; counts are exact.
const INCIDENTS_MAX: usize = 50;
