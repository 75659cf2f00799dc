//! What can go wrong while sessions are ended. Never a key, a session or a credential.

use crate::store::StoreError;

/// Why sessions were not ended, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The URL is no URL of a store.
    #[error("the URL is not a redis:// or rediss:// URL")]
    Url,
    /// The reference to the URL leads nowhere.
    #[error("{0}")]
    Reference(String),
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
    /// Sessions came back however often they were ended.
    #[error("{0} sessions are left although they should be gone: something writes them again and again")]
    Left(u64),
    /// The file of marks cannot be read, locked or replaced.
    #[error("the file of not-before marks is unusable")]
    File(#[source] crate::secret::FileFault),
    /// The file of marks holds something else.
    #[error("the file of not-before marks cannot be used: {0}")]
    Marks(crate::session::MarksFault),
    /// A database said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server answered something else.
    #[error("{place} failed ({code})")]
    Server {
        /// The server without credentials.
        place: String,
        /// The server's error code.
        code: String,
    },
}

impl SessionError {
    /// Whether it may go away by itself: a server that is restarted, a failover, slots that move.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::ReadOnly { .. } | Self::Moving => true,
            Self::Store(cause) => cause.is_retryable() || cause.wants_reconnect(),
            Self::Server { code, .. } => matches!(code.as_str(), "LOADING" | "CLUSTERDOWN" | "MASTERDOWN" | "BUSY"),
            Self::Url
            | Self::Reference(_)
            | Self::Credentials { .. }
            | Self::Permission { .. }
            | Self::Refused(_)
            | Self::Left(_)
            | Self::File(_)
            | Self::Marks(_) => false,
        }
    }
}
