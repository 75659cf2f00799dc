//! The tables that all forms show, cell by cell: what differs between forms is only how a cell is written.

use super::proof::{Proof, Standing};
use super::rehearsal::{Fault, KeyCount, Percentiles, Phase, Probe, Rehearsal, Traffic, Windows};
use super::sentence::{count, duration, limit, measure, measured, standing};

/// Something that must hold.
pub struct ProofRow {
    /// What.
    pub promise: String,
    /// Its measure.
    pub measured: String,
    /// Its bound.
    pub limit: String,
    /// Its outcome in a word.
    pub standing: &'static str,
    /// Its outcome.
    pub outcome: Standing,
}

/// What must hold.
pub fn proofs(rehearsal: &Rehearsal) -> Vec<ProofRow> {
    let row = |proof: &Proof| ProofRow {
        promise: proof.promise.clone(),
        measured: measured(proof),
        limit: limit(proof),
        standing: standing(proof.standing),
        outcome: proof.standing,
    };
    rehearsal.proofs.iter().map(row).collect()
}

/// Values under one key.
pub struct KeyRow {
    /// Its role and id: "old 1733862004".
    pub name: String,
    /// When the application started.
    pub before: String,
    /// When it had stopped.
    pub after: String,
}

/// Values counted per key.
pub fn keys(rehearsal: &Rehearsal) -> Vec<KeyRow> {
    let row = |key: &KeyCount| KeyRow {
        name: format!("{} {}", key.role, key.key),
        before: count(key.values_before),
        after: count(key.values_after),
    };
    rehearsal.keys.iter().map(row).collect()
}

/// One kind of operation in one part of the rehearsal.
pub struct TrafficRow {
    /// "reads before".
    pub name: String,
    /// One for each column.
    pub cells: Vec<String>,
}

/// Reads and writes before, during and after the rotation, and what it did to their latencies. Times are milliseconds.
pub struct TrafficTable {
    /// What was measured at all.
    pub columns: Vec<&'static str>,
    /// A part each.
    pub rows: Vec<TrafficRow>,
}

/// Reads and writes around the rotation.
pub fn traffic(rehearsal: &Rehearsal) -> TrafficTable {
    let mut rows = traffic_rows(rehearsal);
    let is_measured: Vec<bool> = (0..TRAFFIC_COLUMNS.len())
        .map(|at| rows.iter().any(|row| row.cells.get(at).is_some_and(|cell| !cell.is_empty())))
        .collect();
    for row in &mut rows {
        let mut is_kept = is_measured.iter();
        row.cells.retain(|_| is_kept.next().copied().unwrap_or(false));
    }
    let columns = TRAFFIC_COLUMNS.into_iter().zip(&is_measured).filter(|(_, is_kept)| **is_kept);
    TrafficTable {
        columns: columns.map(|(name, _)| name).collect(),
        rows,
    }
}

fn traffic_rows(rehearsal: &Rehearsal) -> Vec<TrafficRow> {
    let mut rows = Vec::new();
    for (kind, windows) in [("reads", &rehearsal.reads), ("writes", &rehearsal.writes)] {
        let Windows {
            before,
            during,
            after,
            ratio,
            ..
        } = windows;
        for (part, traffic) in [("before", before), ("during", during), ("after", after)] {
            rows.extend(traffic.as_ref().map(|traffic| TrafficRow {
                name: format!("{kind} {part}"),
                cells: cells(traffic),
            }));
        }
        rows.extend(ratio.as_ref().map(|ratio| TrafficRow {
            name: format!("{kind}: during ÷ before"),
            cells: ratios(ratio),
        }));
    }
    rows
}

fn cells(traffic: &Traffic) -> Vec<String> {
    let Percentiles { p50, p99, max } = traffic.latency_ms;
    vec![
        traffic.operations.map(count).unwrap_or_default(),
        traffic.per_second.map(measure).unwrap_or_default(),
        measure(p50),
        measure(p99),
        measure(max),
        traffic.longest_pause_ms.map(measure).unwrap_or_default(),
    ]
}

