//! Replica lag as a reason to wait: readings, the gauge that decides from them, and who takes them beside the workers.
//!
//! A signal that goes blind is no good news: after a while it closes the gate as a bad one does.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RotationError;
use super::preflight::{Finding, refused_as};
use super::progress::{Progress, Stop};
use super::retry::{Before, before_the_first_write};
use super::throttle::Reason;
use crate::store::replicas::{Lag, Replica, ReplicaWatch};
use crate::store::{Store, StoreError};

/// Decides from readings. A pure function of them and their times, so that recorded ones can test it.
#[derive(Debug)]
pub struct LagGauge {
    limit: Duration,
    closed: Option<Reason>,
    calm_since: Option<Instant>,
    blind_since: Option<Instant>,
    /// Whether it was known at all so far: a blink is forgiven only to a signal that has been seen.
    has_seen: bool,
}

impl LagGauge {
    /// Lag beyond this closes the gate.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            closed: None,
            calm_since: None,
            blind_since: None,
            has_seen: false,
        }
    }

    /// A reading: the largest lag, or `None` when it is not known. Returns whether the gate is to be closed from now on.
    pub fn observe(&mut self, now: Instant, lag: Option<Duration>) -> Option<Reason> {
        self.has_seen |= lag.is_some();
        match lag {
            None => {
                self.calm_since = None;
                let since = *self.blind_since.get_or_insert(now);
                if !self.has_seen || now.duration_since(since) >= BLIND_MAX {
                    self.closed = Some(Reason::ReplicaUnknown);
                }
            }
            Some(lag) if lag > self.limit => {
                (self.calm_since, self.blind_since) = (None, None);
                self.closed = Some(Reason::ReplicaLag);
            }
            Some(_) => {
                self.blind_since = None;
                let since = *self.calm_since.get_or_insert(now);
                if now.duration_since(since) >= CALM_MIN {
                    self.closed = None;
                }
            }
        }
        self.closed
    }
}

/// Measures replica lag beside the workers.
pub(super) struct LagCollector {
    watch: Box<dyn ReplicaWatch>,
    gauge: LagGauge,
    progress: Arc<Progress>,
    stop: Arc<Stop>,
    every: Duration,
    closed_since: Option<Instant>,
}

impl LagCollector {
    /// One that has not looked yet, if lag can be measured here and this user may see it. Touches nothing.
    pub(super) async fn ready(
        store: &dyn Store,
        limit: Duration,
        progress: &Arc<Progress>,
        stop: &Arc<Stop>,
    ) -> Result<Self, RotationError> {
        Ok(Self {
            watch: visible(store).await?,
            gauge: LagGauge::new(limit),
            progress: Arc::clone(progress),
            stop: Arc::clone(stop),
            closed_since: None,
            every: (limit / 4).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX),
        })
    }

    /// Looks again and again, until it is dropped.
    pub(super) async fn run(mut self) -> std::convert::Infallible {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(self.every).await;
            let since = std::mem::replace(&mut last, Instant::now()).elapsed();
            for reason in REASONS {
                self.progress.throttle.spend(reason, since);
            }
            self.look().await;
            if self.closed_since.is_some_and(|since| since.elapsed() >= CLOSED_MAX) {
                self.stop.end(format!(
                    "replicas have kept batches waiting for {} h",
                    CLOSED_MAX.as_secs() / 3600
                ));
            }
        }
    }

    /// Looks once: before the first batch, too.
    pub(super) async fn look(&mut self) {
        let seen = self.watch.look().await;
        let limit = self.gauge.limit;
        let closed = self.gauge.observe(Instant::now(), worst(&seen, limit));
        // First what holds now: between two reasons the gate does not open.
        if let Some(reason) = closed {
            let why = Why {
                reason,
                seen: &seen,
                limit,
            };
            self.progress.throttle.set(reason, Some(why.to_string()));
        }
        for reason in REASONS.into_iter().filter(|reason| closed != Some(*reason)) {
            self.progress.throttle.set(reason, None);
        }
        self.closed_since = closed.and(self.closed_since.or_else(|| Some(Instant::now())));
    }
}

/// What one table waited for is no reason for the next one.
impl Drop for LagCollector {
    fn drop(&mut self) {
        for reason in REASONS {
            self.progress.throttle.set(reason, None);
        }
    }
}

/// What watches the replicas of a database; refused where lag cannot be measured, or is hidden from this user. Touches nothing.
pub(super) async fn visible(store: &dyn Store) -> Result<Box<dyn ReplicaWatch>, RotationError> {
    let visible = before_the_first_write(store, Before::Answered, || async {
        let mut watch = store.replicas()?;
        let forbidden = watch.forbidden().await?;
        Ok((watch, forbidden))
    });
    match visible
        .await
        .map_err(refused_as("replica-lag", "run without --max-replica-lag"))?
    {
        (watch, None) => Ok(watch),
        (_, Some(grant)) => {
            let what = "the server does not tell this user how far replicas are behind: --max-replica-lag could not be kept";
            let advice = format!("let an administrator run: {grant}; or run without --max-replica-lag");
            let finding = Finding::refusal("replica-lag", what.to_owned(), &advice);
            Err(RotationError::Refused(vec![finding]))
        }
    }
}

