//! Instances of applications: which revision of a keyset the next value that they seal will use, as each of them says.
//!
//! An entry lives until its lease ends, by the database's clock. An instance that ends cleanly takes its entry away; one that
//! vanishes leaves it behind, to be named as gone.

use std::time::Duration;

use super::super::{Control, StoreError};
use super::{Dialect, Field, Fields, Row, said};

/// What an instance says of itself.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// Its name: no two instances that run at once have the same.
    pub instance: &'a str,
    /// The keyset.
    pub keyset: &'a str,
    /// The revision of the keyset that its next seal will use.
    pub revision: u64,
    /// The key that its next seal will use, where it is known.
    pub seals_with: Option<u32>,
    /// Values that it opened under a compromised key so far.
    pub compromised_opens: u64,
    /// The program that reports, and its version.
    pub version: &'a str,
    /// How long to count on it without hearing from it again; at most [`LEASE_MAX`].
    pub lease: Duration,
}

/// An entry as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub instance: String,
    /// The keyset.
    pub keyset: String,
    /// The revision that its next seal will use.
    pub revision: u64,
    /// The newest revision that it ever reported.
    pub newest_revision: u64,
    /// The key that its next seal will use, where it is known.
    pub seals_with: Option<u32>,
    /// Values that it opened under a compromised key.
    pub compromised_opens: u64,
    /// The program that reports, and its version.
    pub version: String,
    /// Database time of the first report, RFC 3339.
    pub first_seen_at: String,
    /// Database time of the last report, RFC 3339.
    pub seen_at: String,
    /// Milliseconds since the last report.
    pub seen_ms_ago: i64,
    /// Milliseconds until its lease ends; not positive when it has ended.
    pub lease_left_ms: i64,
}

impl Instance {
    /// Whether it must be reckoned with.
    pub fn is_live(&self) -> bool {
        self.lease_left_ms > 0
    }
}

/// The entries of a database.
pub struct Instances<'c> {
    control: &'c mut dyn Control,
}

impl<'c> Instances<'c> {
    /// Those behind this connection.
    pub fn of(control: &'c mut dyn Control) -> Self {
        Self { control }
    }

    /// Writes or renews an entry. The tables must exist.
    pub async fn report(&mut self, report: &Report<'_>) -> Result<(), StoreError> {
        let lease = report.lease.min(LEASE_MAX).as_millis();
        let dialect = self.control.dialect();
        let statement = format!(
            "INSERT INTO {table} AS known (instance, keyset, revision, newest_revision, seals_with, compromised_opens, version, \
             first_seen_at, seen_at, lease_until) \
             VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, {now}, {now}, {until}) \
             ON CONFLICT (instance, keyset) DO UPDATE SET revision = excluded.revision, \
             newest_revision = CASE WHEN known.newest_revision > excluded.revision THEN known.newest_revision ELSE excluded.revision END, \
             seals_with = excluded.seals_with, compromised_opens = excluded.compromised_opens, version = excluded.version, \
             seen_at = excluded.seen_at, lease_until = excluded.lease_until",
            table = dialect.instances,
            now = dialect.now,
            until = (dialect.later)("?7"),
        );
        let values = [
            Field::text(report.instance),
            Field::text(report.keyset),
            Field::count(report.revision),
            Field::Int(report.seals_with.map(i64::from)),
            Field::count(report.compromised_opens),
            Field::text(report.version),
            Field::count(u64::try_from(lease).unwrap_or(u64::MAX)),
        ];
        self.control.ledger(&said(&statement, dialect), &values).await.map(drop)
    }

    /// Takes an entry away: the instance ended and will not seal again. Says whether there was one.
    pub async fn leave(&mut self, instance: &str, keyset: &str) -> Result<bool, StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "DELETE FROM {} WHERE instance = ?1 AND keyset = ?2 RETURNING instance",
            dialect.instances
        );
        let values = [Field::text(instance), Field::text(keyset)];
        let removed = self.control.ledger(&said(&statement, dialect), &values).await?;
        Ok(!removed.is_empty())
    }

    /// Forgets entries whose lease ended [`FORGOTTEN_AFTER`] ago.
    pub async fn forget(&mut self) -> Result<(), StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "DELETE FROM {} WHERE {} > ?1",
            dialect.instances,
            (dialect.elapsed_ms)("lease_until")
        );
        let age = Field::count(u64::try_from(FORGOTTEN_AFTER.as_millis()).unwrap_or(u64::MAX));
        self.control.ledger(&said(&statement, dialect), &[age]).await.map(drop)
    }

    /// The entries of a keyset, or all of them, by name; none where the tables are of a version that had none. Writes nothing.
    pub async fn list(&mut self, keyset: Option<&str>) -> Result<Vec<Instance>, StoreError> {
        if self
            .control
            .version()
            .await?
            .is_none_or(|version| version < super::super::control::LEDGER_SINCE)
        {
            return Ok(Vec::new());
        }
        let dialect = self.control.dialect();
        let (condition, values) = match keyset {
            Some(keyset) => ("WHERE keyset = ?1", vec![Field::text(keyset)]),
            None => ("", Vec::new()),
        };
        let statement = format!(
            "SELECT {} FROM {} {condition} ORDER BY keyset, instance",
            columns(dialect),
            dialect.instances
        );
        let rows = self.control.ledger(&said(&statement, dialect), &values).await?;
        rows.into_iter().map(read).collect()
    }
}

fn columns(dialect: &Dialect) -> String {
    let text = dialect.text;
    let elapsed = dialect.elapsed_ms;
    format!(
        "instance, keyset, revision, newest_revision, seals_with, compromised_opens, version, {}, {}, {}, {}",
        text("first_seen_at"),
        text("seen_at"),
        elapsed("seen_at"),
        elapsed("lease_until")
    )
}

fn read(row: Row) -> Result<Instance, StoreError> {
    let mut fields = Fields::of(row);
    Ok(Instance {
        instance: fields.text()?,
        keyset: fields.text()?,
        revision: fields.number()?,
        newest_revision: fields.number()?,
        seals_with: fields.optional_number()?,
        compromised_opens: fields.number()?,
        version: fields.text()?,
        first_seen_at: fields.text()?,
        seen_at: fields.text()?,
        seen_ms_ago: fields.number()?,
        lease_left_ms: -fields.number::<i64>()?,
    })
}

/// The longest lease. An instance that is counted on for longer without a word would hold up a rotation for that long when it vanishes.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Long enough to be found by whoever looks for what happened yesterday.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
