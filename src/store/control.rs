//! The state that Reseal keeps beside the data: plans, ranges, quarantine. No key material, ever.
//!
//! A range's cursor and counters change in the transaction that changes its rows, and only under its epoch: a worker that was
//! paused and lost its range cannot write any more.

use super::page::{Late, Quarantined};
use super::value::Key;

/// The version of the control tables. An older state is upgraded in place, version by version; an older Reseal refuses a newer state
/// (B73).
pub const STATE_VERSION: i64 = 4;

/// The version that brought the [`ledger`](super::ledger).
pub const LEDGER_SINCE: i64 = 2;

/// The version that brought the [`endings`](super::ledger::ending) of sessions.
pub const ENDINGS_SINCE: i64 = 3;

/// The version that brought the requests of operators, and the word of runs under way.
pub const REQUESTS_SINCE: i64 = 4;

/// What a rotation is about. Two runs with the same identity are the same rotation, and the second continues the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanIdentity {
    /// A digest of table, columns, formats, filter and key fingerprints.
    pub id: String,
    /// The table, for people.
    pub table: String,
    /// Columns and formats, for people: `name:format>format:associated data`, separated by `; `.
    pub columns: String,
    /// Fingerprints of the source keys.
    pub from: String,
    /// Fingerprint of the target key.
    pub to: String,
}

impl PlanIdentity {
    /// Whether a run of this plan may take values away from where `other` has moved them, both being of one table: they share a column,
    /// and want it under another key, or in another form. Columns of the same target are only moved there by both, whatever their rows.
    pub fn undoes(&self, other: &Self) -> bool {
        let mut shared = self.columns().flat_map(|mine| {
            let theirs = other.columns();
            theirs.filter_map(move |theirs| name(mine).eq_ignore_ascii_case(name(theirs)).then_some(mine != theirs))
        });
        shared.any(|is_in_another_form| is_in_another_form || self.to != other.to)
    }

    fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.split("; ")
    }
}

/// The name of a recorded column. One with such signs in it gives the same wrong name wherever it is recorded.
fn name(column: &str) -> &str {
    let left = column.split_once('>').map(|(left, _)| left);
    left.and_then(|left| left.rsplit_once(':')).map_or(column, |(name, _)| name)
}

/// A plan as it stands in the database.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it is about.
    pub identity: PlanIdentity,
    /// Grows whenever a plan of the same table is claimed; the epoch of all ranges of the current owner.
    pub generation: i64,
    /// Where it stands.
    pub status: PlanStatus,
    /// Who runs it, or ran it last.
    pub owner: String,
    /// Database time of the first start, RFC 3339.
    pub created_at: String,
    /// Database time of the last change, RFC 3339.
    pub updated_at: String,
}

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanStatus {
    /// Ranges are being re-encrypted.
    Running,
    /// All ranges were worked through; sweeps and verification follow.
    Swept,
    /// Verified: every value opened under the target key.
    Verified,
}

impl PlanStatus {
    /// The stored text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Swept => "swept",
            Self::Verified => "verified",
        }
    }

    /// Reads the stored text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Running, Self::Swept, Self::Verified]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// An interval of the primary key: `after < key <= upto`, in the database's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The physical table: an index into `Survey::relations` would not survive a change of partitions, so its quoted name.
    pub relation: String,
    /// Exclusive; `None` is the beginning.
    pub after: Option<Key>,
    /// Inclusive; `None` is the end.
    pub upto: Option<Key>,
}

/// A range of a plan: the unit of distribution and of fencing.
#[derive(Debug, Clone)]
pub struct Range {
    /// Number within the plan.
    pub id: i64,
    /// What it covers.
    pub interval: Interval,
    /// The last key that was worked through.
    pub cursor: Option<Key>,
    /// Must match for every write.
    pub epoch: i64,
    /// Whether the end was reached.
    pub done: bool,
    /// What was done so far.
    pub counters: Counters,
}

