//! What a rotation ends of each store of sessions: the cut-off, what was there then, and the counts of the end.
//!
//! The cut-off is taken once. Whoever goes on with the rotation, however much later, finds it here, with digests of what existed then;
//! these go when the sessions have ended. Whoever writes a cut-off second finds the first one: two operators cannot mix theirs.

use super::super::control::ENDINGS_SINCE;
use super::super::{Control, StoreError};
use super::{Dialect, Field, Fields, Row, said};

/// Which sessions, and in which rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndingName {
    /// The rotation's id.
    pub rotation: String,
    /// The name of the store in the configuration.
    pub session: String,
    /// Scheduled or compromised: a rotation that becomes an emergency ends sessions again.
    pub mode: String,
}

/// A cut-off that was taken.
#[derive(Debug, Clone)]
pub struct NewEnding {
    /// Of which sessions.
    pub name: EndingName,
    /// The salt of the digests of what existed, and the name of their parts.
    pub snapshot: String,
    /// Microseconds since 1970, on the clock of the store of the sessions.
    pub cut_off_us: i64,
    /// What decided which side of it a session is on.
    pub decided_by: String,
    /// How many existed.
    pub matched: u64,
}

/// An ending as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndingRecord {
    /// Of which sessions.
    pub name: EndingName,
    /// The salt of the digests of what existed, and the name of their parts.
    pub snapshot: String,
    /// Microseconds since 1970, on the clock of the store of the sessions.
    pub cut_off_us: i64,
    /// What decided which side of it a session is on.
    pub decided_by: String,
    /// What was counted last.
    pub counts: EndingCounts,
    /// Database time at which the cut-off was recorded, RFC 3339.
    pub begun_at: String,
    /// Database time at which nothing was left; `None` until then.
    pub ended_at: Option<String>,
}

/// Counts of one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndingCounts {
    /// Sessions that existed at the cut-off.
    pub matched: u64,
    /// Sessions that were ended, by all runs whose end was recorded.
    pub ended: u64,
    /// Sessions that were created since and stay.
    pub created_since: u64,
    /// Entries of secondary indexes that went with their sessions.
    pub index_entries: u64,
    /// Sessions that the last pass found although they should be gone.
    pub left: u64,
    /// Passes over the store.
    pub passes: u64,
}

/// The endings of a database.
pub struct Endings<'c> {
    control: &'c mut dyn Control,
}

impl<'c> Endings<'c> {
    /// Those behind this connection.
    pub fn of(control: &'c mut dyn Control) -> Self {
        Self { control }
    }

    /// The endings of a rotation, by name; none where the tables are of a version that had none. Writes nothing.
    pub async fn list(&mut self, rotation: &str) -> Result<Vec<EndingRecord>, StoreError> {
        if self.control.version().await?.is_none_or(|version| version < ENDINGS_SINCE) {
            return Ok(Vec::new());
        }
        let dialect = self.control.dialect();
        let statement = format!(
            "SELECT {} FROM {} WHERE rotation = ?1 ORDER BY session, mode",
            columns(dialect),
            dialect.endings
        );
        let rows = self
            .control
            .ledger(&said(&statement, dialect), &[Field::text(rotation)])
            .await?;
        rows.into_iter().map(read).collect()
    }

    /// Keeps one part of the digests. They count once [`begin`](Self::begin) names their snapshot.
    pub async fn keep(&mut self, rotation: &str, snapshot: &str, part: u64, digests: &str) -> Result<(), StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "INSERT INTO {} (rotation, snapshot, part, digests) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            dialect.snapshots
        );
        let values = [
            Field::text(rotation),
            Field::text(snapshot),
            Field::count(part),
            Field::text(digests),
        ];
        self.control.ledger(&said(&statement, dialect), &values).await.map(drop)
    }

    /// Records a cut-off, unless one is recorded already; gives the one that counts.
    pub async fn begin(&mut self, new: &NewEnding) -> Result<EndingRecord, StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "INSERT INTO {} (rotation, session, mode, snapshot, cut_off_us, decided_by, matched, begun_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, {}) ON CONFLICT DO NOTHING",
            dialect.endings, dialect.now
        );
        let values = [
            Field::text(&new.name.rotation),
            Field::text(&new.name.session),
            Field::text(&new.name.mode),
            Field::text(&new.snapshot),
            Field::Int(Some(new.cut_off_us)),
            Field::text(&new.decided_by),
            Field::count(new.matched),
        ];
        self.control.ledger(&said(&statement, dialect), &values).await?;
        let recorded = self.list(&new.name.rotation).await?;
        recorded
            .into_iter()
            .find(|record| record.name == new.name)
            .ok_or_else(|| StoreError::State("the record of the end of sessions is gone".to_owned()))
    }

    /// The parts of a snapshot, in order.
    pub async fn parts(&mut self, snapshot: &str) -> Result<Vec<String>, StoreError> {
        let dialect = self.control.dialect();
        let statement = format!("SELECT digests FROM {} WHERE snapshot = ?1 ORDER BY part", dialect.snapshots);
        let rows = self
            .control
            .ledger(&said(&statement, dialect), &[Field::text(snapshot)])
            .await?;
        rows.into_iter().map(|row| Fields::of(row).text()).collect()
    }

    /// Records what a run counted; `is_end` says that nothing is left.
    pub async fn record(&mut self, name: &EndingName, counts: EndingCounts, is_end: bool) -> Result<(), StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "UPDATE {} SET ended = ?4, created_since = ?5, index_entries = ?6, remaining = ?7, passes = ?8, \
             ended_at = CASE WHEN ?9 = 1 THEN {} ELSE NULL END \
             WHERE rotation = ?1 AND session = ?2 AND mode = ?3 AND ended_at IS NULL",
            dialect.endings, dialect.now
        );
        let values = [
            Field::text(&name.rotation),
            Field::text(&name.session),
            Field::text(&name.mode),
            Field::count(counts.ended),
            Field::count(counts.created_since),
            Field::count(counts.index_entries),
            Field::count(counts.left),
            Field::count(counts.passes),
            Field::Int(Some(i64::from(is_end))),
        ];
        self.control.ledger(&said(&statement, dialect), &values).await.map(drop)
    }

    /// Forgets the digests of a rotation that needs none any more.
    pub async fn forget(&mut self, rotation: &str) -> Result<(), StoreError> {
        let dialect = self.control.dialect();
        let statement = format!("DELETE FROM {} WHERE rotation = ?1", dialect.snapshots);
        let values = [Field::text(rotation)];
        self.control.ledger(&said(&statement, dialect), &values).await.map(drop)
    }
}

fn columns(dialect: &Dialect) -> String {
    let text = dialect.text;
    format!(
        "rotation, session, mode, snapshot, cut_off_us, decided_by, matched, ended, created_since, index_entries, remaining, passes, {}, {}",
        text("begun_at"),
        text("ended_at")
    )
}

fn read(row: Row) -> Result<EndingRecord, StoreError> {
    let mut fields = Fields::of(row);
    Ok(EndingRecord {
        name: EndingName {
            rotation: fields.text()?,
            session: fields.text()?,
            mode: fields.text()?,
        },
        snapshot: fields.text()?,
        cut_off_us: fields.number()?,
        decided_by: fields.text()?,
        counts: EndingCounts {
            matched: fields.number()?,
            ended: fields.number()?,
            created_since: fields.number()?,
            index_entries: fields.number()?,
            left: fields.number()?,
            passes: fields.number()?,
        },
        begun_at: fields.text()?,
        ended_at: fields.optional_text()?,
    })
}
