//! A rehearsal as its reports tell it: what was to be proven, and all that was measured.

use std::collections::BTreeSet;

use super::latency::{Percentiles, Point, Windows};
use super::probe::ProbeReport;
use super::report::Report;
use super::verdict::Thresholds;
use super::{Finding, Settings};
use crate::report::{self, Activity, KeyCount, Phase, Proof, Rehearsal, Series, Size, Standing, Traffic, Unit, Version};
use crate::rotation::profile::Profile;

/// What the settings alone say: the report of a rehearsal that has not come to its end.
pub fn outline(settings: &Settings, begun: &str, why: &str) -> Rehearsal {
    let kind = if settings.compromised {
        "emergency rotation"
    } else {
        "rotation"
    };
    let title = format!("Rehearsal: {kind} of {} customers under live traffic", settings.rows);
    let sqlite = rusqlite::version();
    let mut versions = vec![version("reseal", env!("CARGO_PKG_VERSION"))];
    let database = if settings.postgres.is_some() {
        "PostgreSQL, in a scratch schema".to_owned()
    } else {
        versions.push(version("SQLite", sqlite));
        format!("SQLite {sqlite}, in a temporary file")
    };
    Rehearsal {
        begun: begun.to_owned(),
        database,
        versions,
        seed: settings.seed,
        command: command(settings),
        sizes: sizes(&[("readers", settings.readers as u64), ("writers", settings.writers as u64)]),
        ..Rehearsal::broken_off(&title, why)
    }
}

/// The whole story.
pub fn told(report: &Report, settings: &Settings, begun: &str) -> Rehearsal {
    let mut rehearsal = outline(settings, begun, "");
    rehearsal.verdict = match report.verdict {
        super::Verdict::Good => report::Verdict::Good,
        super::Verdict::Bad => report::Verdict::Bad,
    };
    rehearsal.findings = report.findings.iter().map(finding).collect();
    rehearsal.proofs = proofs(report, &settings.thresholds);
    rehearsal.elapsed_seconds = report.elapsed_seconds;
    rehearsal.sizes.extend(sizes(&[
        ("rows before", report.rows_before),
        ("rows after", report.rows_after),
        ("rows compared by reads", report.rows_checked),
        ("logins", report.sessions.logins),
        ("logouts", report.sessions.logouts),
        ("requests of users who were logged in", report.sessions.requests),
        ("sessions ended", report.sessions.ended),
    ]));
    rehearsal.keys = keys(report);
    rehearsal.rows_per_second = Some(report.rows_per_second).filter(|rate| *rate > 0.0);
    rehearsal.phases = phases(report);
    rehearsal.faults = report.faults.iter().map(|fault| fault_told(report, fault)).collect();
    rehearsal.reads = windows(report.reads, report.failed_reads, &report.latency_ms.reads);
    rehearsal.writes = windows(report.writes, report.failed_writes, &report.latency_ms.writes);
    rehearsal.series = Series {
        bucket_seconds: report.series_bucket_seconds,
        points: report.series.iter().map(point).collect(),
    };
    rehearsal.probes = report.probes.iter().map(probe).collect();
    rehearsal.incidents.clone_from(&report.incidents);
    rehearsal.evidence = report.evidence.as_ref().map(|folder| folder.display().to_string());
    rehearsal.settle();
    rehearsal
}

pub(super) fn finding(finding: &Finding) -> report::Finding {
    report::Finding::new(finding.name, finding.sentence.as_str())
}

