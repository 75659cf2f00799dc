//! The document of a keyset's rotation, and the same for people.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::sessions::SessionsEntry;
use crate::cli::documents::{self, Outcome};
use crate::cli::status::InstanceEntry;
use crate::cli::unfinished::Unfinished;
use crate::cli::{CliError, Exit, Output, summary};
use crate::rotation::progress::Progress;
use crate::rotation::protocol::{Gate, ManagedReport, Need, Phase, PhaseReport};

/// The document of a rotation that ran to its end.
#[derive(Serialize)]
pub struct ManagedDocument {
    rotation: String,
    keyset: String,
    revision: u64,
    from: u32,
    to: u32,
    direction: String,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    phase: String,
    #[serde(flatten)]
    total: documents::Totals,
    elapsed_seconds: f64,
    rows_per_second: f64,
    /// For how long batches waited, for each reason.
    throttled_seconds: BTreeMap<&'static str, f64>,
    phases: Vec<PhaseEntry>,
    datasets: Vec<DatasetEntry>,
    instances: Vec<InstanceEntry>,
    sessions: Vec<SessionsEntry>,
    retired: Vec<u32>,
    needs: Vec<NeedEntry>,
    verified: bool,
    exit: u8,
}

#[derive(Serialize)]
struct PhaseEntry {
    name: &'static str,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<GateEntry>,
}

/// How a gate stood.
#[derive(Serialize)]
pub struct GateEntry {
    name: &'static str,
    revision: u64,
    waited_seconds: f64,
    acknowledged: Vec<String>,
    missing: Vec<MissingEntry>,
    gone: Vec<String>,
    evicted: Vec<String>,
}

#[derive(Serialize)]
struct MissingEntry {
    instance: String,
    revision: u64,
    newest_revision: u64,
    heard_seconds_ago: u64,
    lease_left_seconds: u64,
}

#[derive(Serialize)]
struct DatasetEntry {
    dataset: String,
    database: String,
    table: String,
    plan: String,
    sweeps: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<documents::GuardEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vacuum: Option<documents::VacuumEntry>,
    late_values: Vec<documents::LateEntry>,
    late_values_total: u64,
    #[serde(flatten)]
    outcome: Outcome,
}

/// A reason against taking a key from readers.
#[derive(Serialize)]
pub struct NeedEntry {
    name: &'static str,
    count: u64,
    what: String,
}

/// What is known of a rotation that did not end.
#[derive(Serialize)]
pub struct UnfinishedDocument<'a> {
    /// `None` before there is one.
    rotation: Option<&'a str>,
    keyset: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<GateEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<SessionsEntry>,
    #[serde(flatten)]
    unfinished: Unfinished<'a>,
}

impl GateEntry {
    /// The same for scripts.
    pub fn of(gate: &Gate) -> Self {
        Self {
            name: gate.kind.as_str(),
            revision: gate.needed,
            waited_seconds: documents::seconds(gate.waited),
            acknowledged: gate.acknowledged.clone(),
            missing: gate
                .missing
                .iter()
                .map(|missing| MissingEntry {
                    instance: missing.instance.clone(),
                    revision: missing.revision,
                    newest_revision: missing.newest_revision,
                    heard_seconds_ago: missing.heard_seconds_ago,
                    lease_left_seconds: missing.lease_left_seconds,
                })
                .collect(),
            gone: gate.gone.clone(),
            evicted: gate.evicted.clone(),
        }
    }
}

impl NeedEntry {
    /// The same for scripts.
    pub fn of(need: &Need) -> Self {
        Self {
            name: need.name(),
            count: need.count(),
            what: need.to_string(),
        }
    }
}

