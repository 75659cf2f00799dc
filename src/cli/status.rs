//! `reseal status`.

use clap::Args;
use serde::Serialize;

use super::request::{self, RequestEntry, SubjectEntry};
use super::selection::DatabaseArg;
use super::tuning;
use super::{CliError, Context, Exit};
use crate::rotation::recipe::columns_for_people;
use crate::store::control::{Plan, PlanStatus};
use crate::store::ledger::instance::{Instance, Instances};
use crate::store::ledger::request::{Requests, Subject};
use crate::store::ledger::rotation::{RotationRecord, Rotations};
use crate::store::ledger::running::{Run, Runs};

/// Show the rotations of a database, how far they are and what they wait for, and which instances use which revision of a keyset; changes nothing
#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    database: DatabaseArg,
}

#[derive(Serialize)]
struct StatusDocument {
    rotations: Vec<RotationEntry>,
    keyset_rotations: Vec<KeysetRotationEntry>,
    instances: Vec<InstanceEntry>,
    /// Rotations that run at this moment.
    runs: Vec<RunEntry>,
    /// What operators ask of rotations.
    requests: Vec<RequestEntry>,
    exit: u8,
}

/// A rotation that runs at this moment.
#[derive(Serialize)]
struct RunEntry {
    #[serde(flatten)]
    subject: SubjectEntry,
    owner: String,
    waits_for: Vec<String>,
    heard_at: String,
}

/// A rotation of a whole keyset.
#[derive(Serialize)]
struct KeysetRotationEntry {
    id: String,
    keyset: String,
    from: u32,
    to: u32,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    direction: String,
    phase: String,
    phases: Vec<PhaseEntry>,
    owner: String,
    started_at: String,
    updated_at: String,
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<String>,
}

#[derive(Serialize)]
struct PhaseEntry {
    name: String,
    since: String,
}

/// What an instance of an application said of itself last.
#[derive(Serialize)]
pub(super) struct InstanceEntry {
    instance: String,
    keyset: String,
    revision: u64,
    newest_revision: u64,
    seals_with: Option<u32>,
    compromised_opens: u64,
    version: String,
    first_seen_at: String,
    seen_at: String,
    lease_left_seconds: f64,
    live: bool,
}

#[derive(Serialize)]
struct RotationEntry {
    plan: String,
    table: String,
    columns: String,
    from: String,
    to: String,
    status: &'static str,
    owner: String,
    created_at: String,
    updated_at: String,
    ranges: usize,
    ranges_done: usize,
    rows_scanned: u64,
    values_reencrypted: u64,
    lost_races: u64,
    quarantined: u64,
}

pub(super) fn run(args: StatusArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let store = args.database.open(context, "reseal status")?;
    let (rotations, keyset_rotations, instances, runs, requests) =
        tuning::ask(context.output.is_json(), &*store, "status", async || {
            let mut control = store.control().await?;
            if !control.exists().await? {
                return Ok(Default::default());
            }
            let mut rotations = Vec::new();
            for plan in control.plans().await? {
                let ranges = control.ranges(&plan.identity.id).await?;
                let totals = control.totals(&plan.identity.id).await?;
                let quarantined = control.quarantined(&plan.identity.id, None).await?;
                let done = ranges.iter().filter(|range| range.done).count();
                rotations.push(entry(plan, (ranges.len(), done), totals, quarantined));
            }
            let keyset_rotations = Rotations::of(&mut *control).list().await?;
            let instances = Instances::of(&mut *control).list(None).await?;
            let runs = Runs::of(&mut *control).list().await?;
            let requests = Requests::of(&mut *control).list().await?;
            Ok((rotations, keyset_rotations, instances, runs, requests))
        })?;
    if rotations.is_empty() && keyset_rotations.is_empty() {
        context.output.say("no rotation has left a trace in this database");
    }
    for rotation in &rotations {
        context.output.say(&format!(
            "{}  {}  {} ({}): {}/{} ranges, {} rows, {} values re-encrypted, {} quarantined; {} since {}",
            rotation.plan,
            stands(rotation, &runs),
            rotation.table,
            columns_for_people(&rotation.columns),
            rotation.ranges_done,
            rotation.ranges,
            rotation.rows_scanned,
            rotation.values_reencrypted,
            rotation.quarantined,
            rotation.owner,
            rotation.updated_at
        ));
    }
    for rotation in &keyset_rotations {
        context.output.say(&describe(rotation));
    }
    for instance in &instances {
        context.output.say(&describe_instance(instance));
    }
    for run in &runs {
        context.output.say(&describe_run(run));
    }
    for request in &requests {
        context.output.say(&request::describe(request));
    }
    let document = StatusDocument {
        rotations,
        keyset_rotations: keyset_rotations.into_iter().map(keyset_rotation).collect(),
        instances: instances.into_iter().map(InstanceEntry::of).collect(),
        runs: runs.into_iter().map(RunEntry::of).collect(),
        requests: requests.into_iter().map(RequestEntry::of).collect(),
        exit: Exit::Done.code(),
    };
    context.output.document("reseal.status/1", &document)?;
    Ok(Exit::Done)
}

