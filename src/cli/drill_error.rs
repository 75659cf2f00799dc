//! Errors of a drill in the four parts that an operator needs, and their exit codes.

use super::{CliError, Exit};
use crate::drill::{DrillError, TableError};

impl From<DrillError> for CliError {
    fn from(error: DrillError) -> Self {
        match error {
            DrillError::Cancelled => Self::from_error(Exit::Incomplete, &error).durable("nothing was left behind"),
            DrillError::Stage(_) | DrillError::Private(_) => Self::from_error(Exit::Unusable, &error)
                .next("see that the folder for temporary files (TMPDIR) can be written and has room"),
            DrillError::NoRoom { .. } => Self::from_error(Exit::Unusable, &error)
                .next("make room there, or name another folder in the environment: TMPDIR=FOLDER"),
            DrillError::Planned(_) => Self::from_error(Exit::Refused, &error)
                .touched_nothing()
                .next("see reseal plan with the same configuration"),
            DrillError::Unfinished(ref keyset, _) => Self::from_error(Exit::Refused, &error).touched_nothing().next(format!(
                "bring it to its end with the same configuration: reseal rotate {keyset}, or reseal rotate {keyset} --rollback; then rehearse"
            )),
            DrillError::Staging(_) => {
                Self::from_error(Exit::Unusable, &error).next("see reseal plan and reseal status with the same configuration")
            }
            DrillError::State(_) => Self::from_error(Exit::Unusable, &error),
            DrillError::NothingToCut => {
                Self::from_error(Exit::Usage, &error).next("leave cut out of --faults: kill,pause,replace,lag")
            }
            DrillError::Table(TableError::Lost(_)) => {
                Self::from_error(Exit::Unreachable, &error).next("see that --database can be reached")
            }
            DrillError::Logins(TableError::Lost(_)) => {
                Self::from_error(Exit::Unreachable, &error).next("see that --sessions can be reached")
            }
            DrillError::Table(TableError::Unusable(_)) => {
                Self::from_error(Exit::Unusable, &error).next("check the URL, user and password of --database")
            }
            DrillError::Logins(TableError::Refused(_) | TableError::Unusable(_)) => {
                Self::from_error(Exit::Unusable, &error).next("see that --sessions may be written, or leave it out")
            }
            DrillError::Table(TableError::Refused(_)) => Self::from_error(Exit::Unusable, &error)
                .next("the database user must be able to create a schema: GRANT CREATE ON DATABASE … TO …"),
            _ => Self::from_error(Exit::Bug, &error),
        }
    }
}