/// Makes the document of a rotation, and says the same to people.
pub fn finished(
    keyset: &str,
    report: ManagedReport,
    progress: &Progress,
    begun: Instant,
    output: &mut Output<'_>,
) -> (ManagedDocument, Exit) {
    // A run that only waited for the last gate goes on from the proof of the run before it.
    let was_verified = report.record.history.iter().any(|(phase, _)| phase == Phase::Verify.as_str());
    let verified = was_verified && report.datasets.iter().all(|dataset| dataset.report.verified);
    let exit = if report.record.finished_at.is_some() {
        Exit::Done
    } else {
        Exit::Findings
    };
    let mut rows = (0, std::time::Duration::ZERO);
    for dataset in &report.datasets {
        rows = (rows.0 + dataset.report.this_run.0, rows.1 + dataset.report.this_run.1);
    }
    let leaked: Vec<bool> = report.datasets.iter().map(|dataset| dataset.left_late_values).collect();
    for dataset in &report.datasets {
        if let Some(guard) = dataset.report.guard {
            let whose = format!("guard of dataset {}", dataset.name);
            summary::guard(&whose, guard, report.record.finished_at.is_some(), output);
        }
        if let Some(vacuum) = &dataset.report.vacuum {
            summary::vacuum(&format!("vacuum of dataset {}", dataset.name), vacuum, output);
        }
    }
    let datasets: Vec<DatasetEntry> = report
        .datasets
        .into_iter()
        .map(|dataset| DatasetEntry {
            late_values: documents::late(&dataset.survey, &dataset.report.columns, &dataset.report.late),
            late_values_total: dataset.report.late.total,
            outcome: documents::rotated(&dataset.survey, &dataset.report, progress, begun),
            dataset: dataset.name,
            database: dataset.place,
            table: dataset.survey.table.clone(),
            plan: dataset.report.plan.clone(),
            sweeps: dataset.report.sweeps,
            guard: dataset.report.guard.map(documents::GuardEntry::of),
            vacuum: dataset.report.vacuum.as_ref().map(documents::VacuumEntry::of),
        })
        .collect();
    for (dataset, compromised) in datasets.iter().zip(leaked) {
        summary::late(dataset.late_values_total, &dataset.late_values, compromised, output);
        summary::rotation(
            &format!("dataset {} ({})", dataset.dataset, dataset.table),
            summary::Scope::Part,
            &dataset.outcome,
            output,
        );
    }
    summary::throttled(&documents::throttled(progress), output);
    for need in &report.needs {
        output.say(&format!("the old key stays with readers: {need}"));
    }
    let record = report.record;
    let now = if record.finished_at.is_some() { "ended" } else { "open" };
    output.say(&format!(
        "rotation {} of keyset {keyset} is {now}: {}, revision {}; retired: {}",
        record.id,
        record.phase,
        report.revision,
        match report.retired.as_slice() {
            [] => "no key".to_owned(),
            keys => keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }
    ));
    let document = ManagedDocument {
        rotation: record.id,
        keyset: keyset.to_owned(),
        revision: report.revision,
        from: record.from_key,
        to: record.to_key,
        direction: record.direction,
        mode: record.mode,
        policy: record.policy,
        phase: record.phase,
        total: documents::Totals::of(datasets.iter().map(|dataset| &dataset.outcome)),
        elapsed_seconds: documents::seconds(begun.elapsed()),
        rows_per_second: documents::rate(rows.0, rows.1),
        throttled_seconds: documents::throttled(progress),
        phases: report.phases.iter().map(phase).collect(),
        datasets,
        instances: report.instances.into_iter().map(InstanceEntry::of).collect(),
        sessions: report.sessions.iter().map(SessionsEntry::of).collect(),
        retired: report.retired.into_iter().map(|key| key.0).collect(),
        needs: report.needs.iter().map(NeedEntry::of).collect(),
        verified,
        exit: exit.code(),
    };
    (document, exit)
}

fn phase(report: &PhaseReport) -> PhaseEntry {
    PhaseEntry {
        name: report.phase.as_str(),
        seconds: report.seconds,
        gate: report.gate.as_ref().map(GateEntry::of),
    }
}

/// The document of a rotation that did not end.
pub fn unfinished<'a>(
    rotation: Option<&'a str>,
    keyset: &'a str,
    error: &'a CliError,
    (gate, sessions): (Option<GateEntry>, Vec<SessionsEntry>),
    progress: &Progress,
    begun: Instant,
) -> UnfinishedDocument<'a> {
    UnfinishedDocument {
        rotation,
        keyset,
        gate,
        sessions,
        unfinished: Unfinished::of(error, Some(progress), begun),
    }
}
