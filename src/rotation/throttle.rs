//! Why batches wait: the gate that workers pass before each batch.
//!
//! Workers read an atomic or two. Whoever measures, or hears what operators ask, sits beside them. Several reasons may hold at once, and
//! each is shown; time that is spent waiting is counted for its reason and is nobody's stall.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::profile::Profile;
use super::progress::{Progress, Stop};

/// Why the gate is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A replica is further behind than it may be.
    ReplicaLag,
    /// It is not known how far a replica is behind.
    ReplicaUnknown,
    /// A replica has not replayed the last values that were moved, and the old key is to be taken from readers.
    ReplicaReplay,
    /// An operator has asked to wait.
    Paused,
    /// A transaction of the application has been open since before the run, and may have written values under the old key.
    OpenTransactions,
}

/// What operators ask of a rotation that is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Begin no batch: who asked and since when, for people.
    pub paused: Option<String>,
    /// Rewrite no more rows in a second than this.
    pub rows_per_second: Option<u64>,
    /// Go about it in this way.
    pub profile: Option<Profile>,
}

/// The gate that workers pass before each batch.
#[derive(Debug, Default)]
pub struct Throttle {
    /// A bit for each [`Reason`] that holds; without any the gate is open.
    closed: AtomicU8,
    changed: tokio::sync::Notify,
    waiting: AtomicU64,
    waited_ms: [AtomicU64; Reason::ALL.len()],
    why: Mutex<[String; Reason::ALL.len()]>,
    /// Rows a second; 0 for as many as there are.
    rows_per_second: AtomicU64,
    /// When the rows that were rewritten so far are paid for.
    paid_at: Mutex<Option<Instant>>,
    orders: Mutex<BTreeMap<String, Orders>>,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ReplicaLag,
        Self::ReplicaUnknown,
        Self::ReplicaReplay,
        Self::Paused,
        Self::OpenTransactions,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplicaLag => "replica-lag",
            Self::ReplicaUnknown => "replica-unknown",
            Self::ReplicaReplay => "replica-replay",
            Self::Paused => "paused",
            Self::OpenTransactions => "open-transactions",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Throttle {
    /// Waits while the gate is closed, and until the rows of earlier batches are paid for; unless asked to stop. Cancel safe.
    pub async fn pass(&self, stop: &Stop) {
        loop {
            self.pass_unless(u8::MAX, stop).await;
            let Some(wait) = self.unpaid().filter(|_| !stop.requested()) else {
                return;
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.sleep(wait.min(LOOK_AGAIN)) => {}
            }
        }
    }

    /// The same for what only reads: replicas do not replay it, and it costs no rows. Cancel safe.
    pub async fn pass_reading(&self, stop: &Stop) {
        self.pass_unless(Reason::Paused.bit(), stop).await;
    }

    async fn pass_unless(&self, reasons: u8, stop: &Stop) {
        let is_closed = || self.closed.load(Ordering::Acquire) & reasons != 0;
        if !is_closed() {
            return;
        }
        let _waiting = Waiting::new(&self.waiting);
        while is_closed() && !stop.requested() {
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Rows were rewritten: they are paid for with time, where rows a second are limited.
    pub fn wrote(&self, rows: u64) {
        let limit = self.rows_per_second.load(Ordering::Relaxed);
        if limit > 0 {
            let now = Instant::now();
            let mut paid_at = lock(&self.paid_at);
            let from = paid_at.map_or(now, |paid_at| paid_at.max(now));
            *paid_at = from.checked_add(Duration::from_secs_f64(rows as f64 / limit as f64));
        }
    }

    fn unpaid(&self) -> Option<Duration> {
        if self.rows_per_second.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let paid_at = *lock(&self.paid_at);
        paid_at
            .map(|at| at.saturating_duration_since(Instant::now()))
            .filter(|wait| !wait.is_zero())
    }

    /// At most so many rows in a batch: what a second may have.
    pub fn batch_rows_max(&self) -> usize {
        match self.rows_per_second.load(Ordering::Relaxed) {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }

    /// The profile that operators have asked for.
    pub fn profile(&self) -> Option<Profile> {
        lock(&self.orders).values().find_map(|orders| orders.profile)
    }

    /// Why the gate is closed: each reason that holds, with what was measured, for people.
    pub fn closed(&self) -> Vec<(Reason, String)> {
        let closed = self.closed.load(Ordering::Acquire);
        let why = lock(&self.why);
        let holding = Reason::ALL.into_iter().filter(|reason| closed & reason.bit() != 0);
        holding.map(|reason| (reason, why[reason as usize].clone())).collect()
    }

    /// Rows a second, where they are limited.
    pub fn rows_per_second(&self) -> Option<u64> {
        Some(self.rows_per_second.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// For how long batches have waited for each reason.
    pub fn waited(&self) -> [(Reason, Duration); Reason::ALL.len()] {
        Reason::ALL.map(|reason| {
            let waited = self.waited_ms[reason as usize].load(Ordering::Relaxed);
            (reason, Duration::from_millis(waited))
        })
    }

    /// What is asked in one place; nothing any more, when that place is left. Of several limits the lowest holds, and whoever pauses
    /// pauses all.
    pub(super) fn heed(&self, whose: &str, asked: Orders) {
        let (paused, limit) = {
            let mut orders = lock(&self.orders);
            orders.insert(whose.to_owned(), asked);
            orders.retain(|_, orders| *orders != Orders::default());
            let paused: Vec<String> = orders.values().filter_map(|orders| orders.paused.clone()).collect();
            (paused, orders.values().filter_map(|orders| orders.rows_per_second).min())
        };
        if self.rows_per_second.swap(limit.unwrap_or(0), Ordering::AcqRel) != limit.unwrap_or(0) {
            // What was owed under another limit is forgiven: it may have been hours.
            *lock(&self.paid_at) = None;
            self.changed.notify_waiters();
        }
        self.set(Reason::Paused, (!paused.is_empty()).then(|| paused.join("; ")));
    }

    /// A reason holds, for what was measured, or holds no more.
    pub(super) fn set(&self, reason: Reason, why: Option<String>) {
        let holds = why.is_some();
        lock(&self.why)[reason as usize] = why.unwrap_or_default();
        if holds {
            self.closed.fetch_or(reason.bit(), Ordering::AcqRel);
        } else if self.closed.fetch_and(!reason.bit(), Ordering::AcqRel) & reason.bit() != 0 {
            self.changed.notify_waiters();
        }
    }

    /// Time went by while this reason held, if it did. It counts while somebody waits.
    pub(super) fn spend(&self, reason: Reason, time: Duration) {
        if self.holds(reason) && self.waiting.load(Ordering::Relaxed) > 0 {
            self.count(reason, time);
        }
    }

    /// For whoever waits beside the batches, from now on.
    pub(super) fn hold(&self, reason: Reason) -> Hold<'_> {
        Hold {
            throttle: self,
            reason,
            begun: Instant::now(),
        }
    }

    /// Somebody has waited for this reason.
    fn count(&self, reason: Reason, time: Duration) {
        let waited = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Progress::add(&self.waited_ms[reason as usize], waited);
    }

    /// Whether this reason holds.
    fn holds(&self, reason: Reason) -> bool {
        self.closed.load(Ordering::Acquire) & reason.bit() != 0
    }
}

/// Shows that a run waits for a reason, for as long as this lives, and counts the time; if there ever was one.
pub(super) struct Hold<'t> {
    throttle: &'t Throttle,
    reason: Reason,
    begun: Instant,
}

impl Hold<'_> {
    /// What is waited for, for people.
    pub(super) fn why(&self, why: String) {
        self.throttle.set(self.reason, Some(why));
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.throttle.holds(self.reason) {
            self.throttle.count(self.reason, self.begun.elapsed());
        }
        self.throttle.set(self.reason, None);
    }
}

/// One worker that waits, also when its future is dropped.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker that missed a change of the gate looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_gate_holds_until_it_opens_or_the_run_is_to_stop() {
        let (throttle, stop) = (Throttle::default(), Stop::default());
        throttle.pass(&stop).await;
        throttle.set(Reason::ReplicaLag, Some("because".to_owned()));
        assert_eq!(throttle.closed(), [(Reason::ReplicaLag, "because".to_owned())]);
        throttle.spend(Reason::ReplicaLag, Duration::from_secs(1));
        // What only reads is no burden to a replica.
        throttle.pass_reading(&stop).await;
        let open = async {
            while throttle.waiting.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            throttle.set(Reason::ReplicaUnknown, Some(String::new()));
            throttle.set(Reason::ReplicaLag, None);
            throttle.spend(Reason::ReplicaLag, Duration::from_secs(4));
            throttle.spend(Reason::ReplicaUnknown, Duration::from_secs(2));
            throttle.set(Reason::ReplicaUnknown, None);
        };
        tokio::join!(throttle.pass(&stop), open);
        assert_eq!(throttle.closed(), []);
        assert_eq!(
            throttle.waited().map(|(_, time)| time.as_secs()),
            [0, 2, 0, 0, 0],
            "only time in which somebody waited for that reason counts"
        );
        throttle.set(Reason::ReplicaUnknown, Some(String::new()));
        stop.request();
        throttle.pass(&stop).await;
    }

    #[tokio::test]
    async fn whoever_pauses_pauses_all_and_the_lowest_limit_holds() {
        let (throttle, stop) = (Throttle::default(), Stop::default());
        let asked = |paused: Option<&str>, rows| Orders {
            paused: paused.map(str::to_owned),
            rows_per_second: rows,
            profile: None,
        };
        throttle.heed("one", asked(Some("by ada"), Some(700)));
        throttle.heed("other", asked(None, Some(70)));
        assert_eq!(throttle.rows_per_second(), Some(70));
        assert_eq!(throttle.batch_rows_max(), 70);
        assert_eq!(throttle.closed(), [(Reason::Paused, "by ada".to_owned())]);
        throttle.heed("other", asked(None, None));
        assert_eq!(throttle.rows_per_second(), Some(700));
        throttle.heed("one", Orders::default());
        assert_eq!((throttle.closed(), throttle.rows_per_second()), (Vec::new(), None));
        throttle.pass(&stop).await;
    }

    #[tokio::test]
    async fn rows_are_paid_for_with_time() {
        let (throttle, stop) = (Throttle::default(), Stop::default());
        throttle.wrote(1 << 40);
        assert_eq!(throttle.unpaid(), None, "without a limit nothing is owed");
        throttle.heed(
            "one",
            Orders {
                rows_per_second: Some(10),
                ..Orders::default()
            },
        );
        throttle.wrote(100);
        throttle.wrote(100);
        let owed = throttle.unpaid().unwrap_or_default();
        assert!(owed > Duration::from_secs(15) && owed <= Duration::from_secs(20), "{owed:?}");
        stop.request();
        throttle.pass(&stop).await;
        throttle.heed(
            "one",
            Orders {
                rows_per_second: Some(1_000_000),
                ..Orders::default()
            },
        );
        assert_eq!(throttle.unpaid(), None, "what was owed under another limit is forgiven");
    }
}