fn ratios(ratio: &Percentiles) -> Vec<String> {
    let [p50, p99, max] = [ratio.p50, ratio.p99, ratio.max].map(|ratio| format!("{ratio:.2}×"));
    vec![String::new(), String::new(), p50, p99, max, String::new()]
}

/// What [`cells`] are.
const TRAFFIC_COLUMNS: [&str; 6] = ["operations", "per second", "p50", "p99", "max", "longest pause"];

/// A part of the rehearsal.
pub struct PhaseRow {
    /// Its name.
    pub name: String,
    /// When it begins.
    pub begin: String,
    /// How long it takes.
    pub time: String,
}

/// What happened one after the other.
pub fn phases(rehearsal: &Rehearsal) -> Vec<PhaseRow> {
    let row = |phase: &Phase| PhaseRow {
        name: phase.name.clone(),
        begin: duration(phase.begin_seconds),
        time: duration(phase.end_seconds - phase.begin_seconds),
    };
    rehearsal.phases.iter().map(row).collect()
}

/// A fault.
pub struct FaultRow {
    /// As in the plots.
    pub number: usize,
    /// What was done.
    pub name: String,
    /// When, and for how long.
    pub time: String,
    /// What came of it.
    pub outcome: String,
    /// Whether it was survived.
    pub survived: bool,
}

/// Faults, done on purpose.
pub fn faults(rehearsal: &Rehearsal) -> Vec<FaultRow> {
    let row = |(at, fault): (usize, &Fault)| FaultRow {
        number: at + 1,
        name: fault.name.clone(),
        time: match fault.until_seconds {
            None => duration(fault.at_seconds),
            Some(until) => format!("{} – {}", duration(fault.at_seconds), duration(until)),
        },
        outcome: fault.outcome.clone(),
        survived: fault.survived,
    };
    rehearsal.faults.iter().enumerate().map(row).collect()
}

/// A check of the user's own.
pub struct ProbeRow {
    /// The command or the address.
    pub name: String,
    /// How often it ran.
    pub runs: String,
    /// How often it failed.
    pub failed: String,
    /// The longest time without success.
    pub outage: String,
    /// When it failed first, and what it said; empty if it never did.
    pub failure: String,
}

/// The user's own checks.
pub fn probes(rehearsal: &Rehearsal) -> Vec<ProbeRow> {
    let row = |probe: &Probe| {
        let at = probe.first_failure_seconds.map(|at| format!("at {}", duration(at)));
        let failure: Vec<&str> = at.as_deref().into_iter().chain(probe.first_failure.as_deref()).collect();
        ProbeRow {
            name: probe.name.clone(),
            runs: count(probe.runs),
            failed: count(probe.failed),
            outage: probe.longest_outage_seconds.map(duration).unwrap_or_default(),
            failure: failure.join(": "),
        }
    };
    rehearsal.probes.iter().map(row).collect()
}

/// Something worth knowing beside the rest.
pub struct FactRow {
    /// What.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Sizes, versions, the seed.
pub fn facts(rehearsal: &Rehearsal) -> Vec<FactRow> {
    let fact = |name: &str, value: String| FactRow {
        name: name.to_owned(),
        value,
    };
    let mut facts = vec![
        fact("began", rehearsal.begun.clone()),
        fact("took", duration(rehearsal.elapsed_seconds)),
        fact("database", rehearsal.database.clone()),
    ];
    for (kind, windows) in [("reads", &rehearsal.reads), ("writes", &rehearsal.writes)] {
        facts.push(fact(kind, count(windows.operations)));
        facts.push(fact(&format!("failed {kind}"), count(windows.failed)));
    }
    facts.extend(rehearsal.sizes.iter().map(|size| fact(&size.name, count(size.count))));
    let rate = rehearsal.rows_per_second.filter(|rate| *rate > 0.0);
    facts.extend(rate.map(|rate| fact("rows re-encrypted per second", measure(rate))));
    facts.extend(
        rehearsal
            .versions
            .iter()
            .map(|version| fact(&version.name, version.version.clone())),
    );
    facts.push(fact("seed", rehearsal.seed.to_string()));
    facts
}
