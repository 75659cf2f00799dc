//! A rehearsal as its reports tell it: what was to be proven, and all that was measured.

use std::collections::BTreeSet;

use super::latency::{Percentiles, Windows};
use super::report::Report;
use super::{Finding, Settings};
use crate::report::{self, KeyCount, Phase, Proof, Rehearsal, Size, Standing, Traffic, Unit, Version};

/// What the settings alone say: the report of a rehearsal that has not come to its end.
pub fn outline(settings: &Settings, begun: &str, why: &str) -> Rehearsal {
    let title = format!("Rehearsal: rotation of {} customers under live traffic", settings.rows);
    let sqlite = rusqlite::version();
    Rehearsal {
        begun: begun.to_owned(),
        database: format!("SQLite {sqlite}, in a temporary file"),
        versions: vec![version("reseal", env!("CARGO_PKG_VERSION")), version("SQLite", sqlite)],
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
    rehearsal.proofs = proofs(report);
    rehearsal.elapsed_seconds = report.elapsed_seconds;
    rehearsal.sizes.extend(sizes(&[
        ("rows before", report.rows_before),
        ("rows after", report.rows_after),
        ("rows compared by reads", report.rows_checked),
    ]));
    rehearsal.keys = keys(report);
    rehearsal.rows_per_second = Some(report.rows_per_second).filter(|rate| *rate > 0.0);
    rehearsal.phases = phases(report);
    rehearsal.faults = report.faults.iter().map(|fault| fault_told(report, fault)).collect();
    rehearsal.reads = windows(report.reads, report.failed_reads, &report.latency_ms.reads);
    rehearsal.writes = windows(report.writes, report.failed_writes, &report.latency_ms.writes);
    rehearsal.incidents.clone_from(&report.incidents);
    rehearsal.evidence = report.evidence.as_ref().map(|folder| folder.display().to_string());
    rehearsal.settle();
    rehearsal
}

fn finding(finding: &Finding) -> report::Finding {
    report::Finding::new(finding.name, finding.sentence.as_str())
}

/// The proofs bear the names of the findings that tell of their failure.
fn proofs(report: &Report) -> Vec<Proof> {
    let none = |name, promise, count: u64| Proof::at_most(name, promise, count as f64, 0.0, Unit::Count);
    let found: BTreeSet<&str> = report.findings.iter().map(|finding| finding.name).collect();
    let stated = |name, promise, was_tried: bool| {
        let standing = match (found.contains(name), was_tried) {
            (true, _) => Standing::Failed,
            (false, true) => Standing::Held,
            (false, false) => Standing::NotTested,
        };
        Proof::stated(name, promise, standing)
    };
    let has_phase = |name: &str| report.phases.iter().any(|phase| phase.name == name);
    let was_killed = report.faults.iter().any(|fault| fault.name == KILL);
    vec![
        none("failed-reads", "every read saw what had been written", report.failed_reads),
        none("failed-writes", "every write was accepted", report.failed_writes),
        none("lost-writes", "no confirmed write was lost", report.lost_writes),
        none("resurrected-rows", "no deleted row came back", report.resurrected_rows),
        none("wrong-values", "no row holds what nobody wrote", report.wrong_values),
        none("unreadable-values", "every value opens under a key", report.unreadable_values),
        none(
            "values-under-old-key",
            "no value is under the old key",
            report.values_under_old_key,
        ),
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
    ]
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

/// One after the other: each begins where the one before ended.
fn phases(report: &Report) -> Vec<Phase> {
    let mut end_seconds = 0.0;
    let mut next = |phase: &super::Phase| {
        let begin_seconds = end_seconds;
        end_seconds += phase.seconds;
        Phase {
            name: phase.name.to_owned(),
            begin_seconds,
            end_seconds,
        }
    };
    report.phases.iter().map(&mut next).collect()
}

fn fault_told(report: &Report, fault: &super::Fault) -> report::Fault {
    let is_failed = report.findings.iter().any(|finding| finding.name == "not-resumed");
    report::Fault {
        name: fault.name.to_owned(),
        at_seconds: fault.at_seconds,
        until_seconds: None,
        outcome: fault.outcome.clone(),
        survived: !is_failed,
    }
}

fn windows(operations: u64, failed: u64, windows: &Windows) -> report::Windows {
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
    format!(
        "reseal drill --rows {} --readers {} --writers {} --duration {} --seed {}",
        settings.rows,
        settings.readers,
        settings.writers,
        settings.duration.as_secs(),
        settings.seed
    )
}

fn sizes(sizes: &[(&str, u64)]) -> Vec<Size> {
    let size = |(name, count): &(&str, u64)| Size {
        name: (*name).to_owned(),
        count: *count,
    };
    sizes.iter().map(size).collect()
}

fn version(name: &str, version: &str) -> Version {
    Version {
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

const KILL: &str = "kill -9 of the rotation";
