//! Reasons not to start, and things to know first. Facts come from the survey; here they are judged, one rule each.

use super::error::RotationError;
use super::recipe::Recipe;
use crate::store::StoreError;
use crate::store::survey::{Column, ColumnClass, Observation, Survey};

/// What a finding means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a line.
    Note,
    /// The operator must accept it by name (`--accept`).
    Ask,
    /// The run is refused.
    Refuse,
}

/// A judged fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub severity: Severity,
    /// A stable short name, which `--accept` takes: `trigger:audit_customers`.
    pub name: String,
    /// What was found, where.
    pub what: String,
    /// What the operator can do.
    pub advice: String,
}

impl Finding {
    /// A reason not to start, and what the operator can do.
    pub fn refusal(name: &str, what: String, advice: &str) -> Self {
        finding(Severity::Refuse, name, what, advice)
    }
}

/// What a database cannot do for an option is a finding about that option.
pub(super) fn refused_as(name: &'static str, advice: &'static str) -> impl Fn(RotationError) -> RotationError {
    move |error| match error {
        RotationError::Store {
            cause: StoreError::Refused(why),
            ..
        } => RotationError::Refused(vec![Finding::refusal(name, why, advice)]),
        other => other,
    }
}

/// Whether rows will be written: a verification asks for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Values are rewritten.
    Write,
    /// Values are only read.
    Read,
}

