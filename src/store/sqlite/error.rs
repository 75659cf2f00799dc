//! SQLite's result codes, sorted by what the caller can do about them.

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::error::{RetryClass, StoreError, without_content};

/// What a failed call of SQLite means here.
pub(crate) fn from_sqlite(error: Error) -> StoreError {
    let (cause, message) = match error {
        Error::SqliteFailure(cause, message) => (cause, message.unwrap_or_else(|| cause.to_string())),
        // Without `sql`: it may hold the operator's row condition.
        Error::SqlInputError { error, msg, .. } => (error, msg),
        other => {
            return StoreError::Statement {
                code: "client".to_owned(),
                message: without_content(&other.to_string()),
            };
        }
    };
    let code = format!("SQLITE {}", cause.extended_code);
    let message = without_content(&message);
    match cause.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Retry {
            class: RetryClass::LockTimeout,
            code,
            message,
        },
        ErrorCode::DiskFull | ErrorCode::SystemIoFailure => StoreError::Storage { code, message },
        // What a trigger raises is anybody's text, and may quote the row.
        ErrorCode::ConstraintViolation if cause.extended_code == ffi::SQLITE_CONSTRAINT_TRIGGER => StoreError::Row {
            code,
            message: "raised by a trigger".to_owned(),
        },
        ErrorCode::ConstraintViolation => StoreError::Row { code, message },
        ErrorCode::ReadOnly if cause.extended_code == ffi::SQLITE_READONLY_DBMOVED => {
            StoreError::Refused("the database file was moved or replaced while it was open".to_owned())
        }
        ErrorCode::ReadOnly => StoreError::ReadOnly(message),
        ErrorCode::DatabaseCorrupt => StoreError::Refused(format!(
            "the database file is damaged ({message}): run PRAGMA integrity_check, restore or recover it first"
        )),
        ErrorCode::NotADatabase => {
            StoreError::Refused("the file is not an SQLite database, or it is encrypted as a whole".to_owned())
        }
        ErrorCode::CannotOpen => StoreError::Unreachable {
            database: "sqlite".to_owned(),
            message,
        },
        // SQLite has no code of its own for these; the text is the documented way to tell them apart.
        _ if message.starts_with("no such") => StoreError::Refused(format!(
            "the table is not what it was, or needs what only the application has ({message})"
        )),
        _ => StoreError::Statement { code, message },
    }
}

/// Whether a value or a row was larger than the limit that was set on the connection.
pub(super) fn is_too_big(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::TooBig)
}
