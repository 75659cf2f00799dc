//! What a rehearsal found, as one document.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::latency::{Point, Windows};
use super::logins::LoginReport;
use super::nemesis::Fault;
use super::probe::ProbeReport;
use super::verdict::{Finding, Verdict};

/// The outcome of a rehearsal. The names of the fields are a contract with scripts.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
    /// Reads that failed, or saw what they must not.
    pub failed_reads: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Confirmed writes that are not in the table at the end.
    pub lost_writes: u64,
    /// Deleted rows that are there at the end.
    pub resurrected_rows: u64,
    /// Rows that hold what nobody wrote.
    pub wrong_values: u64,
    /// Values under the old key at the end.
    pub values_under_old_key: u64,
    /// Values that open under no key.
    pub unreadable_values: u64,
    /// Operations that were done again because their connection was lost.
    pub interrupted_operations: u64,
    /// Writes whose reply was lost and which had happened.
    pub unconfirmed_writes_done: u64,
    /// Writes whose reply was lost and which had not happened.
    pub unconfirmed_writes_undone: u64,
    /// Rows that reads compared with the model.
    pub rows_checked: u64,
    /// Whether it was rehearsed that a key has leaked.
    pub compromised: bool,
    /// What became of the sessions of users who were logged in.
    pub sessions: LoginReport,
    /// Instances of the application, each with a keyring of its own.
    pub instances: usize,
    /// Rows when the application started.
    pub rows_before: u64,
    /// Rows when it stopped.
    pub rows_after: u64,
    /// The key that was rotated away.
    pub old_key: u32,
    /// The key that took its place; `None` if it never came to that.
    pub new_key: Option<u32>,
    /// Values per key when the application started.
    pub census_before: BTreeMap<u32, u64>,
    /// Values per key when it stopped.
    pub census_after: BTreeMap<u32, u64>,
    /// How much of the database's time the rotation was to take.
    pub profile: &'static str,
    /// Rows that the rotation rewrote per second of its re-encrypt phase.
    pub rows_per_second: f64,
    /// What happened one after the other, and how long it took.
    pub phases: Vec<Phase>,
    /// Latencies.
    pub latency_ms: LatencyReport,
    /// How many times as long the slowest hundredth took during the rotation as before.
    pub p99_ratio: RatioReport,
    /// What happened over time.
    #[serde(skip)]
    pub series: Vec<Point>,
    /// Seconds of each of its points.
    #[serde(skip)]
    pub series_bucket_seconds: f64,
    /// The operator's own probes.
    pub probes: Vec<ProbeReport>,
    /// Faults, done on purpose.
    pub faults: Vec<Fault>,
    /// Repeats the traffic.
    pub seed: u64,
    /// Good or bad.
    pub verdict: Verdict,
    /// Why it is bad.
    pub findings: Vec<Finding>,
    /// Single failures, the first of them.
    pub incidents: Vec<String>,
    /// Where the folder was kept, if it was.
    pub evidence: Option<PathBuf>,
    /// The schema that was kept, if one was.
    pub evidence_schema: Option<String>,
    /// From start to end.
    pub elapsed_seconds: f64,
}

/// A part of the rehearsal.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// Seconds from the beginning of the rehearsal to its own.
    pub at_seconds: f64,
    /// Its time.
    pub seconds: f64,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencyReport {
    /// Of reads.
    pub reads: Windows,
    /// Of writes.
    pub writes: Windows,
}

/// Ratios of the p99 during the rotation to that before; `None` where nothing was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RatioReport {
    /// Of reads.
    pub reads: Option<f64>,
    /// Of writes.
    pub writes: Option<f64>,
}

/// Seconds with milliseconds.
pub fn seconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}
