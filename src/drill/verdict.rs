//! From evidence to a verdict: one rule for each way to fail, one sentence for each rule.

use std::collections::BTreeMap;

use serde::Serialize;

use super::inspect::Inspection;
use super::model::Deviation;
use super::tally::{Failure, Tally};
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

/// Judges traffic and table; `old` is the key that nothing may be under any more.
pub fn judge(tally: &Tally, end: &Inspection, old: KeyId) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut check = |name, count: u64, sentence: String| {
        if count > 0 {
            findings.push(Finding::new(name, sentence));
        }
    };
    let lost = lost_writes(end);
    check(
        "lost-writes",
        lost,
        format!(
            "{lost} writes that the database had confirmed were lost: somebody wrote older values over them, or removed their rows"
        ),
    );
    let resurrected = end.deviating(Deviation::Resurrected);
    check(
        "resurrected-rows",
        resurrected,
        format!("{resurrected} deleted rows are back"),
    );
    let wrong = end.deviating(Deviation::Wrong);
    check(
        "wrong-values",
        wrong,
        format!("{wrong} rows hold something that nobody wrote to them"),
    );
    check(
        "unreadable-values",
        end.unreadable,
        format!("{} values open under no key at all", end.unreadable),
    );
    let under_old = end.under(old);
    check(
        "values-under-old-key",
        under_old,
        format!(
            "{under_old} values are still under the old key {old}: a writer sealed with it after the last sweep, or the rotation missed them"
        ),
    );
    findings.extend(operations("reads", "failed-reads", &tally.failed_reads));
    findings.extend(operations("writes", "failed-writes", &tally.failed_writes));
    if tally.reads == 0 || tally.writes == 0 {
        findings.push(Finding::new(
            "no-traffic",
            format!("{} reads and {} writes prove nothing", tally.reads, tally.writes),
        ));
    }
    findings
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
            Failure::Withheld(_, "retired") => ": a key was retired before the last value had left it",
            Failure::Deviates(Deviation::Stale | Deviation::Vanished) => ": a write was overwritten",
            _ => "",
        };
        Finding::new(name, format!("{count} {kind} failed: {}{hint}", failure.describe()))
    })
}
