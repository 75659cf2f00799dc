//! Patience with a database: what is tried again, how often, and how long a server may be away.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::store::{RetryClass, StoreError};

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

/// Doubles with each attempt up to `most`, and then takes a random half of it away, so that workers do not come back in step.
fn jittered(first: Duration, most: Duration, attempt: u32) -> Duration {
    let full = first.saturating_mul(1 << attempt.min(16).saturating_sub(1)).min(most);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Deadlocks, lock and statement timeouts of one batch. With [`TRANSIENT_WAIT_MAX`] about 20 s in all.
const TRANSIENT_ATTEMPTS_MAX: u32 = 10;
const TRANSIENT_WAIT: Duration = Duration::from_millis(50);
const TRANSIENT_WAIT_MAX: Duration = Duration::from_secs(5);
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