/// The proofs bear the names of the findings that tell of their failure.
fn proofs(report: &Report, thresholds: &Thresholds) -> Vec<Proof> {
    let at_most = |name, promise, count: u64, max: u64| Proof::at_most(name, promise, count as f64, max as f64, Unit::Count);
    let none = |name, promise, count| at_most(name, promise, count, 0);
    let stated = |name, promise, was_tried| stated(&report.findings, name, promise, was_tried);
    let has_phase = |name: &str| report.phases.iter().any(|phase| phase.name == name);
    let was_killed = report.faults.iter().any(|fault| fault.name == KILL);
    let mut proofs = vec![
        at_most(
            "failed-reads",
            "every read saw what had been written",
            report.failed_reads,
            thresholds.failed_reads_max,
        ),
        none("failed-writes", "every write was accepted", report.failed_writes),
        at_most(
            "lost-writes",
            "no confirmed write was lost",
            report.lost_writes,
            thresholds.lost_writes_max,
        ),
        none("resurrected-rows", "no deleted row came back", report.resurrected_rows),
        none("wrong-values", "no row holds what nobody wrote", report.wrong_values),
        none("unreadable-values", "every value opens under a key", report.unreadable_values),
        none(
            "values-under-old-key",
            "no value is under the old key",
            report.values_under_old_key,
        ),
        none("sessions-lost", lost_promise(report.compromised), report.sessions.lost),
        stated(
            "not-acknowledged",
            "keys changed only when every instance had them",
            has_phase("introduce"),
        ),
        stated(
            "rotation-failed",
            "the rotation proved its own result",
            has_phase("re-encrypt"),
        ),
        stated("not-resumed", "killed in the middle, it went on from there", was_killed),
        Proof::at_least(
            "no-traffic",
            "reads and writes went on all along",
            report.reads.min(report.writes) as f64,
            1.0,
            Unit::Count,
        ),
    ];
    let ratios = [report.p99_ratio.reads, report.p99_ratio.writes];
    if let Some(max) = thresholds.p99_ratio_max {
        let slowest = ratios.into_iter().flatten().fold(0.0, f64::max);
        let promise = "reads and writes were not much slower during the rotation than before it";
        proofs.push(Proof::at_most("p99-ratio", promise, slowest, max, Unit::Times));
    }
    if report.compromised {
        let promise = "sessions of before the leak are dead";
        proofs.push(none("sessions-left", promise, report.sessions.left));
        if let Some(life) = report.sessions.old_dead_after_seconds {
            let (promise, max) = (
                "sessions of before died soon after the new key took over",
                thresholds.session_life_max.as_secs_f64(),
            );
            proofs.push(Proof::at_most("sessions-slow", promise, life, max, Unit::Seconds));
        }
    }
    proofs.extend(in_time(report.elapsed_seconds, thresholds));
    if !report.probes.is_empty() {
        proofs.push(stated("probe-failed", "every probe succeeded all along", true));
    }
    proofs
}

/// A promise that no number measures: broken if it was found to be.
pub(super) fn stated(findings: &[Finding], name: &'static str, promise: &'static str, was_tried: bool) -> Proof {
    let was_found = findings.iter().any(|finding| finding.name == name);
    let standing = match (was_found, was_tried) {
        (true, _) => Standing::Failed,
        (false, true) => Standing::Held,
        (false, false) => Standing::NotTested,
    };
    Proof::stated(name, promise, standing)
}

/// The limit of a drill's own time, where it has one.
pub(super) fn in_time(elapsed_seconds: f64, thresholds: &Thresholds) -> Option<Proof> {
    let max = thresholds.duration_max?.as_secs_f64();
    let promise = "the drill ended in time";
    Some(Proof::at_most("too-long", promise, elapsed_seconds, max, Unit::Seconds))
}

fn lost_promise(compromised: bool) -> &'static str {
    if compromised {
        "nobody who logged in after the leak was logged out"
    } else {
        "nobody was logged out"
    }
}

fn keys(report: &Report) -> Vec<KeyCount> {
    let ids: BTreeSet<u32> = report
        .census_before
        .keys()
        .chain(report.census_after.keys())
        .copied()
        .collect();
    let known = std::iter::once(report.old_key).chain(report.new_key);
    let others = ids
        .iter()
        .copied()
        .filter(|id| *id != report.old_key && Some(*id) != report.new_key);
    let count = |id: u32| KeyCount {
        key: id.to_string(),
        role: match id {
            id if id == report.old_key => "old",
            id if Some(id) == report.new_key => "new",
            _ => "other",
        }
        .to_owned(),
        values_before: report.census_before.get(&id).copied().unwrap_or(0),
        values_after: report.census_after.get(&id).copied().unwrap_or(0),
    };
    known.chain(others).map(count).collect()
}

