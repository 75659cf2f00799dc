//! Patience with a database: what is tried again, how often, and how long a server may be away.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::error::RotationError;
use crate::store::{RetryClass, Store, StoreError};

/// What to do after an error of the store.
#[derive(Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The transaction rolled back: wait, then the same work again.
    Again {
        /// How long to wait.
        wait: Duration,
        /// Why it failed.
        class: RetryClass,
    },
    /// The connection is gone: wait, connect again, and find out what was committed.
    Reconnect {
        /// How long to wait.
        wait: Duration,
    },
    /// Give up.
    GiveUp,
}

/// Counts attempts at one piece of work. A success starts anew.
#[derive(Debug)]
pub struct Patience {
    attempts: u32,
    away_since: Option<Instant>,
    away_max: Duration,
}

impl Patience {
    /// A server may be away for `away_max` in one go.
    pub fn new(away_max: Duration) -> Self {
        Self {
            attempts: 0,
            away_since: None,
            away_max,
        }
    }

    /// The work succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
        self.away_since = None;
    }

    /// What to do after `error`.
    pub fn after(&mut self, error: &StoreError) -> Remedy {
        self.attempts += 1;
        match error {
            StoreError::Retry { class, .. } if self.attempts <= TRANSIENT_ATTEMPTS_MAX => Remedy::Again {
                wait: jittered(TRANSIENT_WAIT, TRANSIENT_WAIT_MAX, self.attempts),
                class: *class,
            },
            error if error.wants_reconnect() => {
                let since = *self.away_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.away_max {
                    return Remedy::GiveUp;
                }
                Remedy::Reconnect {
                    wait: jittered(RECONNECT_WAIT, RECONNECT_WAIT_MAX, self.attempts),
                }
            }
            _ => Remedy::GiveUp,
        }
    }
}

/// Whether a server has answered yet, before the first write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nobody has heard of it: a wrong name is told at once.
    Unheard,
    /// It answered a moment ago: if it is away now, it comes back.
    Answered,
}

/// Makes an attempt that writes no value again while the connection is lost in passing, or somebody holds what it needs.
pub async fn before_the_first_write<T, F>(
    store: &dyn Store,
    before: Before,
    attempt: impl FnMut() -> F,
) -> Result<T, RotationError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    patiently(store, before, attempt)
        .await
        .map_err(RotationError::store("preflight"))
}

/// The same, for those whose failures have another name.
pub async fn patiently<T, F>(store: &dyn Store, before: Before, mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    again(before, || answered(store, ANSWERS_AN_ATTEMPT, attempt())).await
}

/// The same for attempts of any length, each of whose answers is waited for no longer than it may take.
pub async fn again<T, F>(before: Before, mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut early = Early::new(before);
    loop {
        match attempt().await {
            Ok(result) => return Ok(result),
            Err(error) => early.pause_after(error).await?,
        }
    }
}

/// Patience before the first write.
pub struct Early {
    patience: Patience,
    has_answered: bool,
}

impl Early {
    /// Nothing was attempted yet.
    pub fn new(before: Before) -> Self {
        Self {
            patience: Patience::new(PREFLIGHT_AWAY_MAX),
            has_answered: before == Before::Answered,
        }
    }

    /// Pauses before the next attempt, or gives up with the error.
    pub async fn pause_after(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.has_answered |= matches!(error, StoreError::Disconnected(_));
        let passes = match error {
            StoreError::Disconnected(_) | StoreError::Retry { .. } => true,
            StoreError::Unreachable { .. } => self.has_answered,
            // A server that takes no writes is a finding, and everything else does not mend by itself.
            _ => false,
        };
        match self.patience.after(&error) {
            Remedy::Again { wait, .. } | Remedy::Reconnect { wait } if passes => {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(wait).await;
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// Waits for so many answers of the store as long as they may take. A connection that swallows requests without closing (a firewall
/// that forgot it, a machine without power) is as lost as one that closed.
pub async fn answered<T>(
    store: &dyn Store,
    answers: u32,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let Some(answer_max) = store.answer_max() else {
        return work.await;
    };
    let wait = answer_max.saturating_mul(answers);
    let answer = tokio::time::timeout(wait, work).await;
    answer.unwrap_or_else(|_| Err(StoreError::Disconnected(format!("no answer within {} s", wait.as_secs()))))
}

/// Doubles with each attempt up to `most`, and then takes a random half of it away, so that workers do not come back in step.
fn jittered(first: Duration, most: Duration, attempt: u32) -> Duration {
    let full = first.saturating_mul(1 << attempt.min(16).saturating_sub(1)).min(most);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Deadlocks, lock and statement timeouts of one batch. With [`TRANSIENT_WAIT_MAX`] about 20 s in all.
const TRANSIENT_ATTEMPTS_MAX: u32 = 10;
const TRANSIENT_WAIT: Duration = Duration::from_millis(50);
const TRANSIENT_WAIT_MAX: Duration = Duration::from_secs(5);
/// What is attempted as a whole is a handful of statements; thousands of ranges are written one by one.
pub const ANSWERS_AN_ATTEMPT: u32 = 5;
/// A restart or a failover takes seconds; somebody waits at the terminal.
const PREFLIGHT_AWAY_MAX: Duration = Duration::from_secs(30);
const RECONNECT_WAIT: Duration = Duration::from_millis(200);
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn locked() -> StoreError {
        StoreError::Retry {
            class: RetryClass::LockTimeout,
            code: "55P03".to_owned(),
            message: String::new(),
        }
    }

    #[test]
    fn transient_errors_are_bounded_and_a_success_starts_anew() {
        let mut patience = Patience::new(Duration::from_secs(1));
        for _ in 0..TRANSIENT_ATTEMPTS_MAX {
            assert!(matches!(patience.after(&locked()), Remedy::Again { .. }));
        }
        assert_eq!(patience.after(&locked()), Remedy::GiveUp);
        patience.reset();
        assert!(matches!(patience.after(&locked()), Remedy::Again { .. }));
    }

    #[test]
    fn a_server_that_stays_away_is_given_up() {
        let mut patience = Patience::new(Duration::ZERO);
        assert_eq!(patience.after(&StoreError::Disconnected(String::new())), Remedy::GiveUp);
        let mut patience = Patience::new(Duration::from_secs(3600));
        assert!(matches!(
            patience.after(&StoreError::Disconnected(String::new())),
            Remedy::Reconnect { .. }
        ));
    }

    #[test]
    fn what_no_retry_can_mend_is_not_retried() {
        let mut patience = Patience::new(Duration::from_secs(3600));
        assert_eq!(patience.after(&StoreError::Superseded), Remedy::GiveUp);
        assert_eq!(patience.after(&StoreError::Refused(String::new())), Remedy::GiveUp);
    }
}
