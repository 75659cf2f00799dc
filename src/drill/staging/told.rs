//! A rehearsal in a staging environment, as its reports tell it.

use std::collections::BTreeSet;

use super::{KILL, Staging, StagingReport};
use crate::drill::told::{fault_of, finding, in_time, phases_told, point, probe, probes, profile, stated, version, windows};
use crate::report::{self, KeyCount, Proof, Rehearsal, Series, Size, Unit};

/// The whole story; without a report that of a rehearsal that has not come to its end.
pub fn told_of_staging(staging: &Staging, outcome: Result<&StagingReport, &str>, begun: &str) -> Rehearsal {
    let managed = &staging.managed;
    let keyset = managed.keyset.as_str();
    let title = format!("Rehearsal in staging: rotation of keyset {keyset}");
    let why = outcome.err().unwrap_or_default();
    let mut rehearsal = Rehearsal {
        begun: begun.to_owned(),
        database: managed
            .places
            .iter()
            .map(|place| place.store.describe())
            .collect::<Vec<_>>()
            .join(", "),
        versions: vec![version("reseal", env!("CARGO_PKG_VERSION"))],
        seed: staging.seed,
        command: command(staging),
        ..Rehearsal::broken_off(&title, why)
    };
    let Ok(report) = outcome else { return rehearsal };
    rehearsal.verdict = match report.verdict {
        crate::drill::Verdict::Good => report::Verdict::Good,
        crate::drill::Verdict::Bad => report::Verdict::Bad,
    };
    rehearsal.findings = report.findings.iter().map(finding).collect();
    rehearsal.proofs = proofs(report, staging);
    rehearsal.elapsed_seconds = report.elapsed_seconds;
    rehearsal.sizes = [
        ("datasets", report.datasets.len() as u64),
        ("readers", staging.readers as u64),
        ("rows opened by readers", report.rows_checked),
    ]
    .map(|(name, count)| Size {
        name: name.to_owned(),
        count,
    })
    .into();
    rehearsal.keys = keys(report);
    rehearsal.rows_per_second = Some(report.rows_per_second).filter(|rate| *rate > 0.0);
    rehearsal.phases = phases_told(&report.phases);
    rehearsal.faults = report.faults.iter().map(|fault| fault_of(&report.findings, fault)).collect();
    rehearsal.reads = windows(report.reads, report.failed_reads, &report.latency_ms.reads);
    rehearsal.series = Series {
        bucket_seconds: report.series_bucket_seconds,
        points: report.series.iter().map(point).collect(),
    };
    rehearsal.probes = report.probes.iter().map(probe).collect();
    rehearsal.incidents.clone_from(&report.incidents);
    rehearsal.settle();
    rehearsal
}

/// What repeats it. One dataset stands for all of its keyset.
fn command(staging: &Staging) -> String {
    let datasets = &staging.managed.datasets;
    let gates: String = staging.gates.iter().map(|word| format!(" {word}")).collect();
    // A finding has names of the database in it.
    let accepted = staging.managed.options.accepted.iter();
    let accepted: String = accepted
        .map(|finding| format!(" --accept '{}'", finding.replace('\'', r"'\''")))
        .collect();
    format!(
        "reseal drill --config FILE {} --staging-confirmed{}{}{}{} --readers {} --reads-per-second {} --duration {}s --faults {} --seed {}{}{}",
        datasets.first().map_or("", |dataset| dataset.name.as_str()),
        if staging.compromised { " --compromised" } else { "" },
        profile(staging.profile),
        gates,
        accepted,
        staging.readers,
        staging.reads_per_second,
        staging.duration.as_secs(),
        if staging.kills { "kill" } else { "none" },
        staging.seed,
        staging.thresholds.arguments(),
        probes(staging.probes.len())
    )
}

fn proofs(report: &StagingReport, staging: &Staging) -> Vec<Proof> {
    let stated = |name, promise, was_tried| stated(&report.findings, name, promise, was_tried);
    let count =
        |name, promise, measured: u64, max: u64| Proof::at_most(name, promise, measured as f64, max as f64, Unit::Count);
    let was_killed = report.faults.iter().any(|fault| fault.name == KILL);
    let mut proofs = vec![
        count(
            "failed-reads",
            "every value that was read opened",
            report.failed_reads,
            staging.thresholds.failed_reads_max,
        ),
        stated("lost-writes", "no confirmed write was lost", false),
        count(
            "unreadable-values",
            "every value opens under a key",
            report.unreadable_values,
            0,
        ),
        count(
            "values-under-old-key",
            "no value is under the old key",
            report.values_under_old_key,
            0,
        ),
        stated("not-acknowledged", "keys changed only when every instance had them", true),
        stated("rotation-failed", "the rotation proved its own result", true),
        stated("not-resumed", "killed in the middle, it went on from there", was_killed),
        Proof::at_least(
            "no-traffic",
            "values were read all along",
            report.reads as f64,
            1.0,
            Unit::Count,
        ),
    ];
    if let Some(max) = staging.thresholds.p99_ratio_max {
        let promise = "reads were not much slower during the rotation than before it";
        let ratio = report.p99_ratio.reads.unwrap_or(0.0);
        proofs.push(Proof::at_most("p99-ratio", promise, ratio, max, Unit::Times));
    }
    proofs.extend(in_time(report.elapsed_seconds, &staging.thresholds));
    if !report.probes.is_empty() {
        proofs.push(stated("probe-failed", "every probe succeeded all along", true));
    }
    proofs
}

fn keys(report: &StagingReport) -> Vec<KeyCount> {
    let ids: BTreeSet<&String> = report.census_before.keys().chain(report.census_after.keys()).collect();
    let is = |label: &str, id: u32| label.rsplit_once('@').is_some_and(|(_, key)| key == id.to_string());
    let count = |label: &String| KeyCount {
        key: label.clone(),
        role: match label {
            label if is(label, report.old_key) => "old",
            label if report.new_key.is_some_and(|id| is(label, id)) => "new",
            _ => "other",
        }
        .to_owned(),
        values_before: report.census_before.get(label).copied().unwrap_or(0),
        values_after: report.census_after.get(label).copied().unwrap_or(0),
    };
    ids.into_iter().map(count).collect()
}
