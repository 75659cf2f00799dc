//! The record of each rotation of a keyset: what it is about, who runs it, where it stands, and since when.
//!
//! Of one keyset at most one rotation is open in a database. Whoever claims it raises its generation; every change asks for the
//! generation, so that an operator who was paused and lost the rotation changes nothing any more.

use super::super::{Control, StoreError};
use super::{Dialect, Field, Fields, Row, said};

/// A rotation that begins.
#[derive(Debug, Clone)]
pub struct NewRotation {
    /// Its id, for people and scripts.
    pub id: String,
    /// The keyset.
    pub keyset: String,
    /// The key that was primary when it began.
    pub from_key: u32,
    /// The key that it leads to.
    pub to_key: u32,
    /// Scheduled or compromised.
    pub mode: String,
    /// What applications may still do with a compromised key.
    pub policy: Option<String>,
    /// Towards the new key, or back.
    pub direction: String,
    /// The first phase.
    pub phase: String,
    /// Who runs it.
    pub owner: String,
    /// The generation of the keyring file that it has seen.
    pub keyring_generation: u64,
    /// The rotation that it undoes or takes the place of.
    pub follows: Option<String>,
}

/// A rotation as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationRecord {
    /// Its id.
    pub id: String,
    /// The keyset.
    pub keyset: String,
    /// The key that was primary when it began.
    pub from_key: u32,
    /// The key that it leads to.
    pub to_key: u32,
    /// Scheduled or compromised.
    pub mode: String,
    /// What applications may still do with a compromised key.
    pub policy: Option<String>,
    /// Towards the new key, or back.
    pub direction: String,
    /// Where it stands.
    pub phase: String,
    /// Grows with every claim.
    pub generation: i64,
    /// Who runs it, or ran it last.
    pub owner: String,
    /// The newest generation of the keyring file that it has seen.
    pub keyring_generation: u64,
    /// The rotation that it undoes or takes the place of.
    pub follows: Option<String>,
    /// Each phase that it entered, and the database time of it, oldest first.
    pub history: Vec<(String, String)>,
    /// Database time of the beginning.
    pub started_at: String,
    /// Database time of the last change.
    pub updated_at: String,
    /// Database time of the end; `None` while it is open.
    pub finished_at: Option<String>,
}

/// What changes; what is `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// The phase that is entered.
    pub phase: Option<&'a str>,
    /// The direction.
    pub direction: Option<&'a str>,
    /// The mode.
    pub mode: Option<&'a str>,
    /// The policy.
    pub policy: Option<&'a str>,
    /// The generation of the keyring file, if it is newer.
    pub keyring_generation: Option<u64>,
    /// Whether this is its end.
    pub is_end: bool,
}

/// The rotations of a database.
pub struct Rotations<'c> {
    control: &'c mut dyn Control,
}

impl<'c> Rotations<'c> {
    /// Those behind this connection.
    pub fn of(control: &'c mut dyn Control) -> Self {
        Self { control }
    }

