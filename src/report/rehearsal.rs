//! The data of a report: everything that is to be shown about one rehearsal, and nothing that is not.
//!
//! All seconds count from the beginning of the rehearsal. All texts are raw: each form escapes them for itself. Nothing in here is a
//! secret, and no address holds a password.

use serde::{Deserialize, Serialize};

use super::proof::{Proof, Standing};
use super::sentence;

/// One rehearsal, as it is told afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The heading, such as "Rotation of 30000 customers under live traffic".
    pub title: String,
    /// The answer.
    pub verdict: Verdict,
    /// Why it is not good: one entry for each reason, empty for a good one.
    pub findings: Vec<Finding>,
    /// What must hold, in the order in which a reader should see it.
    pub proofs: Vec<Proof>,
    /// When it began, in the words of a wall clock (RFC 3339, UTC).
    pub begun: String,
    /// From the beginning to the end.
    pub elapsed_seconds: f64,
    /// The database and how it was reached, such as "PostgreSQL 17.2, scratch schema reseal_drill_4f". Without credentials.
    pub database: String,
    /// Programs and their versions; Reseal first.
    pub versions: Vec<Version>,
    /// Repeats customers and traffic.
    pub seed: u64,
    /// The whole command that repeats it, quoted for a shell. Without credentials.
    pub command: String,
    /// How large it was: rows, instances, readers, writers.
    pub sizes: Vec<Size>,
    /// Values counted per key.
    pub keys: Vec<KeyCount>,
    /// Rows rewritten per second of the re-encrypt phase; `None` when it never came to that.
    pub rows_per_second: Option<f64>,
    /// What happened one after the other. Sorted by their beginning; they may touch, they do not overlap.
    pub phases: Vec<Phase>,
    /// Faults, done on purpose. Sorted by time.
    pub faults: Vec<Fault>,
    /// Reads before, during and after the rotation.
    pub reads: Windows,
    /// Writes before, during and after the rotation.
    pub writes: Windows,
    /// Reads and writes over time.
    pub series: Series,
    /// The user's own checks, run all along.
    pub probes: Vec<Probe>,
    /// Single failures, the first of them, told one by one.
    pub incidents: Vec<String>,
    /// Where database, logs and keyring were kept, if they were.
    pub evidence: Option<String>,
}

/// The rehearsal's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that must hold held.
    Good,
    /// It came to its end, and something did not hold.
    Bad,
    /// It did not come to its end: it proves nothing. The findings say why.
    BrokenOff,
}

/// A reason why a rehearsal is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable short name, such as `lost-writes`: the name of the proof that failed, where there is one.
    pub name: String,
    /// What happened, with its number; starts in lower case, ends without a full stop.
    pub sentence: String,
}

/// A program that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Its version, as it says it.
    pub version: String,
}

/// How large a part of the rehearsal was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// What was counted, in the plural: "rows before", "readers".
    pub name: String,
    /// How many.
    pub count: u64,
}

/// Values under one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCount {
    /// The id of the key, or what else tells it from others.
    pub key: String,
    /// What it was to the rotation: "old", "new", "other".
    pub role: String,
    /// Values under it when the application started.
    pub values_before: u64,
    /// Values under it when the application had stopped.
    pub values_after: u64,
}

/// A part of the rehearsal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name, such as `re-encrypt`.
    pub name: String,
    /// When it began.
    pub begin_seconds: f64,
    /// When it ended; not before it began.
    pub end_seconds: f64,
}

/// A fault that was made to happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What was done, such as "kill -9 of the rotation".
    pub name: String,
    /// When.
    pub at_seconds: f64,
    /// When it was over, for a fault that lasts (a frozen process, a connection that is held up).
    pub until_seconds: Option<f64>,
    /// What came of it; starts in lower case, ends without a full stop.
    pub outcome: String,
    /// Whether it was survived as it should be; a finding says why if not.
    pub survived: bool,
}

/// One kind of operation: altogether, and in the three parts of the rehearsal. A part that never came is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Windows {
    /// Operations from the beginning to the end, failed ones included.
    pub operations: u64,
    /// Those that failed, or saw what they must not.
    pub failed: u64,
    /// Undisturbed, once caches are filled.
    pub before: Option<Traffic>,
    /// From the introduction of the new key to the retirement of the old one.
    pub during: Option<Traffic>,
    /// Undisturbed again.
    pub after: Option<Traffic>,
    /// `during` divided by `before`; `None` when one of them is missing or `before` is 0.
    pub ratio: Option<Percentiles>,
}