/// The largest lag; `None` when that of a replica is not known, unless another one is beyond the limit for certain. Without replicas there
/// is none.
fn worst(seen: &Result<Vec<Replica>, StoreError>, limit: Duration) -> Option<Duration> {
    let replicas = seen.as_ref().ok()?;
    let known = replicas.iter().filter_map(|replica| replica.lag.known());
    let largest = known.clone().max().unwrap_or_default();
    (largest > limit || known.count() == replicas.len()).then_some(largest)
}

/// What was measured, for people.
struct Why<'a> {
    reason: Reason,
    seen: &'a Result<Vec<Replica>, StoreError>,
    limit: Duration,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replicas = match self.seen {
            Ok(replicas) => replicas,
            Err(error) => return write!(f, "replica lag cannot be measured: {error}"),
        };
        let late = replicas
            .iter()
            .filter_map(|replica| Some((&replica.name, replica.lag.known()?)));
        if let Some((name, lag)) = late.max_by_key(|(_, lag)| *lag)
            && lag > self.limit
        {
            let (lag, limit) = (lag.as_secs_f64(), self.limit.as_secs_f64());
            return write!(
                f,
                "replica {} lags {lag:.1} s, the limit is {limit:.1} s",
                name.escape_debug()
            );
        }
        match replicas.iter().find(|replica| replica.lag.known().is_none()) {
            Some(Replica { lag: Lag::Hidden, .. }) => {
                f.write_str("the lag of a replica is not known: this user may not see it any more (GRANT pg_monitor)")
            }
            Some(away) => write!(
                f,
                "the lag of replica {} is not known: it followed and does not, or has not said yet where it is",
                away.name.escape_debug()
            ),
            None => write!(
                f,
                "{}: until it has been calm for {} s",
                self.reason.name(),
                CALM_MIN.as_secs()
            ),
        }
    }
}

/// Lag must have been below the limit for this long before batches go on: less, and they would come in bursts.
const CALM_MIN: Duration = Duration::from_secs(3);
/// A measurement may fail for this long. Longer, and a replica may be falling behind unseen.
const BLIND_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY_MIN: Duration = Duration::from_millis(100);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
/// A day is time enough for a person to mend a replica, or to run without this limit.
const CLOSED_MAX: Duration = Duration::from_secs(24 * 3600);

const REASONS: [Reason; 2] = [Reason::ReplicaLag, Reason::ReplicaUnknown];

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// The gate after each reading, one a second: the lag in milliseconds, or a negative number for none.
    fn gate(readings: &[i64]) -> String {
        let begun = Instant::now();
        let mut gauge = LagGauge::new(LIMIT);
        readings
            .iter()
            .zip(0..)
            .map(|(lag, second)| {
                let lag = u64::try_from(*lag).ok().map(Duration::from_millis);
                match gauge.observe(begun + Duration::from_secs(second), lag) {
                    None => '.',
                    Some(Reason::ReplicaLag) => 'L',
                    Some(Reason::ReplicaUnknown) => '?',
                    Some(other) => unreachable!("{other:?} is not decided here"),
                }
            })
            .collect()
    }

    #[test]
    fn lag_closes_at_once_and_only_calm_opens() {
        assert_eq!(gate(&[0, 2000, 2001, 100, 100, 100, 100, 100]), "..LLLL..");
        assert_eq!(
            gate(&[3000, 100, 100, 3000, 100, 100, 100, 100]),
            "LLLLLLL.",
            "a relapse begins anew"
        );
    }

    #[test]
    fn a_signal_that_is_blind_for_long_closes_and_a_short_blink_does_not() {
        assert_eq!(gate(&[vec![0], vec![-1; 14], vec![0]].concat()), ".".repeat(16));
        assert_eq!(
            gate(&[vec![0], vec![-1; 17], vec![0; 4]].concat()),
            format!("{}{}{}", ".".repeat(16), "??", "???.")
        );
        assert_eq!(gate(&[3000, -1, -1, 100, 100, 100, 100]), "LLLLLL.", "blindness is not calm");
        assert_eq!(
            gate(&[-1, 0, 0, 0, 0]),
            "????.",
            "what was never seen is not forgiven a blink"
        );
    }

    #[test]
    fn one_replica_of_which_nothing_is_known_makes_the_whole_unknown() {
        let replica = |lag: Option<u64>| Replica {
            name: "r".to_owned(),
            lag: lag.map_or(Lag::Away, |lag| Lag::Is(Duration::from_millis(lag))),
        };
        let seen = |lags: &[Option<u64>]| Ok(lags.iter().copied().map(replica).collect());
        let worst = |seen| worst(&seen, LIMIT).map(|lag| lag.as_millis());
        assert_eq!(worst(seen(&[])), Some(0));
        assert_eq!(worst(seen(&[Some(1), Some(7), Some(3)])), Some(7));
        assert_eq!(worst(seen(&[Some(1), None])), None);
        assert_eq!(
            worst(seen(&[Some(2001), None])),
            Some(2001),
            "what is known to be bad needs no more"
        );
        assert_eq!(worst(Err(StoreError::Superseded)), None);
    }
}
