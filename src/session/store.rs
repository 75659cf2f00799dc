//! A store of sessions, whatever it is: what a rotation asks of it.

use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::mark::MARK_LOCK_WAIT;
use super::{
    CutOff, DecidedBy, Ended, EndingOptions, KnownSessions, MarkOptions, MarkPlace, MarkScope, RedisLayout, RedisServer,
    SETTLE, SessionError, TableLayout, end_redis_sessions, end_table_sessions, raise_mark, redis, sql,
};

/// Where sessions are, and how they are laid out. Holds the credentials of the store; `Debug` is not derived.
pub enum SessionStore {
    /// Redis or Valkey.
    Redis {
        /// The server.
        server: Box<RedisServer>,
        /// Which keys.
        layout: RedisLayout,
    },
    /// A table.
    Table {
        /// `sqlite:PATH` or `postgres://…`.
        url: Zeroizing<String>,
        /// Which table.
        layout: TableLayout,
    },
    /// Tokens, which are stored nowhere.
    Tokens {
        /// Where their marks are kept.
        place: MarkPlace,
        /// How far clocks of issuers may be ahead.
        clock_skew: Duration,
        /// How long tokens live at most.
        token_lifetime: Option<Duration>,
    },
}

impl SessionStore {
    /// Asks whether the store can be reached and used. Changes nothing, reads no session.
    pub async fn check(&self, now: fn() -> Timestamp) -> Result<(), SessionError> {
        match self {
            Self::Redis { server, layout } => redis::check(server, layout).await,
            Self::Table { url, layout } => sql::check(url, layout).await,
            Self::Tokens { place, clock_skew, .. } => {
                let marking = MarkOptions {
                    dry_run: true,
                    ..marking(*clock_skew)
                };
                raise_mark(place, &marking, now).await.map(drop)
            }
        }
    }

    /// How many sessions there are; tokens cannot be counted. Changes nothing.
    pub async fn count(&self, now: fn() -> Timestamp) -> Result<Option<u64>, SessionError> {
        let options = EndingOptions {
            dry_run: true,
            ..EndingOptions::of_everybody(SETTLE)
        };
        match self {
            Self::Redis { server, layout } => Ok(Some(end_redis_sessions(server, layout, &options).await?.matched)),
            Self::Table { url, layout } => Ok(Some(end_table_sessions(url, layout, &options).await?.matched)),
            Self::Tokens { .. } => self.check(now).await.map(|()| None),
        }
    }

    /// Takes a cut-off: what exists now is what is ended later, by [`end`](Self::end). Ends nothing. The salt is used for nothing else.
    pub async fn cut(&self, salt: &str, now: fn() -> Timestamp) -> Result<CutOff, SessionError> {
        match self {
            Self::Redis { server, layout } => redis::cut(server, layout, salt).await,
            Self::Table { url, layout } => sql::cut(url, layout, salt).await,
            Self::Tokens { place, clock_skew, .. } => {
                let marking = MarkOptions {
                    dry_run: true,
                    ..marking(*clock_skew)
                };
                let marked = raise_mark(place, &marking, now).await?;
                Ok(CutOff {
                    at: Timestamp::from_second(marked.not_before).unwrap_or(Timestamp::MAX),
                    decided_by: DecidedBy::Mark,
                    sessions: KnownSessions::none(salt),
                })
            }
        }
    }

    /// Ends what was there at the cut-off, and counts what is left of it. What was created since stays, however much later this is
    /// called. Stopped anywhere, the same call continues.
    pub async fn end(&self, cut_off: &CutOff, now: fn() -> Timestamp) -> Result<Ended, SessionError> {
        match self {
            Self::Redis { server, layout } => redis::end_known(server, layout, cut_off).await,
            Self::Table { url, layout } => sql::end_known(url, layout, cut_off).await,
            Self::Tokens {
                place,
                clock_skew,
                token_lifetime,
            } => {
                let marking = MarkOptions {
                    at: Some(cut_off.at),
                    token_lifetime: *token_lifetime,
                    ..marking(*clock_skew)
                };
                raise_mark(place, &marking, now).await?;
                Ok(Ended::new(cut_off.at, DecidedBy::Mark))
            }
        }
    }
}

/// The mark of everybody.
fn marking(clock_skew: Duration) -> MarkOptions {
    MarkOptions {
        scope: MarkScope::All,
        at: None,
        clock_skew,
        dry_run: false,
        lock_wait: MARK_LOCK_WAIT,
        token_lifetime: None,
    }
}
