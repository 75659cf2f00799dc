//! A rehearsal in a staging environment: the user's own datasets, keyring and instances, and the rotation that production would get.
//!
//! ```text
//! plan ─► verify ─► before │ reseal rotate KEYSET, killed and continued │ after ─► verdict
//!            readers and probes all along
//! ```
//!
//! The only one who writes to the user's tables is the rotation. Readers open what is there; what an application makes of it, its own
//! probes and instances say.

mod readers;
mod script;
mod told;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::clock::now;
use super::nemesis::Fault;
use super::probe::{ProbeReport, Probes};
use super::report::{LatencyReport, Phase, RatioReport, seconds};
use super::room::or_no_room;
use super::stage::random_name;
use super::tally::Tally;
use super::verdict::{Finding, Thresholds, Verdict, judge_probes, judge_reads, total};
use super::watch::Watch;
use super::{Cancel, DrillError, Point};
use crate::rotation::profile::Profile;
use crate::rotation::protocol::Managed;
use readers::Readers;
use script::Script;

pub use told::told_of_staging;

/// What is rehearsed, and how hard. Holds what opens the keyring: no `Debug`.
pub struct Staging {
    /// The keyset with its datasets, as the configuration names them, and the findings that plan and rotation are told to accept.
    pub managed: Arc<Managed>,
    /// The configuration.
    pub config: PathBuf,
    /// Readers of ours.
    pub readers: usize,
    /// Reads of each of them in a second.
    pub reads_per_second: f64,
    /// Time of undisturbed reading, half of it before the rotation and half after.
    pub duration: Duration,
    /// Whether the rotation is killed in the middle, and continued by the same command.
    pub kills: bool,
    /// Whether a key has leaked.
    pub compromised: bool,
    /// How much of the databases' time the rotation may take.
    pub profile: Profile,
    /// Further arguments of the rotation, about its gates.
    pub gates: Vec<String>,
    /// What fails the rehearsal.
    pub thresholds: Thresholds,
    /// Commands and URLs that must succeed all along.
    pub probes: Vec<String>,
    /// Variables of the environment that probes do not get.
    pub hidden_variables: Vec<String>,
    /// Seeds the readers.
    pub seed: u64,
    /// The `reseal` program.
    pub program: PathBuf,
}

/// The outcome. The names of the fields are a contract with scripts; those that the rehearsal with tables of its own has, too, mean the
/// same.
#[derive(Debug, Clone, Serialize)]
pub struct StagingReport {
    /// `staging`.
    pub database: &'static str,
    /// The keyset that was rotated.
    pub keyset: String,
    /// Its datasets.
    pub datasets: Vec<String>,
    /// Read operations.
    pub reads: u64,
    /// None: a rehearsal writes nothing to tables that are not its own.
    pub writes: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Not tested, for nothing was written.
    pub lost_writes: Option<u64>,
    /// Rows of which every value was opened by readers.
    pub rows_checked: u64,
    /// Values under the old key at the end.
    pub values_under_old_key: u64,
    /// Values that open under no key of the keyset.
    pub unreadable_values: u64,
    /// The key that was rotated away.
    pub old_key: u32,
    /// The key that took its place; `None` if it never came to that.
    pub new_key: Option<u32>,
    /// Values per key before.
    pub census_before: BTreeMap<String, u64>,
    /// Values per key after.
    pub census_after: BTreeMap<String, u64>,
    /// Whether it was rehearsed that a key has leaked.
    pub compromised: bool,
    /// How much of the databases' time the rotation was to take.
    pub profile: &'static str,
    /// Rows per second of the re-encrypt phase.
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
    /// The user's own probes.
    pub probes: Vec<ProbeReport>,
    /// Faults, done on purpose.
    pub faults: Vec<Fault>,
    /// Repeats the readers.
    pub seed: u64,
    /// Good or bad.
    pub verdict: Verdict,
    /// Why it is bad.
    pub findings: Vec<Finding>,
    /// Single failures, the first of them.
    pub incidents: Vec<String>,
    /// From start to end.
    pub elapsed_seconds: f64,
}

/// Rehearses; `say` is told, for people, what is going on. What the rotation did stays: it is one.
pub fn rehearse(staging: &Staging, cancel: &Cancel, say: &mut dyn FnMut(&str)) -> Result<StagingReport, DrillError> {
    let folder = Folder::make().map_err(or_no_room)?;
    rehearse_in(&folder, staging, cancel, say).map_err(or_no_room)
}