/// Operations of one kind in one part. What was not measured is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Operations, failed ones included.
    pub operations: Option<u64>,
    /// Operations per second.
    pub per_second: Option<f64>,
    /// Latencies in milliseconds.
    pub latency_ms: Percentiles,
    /// The longest time without a single operation that succeeded, in milliseconds.
    pub longest_pause_ms: Option<f64>,
}

/// Percentiles: milliseconds for latencies, a plain factor for ratios.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of all operations were faster.
    pub p50: f64,
    /// All but one in a hundred were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// Reads and writes over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The width of every point in seconds; more than 0 when there are points. About 100 to 600 points make a good picture.
    pub bucket_seconds: f64,
    /// One after the other, without gaps: time in which nothing happened has points with zeros.
    pub points: Vec<Point>,
}

/// What ended within one stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When the stretch begins.
    pub begin_seconds: f64,
    /// Reads that ended in it.
    pub reads: Activity,
    /// Writes that ended in it.
    pub writes: Activity,
    /// Reads and writes that failed in it.
    pub failed: u64,
}

/// Operations of one kind within one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Operations, failed ones included.
    pub operations: u64,
    /// Latencies in milliseconds; `None` when there were no operations.
    pub latency_ms: Option<Percentiles>,
}

/// One of the user's own checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The command or the address, as it was given, without credentials.
    pub name: String,
    /// How often it ran to an end or to its timeout.
    pub runs: u64,
    /// How often it failed.
    pub failed: u64,
    /// When it failed first.
    pub first_failure_seconds: Option<f64>,
    /// What it said when it failed first: exit code, status, the end of its output.
    pub first_failure: Option<String>,
    /// The longest time from a success to the next one, in seconds; `None` with fewer than two.
    pub longest_outage_seconds: Option<f64>,
}

impl Rehearsal {
    /// One that has not come to its end, of which nothing is known but this.
    pub fn broken_off(title: &str, why: &str) -> Self {
        Self {
            title: title.to_owned(),
            verdict: Verdict::BrokenOff,
            findings: vec![Finding::new("broken-off", why)],
            proofs: Vec::new(),
            begun: String::new(),
            elapsed_seconds: 0.0,
            database: String::new(),
            versions: Vec::new(),
            seed: 0,
            command: String::new(),
            sizes: Vec::new(),
            keys: Vec::new(),
            rows_per_second: None,
            phases: Vec::new(),
            faults: Vec::new(),
            reads: Windows::default(),
            writes: Windows::default(),
            series: Series::default(),
            probes: Vec::new(),
            incidents: Vec::new(),
            evidence: None,
        }
    }

    /// Draws the consequences: a finding for every proof that failed and has none, and the verdict. A rehearsal that broke off stays so.
    pub fn settle(&mut self) {
        for proof in &self.proofs {
            if proof.standing == Standing::Failed && !self.findings.iter().any(|finding| finding.name == proof.name) {
                self.findings.push(Finding::new(&proof.name, sentence::shortfall(proof)));
            }
        }
        if self.verdict != Verdict::BrokenOff {
            self.verdict = if self.findings.is_empty() {
                Verdict::Good
            } else {
                Verdict::Bad
            };
        }
    }

    /// Proofs of this standing.
    pub fn count(&self, standing: Standing) -> usize {
        self.proofs.iter().filter(|proof| proof.standing == standing).count()
    }

    /// The findings that say why this proof failed.
    pub fn findings_of<'a>(&'a self, proof: &'a Proof) -> impl Iterator<Item = &'a Finding> {
        self.findings.iter().filter(|finding| finding.name == proof.name)
    }

    /// The findings that belong to no proof.
    pub fn other_findings(&self) -> impl Iterator<Item = &Finding> {
        let is_proof = |name: &str| self.proofs.iter().any(|proof| proof.name == name);
        self.findings.iter().filter(move |finding| !is_proof(&finding.name))
    }
}

impl Windows {
    /// With the ratio that follows from the parts.
    pub fn new(operations: u64, failed: u64, before: Option<Traffic>, during: Option<Traffic>, after: Option<Traffic>) -> Self {
        let ratio = before.zip(during).and_then(|(before, during)| {
            let (base, load) = (before.latency_ms, during.latency_ms);
            let ratio = |during: f64, before: f64| (during / before * RATIO_STEPS).round() / RATIO_STEPS;
            (base.p50 > 0.0).then(|| Percentiles {
                p50: ratio(load.p50, base.p50),
                p99: ratio(load.p99, base.p99),
                max: ratio(load.max, base.max),
            })
        });
        Self {
            operations,
            failed,
            before,
            during,
            after,
            ratio,
        }
    }
}

impl Finding {
    /// A finding.
    pub fn new(name: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            sentence: sentence.into(),
        }
    }
}

/// Finer ratios than a thousandth are noise.
const RATIO_STEPS: f64 = 1e3;
