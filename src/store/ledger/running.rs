//! Which rotations run at this moment, who runs them, and what they wait for: each run says so again and again, and takes its word back
//! when it ends. One that is not heard for [`HEARD_WITHIN`] was killed.

use std::time::Duration;

use super::super::control::{PlanStatus, REQUESTS_SINCE};
use super::super::{Control, StoreError};
use super::request::Subject;
use super::{Dialect, Field, Fields, Row, said};

/// A rotation that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which.
    pub subject: Subject,
    /// Who runs it.
    pub owner: String,
    /// Why it waits at this moment, for people; empty while it does not.
    pub waits_for: Vec<String>,
    /// Database time at which it was heard last, RFC 3339.
    pub heard_at: String,
    heard_ms_ago: i64,
}

/// The runs of a database.
pub struct Runs<'c> {
    control: &'c mut dyn Control,
}

impl<'c> Runs<'c> {
    /// Those behind this connection.
    pub fn of(control: &'c mut dyn Control) -> Self {
        Self { control }
    }

    /// Says that a rotation runs, unless these tables do not know it as unfinished: then there is nothing to say.
    pub async fn report(&mut self, subject: &Subject, owner: &str, waits_for: &[String]) -> Result<(), StoreError> {
        if self.control.version().await?.is_none_or(|version| version < REQUESTS_SINCE) {
            return Ok(());
        }
        let dialect = self.control.dialect();
        let (table, column, unfinished) = match subject {
            Subject::Plan(_) => (dialect.plans, "id", format!("status <> '{}'", PlanStatus::Verified.as_str())),
            Subject::Keyset(_) => (dialect.rotations, "keyset", "finished_at IS NULL".to_owned()),
        };
        let statement = format!(
            "INSERT INTO {runs} (subject, owner, waits_for, heard_at) SELECT ?1, ?2, ?3, {now} \
             WHERE EXISTS (SELECT 1 FROM {table} WHERE {column} = ?4 AND {unfinished}) \
             ON CONFLICT (subject) DO UPDATE SET owner = excluded.owner, waits_for = excluded.waits_for, heard_at = excluded.heard_at",
            runs = dialect.runs,
            now = dialect.now,
        );
        let values = [
            Field::text(subject.name()),
            Field::text(owner),
            Field::text(waits_for.join("\n")),
            Field::text(subject.what()),
        ];
        self.control.ledger(&said(&statement, dialect), &values).await.map(drop)
    }

    /// The run has ended. What another one has said since stays.
    pub async fn end(&mut self, subject: &Subject, owner: &str) -> Result<(), StoreError> {
        if self.control.version().await?.is_none_or(|version| version < REQUESTS_SINCE) {
            return Ok(());
        }
        let dialect = self.control.dialect();
        let statement = format!("DELETE FROM {} WHERE subject = ?1 AND owner = ?2", dialect.runs);
        let values = [Field::text(subject.name()), Field::text(owner)];
        self.control.ledger(&said(&statement, dialect), &values).await.map(drop)
    }

    /// Those that were heard a moment ago. Writes nothing.
    pub async fn list(&mut self) -> Result<Vec<Run>, StoreError> {
        if self.control.version().await?.is_none_or(|version| version < REQUESTS_SINCE) {
            return Ok(Vec::new());
        }
        let dialect = self.control.dialect();
        let statement = format!("SELECT {} FROM {} ORDER BY subject", columns(dialect), dialect.runs);
        let rows = self.control.ledger(&said(&statement, dialect), &[]).await?;
        let runs: Result<Vec<Run>, StoreError> = rows.into_iter().map(read).collect();
        let within = i64::try_from(HEARD_WITHIN.as_millis()).unwrap_or(i64::MAX);
        Ok(runs?.into_iter().filter(|run| run.heard_ms_ago <= within).collect())
    }
}

fn columns(dialect: &Dialect) -> String {
    format!(
        "subject, owner, waits_for, {}, {}",
        (dialect.text)("heard_at"),
        (dialect.elapsed_ms)("heard_at")
    )
}

fn read(row: Row) -> Result<Run, StoreError> {
    let mut fields = Fields::of(row);
    Ok(Run {
        subject: Subject::parse(&fields.text()?).ok_or_else(super::damaged)?,
        owner: fields.text()?,
        waits_for: fields.text()?.lines().map(str::to_owned).collect(),
        heard_at: fields.text()?,
        heard_ms_ago: fields.number()?,
    })
}

/// Several times as long as a run is silent between two words. Longer, and an operator would speak to one that was killed; shorter, and
/// one whose database answers slowly would not be there.
pub const HEARD_WITHIN: Duration = Duration::from_secs(20);