/// Judges a survey.
pub fn findings(survey: &Survey, recipe: &Recipe, purpose: Purpose, accepted: &[String]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = survey.observations.iter().map(|fact| judge(fact, purpose)).collect();
    findings.extend(key_findings(&survey.key));
    if let (Some(seals), Purpose::Write) = (&recipe.seals, purpose) {
        let estimate = survey.rows_estimate.saturating_mul(recipe.columns.len() as u64);
        findings.extend(seal_finding(seals.recorded(), estimate, seals.refused_at()));
    }
    for (column, value) in recipe.columns.iter().zip(&survey.values) {
        findings.extend(value_findings(value, column.to.name(), column.to.is_text()));
    }
    for finding in &mut findings {
        if finding.severity == Severity::Ask && accepted.contains(&finding.name) {
            finding.severity = Severity::Note;
        }
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Whether the run may start.
pub fn allows(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.severity == Severity::Note)
}

fn judge(fact: &Observation, purpose: Purpose) -> Finding {
    let refuse_writing = match purpose {
        Purpose::Write => Severity::Refuse,
        Purpose::Read => Severity::Note,
    };
    let ask_writing = match purpose {
        Purpose::Write => Severity::Ask,
        Purpose::Read => Severity::Note,
    };
    match fact {
        Observation::NoUsableKey(why) => finding(
            Severity::Refuse,
            "no-key",
            format!("rows cannot be told apart: {why}"),
            "add a primary key, or a unique index over NOT NULL columns",
        ),
        Observation::KeyIs(key) => finding(Severity::Note, "key", format!("rows are told apart by {key}"), ""),
        Observation::Generated(column) => finding(
            Severity::Refuse,
            "generated",
            format!("column {column} is generated: the database computes it, nobody can write it"),
            "rotate the column that it is computed from",
        ),
        Observation::UpdateTrigger(name) => finding(
            ask_writing,
            &format!("trigger:{name}"),
            format!("trigger {name} fires on every rewritten row and may change other data or send messages"),
            &format!("accept it with --accept trigger:{name}, or disable it for the rotation"),
        ),
        Observation::Guard { plan, refuses } => finding(
            ask_writing,
            &guard_name(plan),
            format!(
                "the guard of rotation {plan} stands on this table, and refuses values under the key that it rotates away ({})",
                refuses.join(", ")
            ),
            "if that rotation is over or given up, take it away: reseal guard remove",
        ),
        Observation::Rule(name) => finding(
            refuse_writing,
            &format!("rule:{name}"),
            format!("rule {name} rewrites updates of this table: what would be written is not what was asked"),
            "drop the rule, or rotate the table behind it",
        ),
        Observation::IndexOnValue { index, column, unique } => finding(
            Severity::Note,
            &format!("index:{index}"),
            format!(
                "{}index {index} covers the encrypted column {column}: every rewritten row writes it too",
                if *unique { "unique " } else { "" }
            ),
            "an index over randomised ciphertext finds nothing; consider dropping it",
        ),
        Observation::ForeignKeyOnValue(name) => finding(
            refuse_writing,
            &format!("foreign-key:{name}"),
            format!("foreign key {name} ties an encrypted column to another table: new ciphertext breaks the tie"),
            "drop the constraint: equal plaintexts have different ciphertexts",
        ),
        Observation::CheckOnValue(name) => finding(
            Severity::Note,
            &format!("check:{name}"),
            format!("CHECK constraint {name} judges an encrypted column and may refuse new values"),
            "",
        ),
        Observation::RowSecurity => finding(
            Severity::Refuse,
            "row-security",
            "row-level security hides rows from this user: what is hidden would stay under the old key".to_owned(),
            "connect as the table's owner or as a role with BYPASSRLS",
        ),
        Observation::ReadOnlyServer(why) => finding(
            refuse_writing,
            "read-only",
            format!("this server does not take writes: {why}"),
            "connect to the primary",
        ),
        Observation::ReadOnlyFile(why) => finding(
            refuse_writing,
            "read-only",
            why.clone(),
            "run as a user who may write to the file and to its folder, where both are mounted for writing",
        ),
        Observation::MissingPrivilege(what) => finding(
            if what.starts_with("UPDATE") {
                refuse_writing
            } else {
                Severity::Refuse
            },
            "privilege",
            format!("this user lacks a privilege: {what}"),
            "grant it, or connect as another user",
        ),
        Observation::CannotUpdate(why) => finding(
            refuse_writing,
            "cannot-update",
            format!("an UPDATE of this table cannot be prepared here: {why}"),
            "drop what needs the application's own functions, or rotate from within the application",
        ),
        Observation::NotATable(what) => finding(
            Severity::Refuse,
            "not-a-table",
            format!("this is {what}"),
            "name the table that holds the rows",
        ),
        Observation::ForeignLeaf(name) => finding(
            Severity::Refuse,
            "foreign-leaf",
            format!("{name} under this table is not a plain table: its rows cannot be swapped here"),
            "rotate it where its rows are stored, and detach it here",
        ),
        Observation::Leaves(count) => finding(Severity::Note, "leaves", format!("its rows are in {count} partitions"), ""),
        Observation::ChangeCapture(what) => finding(
            Severity::Note,
            "change-capture",
            format!("{what} carries every rewritten row to its consumers"),
            "make sure that they keep up",
        ),
        Observation::Slot {
            name,
            logical,
            active,
            behind_bytes,
            kept_bytes,
        } => {
            let kind = if *logical { "logical" } else { "physical" };
            let (behind, kept) = (mebibytes(*behind_bytes), mebibytes(*kept_bytes));
            if *active {
                finding(
                    Severity::Note,
                    &format!("slot:{name}"),
                    format!("{kind} replication slot {name} is {behind} behind; it carries every rewritten row"),
                    "make sure that its reader keeps up",
                )
            } else {
                // Until somebody reads, the whole log of the rotation stays on the server's disk.
                finding(
                    ask_writing,
                    &format!("slot:{name}"),
                    format!(
                        "nobody reads from the {kind} replication slot {name}: the server keeps {kept} of its log for it, and will keep what this rotation writes"
                    ),
                    &format!("start its reader or drop the slot; if the disk has room, accept it with --accept slot:{name}"),
                )
            }
        }
        Observation::Replicas(count) => finding(
            Severity::Note,
            "replicas",
            format!("{count} replica(s) follow this server"),
            "watch their lag, or set --max-replica-lag",
        ),
        Observation::BadFilter(why) => finding(
            Severity::Refuse,
            "where",
            format!("--where is not a condition on this table: {why}"),
            "give one SQL expression that is true or false for a row",
        ),
        Observation::SeveralNames(count) => finding(
            Severity::Refuse,
            "several-names",
            format!("{count} names lead to this database file: writers through different names corrupt it"),
            "remove the other hard links",
        ),
        Observation::JournalMode(mode) => finding(
            Severity::Note,
            "journal-mode",
            format!("the journal mode is {mode}"),
            if mode.eq_ignore_ascii_case("wal") {
                ""
            } else {
                "readers wait while a batch commits; WAL mode would let them go on"
            },
        ),
        Observation::Note(text) => finding(Severity::Note, "note", text.clone(), ""),
    }
}

/// The finding about the guard of a rotation.
pub fn guard_name(plan: &str) -> String {
    format!("guard:{plan}")
}

/// An earlier run of this rotation quarantined values as perhaps forged, and this one would re-encrypt them.
pub fn may_be_forged(count: u64) -> Finding {
    finding(
        Severity::Ask,
        FORGED,
        format!(
            "{count} values of this table are in quarantine because they may be forged: a run without --compromised would re-encrypt them"
        ),
        "run again with --compromised; or, when each of them has been looked at and found genuine, with --accept may-be-forged",
    )
}

/// Whether the target key can seal so many more values.
fn seal_finding(sealed: u64, estimate: u64, refused_at: u64) -> Option<Finding> {
    let after = sealed.saturating_add(estimate);
    let advice = "reseal keys generate KEYSET, promote the new key, and rotate to it";
    if sealed >= refused_at {
        let what = format!("the new key has sealed {sealed} values, and may seal no more ({refused_at} at most)");
        Some(finding(Severity::Refuse, "seals", what, advice))
    } else if after >= refused_at {
        let what = format!(
            "the new key has sealed {sealed} values; with about {estimate} more it would pass the {refused_at} that it may seal"
        );
        Some(finding(Severity::Refuse, "seals", what, advice))
    } else if after >= refused_at / 2 {
        let what = format!("afterwards the new key will have sealed about {after} of the {refused_at} values that it may");
        Some(finding(
            Severity::Note,
            "seals",
            what,
            "have a successor ready: reseal keys generate KEYSET",
        ))
    } else {
        None
    }
}

fn key_findings(key: &[Column]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if key.len() > KEY_COLUMNS_MAX {
        findings.push(finding(
            Severity::Refuse,
            "key-width",
            format!("the key has {} columns, at most {KEY_COLUMNS_MAX} are handled", key.len()),
            "add a unique index over fewer NOT NULL columns",
        ));
    }
    for column in key {
        let why = match column.class {
            ColumnClass::Float => "floating point: two values that print alike may differ",
            ColumnClass::Padded => "padded with blanks: its bytes are not kept",
            ColumnClass::Unsupported => "a type whose order and equality are not known here",
            _ => continue,
        };
        findings.push(finding(
            Severity::Refuse,
            "key-type",
            format!("key column {} is {}: {why}", column.name, column.type_name),
            "add a unique index over NOT NULL columns of integer, text, bytes, uuid or time type",
        ));
    }
    findings
}

fn value_findings(value: &Column, format: &str, format_is_text: bool) -> Option<Finding> {
    let why = match value.class {
        ColumnClass::Text if !format_is_text => {
            format!("holds text, and {format} writes bytes: use {format}-base64, or a column of bytes")
        }
        ColumnClass::Text | ColumnClass::Bytes | ColumnClass::Dynamic => return None,
        ColumnClass::Padded => "is padded with blanks: ciphertext would not come back as it was written".to_owned(),
        _ => "holds neither text nor bytes".to_owned(),
    };
    Some(finding(
        Severity::Refuse,
        "value-type",
        format!("column {} ({}) {why}", value.name, value.type_name),
        "",
    ))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn finding(severity: Severity, name: &str, what: String, advice: &str) -> Finding {
    Finding {
        severity,
        name: name.to_owned(),
        what,
        advice: advice.to_owned(),
    }
}

/// The finding of [`may_be_forged`].
pub const FORGED: &str = "may-be-forged";
/// What cursors and statements are built and tested for.
const KEY_COLUMNS_MAX: usize = 4;