    /// Opens a rotation; `None` when one of that keyset is open already. The tables must exist.
    pub async fn begin(&mut self, new: &NewRotation) -> Result<Option<RotationRecord>, StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "INSERT INTO {table} (id, keyset, from_key, to_key, mode, policy, direction, phase, generation, owner, keyring_generation, \
             follows, history, started_at, updated_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9, ?10, ?11, {entry}, {now}, {now}) \
             ON CONFLICT DO NOTHING RETURNING {columns}",
            table = dialect.rotations,
            entry = entry("?8", dialect),
            now = dialect.now,
            columns = columns(dialect),
        );
        let values = [
            Field::text(&new.id),
            Field::text(&new.keyset),
            Field::count(new.from_key.into()),
            Field::count(new.to_key.into()),
            Field::text(&new.mode),
            Field::Text(new.policy.clone()),
            Field::text(&new.direction),
            Field::text(&new.phase),
            Field::text(&new.owner),
            Field::count(new.keyring_generation),
            Field::Text(new.follows.clone()),
        ];
        self.one(&statement, &values).await
    }

    /// The open rotation of a keyset. Writes nothing.
    pub async fn open(&mut self, keyset: &str) -> Result<Option<RotationRecord>, StoreError> {
        let rotations = self
            .select("WHERE keyset = ?1 AND finished_at IS NULL", &[Field::text(keyset)])
            .await?;
        Ok(rotations.into_iter().next())
    }

    /// All rotations, newest first. Writes nothing.
    pub async fn list(&mut self) -> Result<Vec<RotationRecord>, StoreError> {
        self.select("", &[]).await
    }

    /// The rotation that ended last of those of a keyset. Writes nothing.
    pub async fn latest_finished(&mut self, keyset: &str) -> Result<Option<RotationRecord>, StoreError> {
        let rotations = self
            .select("WHERE keyset = ?1 AND finished_at IS NOT NULL", &[Field::text(keyset)])
            .await?;
        Ok(rotations
            .into_iter()
            .max_by(|one, other| one.finished_at.cmp(&other.finished_at)))
    }

    /// Takes a rotation over: from now on only changes with the new generation succeed.
    pub async fn claim(&mut self, id: &str, owner: &str) -> Result<RotationRecord, StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "UPDATE {} SET generation = generation + 1, owner = ?2, updated_at = {} WHERE id = ?1 AND finished_at IS NULL RETURNING {}",
            dialect.rotations,
            dialect.now,
            columns(dialect)
        );
        let claimed = self.one(&statement, &[Field::text(id), Field::text(owner)]).await?;
        claimed.ok_or(StoreError::Superseded)
    }

    /// Changes a rotation, if nobody has claimed it since.
    pub async fn change(&mut self, record: &RotationRecord, change: &Change<'_>) -> Result<RotationRecord, StoreError> {
        let dialect = self.control.dialect();
        let statement = format!(
            "UPDATE {table} SET phase = coalesce(?3, phase), direction = coalesce(?4, direction), mode = coalesce(?5, mode), \
             policy = coalesce(?6, policy), \
             keyring_generation = CASE WHEN ?7 > keyring_generation THEN ?7 ELSE keyring_generation END, \
             history = CASE WHEN ?3 IS NULL THEN history ELSE history || {entry} END, \
             updated_at = {now}, finished_at = CASE WHEN ?8 = 1 THEN {now} ELSE finished_at END \
             WHERE id = ?1 AND generation = ?2 AND finished_at IS NULL RETURNING {columns}",
            table = dialect.rotations,
            entry = entry("?3", dialect),
            now = dialect.now,
            columns = columns(dialect),
        );
        let optional = |text: Option<&str>| Field::Text(text.map(str::to_owned));
        let values = [
            Field::text(&record.id),
            Field::Int(Some(record.generation)),
            optional(change.phase),
            optional(change.direction),
            optional(change.mode),
            optional(change.policy),
            Field::count(change.keyring_generation.unwrap_or(0)),
            Field::Int(Some(i64::from(change.is_end))),
        ];
        let changed = self.one(&statement, &values).await?;
        changed.ok_or(StoreError::Superseded)
    }

    async fn one(&mut self, statement: &str, values: &[Field]) -> Result<Option<RotationRecord>, StoreError> {
        let statement = said(statement, self.control.dialect());
        let rows = self.control.ledger(&statement, values).await?;
        rows.into_iter().next().map(read).transpose()
    }

    async fn select(&mut self, condition: &str, values: &[Field]) -> Result<Vec<RotationRecord>, StoreError> {
        if self
            .control
            .version()
            .await?
            .is_none_or(|version| version < super::super::control::LEDGER_SINCE)
        {
            return Ok(Vec::new());
        }
        let dialect = self.control.dialect();
        let statement = format!(
            "SELECT {} FROM {} {condition} ORDER BY started_at DESC, id",
            columns(dialect),
            dialect.rotations
        );
        let rows = self.control.ledger(&said(&statement, dialect), values).await?;
        rows.into_iter().map(read).collect()
    }
}

/// A line of the history: the phase, a space, the time.
fn entry(phase: &str, dialect: &Dialect) -> String {
    format!("({phase} || ' ' || {} || '\n')", (dialect.text)(dialect.now))
}

fn columns(dialect: &Dialect) -> String {
    let text = dialect.text;
    format!(
        "id, keyset, from_key, to_key, mode, policy, direction, phase, generation, owner, keyring_generation, follows, history, {}, {}, {}",
        text("started_at"),
        text("updated_at"),
        text("finished_at")
    )
}

fn read(row: Row) -> Result<RotationRecord, StoreError> {
    let mut fields = Fields::of(row);
    Ok(RotationRecord {
        id: fields.text()?,
        keyset: fields.text()?,
        from_key: fields.number()?,
        to_key: fields.number()?,
        mode: fields.text()?,
        policy: fields.optional_text()?,
        direction: fields.text()?,
        phase: fields.text()?,
        generation: fields.number()?,
        owner: fields.text()?,
        keyring_generation: fields.number()?,
        follows: fields.optional_text()?,
        history: fields
            .text()?
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(phase, at)| (phase.to_owned(), at.to_owned()))
            .collect(),
        started_at: fields.text()?,
        updated_at: fields.text()?,
        finished_at: fields.optional_text()?,
    })
}
