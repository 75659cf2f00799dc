//! Why an operation of the application failed.

use serde::{Deserialize, Serialize};

use super::model::Deviation;
use crate::app::{OpenError, SealError};

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Failure {
    /// It saw what the model does not allow.
    Deviates(Deviation),
    /// The instance did not have the key.
    UnknownKey(u32),
    /// The instance was no longer, or not yet, given the key.
    Withheld(u32, String),
    /// The value did not open, or could not be sealed, for another reason.
    Unopened(String),
    /// The row to be changed was not there.
    RowGone,
    /// The database refused, or stayed away.
    Database(String),
}

impl Failure {
    /// For a sentence: "reads met that …".
    pub fn describe(&self) -> String {
        match self {
            Self::Deviates(deviation) => format!("rows {}", deviation.describe()),
            Self::UnknownKey(id) => format!("a value under key {id}, which the instance did not have"),
            Self::Withheld(id, standing) => format!("a value under key {id}, which is {standing}"),
            Self::Unopened(why) => format!("a value that did not open: {why}"),
            Self::RowGone => "the row to be changed was not there".to_owned(),
            Self::Database(why) => format!("the database refused: {why}"),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::UnknownKey { id, .. } => Self::UnknownKey(id.0),
            OpenError::Withheld { id, standing, .. } => Self::Withheld(id.0, standing.to_owned()),
            other => Self::Unopened(other.to_string()),
        }
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Self::Unopened(error.to_string())
    }
}