impl Range {
    /// What proves to the database that this range of `plan` is still ours.
    pub fn fence(&self, plan: &str) -> Fence {
        Fence {
            plan: plan.to_owned(),
            range: self.id,
            epoch: self.epoch,
        }
    }
}

/// What happened to the rows of a range. Committed with the rows themselves, hence exact across crashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows read.
    pub rows_scanned: u64,
    /// Values rewritten.
    pub values_reencrypted: u64,
    /// Rows rewritten.
    pub rows_reencrypted: u64,
    /// Values that were under the target key already.
    pub values_already_current: u64,
    /// NULLs.
    pub values_null: u64,
    /// Rows that somebody else wrote between reading and swapping.
    pub lost_races: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.rows_scanned += other.rows_scanned;
        self.values_reencrypted += other.values_reencrypted;
        self.rows_reencrypted += other.rows_reencrypted;
        self.values_already_current += other.values_already_current;
        self.values_null += other.values_null;
        self.lost_races += other.lost_races;
    }
}

/// Proof of ownership that goes into every write. Without control tables (`--no-state`) there is none.
#[derive(Debug, Clone)]
pub struct Fence {
    /// The plan.
    pub plan: String,
    /// The range.
    pub range: i64,
    /// The epoch under which the range was claimed.
    pub epoch: i64,
}

/// How a batch moves its range.
#[derive(Debug, Clone)]
pub struct Advance {
    /// The new cursor; `None` leaves it (sweeps).
    pub cursor: Option<Key>,
    /// Whether the range is finished with this batch.
    pub done: bool,
}

/// A quarantined value as stored.
#[derive(Debug, Clone)]
pub struct StoredQuarantine {
    /// The physical table.
    pub relation: String,
    /// What and why.
    pub entry: Quarantined,
}

/// A late value as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLate {
    /// The physical table.
    pub relation: String,
    /// Which value.
    pub value: Late,
    /// Database time at which it was first seen, RFC 3339.
    pub seen_at: String,
    /// Database time at which it was last seen, RFC 3339.
    pub last_seen_at: String,
}

/// Late values of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LateValues {
    /// The first of them, in the order in which they were seen.
    pub values: Vec<StoredLate>,
    /// All of them, counted.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(columns: &str, from: &str, to: &str) -> PlanIdentity {
        PlanIdentity {
            id: String::new(),
            table: "people".to_owned(),
            columns: columns.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        }
    }

    #[test]
    fn plans_undo_each_other_where_they_want_the_same_column_elsewhere() {
        let both = "email:fernet>fernet:; note:fernet>fernet:";
        let forth = plan(both, "a", "b");
        for (other, undoes) in [
            (plan(both, "b", "a"), true),
            (plan(both, "a", "c"), true),
            (plan("note:fernet>fernet:", "b", "a"), true),
            (plan("Note:fernet>fernet:", "b", "a"), true),
            (plan("note:fernet>tink:", "a", "b"), true),
            (plan("card:fernet>fernet:", "b", "a"), false),
            // Another condition on rows, or another key to come from.
            (plan(both, "a", "b"), false),
            (plan(both, "a,c", "b"), false),
            (plan("note:fernet>fernet:", "a", "b"), false),
        ] {
            assert_eq!((forth.undoes(&other), other.undoes(&forth)), (undoes, undoes), "{other:?}");
        }
    }

    #[test]
    fn a_shared_column_is_found_whatever_its_name() {
        for name in ["a; b", "a:b", "a>b", "a:b>c:d", "; ", ":", ">", "x:y>z; u"] {
            let one = plan(&format!("{name}:tink>tink:t.{{id}}; n:tink>tink:"), "a", "b");
            let other = plan(&format!("m:tink>tink:; {name}:tink>tink:t.{{id}}"), "b", "a");
            assert!(one.undoes(&other), "{name}");
        }
    }
}
