//! From evidence to a verdict: one rule for each way to fail, one sentence for each rule.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::inspect::Inspection;
use super::latency::Windows;
use super::logins::LoginReport;
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Failed reads.
    pub failed_reads_max: u64,
    /// Lost writes.
    pub lost_writes_max: u64,
    /// How many times as long the slowest hundredth of reads, and of writes, may take during the rotation as before it.
    pub p99_ratio_max: Option<f64>,
    /// From start to end.
    pub duration_max: Option<Duration>,
    /// When a key has leaked: from the promotion of the new key until no session of before is left.
    pub session_life_max: Duration,
}

impl Thresholds {
    /// As they are typed, where they are other than by default.
    pub(super) fn arguments(&self) -> String {
        let usual = Self::default();
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        [
            (
                "max-failed-reads",
                (self.failed_reads_max != usual.failed_reads_max).then(|| self.failed_reads_max.to_string()),
            ),
            (
                "max-lost-writes",
                (self.lost_writes_max != usual.lost_writes_max).then(|| self.lost_writes_max.to_string()),
            ),
            ("max-p99-ratio", self.p99_ratio_max.map(|ratio| ratio.to_string())),
            ("max-duration", self.duration_max.map(seconds)),
            (
                "max-session-life",
                (self.session_life_max != usual.session_life_max).then(|| seconds(self.session_life_max)),
            ),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!(" --{name} {value}")))
        .collect()
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            failed_reads_max: 0,
            lost_writes_max: 0,
            p99_ratio_max: None,
            duration_max: None,
            session_life_max: SESSION_LIFE_MAX_DEFAULT,
        }
    }
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

/// Judges a rehearsal that only reads: `old` is the key that nothing may be under any more, of these values.
pub fn judge_reads(tally: &Tally, old: Option<(KeyId, u64)>, unreadable: u64, thresholds: &Thresholds) -> Vec<Finding> {
    let mut findings = Vec::new();
    if unreadable > 0 {
        findings.push(Finding::new(
            "unreadable-values",
            format!("{unreadable} values open under no key of the keyset"),
        ));
    }
    if let Some((old, under_old)) = old.filter(|(_, values)| *values > 0) {
        findings.push(Finding::new(
            "values-under-old-key",
            format!("{under_old} values are still under the old key {old}"),
        ));
    }
    if total(&tally.failed_reads) > thresholds.failed_reads_max {
        findings.extend(operations("reads", "failed-reads", &tally.failed_reads));
    }
    if tally.reads == 0 {
        findings.push(Finding::new("no-traffic", "no value was read: that proves nothing"));
    }
    findings.extend(slow("reads", tally.read_latencies.windows(), thresholds));
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

/// Judges what became of sessions.
pub fn judge_logins(sessions: &LoginReport, compromised: bool, thresholds: &Thresholds) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut check = |name, is_bad: bool, sentence: String| {
        if is_bad {
            findings.push(Finding::new(name, sentence));
        }
    };
    check(
        "sessions-lost",
        sessions.lost > 0,
        format!(
            "{} users were logged out by accident: their sessions are gone, and nobody was to end them",
            sessions.lost
        ),
    );
    check(
        "sessions-left",
        sessions.left > 0,
        format!("{} sessions are alive that must be dead", sessions.left),
    );
    check(
        "sessions-failed",
        sessions.failed > 0,
        format!("{} logins, logouts or requests of users failed", sessions.failed),
    );
    let (life, max) = (sessions.old_dead_after_seconds, thresholds.session_life_max.as_secs_f64());
    if compromised && let Some(life) = life {
        check(
            "sessions-slow",
            life > max,
            format!(
                "sessions of before the leak lived for {life:.1} s after the new key had become primary; allowed is {max} s"
            ),
        );
    }
    if sessions.requests == 0 {
        findings.push(Finding::new(
            "no-traffic",
            "no user who was logged in came back: that proves nothing",
        ));
    }
    findings
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

/// Whoever holds a leaked key is locked out within this time. Gates that wait for a deployment are part of it.
pub const SESSION_LIFE_MAX_DEFAULT: Duration = Duration::from_secs(30);
