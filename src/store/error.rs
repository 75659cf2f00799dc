//! What can go wrong at a database, sorted by what the caller can do about it.
//!
//! Server messages may quote row content (`DETAIL: Key (email)=(…)`): only the code and the primary message without literals leave
//! this module (B62).

/// An error of a store. What is durable is said at each method of the traits in [`super`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Deadlock, serialization failure, lock or statement timeout, busy: the transaction rolled back; try again.
    #[error("the database asked to try again ({code}: {message})")]
    Retry {
        /// What happened, coarsely.
        class: RetryClass,
        /// SQLSTATE or the SQLite result code.
        code: String,
        /// The server's message, without row content.
        message: String,
    },
    /// The connection is gone. A transaction that was being committed may or may not have happened.
    #[error("the connection to the database was lost ({0})")]
    Disconnected(String),
    /// The database cannot be reached, or refuses this user.
    #[error("cannot connect to {database}: {message}")]
    Unreachable {
        /// The database, without credentials.
        database: String,
        /// Why.
        message: String,
    },
    /// It is told wrongly: a password, a user, a database or a file that does not exist. Waiting does not help.
    #[error("cannot use {database}: {message}")]
    Unusable {
        /// The database, without credentials.
        database: String,
        /// Why.
        message: String,
    },
    /// The URL names no kind of database that is known here.
    #[error("the database URL has an unknown scheme")]
    UnknownScheme,
    /// This worker's range or plan was taken over. Nothing of its batch was written.
    #[error("this range was taken over by another run; nothing of the batch was written")]
    Superseded,
    /// Somebody holds the dataset.
    #[error("{holder} is rotating this table")]
    Held {
        /// Who, as they named themselves.
        holder: String,
    },
    /// The server is read-only: a replica, or a failover happened.
    #[error("the database is read-only ({0})")]
    ReadOnly(String),
    /// Connections do not keep their sessions: settings, prepared statements and locks would be lost between two statements.
    #[error("this is a pooler that gives each transaction another session ({0})")]
    Pooled(String),
    /// Another server answers than before: a cluster of the same name, or a former primary that still takes writes.
    #[error("this is not the server that the run began with ({0}); nothing was written to it")]
    OtherServer(String),
    /// The database is older than this run's own writes to it: restored from a backup, or a copy that lagged behind.
    #[error(
        "this database is older than what this run has written to it ({0}): it was restored from a backup meanwhile, or a copy that lagged behind took its place"
    )]
    Restored(String),
    /// An answer that no sound server gives: more than was asked for, or counts that cannot be.
    #[error("the server's answer cannot be true ({0})")]
    Implausible(String),
    /// A table is not there any more: dropped, or a partition that was detached and dropped.
    #[error("a table is not there any more ({0})")]
    Vanished(String),
    /// The table, a column or a permission is missing or changed, or the data cannot be what was asked.
    #[error("{0}")]
    Refused(String),
    /// The state that Reseal keeps in the database was written by a newer version, or is damaged.
    #[error("{0}")]
    State(String),
    /// The disk or the database is full or failing.
    #[error("the database could not write ({code}: {message})")]
    Storage {
        /// SQLSTATE or the SQLite result code.
        code: String,
        /// The server's message, without row content.
        message: String,
    },
    /// A constraint, a trigger or a type refused the new value of some row. The transaction rolled back; the other rows are not to
    /// blame.
    #[error("the database refused a row ({code}: {message})")]
    Row {
        /// SQLSTATE or the SQLite result code.
        code: String,
        /// The server's message, without row content.
        message: String,
    },
    /// Any other statement failure.
    #[error("the database refused a statement ({code}: {message})")]
    Statement {
        /// SQLSTATE or the SQLite result code.
        code: String,
        /// The server's message, without row content.
        message: String,
    },
    /// The rewriter stopped the batch.
    #[error("stopped by the rewriter")]
    Rewriter,
}

/// Why the database asked for another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// Another transaction holds a row or the file.
    LockTimeout,
    /// Deadlock or serialization failure.
    Conflict,
    /// The statement took longer than it may.
    StatementTimeout,
}

impl StoreError {
    /// Whether the same work may be tried again on this connection.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }

    /// Whether a new connection may succeed where this one failed.
    pub fn wants_reconnect(&self) -> bool {
        // A server that turned read-only is being failed over: its successor answers under the same name.
        matches!(self, Self::Disconnected(_) | Self::Unreachable { .. } | Self::ReadOnly(_))
    }
}

/// A server's message without what may be row content: quoted and parenthesised literals are cut out, length is capped, control
/// characters are replaced.
pub fn without_content(message: &str) -> String {
    let mut out = String::new();
    let mut inside: Option<char> = None;
    for c in message.chars().take(MESSAGE_CHARS_MAX) {
        match inside {
            Some(end) if c == end => {
                inside = None;
                out.push(c);
            }
            Some(_) => {}
            None => {
                out.push(if c.is_control() { ' ' } else { c });
                inside = match c {
                    '\'' => Some('\''),
                    '(' => Some(')'),
                    _ => None,
                };
                if inside.is_some() {
                    out.push('…');
                }
            }
        }
    }
    out
}

const MESSAGE_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_cut_out_of_server_messages() {
        let text = without_content("Key (email)=(ada@example.org) already exists, 'ada' \u{1b}[31m");
        assert!(!text.contains("ada"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("already exists"), "{text}");
    }
}