/// How a rotation stands, for people: one that nobody runs, and that was not brought to its end, does not run.
fn stands(rotation: &RotationEntry, runs: &[Run]) -> &'static str {
    let is_its_own = |run: &Run| match &run.subject {
        Subject::Plan(plan) => *plan == rotation.plan,
        // Its datasets may be this table, too.
        Subject::Keyset(_) => true,
    };
    if rotation.status == PlanStatus::Verified.as_str() || runs.iter().any(is_its_own) {
        rotation.status
    } else {
        "unfinished"
    }
}

/// One line of a keyset's rotation.
fn describe(rotation: &RotationRecord) -> String {
    let since = rotation.history.last().map_or(&rotation.started_at, |(_, at)| at);
    let direction = if rotation.direction == "back" { ", rolling back" } else { "" };
    format!(
        "{}  {}  keyset {}, key {} to {}, {}{direction}: {} since {since}",
        rotation.id, rotation.phase, rotation.keyset, rotation.from_key, rotation.to_key, rotation.mode, rotation.owner
    )
}

/// One line of a run.
fn describe_run(run: &Run) -> String {
    let whom = request::describe_subject(&run.subject);
    if run.waits_for.is_empty() {
        return format!("{whom}: is run by {}", run.owner);
    }
    format!("{whom}: is run by {}, and WAITS: {}", run.owner, run.waits_for.join("; "))
}

/// One line of an instance.
fn describe_instance(instance: &Instance) -> String {
    let lease = if instance.is_live() {
        format!("lease ends in {} s", instance.lease_left_ms / 1000)
    } else {
        format!("gone: its lease ended {} s ago", -instance.lease_left_ms / 1000)
    };
    let older = if instance.newest_revision > instance.revision {
        format!(", after it had {}", instance.newest_revision)
    } else {
        String::new()
    };
    let seals = instance
        .seals_with
        .map(|key| format!(", seals with key {key}"))
        .unwrap_or_default();
    format!(
        "instance {} of {}: revision {}{older}{seals}; {}, heard {} s ago; {lease}",
        instance.instance,
        instance.keyset,
        instance.revision,
        instance.version,
        instance.seen_ms_ago / 1000
    )
}

fn keyset_rotation(record: RotationRecord) -> KeysetRotationEntry {
    KeysetRotationEntry {
        id: record.id,
        keyset: record.keyset,
        from: record.from_key,
        to: record.to_key,
        mode: record.mode,
        policy: record.policy,
        direction: record.direction,
        phase: record.phase,
        phases: record
            .history
            .into_iter()
            .map(|(name, since)| PhaseEntry { name, since })
            .collect(),
        owner: record.owner,
        started_at: record.started_at,
        updated_at: record.updated_at,
        finished_at: record.finished_at,
        follows: record.follows,
    }
}

impl RunEntry {
    fn of(run: Run) -> Self {
        Self {
            subject: SubjectEntry::of(run.subject),
            owner: run.owner,
            waits_for: run.waits_for,
            heard_at: run.heard_at,
        }
    }
}

impl InstanceEntry {
    pub(super) fn of(instance: Instance) -> Self {
        Self {
            live: instance.is_live(),
            instance: instance.instance,
            keyset: instance.keyset,
            revision: instance.revision,
            newest_revision: instance.newest_revision,
            seals_with: instance.seals_with,
            compromised_opens: instance.compromised_opens,
            version: instance.version,
            first_seen_at: instance.first_seen_at,
            seen_at: instance.seen_at,
            lease_left_seconds: instance.lease_left_ms as f64 / 1000.0,
        }
    }
}

fn entry(plan: Plan, ranges: (usize, usize), totals: crate::store::control::Counters, quarantined: u64) -> RotationEntry {
    RotationEntry {
        plan: plan.identity.id,
        table: plan.identity.table,
        columns: plan.identity.columns,
        from: plan.identity.from,
        to: plan.identity.to,
        status: plan.status.as_str(),
        owner: plan.owner,
        created_at: plan.created_at,
        updated_at: plan.updated_at,
        ranges: ranges.0,
        ranges_done: ranges.1,
        rows_scanned: totals.rows_scanned,
        values_reencrypted: totals.values_reencrypted,
        lost_races: totals.lost_races,
        quarantined,
    }
}
