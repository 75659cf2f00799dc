//! "Not before" marks: how tokens end that are stored nowhere. Whoever verifies a token rejects it when it was issued before the mark.
//!
//! A mark is a whole second, as `iat` is (RFC 7519, section 4.1.6), and never moves backwards. It lies behind the moment at which it is
//! set: behind the rest of that second, in which tokens with the same `iat` are still issued, and behind what clocks of issuers may be
//! ahead. Until it has passed, nobody can log in with a token that lives; so whoever sets it waits for it.

mod file;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

pub(crate) use file::FILE_BYTES_MAX as MARK_FILE_BYTES_MAX;
pub use file::{MARK_FILE_SCHEMA, Marks, MarksFault};

use super::redis::RedisServer;
use super::{Selection, SessionError, redis, sql};

/// Whose tokens a mark ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkScope {
    /// Everybody's.
    All,
    /// Those of one tenant.
    Tenant(String),
    /// Those of one user.
    User(String),
}

/// Where marks are kept.
#[derive(Clone)]
pub enum MarkPlace {
    /// A JSON file: see [`Marks`].
    File {
        /// The file.
        path: PathBuf,
    },
    /// A Redis hash with fields `all`, `tenant:NAME` and `user:NAME`, each a number of seconds since 1970.
    Redis {
        /// The server.
        server: Box<RedisServer>,
        /// The key of the hash.
        key: String,
    },
    /// A table with columns `scope` (`all`, `tenant`, `user`), `name` and `not_before`; made when it is not there.
    Table {
        /// `sqlite:PATH` or `postgres://…`.
        url: Zeroizing<String>,
        /// Its name.
        table: String,
    },
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct MarkOptions {
    /// Whose tokens.
    pub scope: MarkScope,
    /// The mark itself, instead of the next second that no token of before can name.
    pub at: Option<Timestamp>,
    /// How far clocks of issuers may be ahead of the store's. As long as verifiers accept tokens from the future.
    pub clock_skew: Duration,
    /// Look, change nothing.
    pub dry_run: bool,
    /// How long another writer of a file is waited for.
    pub lock_wait: Duration,
    /// How long tokens live at most. A mark of a user or tenant that is older ends nothing any more, and is dropped when another mark
    /// is raised; without it marks stay for good, because nobody knows which token is still out.
    pub token_lifetime: Option<Duration>,
}

/// A mark that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// Tokens with an `iat` before it are dead. In seconds since 1970.
    pub not_before: i64,
    /// What it was.
    pub previous: Option<i64>,
    /// The store's clock when it was set.
    pub now: Timestamp,
}

impl MarkScope {
    /// The scope of a selection. A token has one mark for its user and one for its tenant, and none for both at once.
    pub fn of(selection: &Selection) -> Result<Self, SessionError> {
        match (&selection.tenant, &selection.user) {
            (None, None) => Ok(Self::All),
            (Some(tenant), None) => Self::checked(tenant).map(Self::Tenant),
            (None, Some(user)) => Self::checked(user).map(Self::User),
            (Some(_), Some(_)) => Err(SessionError::Refused(
                "tokens have a mark for their tenant and one for their user: name one of them".to_owned(),
            )),
        }
    }

    fn checked(name: &str) -> Result<String, SessionError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(SessionError::Refused(format!(
                "the name of a user or tenant has 1 to {NAME_BYTES_MAX} bytes"
            )));
        }
        Ok(name.to_owned())
    }

    /// `all`, `tenant` or `user`, and the name.
    pub(super) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::All => ("all", ""),
            Self::Tenant(name) => ("tenant", name),
            Self::User(name) => ("user", name),
        }
    }
}

/// Raises a mark on the store's clock, durably, and waits until it has passed. A mark that is higher already stays.
///
/// `now` is this machine's clock: that of a mark in a file. Cancelled while it waits, the mark stands.
pub async fn raise_mark(place: &MarkPlace, options: &MarkOptions, now: impl Fn() -> Timestamp) -> Result<Marked, SessionError> {
    let marked = match place {
        MarkPlace::File { path } => file::raise(path, options, now())?,
        MarkPlace::Redis { server, key } => redis::raise_mark(server, key, options).await?,
        MarkPlace::Table { url, table } => sql::raise_mark(url, table, options).await?,
    };
    if !options.dry_run {
        tokio::time::sleep(marked.until_passed()).await;
    }
    Ok(marked)
}

impl MarkOptions {
    /// The mark that is asked for, on a store whose clock says `now`.
    pub(super) fn wanted(&self, now: Timestamp) -> Result<i64, SessionError> {
        // The rest of this second, and of that up to which a fast clock has come.
        let skew = i64::try_from(self.clock_skew.as_secs()).unwrap_or(i64::MAX);
        let next = now.as_second().saturating_add(1).saturating_add(skew);
        let Some(at) = self.at else { return Ok(next) };
        // A token of the second in which `at` lies may be older than it.
        let at = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
        if at > next {
            return Err(SessionError::Refused(
                "a mark in the future would lock out everybody until then; nothing was changed".to_owned(),
            ));
        }
        Ok(at)
    }

    /// The second up to which a mark ends no token that may still live, by a store whose clock says `now`: whatever was issued before
    /// it has expired, also for a verifier whose clock is behind.
    pub(super) fn spent_until(&self, now: Timestamp) -> Option<i64> {
        let lifetime = self.token_lifetime?.saturating_add(self.clock_skew);
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        Some(now.as_second().saturating_sub(seconds))
    }
}

impl Marked {
    /// How long it takes, from when it was set, until tokens that are issued live again.
    fn until_passed(&self) -> Duration {
        let Ok(mark) = Timestamp::from_second(self.not_before) else {
            return Duration::ZERO;
        };
        let left = Duration::try_from(mark.duration_since(self.now)).unwrap_or_default();
        // Higher only if somebody else set it in a store whose clock was wrong.
        left.min(WAIT_MAX)
    }
}

/// As wide as identities of users get: an e-mail address has 254.
const NAME_BYTES_MAX: usize = 512;

/// The largest clock skew that can be configured, and a second.
const WAIT_MAX: Duration = Duration::from_secs(61);

/// Marks that are dropped at once: what is left goes with the next.
pub(super) const SPENT_DROPPED_MAX: u32 = 10_000;

/// How long another writer of a file of marks is waited for.
pub const MARK_LOCK_WAIT: Duration = Duration::from_secs(10);
