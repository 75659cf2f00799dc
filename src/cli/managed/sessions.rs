//! What a keyset's rotation says of sessions: counts, never contents.

use jiff::Timestamp;
use serde::Serialize;

use crate::rotation::protocol::{SessionsPlan, SessionsReport};

/// How the end of one store's sessions stands.
#[derive(Serialize)]
pub struct SessionsEntry {
    name: String,
    kind: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_off: Option<Timestamp>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

#[derive(Serialize)]
struct Counts {
    decided_by: String,
    matched: u64,
    ended: u64,
    created_since: u64,
    index_entries: u64,
    left: u64,
    passes: u64,
}

impl SessionsEntry {
    /// The same for scripts.
    pub fn of(report: &SessionsReport) -> Self {
        let record = report.record.as_ref();
        Self {
            name: report.name.clone(),
            kind: kind(report.is_of_tokens),
            state: match record {
                Some(record) if record.ended_at.is_some() => "ended",
                Some(_) => "begun",
                None => "not-ended",
            },
            cut_off: record.and_then(|record| Timestamp::from_microsecond(record.cut_off_us).ok()),
            counts: record.filter(|_| !report.is_of_tokens).map(|record| Counts {
                decided_by: record.decided_by.clone(),
                matched: record.counts.matched,
                ended: record.counts.ended,
                created_since: record.counts.created_since,
                index_entries: record.counts.index_entries,
                left: record.counts.left,
                passes: record.counts.passes,
            }),
            ended_at: record.and_then(|record| record.ended_at.clone()),
        }
    }
}

/// What a rotation would end of one store.
#[derive(Serialize)]
pub struct SessionsPlanEntry {
    name: String,
    in_scheduled: bool,
    /// Those that exist now; tokens are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl SessionsPlanEntry {
    /// The same for scripts.
    pub fn of(plan: &SessionsPlan) -> Self {
        Self {
            name: plan.name.clone(),
            in_scheduled: plan.in_scheduled,
            sessions: plan.count.as_ref().ok().copied().flatten(),
            error: plan.count.as_ref().err().map(ToString::to_string),
        }
    }

    /// The same for people.
    pub fn sentence(&self) -> String {
        let when = if self.in_scheduled {
            "in every rotation (in_scheduled)"
        } else {
            "with --compromised"
        };
        let what = match (&self.error, self.sessions) {
            (Some(error), _) => return format!("sessions {}: would end {when}, and cannot now: {error}", self.name),
            (None, Some(count)) => format!("{count} sessions"),
            (None, None) => "every token that was issued until then".to_owned(),
        };
        format!("sessions {}: {what} would end {when}, before values are moved", self.name)
    }
}

fn kind(is_of_tokens: bool) -> &'static str {
    if is_of_tokens { "tokens" } else { "stored" }
}
