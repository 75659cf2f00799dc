//! The ledger: who reads and seals with which revision of a keyset, which rotations of a keyset there were, what they ended, which run
//! now, and what operators ask of those.
//!
//! It stands beside plans and ranges in the control tables. Its statements are written once, here; a database brings a [`Dialect`] and
//! runs them through [`Control::ledger`](super::Control::ledger). Every statement is a transaction of its own, and every time in it is
//! the database's: leases do not depend on the clock of any machine that reports.

pub mod ending;
pub mod instance;
pub mod request;
pub mod rotation;
pub mod running;

use super::StoreError;

/// How one database spells what databases spell differently.
pub struct Dialect {
    /// The table of instances.
    pub instances: &'static str,
    /// The table of rotations.
    pub rotations: &'static str,
    /// The table of plans, which are not the ledger's own.
    pub plans: &'static str,
    /// The table of what operators ask.
    pub requests: &'static str,
    /// The table of runs under way.
    pub runs: &'static str,
    /// The table of endings of sessions.
    pub endings: &'static str,
    /// The table of what existed at their cut-offs.
    pub snapshots: &'static str,
    /// The present time.
    pub now: &'static str,
    /// A parameter, by its number from 1.
    pub parameter: fn(usize) -> String,
    /// The time that is a number of milliseconds after now, given as an expression.
    pub later: fn(&str) -> String,
    /// A time as RFC 3339 text, in UTC.
    pub text: fn(&str) -> String,
    /// The milliseconds since a time; negative while it lies ahead.
    pub elapsed_ms: fn(&str) -> String,
}

/// A value that goes into a statement or comes out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A number, or NULL.
    Int(Option<i64>),
    /// A text, or NULL.
    Text(Option<String>),
}

/// One row of an answer.
pub type Row = Vec<Field>;

impl Field {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Some(text.into()))
    }

    /// A count. Counts stay far below the end of the range; one beyond it is stored as the end.
    pub fn count(count: u64) -> Self {
        Self::Int(Some(i64::try_from(count).unwrap_or(i64::MAX)))
    }
}

/// Takes the fields of a row one after another.
struct Fields(std::vec::IntoIter<Field>);

impl Fields {
    fn of(row: Row) -> Self {
        Self(row.into_iter())
    }

    fn int(&mut self) -> Result<Option<i64>, StoreError> {
        match self.0.next() {
            Some(Field::Int(number)) => Ok(number),
            // NULL has no type in every database.
            Some(Field::Text(None)) => Ok(None),
            Some(Field::Text(Some(_))) | None => Err(damaged()),
        }
    }

    fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        self.optional_number()?.ok_or_else(damaged)
    }

    fn optional_number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, StoreError> {
        self.int()?
            .map(|number| T::try_from(number).map_err(|_| damaged()))
            .transpose()
    }

    fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.next() {
            Some(Field::Text(text)) => Ok(text),
            Some(Field::Int(None)) => Ok(None),
            Some(Field::Int(Some(_))) | None => Err(damaged()),
        }
    }

    fn text(&mut self) -> Result<String, StoreError> {
        self.optional_text()?.ok_or_else(damaged)
    }
}

fn damaged() -> StoreError {
    StoreError::State(
        "the list of instances, rotations and requests in this database is damaged: a field is not what reseal wrote"
            .to_owned(),
    )
}

/// Writes `?1` as this database's parameter 1, and so on.
fn said(statement: &str, dialect: &Dialect) -> String {
    let mut out = String::with_capacity(statement.len());
    let mut parts = statement.split('?');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        // Statements are constants of this module: every `?` in them has its number behind it.
        out.push_str(&(dialect.parameter)(part[..digits].parse().unwrap_or_default()));
        out.push_str(&part[digits..]);
    }
    out
}
