//! Guards: the database itself refuses new values under an old key, while rows that still hold one may be updated in other columns.
//!
//! A guard stands from the moment at which every writer has switched until the rotation is verified. Then the database is asked for
//! its own proof that no such value is left, and the guard goes. It is found again by its name, whoever put it up and however that
//! run ended. Nothing of it scans the table before the proof, and no statement of it waits for a lock for long: whoever queued behind
//! it would wait as long.

use async_trait::async_trait;

use super::StoreError;
use super::survey::Survey;

/// What a guard refuses.
#[derive(Debug, Clone)]
pub struct GuardSpec {
    /// The rotation's id: a part of the guard's name.
    pub plan: String,
    /// For each encrypted column that is guarded.
    pub columns: Vec<GuardedColumn>,
}

/// A guarded column.
#[derive(Debug, Clone)]
pub struct GuardedColumn {
    /// Which of the survey's encrypted columns.
    pub column: usize,
    /// The keys whose values are refused, as their ids are written; found again in [`Guard::refuses`].
    pub keys: Vec<String>,
    /// Values that begin with one of these are refused.
    pub beginnings: Vec<Vec<u8>>,
    /// What the refused writer is told. Says nothing of the value.
    pub message: String,
    /// What its operator can do.
    pub hint: String,
}

/// A guard that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The oid of the table.
    pub table_id: u32,
    /// The table, for people.
    pub table: String,
    /// The rotation's id.
    pub plan: String,
    /// The keys whose values it refuses.
    pub refuses: Vec<String>,
    /// Whether the database is looking for, or has found, its proof.
    pub proof: bool,
}

/// Puts guards up and takes them away. Every method may fail with [`StoreError::Retry`] because somebody holds a lock: nothing was
/// changed, and the caller pauses and tries again.
#[async_trait]
pub trait Guards: Send {
    /// Whether this user can guard this table; [`StoreError::Refused`] says why not. Writes nothing.
    async fn require_possible(&mut self, survey: &Survey) -> Result<(), StoreError>;

    /// Puts the guard up, all of it or nothing. A guard that stands is left; the remains of a proof are removed.
    async fn put_up(&mut self, survey: &Survey, spec: &GuardSpec) -> Result<(), StoreError>;

    /// Asks the database for its proof that no value of the table begins as the guard refuses: `false` when there is one.
    async fn prove(&mut self, survey: &Survey, spec: &GuardSpec) -> Result<bool, StoreError>;

    /// Takes away the guard of a plan from a table, with its proof. There may be none.
    async fn take_away(&mut self, table_id: u32, plan: &str) -> Result<(), StoreError>;

    /// All guards of this database.
    async fn list(&mut self) -> Result<Vec<Guard>, StoreError>;
}