fn rehearse_in(
    folder: &Folder,
    staging: &Staging,
    cancel: &Cancel,
    say: &mut dyn FnMut(&str),
) -> Result<StagingReport, DrillError> {
    let managed = &staging.managed;
    let keyset = managed.keyset.as_str().to_owned();
    let datasets: Vec<String> = managed.datasets.iter().map(|dataset| dataset.name.clone()).collect();
    let keyring = crate::key::Keyring::open(&managed.keyring, &managed.unlock, 0)?;
    let old = keyring.keyset(&managed.keyset).map(|keyset| keyset.primary().id());
    let old = old.ok_or_else(|| DrillError::Staging(format!("the keyring has no keyset {keyset}")))?;
    let mut script = Script {
        cancel,
        say,
        folder: folder.0.clone(),
        begun: Instant::now(),
        origin: now(),
        phases: Vec::new(),
        findings: Vec::new(),
        faults: Vec::new(),
        new: None,
        rows_per_second: 0.0,
        typed: 0,
    };
    script.plan(staging, &keyset)?;
    let mut watch = Watch::over(&managed.places[0].store, &keyset)?;
    if let Some(open) = watch.position()?.filter(|position| !position.phase.is_end()) {
        return Err(DrillError::Unfinished(keyset, open.phase.as_str()));
    }
    let before = script.phase("verify before", |script| script.verify(staging, &keyset))?;
    let mut readers = Readers::start(
        managed,
        staging.readers,
        staging.reads_per_second,
        staging.seed,
        Tally::new(script.origin)?,
    )?;
    let probes = Probes::start(&staging.probes, &staging.hidden_variables, &staging.program, script.origin)
        .map_err(DrillError::Stage)?;
    readers.tally(|tally| tally.traffic_begins(now(), staging.duration / 2));
    script.phase("before", |script| script.wait(staging.duration / 2))?;
    readers.tally(|tally| tally.rotation_begins(now()));
    let ended = script.rotate(staging, &keyset, &mut watch, &readers)?;
    readers.tally(|tally| tally.rotation_ends(now()));
    script.phase("after", |script| script.wait(staging.duration / 2))?;
    readers.finish();
    let probes = probes.finish();
    let after = census(&ended.document);
    let after = if after.is_empty() {
        script.phase("verify after", |script| script.verify(staging, &keyset))?
    } else {
        after
    };
    let quarantined = ended.document["quarantined_total"].as_u64().unwrap_or(0);
    let under_old = after.get(&format!("{keyset}@{old}")).copied().unwrap_or(0);
    let mut findings = std::mem::take(&mut script.findings);
    let thresholds = &staging.thresholds;
    findings.extend(readers.tally(|tally| judge_reads(tally, Some((old, under_old)), quarantined, thresholds)));
    findings.extend(judge_probes(&probes));
    if let Some(max) = thresholds.duration_max.filter(|max| script.begun.elapsed() > *max) {
        let max = max.as_secs_f64();
        findings.push(Finding::new(
            "too-long",
            format!("the drill took longer than the {max} s that it may"),
        ));
    }
    Ok(readers.tally(|tally| {
        let (reads, writes) = (tally.read_latencies.windows(), tally.write_latencies.windows());
        StagingReport {
            database: "staging",
            keyset,
            datasets,
            reads: tally.reads,
            writes: 0,
            failed_reads: total(&tally.failed_reads),
            lost_writes: None,
            rows_checked: tally.rows_checked,
            values_under_old_key: under_old,
            unreadable_values: quarantined,
            old_key: old.0,
            new_key: script.new.map(|id| id.0),
            census_before: before,
            census_after: after,
            compromised: staging.compromised,
            profile: staging.profile.as_str(),
            rows_per_second: script.rows_per_second,
            phases: std::mem::take(&mut script.phases),
            latency_ms: LatencyReport { reads, writes },
            p99_ratio: RatioReport {
                reads: reads.p99_ratio(),
                writes: None,
            },
            series: tally.series.points(),
            series_bucket_seconds: tally.series.bucket_seconds(),
            probes,
            faults: std::mem::take(&mut script.faults),
            seed: staging.seed,
            verdict: if findings.is_empty() { Verdict::Good } else { Verdict::Bad },
            findings,
            incidents: tally.incidents.clone(),
            elapsed_seconds: seconds(script.begun.elapsed()),
        }
    }))
}

/// For what the commands say; no secret is in it. It goes with the rehearsal.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self, DrillError> {
        let folder = std::env::temp_dir().join(format!("reseal-drill-{}", random_name()?));
        DirBuilder::new().mode(0o700).create(&folder).map_err(DrillError::Stage)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What could not be removed is found under the drill's name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn census(document: &Value) -> BTreeMap<String, u64> {
    let counts = document["census"].as_object().into_iter().flatten();
    counts
        .filter_map(|(key, count)| Some((key.clone(), count.as_u64()?)))
        .collect()
}

const KILL: &str = "kill -9 of the rotation";
