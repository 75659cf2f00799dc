//! PostgreSQL's errors in the store's terms, by SQLSTATE (PostgreSQL documentation, appendix A).

use sqlx::postgres::PgDatabaseError;

use crate::store::error::without_content;
use crate::store::{RetryClass, StoreError};

/// Maps an error of a statement. Detail, hint and context are dropped: they may quote rows.
pub fn store_error(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(ref database) => match database.try_downcast_ref::<PgDatabaseError>() {
            // The table was altered since. A new connection prepares its statements anew.
            Some(server) if server.routine() == Some(STALE_STATEMENT) => {
                StoreError::Disconnected(without_content(server.message()))
            }
            Some(server) => by_sqlstate(server.code(), without_content(server.message())),
            None => StoreError::Disconnected("unrecognised server error".to_owned()),
        },
        sqlx::Error::Io(cause) => StoreError::Disconnected(cause.kind().to_string()),
        sqlx::Error::Tls(_) => StoreError::Disconnected("TLS failure".to_owned()),
        sqlx::Error::Protocol(text) => StoreError::Disconnected(without_content(&text)),
        sqlx::Error::WorkerCrashed | sqlx::Error::PoolClosed | sqlx::Error::PoolTimedOut => {
            StoreError::Disconnected("connection closed".to_owned())
        }
        other => StoreError::Statement {
            code: "client".to_owned(),
            message: without_content(&other.to_string()),
        },
    }
}

fn by_sqlstate(code: &str, message: String) -> StoreError {
    let owned = code.to_owned();
    let retry = |class| StoreError::Retry {
        class,
        code: owned.clone(),
        message: message.clone(),
    };
    match code {
        "40001" | "40P01" => retry(RetryClass::Conflict),
        "55P03" => retry(RetryClass::LockTimeout),
        "57014" => retry(RetryClass::StatementTimeout),
        "25006" => StoreError::ReadOnly(message),
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => StoreError::Disconnected(message),
        "42501" => StoreError::Refused(format!("permission denied by the database: {message}")),
        "42P01" => StoreError::Vanished(message),
        "42703" | "42704" | "3F000" => {
            StoreError::Refused(format!("the table changed while it was being worked on: {message}"))
        }
        "53100" | "53200" | "58030" | "53400" => StoreError::Storage { code: owned, message },
        _ if code.starts_with("08") => StoreError::Disconnected(message),
        _ if code.starts_with("28") || code.starts_with("3D") => StoreError::Refused(message),
        _ if ABOUT_A_ROW.iter().any(|class| code.starts_with(class)) => StoreError::Row {
            message: if code.starts_with("23") {
                message
            } else {
                WITHHELD.to_owned()
            },
            code: owned,
        },
        _ => StoreError::Statement { code: owned, message },
    }
}

/// Where the server finds that a prepared statement would give rows of other types than it has promised (SQLSTATE 0A000, which says too
/// little).
const STALE_STATEMENT: &str = "RevalidateCachedQuery";

/// Classes that speak of the data of a row: data exceptions, constraints, WITH CHECK OPTION, triggered actions, RAISE in a function.
const ABOUT_A_ROW: [&str; 5] = ["22", "23", "44", "09", "P0"];

/// The text of a data exception quotes the datum, and what a trigger raises is anybody's text.
const WITHHELD: &str = "its message is not repeated: it may quote the row";
