//! Why a rotation ended early, in terms of what the operator can do.

use super::preflight::Finding;
use super::progress::Stop;
use super::recipe::RecipeError;
use super::rewriter::Refusal;
use crate::format::RandomFailed;
use crate::key::Exhausted;
use crate::store::StoreError;
use crate::store::value::Key;

/// The end of a rotation, a plan or a verification that did not run through. Everything committed before it stays committed: every
/// value is readable under the old or the new key, and the same command continues.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Preflight found reasons not to start. Nothing was touched.
    #[error("refused before the first write")]
    Refused(Vec<Finding>),
    /// Keys and formats do not make a rotation. Nothing was touched.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The database failed.
    #[error("{step}: {cause}")]
    Store {
        /// In which step.
        step: &'static str,
        /// What happened.
        #[source]
        cause: StoreError,
    },
    /// Stopped on request, after a whole batch.
    #[error("stopped on request")]
    Stopped,
    /// Ended by an operator's request, or because it had waited for too long; after a whole batch.
    #[error("{0}")]
    Ended(String),
    /// A value that was just sealed did not read back; its batch was not written.
    #[error(
        "column {column}, row {key}: a value that was just sealed did not open to what was sealed; its batch was not written"
    )]
    ReadBack {
        /// The column.
        column: String,
        /// The row.
        key: String,
    },
    /// An unreadable value under `--on-unreadable stop`; its batch was not written.
    #[error("column {column}, row {key}: {reason}; its batch was not written")]
    Unreadable {
        /// The column.
        column: String,
        /// The row.
        key: String,
        /// Why.
        reason: String,
    },
    /// Two rows have the same key: an index that should make it unique is damaged, and what follows it may pass rows over.
    #[error(
        "two rows of {relation} have the key {key}: the index that should make it unique is damaged, and rows may have been passed over"
    )]
    Twins {
        /// The physical table.
        relation: String,
        /// The key.
        key: String,
    },
    /// The target key has sealed as many values as it may; the batch at hand was not written.
    #[error("{0}; the batch at hand was not written")]
    Exhausted(Exhausted),
    /// The operating system's random generator failed.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// A task of ours died.
    #[error("a worker ended unexpectedly")]
    WorkerDied,
}

impl RotationError {
    /// An error of the database in a step.
    pub fn store(step: &'static str) -> impl Fn(StoreError) -> Self {
        move |cause| Self::Store { step, cause }
    }

    /// A key as people write it.
    pub fn key(key: &Key) -> String {
        key.cells().map(|cell| cell.to_text()).collect::<Vec<_>>().join(", ")
    }

    /// The same; a stop with its reason, where it has one.
    pub(super) fn or_ended(self, stop: &Stop) -> Self {
        match (self, stop.why()) {
            (Self::Stopped, Some(why)) => Self::Ended(why),
            (error, _) => error,
        }
    }

    /// What the rewriter refused.
    pub fn refusal(refusal: Option<Refusal>, columns: &[String]) -> Self {
        match refusal {
            Some(Refusal::ReadBack { column, key }) => Self::ReadBack { column, key },
            Some(Refusal::Unreadable(entry)) => Self::Unreadable {
                column: columns.get(entry.column).cloned().unwrap_or_default(),
                key: Self::key(&entry.key),
                reason: entry.reason,
            },
            Some(Refusal::Exhausted(exhausted)) => Self::Exhausted(exhausted),
            None => Self::WorkerDied,
        }
    }
}
