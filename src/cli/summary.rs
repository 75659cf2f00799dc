//! Results for people.

use std::collections::BTreeMap;

use indicatif::HumanBytes;

use super::Output;
use super::documents::{LateEntry, Outcome, ValueEntry};
use crate::rotation::VacuumReport;
use crate::rotation::guard::GuardReport;

/// What was looked at, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One table was rotated, all of it: whoever has its old key elsewhere knows of it.
    Table,
    /// The rows of a condition, or columns of a keyset, which others share; or only to see.
    Part,
}

/// What a rotation did.
pub fn rotation(table: &str, scope: Scope, outcome: &Outcome, output: &mut Output<'_>) {
    output.say(&format!(
        "{table}: {} values re-encrypted, {} were current already, {} NULL; {} lost races (each was looked at again)",
        outcome.values_reencrypted, outcome.values_already_current, outcome.values_null, outcome.lost_races
    ));
    if outcome.rows_per_second > 0.0 {
        output.say(&format!(
            "{} rows/s while re-encrypting; {:.1} s in all",
            outcome.rows_per_second, outcome.elapsed_seconds
        ));
    }
    verification(scope, outcome, output);
}

/// What a verification found.
pub fn verification(scope: Scope, outcome: &Outcome, output: &mut Output<'_>) {
    for (key, count) in &outcome.census {
        output.say(&format!("  {count:>12}  {key}"));
    }
    list(
        "quarantined, left as they are",
        outcome.quarantined_total,
        &outcome.quarantined,
        output,
    );
    list(
        "encrypted twice: rotated as they are, not unwrapped",
        outcome.nested_total,
        &outcome.nested,
        output,
    );
    let due = outcome.not_current_total;
    list("readable, but not under the new key", due, &outcome.not_current, output);
    let plaintext = outcome.values_plaintext;
    if plaintext > 0 {
        output.say(&format!(
            "{plaintext} values are plaintext, left as they are (--plaintext skip)"
        ));
    }
    if outcome.verified {
        let keys: Vec<&str> = outcome.census.keys().map(String::as_str).collect();
        let under = if keys.is_empty() {
            "there is no value".to_owned()
        } else {
            format!("every value that was looked at opens under {}", keys.join(", "))
        };
        output.say(&format!("verified: {under}"));
        if scope == Scope::Table {
            output.say("What was rotated needs the old key no more: it may leave the application if nothing else needs it. Old ciphertext remains in dead rows, logs, replicas and backups: destroy the old key only when the last backup that needs it has expired.");
        }
    } else if due > 0 {
        output.say("NOT verified: the old key is still needed. reseal rotate moves what is readable.");
    } else if plaintext > 0 && outcome.quarantined_total == 0 {
        output.say("NOT verified: every sealed value opens under the new key, and the rest is plaintext. Seal it with --plaintext seal, or select with --where what is sealed; then run the same command again.");
    } else if outcome.census.keys().all(|key| key == "unreadable") {
        output
            .say("NOT verified: not one value opens. Check the keys, the format and the associated data before anything else.");
    } else {
        output.say("NOT verified: keep the old key. If many values do not open, another key may have been meant (--from), or a rotation is unfinished (reseal status). What is damaged is mended through the application or from a backup; then run the same command again.");
    }
}

/// Values that appeared under the old key when every writer was to have switched: who wrote them?
pub fn late(total: u64, values: &[LateEntry], compromised: bool, output: &mut Output<'_>) {
    if total == 0 {
        return;
    }
    let became = if compromised {
        "they may be forged, and were left as they are"
    } else {
        "a writer still uses the old key; they were re-encrypted"
    };
    output.say(&format!(
        "{total} values appeared under the old key after every writer was to have switched: {became}:"
    ));
    for value in values.iter().take(SHOWN_MAX) {
        output.say(&format!("  {}", value.describe()));
    }
    if total > SHOWN_MAX as u64 {
        output.say(&format!("  … and {} more; --json lists them", total - SHOWN_MAX as u64));
    }
    output.say(if compromised {
        "Compare these rows with what the application knows of them. Rewrite the genuine ones through it, and find out where the others came from; then run the same command again."
    } else {
        "Find the instance that wrote these rows at these times: one with the old key first in its list, or one that put back what it had read before. Restart it with the new key before the old one leaves the application."
    });
}

/// What the run waited for on purpose.
pub fn throttled(seconds: &BTreeMap<&'static str, f64>, output: &mut Output<'_>) {
    for (reason, time) in seconds.iter().filter(|(_, time)| **time > 0.0) {
        output.say(&format!("batches waited {time:.1} s ({reason})"));
    }
}

/// How a guard ended, or stands while the rotation has not ended.
pub fn guard(whose: &str, guard: GuardReport, ended: bool, output: &mut Output<'_>) {
    let proof = match (ended, guard.proved) {
        (_, true) => "the database has validated that no value under the old key is left",
        (true, false) => "the database could not be asked for its own proof, because others held the table for too long",
        (false, false) => "it stays, and refuses new values under the old key; the next run goes on with it",
    };
    output.say(&format!("{whose}: {proof}"));
    if ended && !guard.removed {
        output.say(&format!(
            "{whose}: it could not be removed, because others hold the table; try again later: reseal guard remove"
        ));
    }
}

/// How the upkeep of a table went.
pub fn vacuum(whose: &str, report: &VacuumReport, output: &mut Output<'_>) {
    let (before, after) = (report.bytes_before, report.bytes_after);
    let growth = after as f64 / before.max(1) as f64;
    output.say(&format!(
        "{whose}: {} times; the table has {} now, {growth:.2} times what it had ({}; indexes apart)",
        report.runs,
        HumanBytes(after),
        HumanBytes(before)
    ));
    if report.made_way > 0 {
        output.say(&format!(
            "{whose}: made way {} times for others that held the table or waited for it",
            report.made_way
        ));
    }
    if let Some(error) = &report.failed {
        output.say(&format!("{whose}: failed, the last time with: {error}"));
    }
    if !report.finished {
        output.say(&format!(
            "{whose}: not finished; entries of indexes that lead to old rows go with the next VACUUM or autovacuum of the table"
        ));
    }
}

fn list(what: &str, total: u64, values: &[ValueEntry], output: &mut Output<'_>) {
    if total == 0 {
        return;
    }
    output.say(&format!("{total} values {what}:"));
    for value in values.iter().take(SHOWN_MAX) {
        output.say(&format!("  {}", value.describe()));
    }
    if total > SHOWN_MAX as u64 {
        output.say(&format!("  … and {} more; --json lists them", total - SHOWN_MAX as u64));
    }
}

/// What fits on a screen.
const SHOWN_MAX: usize = 20;
