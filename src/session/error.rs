//! What can go wrong while sessions are ended. Never a key, a session or a credential.

/// Why sessions were not ended, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The URL is no URL of a store.
    #[error("the URL is not a redis:// or rediss:// URL")]
    Url,
    /// The server cannot be reached, or its certificate is not accepted.
    #[error("cannot connect to {place}: {why}")]
    Unreachable {
        /// The server without credentials.
        place: String,
        /// What happened.
        why: String,
    },
    /// The server does not accept the credentials.
    #[error("{place} refuses the user or password")]
    Credentials {
        /// The server without credentials.
        place: String,
    },
    /// The user lacks a permission.
    #[error("{place} does not allow this user to {what}")]
    Permission {
        /// The server without credentials.
        place: String,
        /// What it does not allow.
        what: String,
    },
    /// A replica.
    #[error("{place} is read-only: connect to the primary")]
    ReadOnly {
        /// The server without credentials.
        place: String,
    },
    /// Sessions wander between nodes while they are counted.
    #[error("slots of the cluster are moving between nodes; sessions on the way may have been missed")]
    Moving,
    /// What was asked for cannot be done with this store. Nothing was touched.
    #[error("{0}")]
    Refused(String),
    /// The file of marks cannot be read, locked or replaced.
    #[error("the file of not-before marks is unusable")]
    File(#[source] crate::secret::FileFault),
    /// The file of marks holds something else.
    #[error("the file of not-before marks cannot be used: {0}")]
    Marks(crate::session::MarksFault),
    /// A database said no.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The server answered something else.
    #[error("{place} failed ({code})")]
    Server {
        /// The server without credentials.
        place: String,
        /// The server's error code.
        code: String,
    },
}