fn phases(report: &Report) -> Vec<Phase> {
    phases_told(&report.phases)
}

pub(super) fn phases_told(phases: &[super::Phase]) -> Vec<Phase> {
    let phases = phases.iter().map(|phase| Phase {
        name: phase.name.to_owned(),
        begin_seconds: phase.at_seconds,
        end_seconds: phase.at_seconds + phase.seconds,
    });
    phases.collect()
}

pub(super) fn point(point: &Point) -> report::Point {
    let activity = |operations, latency: Option<Percentiles>| Activity {
        operations,
        latency_ms: latency.map(|Percentiles { p50, p99, max }| report::Percentiles { p50, p99, max }),
    };
    report::Point {
        begin_seconds: point.at_seconds,
        reads: activity(point.reads + point.failed_reads, point.read_ms),
        writes: activity(point.writes + point.failed_writes, point.write_ms),
        failed: point.failed_reads + point.failed_writes,
    }
}

pub(super) fn probe(probe: &ProbeReport) -> report::Probe {
    report::Probe {
        name: probe.name.clone(),
        runs: probe.runs,
        failed: probe.failed,
        first_failure_seconds: probe.first_failure.as_ref().map(|(at, _)| *at),
        first_failure: probe.first_failure.as_ref().map(|(_, why)| why.clone()),
        longest_outage_seconds: None,
    }
}

fn fault_told(report: &Report, fault: &super::Fault) -> report::Fault {
    fault_of(&report.findings, fault)
}

pub(super) fn fault_of(findings: &[Finding], fault: &super::Fault) -> report::Fault {
    let is_failed = findings.iter().any(|finding| finding.name == "not-resumed");
    report::Fault {
        name: fault.name.clone(),
        at_seconds: fault.at_seconds,
        until_seconds: None,
        outcome: fault.outcome.clone(),
        survived: !is_failed,
    }
}

pub(super) fn windows(operations: u64, failed: u64, windows: &Windows) -> report::Windows {
    // A part in which nothing was measured has no slowest operation.
    let part = |part: Percentiles| (part.max > 0.0).then(|| traffic(part));
    report::Windows::new(
        operations,
        failed,
        part(windows.before),
        part(windows.during),
        part(windows.after),
    )
}

fn traffic(latency: Percentiles) -> Traffic {
    let Percentiles { p50, p99, max } = latency;
    Traffic {
        operations: None,
        per_second: None,
        latency_ms: report::Percentiles { p50, p99, max },
        longest_pause_ms: None,
    }
}

fn command(settings: &Settings) -> String {
    let database = if settings.postgres.is_some() { " --database REF" } else { "" };
    let compromised = if settings.compromised { " --compromised" } else { "" };
    let sessions = if settings.redis.is_some() { " --sessions REF" } else { "" };
    let profile = profile(settings.profile);
    format!(
        "reseal drill{database}{sessions}{compromised}{profile} --rows {} --readers {} --writers {} --reads-per-second {} --writes-per-second {} --duration {}s --faults {} --seed {}{}{}",
        settings.rows,
        settings.readers,
        settings.writers,
        settings.reads_per_second,
        settings.writes_per_second,
        settings.duration.as_secs(),
        settings.faults,
        settings.seed,
        settings.thresholds.arguments(),
        probes(settings.probes.len())
    )
}

/// Commands and URLs may hold secrets: only how many there were.
pub(super) fn probes(count: usize) -> String {
    " --probe PROBE".repeat(count)
}

pub(super) fn profile(profile: Profile) -> String {
    match profile {
        Profile::Gentle => String::new(),
        other => format!(" --profile {}", other.as_str()),
    }
}

fn sizes(sizes: &[(&str, u64)]) -> Vec<Size> {
    let size = |(name, count): &(&str, u64)| Size {
        name: (*name).to_owned(),
        count: *count,
    };
    sizes.iter().map(size).collect()
}

pub(super) fn version(name: &str, version: &str) -> Version {
    Version {
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

const KILL: &str = "kill -9 of the rotation";
