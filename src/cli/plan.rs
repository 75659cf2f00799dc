//! `reseal plan`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;

use super::documents::{self, FindingEntry};
use super::managed::{ManagedArgs, look};
use super::rotation_error::rotation_error;
use super::selection::Selection;
use super::tuning::{self, Tuning};
use super::{CliError, Context, Exit};
use crate::report::sentence::{count, duration};
use crate::rotation::plan::{PlanReport, plan, prepare};
use crate::rotation::preflight::{self, Purpose};
use crate::store::survey::Column;

/// What rotate would do, what it found, and how long it will take; changes nothing
#[derive(Args)]
pub struct PlanArgs {
    #[command(flatten)]
    managed: ManagedArgs,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    tuning: Tuning,

    /// Accept a finding by its name, such as trigger:audit, or, in managed use, undeclared:TABLE.COLUMN: that column may become unreadable
    /// without the old key (undeclared alone looks at no column beside the datasets); repeat for more
    #[arg(long, value_name = "FINDING")]
    accept: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct PlanDocument<'a> {
    server: &'a str,
    table: &'a str,
    relations: usize,
    primary_key: Vec<ColumnEntry<'a>>,
    columns: Vec<ColumnEntry<'a>>,
    rows_estimate: u64,
    table_bytes: u64,
    bytes_to_rewrite: u64,
    mean_value_bytes: f64,
    duration_seconds: BTreeMap<String, f64>,
    sample: Sample,
    findings: Vec<FindingEntry<'a>>,
    allowed: bool,
    exit: u8,
}

impl<'a> PlanDocument<'a> {
    /// What a plan reports, for scripts.
    pub(super) fn of(report: &'a PlanReport) -> Self {
        let survey = &report.survey;
        let allowed = preflight::allows(&report.findings);
        Self {
            server: &survey.server,
            table: &survey.table,
            relations: survey.relations.len(),
            primary_key: columns(&survey.key),
            columns: columns(&survey.values),
            rows_estimate: survey.rows_estimate,
            table_bytes: survey.bytes,
            bytes_to_rewrite: report.bytes_to_rewrite(),
            mean_value_bytes: report.mean_value_bytes,
            duration_seconds: (report.rows_per_second.iter())
                .map(|rate| (format!("{rate} rows/s"), seconds_at(*rate, survey.rows_estimate)))
                .collect(),
            sample: Sample {
                rows: report.sample.rows,
                nulls: report.sample.nulls,
                unreadable: report.sample.unreadable,
                census: documents::census(&report.sample),
            },
            findings: documents::findings(&report.findings),
            allowed,
            exit: if allowed { Exit::Done } else { Exit::Refused }.code(),
        }
    }
}

#[derive(Serialize)]
struct ColumnEntry<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    nullable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_len: Option<u64>,
}

#[derive(Serialize)]
struct Sample {
    rows: u64,
    nulls: u64,
    unreadable: u64,
    census: BTreeMap<String, u64>,
}

pub(super) fn run(args: PlanArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let mut options = args.tuning.options("plan");
    options.accepted.clone_from(&args.accept);
    if !args.selection.names_a_table() {
        args.selection.require_none()?;
        return look::plan_keyset(&args.managed, &args.selection.keyring, options, context);
    }
    let report = tuning::run(context.output.is_json(), async |_progress, _stop| {
        let failed = |error| rotation_error(&error).touched_nothing();
        let selected = args.selection.select(context, options, true).await?;
        let prepared = prepare(&*selected.store, selected.job).await.map_err(failed)?;
        plan(&Arc::clone(&selected.store), &prepared, Purpose::Write)
            .await
            .map_err(failed)
    })?;
    let allowed = preflight::allows(&report.findings);
    let exit = if allowed { Exit::Done } else { Exit::Refused };
    say(&report, allowed, context);
    context.output.document("reseal.plan/1", &PlanDocument::of(&report))?;
    Ok(exit)
}

fn columns(columns: &[Column]) -> Vec<ColumnEntry<'_>> {
    columns
        .iter()
        .map(|column| ColumnEntry {
            name: &column.name,
            type_name: &column.type_name,
            nullable: column.nullable,
            max_len: column.max_len,
        })
        .collect()
}

pub(super) fn say(report: &PlanReport, allowed: bool, context: &mut Context<'_>) {
    let survey = &report.survey;
    let output = &mut context.output;
    let key: Vec<&str> = survey.key.iter().map(|column| column.name.as_str()).collect();
    let told_apart = match &key[..] {
        [] => String::new(),
        key => format!(", rows told apart by ({})", key.join(", ")),
    };
    output.say(&format!(
        "{} on {}: about {} rows, {}{told_apart}",
        survey.table,
        survey.server,
        count(survey.rows_estimate),
        HumanBytes(survey.bytes),
    ));
    output.say(&format!(
        "to rewrite: about {} of values; {}",
        HumanBytes(report.bytes_to_rewrite()),
        (SERVERS.iter().zip(report.rows_per_second))
            .map(|(server, rate)| format!("{} on {server}", duration(seconds_at(rate, survey.rows_estimate))))
            .collect::<Vec<_>>()
            .join(", ")
    ));
    output.say(&format!("sample of {} rows, every value opened:", count(report.sample.rows)));
    for (key, values) in documents::census(&report.sample) {
        let whose = match report.sample.per_key.contains_key(&key) {
            false => "",
            true if key == report.target_label => ", the new key",
            true => ", an old key",
        };
        output.say(&format!("  {:>12}  {key}{whose}", count(values)));
    }
    for finding in &report.findings {
        output.say(&format!(
            "{:>6}: {}{}",
            documents::severity(finding.severity),
            finding.what,
            if finding.advice.is_empty() {
                String::new()
            } else {
                format!(" ({})", finding.advice)
            }
        ));
    }
    output.say(if allowed {
        "nothing stands in the way; the same options with rotate do it"
    } else {
        "rotate would refuse to start"
    });
}

fn seconds_at(rate: u32, rows: u64) -> f64 {
    rows as f64 / f64::from(rate)
}

/// Whose rates a plan tells.
const SERVERS: [&str; 3] = ["a busy server", "an ordinary one", "a fast one"];
