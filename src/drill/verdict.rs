//! From evidence to a verdict: one rule for each way to fail, one sentence for each rule.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::inspect::Inspection;
use super::latency::Windows;
use super::model::Deviation;
use super::probe::ProbeReport;
use super::tally::Tally;
use crate::key::KeyId;

/// A reason why a rehearsal failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable short name.
    pub name: &'static str,
    /// What happened, with its number.
    pub sentence: String,
}

/// The rehearsal's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing was lost, nothing failed.
    Good,
    /// At least one finding.
    Bad,
}

impl Finding {
    /// A finding.
    pub fn new(name: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            name,
            sentence: sentence.into(),
        }
    }
}

/// What is allowed. One that is missed fails the rehearsal.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Thresholds {
    /// Failed reads.
    pub failed_reads_max: u64,
    /// Lost writes.
    pub lost_writes_max: u64,
    /// How many times as long the slowest hundredth of reads, and of writes, may take during the rotation as before it.
    pub p99_ratio_max: Option<f64>,
    /// From start to end.
    pub duration_max: Option<Duration>,
}

/// Judges traffic and table; `old` is the key that nothing may be under any more.
pub fn judge(tally: &Tally, end: &Inspection, old: KeyId, thresholds: &Thresholds) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut check = |name, is_bad: bool, sentence: String| {
        if is_bad {
            findings.push(Finding::new(name, sentence));
        }
    };
    let lost = lost_writes(end);
    check(
        "lost-writes",
        lost > thresholds.lost_writes_max,
        format!(
            "{lost} writes that the database had confirmed were lost: somebody wrote older values over them, or removed their rows"
        ),
    );
    let resurrected = end.deviating(Deviation::Resurrected);
    check(
        "resurrected-rows",
        resurrected > 0,
        format!("{resurrected} deleted rows are back"),
    );
    let wrong = end.deviating(Deviation::Wrong);
    check(
        "wrong-values",
        wrong > 0,
        format!("{wrong} rows hold something that nobody wrote to them"),
    );
    check(
        "unreadable-values",
        end.unreadable > 0,
        format!("{} values open under no key at all", end.unreadable),
    );
    let under_old = end.under(old);
    check(
        "values-under-old-key",
        under_old > 0,
        format!(
            "{under_old} values are still under the old key {old}: a writer sealed with it after the last sweep, or the rotation missed them"
        ),
    );
    if total(&tally.failed_reads) > thresholds.failed_reads_max {
        findings.extend(operations("reads", "failed-reads", &tally.failed_reads));
    }
    findings.extend(operations("writes", "failed-writes", &tally.failed_writes));
    if tally.reads == 0 || tally.writes == 0 {
        findings.push(Finding::new(
            "no-traffic",
            format!("{} reads and {} writes prove nothing", tally.reads, tally.writes),
        ));
    }
    findings.extend(slow("reads", tally.read_latencies.windows(), thresholds));
    findings.extend(slow("writes", tally.write_latencies.windows(), thresholds));
    findings
}

/// Judges the probes.
pub fn judge_probes(probes: &[ProbeReport]) -> Vec<Finding> {
    let failed = probes.iter().filter(|probe| probe.failed > 0 || probe.runs == 0);
    let finding = |probe: &ProbeReport| {
        let sentence = match &probe.first_failure {
            Some((at, why)) => format!(
                "probe {} failed {} times of {}, first at {at:.1} s: {why}",
                probe.name, probe.failed, probe.runs
            ),
            None => format!("probe {} never ran to its end", probe.name),
        };
        Finding::new("probe-failed", sentence)
    };
    failed.map(finding).collect()
}

/// Failures of all kinds.
pub fn total(failures: &BTreeMap<Failure, u64>) -> u64 {
    failures.values().sum()
}

fn slow(kind: &str, windows: Windows, thresholds: &Thresholds) -> Option<Finding> {
    let max = thresholds.p99_ratio_max?;
    let Some(ratio) = windows.p99_ratio() else {
        return Some(Finding::new(
            "p99-ratio",
            format!("there were no {kind} before the rotation to compare with"),
        ));
    };
    (ratio > max).then(|| {
        let sentence = format!(
            "the p99 of {kind} was {ratio:.2} times as long during the rotation as before ({:.2} ms after {:.2} ms); allowed is {max}",
            windows.during.p99, windows.before.p99
        );
        Finding::new("p99-ratio", sentence)
    })
}

/// Rows whose last confirmed write is not there.
pub fn lost_writes(end: &Inspection) -> u64 {
    end.deviating(Deviation::Stale) + end.deviating(Deviation::Vanished)
}

fn operations<'a>(
    kind: &'a str,
    name: &'static str,
    failures: &'a BTreeMap<Failure, u64>,
) -> impl Iterator<Item = Finding> + 'a {
    failures.iter().map(move |(failure, count)| {
        let hint = match failure {
            Failure::UnknownKey(_) => {
                ": a key was promoted before every instance had it, or an instance does not follow its keyring"
            }
            Failure::Withheld(_, standing) if standing == "retired" => ": a key was retired before the last value had left it",
            Failure::Deviates(Deviation::Stale | Deviation::Vanished) => ": a write was overwritten",
            _ => "",
        };
        Finding::new(name, format!("{count} {kind} failed: {}{hint}", failure.describe()))
    })
}
