//! The transactions that re-encrypted this run's ranges, so that sweeps need not read again what this run has just written: every value of
//! it was opened and compared before it was sent, and any later change of a row bears another transaction.
//!
//! This spares work and proves nothing: the verification reads everything all the same, and what it finds goes back to the sweeps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::survey::Observation;

/// What is known of this run's own transactions.
#[derive(Debug)]
pub struct OwnWrites(Mutex<Own>);

#[derive(Debug, Default)]
struct Own {
    /// By range, the halves that rows bear.
    ranges: BTreeMap<i64, Vec<u32>>,
    oldest: Option<u64>,
    known: usize,
    /// A trigger makes something else of rows, or a server was away: one that has lost its last commits gives their numbers to others.
    doubtful: bool,
}

impl OwnWrites {
    /// Nothing yet, and nothing ever where a trigger may change what is written, or other rows.
    pub fn of(table: &[Observation]) -> Self {
        let doubtful = table
            .iter()
            .any(|observation| matches!(observation, Observation::UpdateTrigger(_)));
        Self(Mutex::new(Own {
            doubtful,
            ..Own::default()
        }))
    }

    /// A range was worked on by these transactions, which recognised each row by its version.
    pub fn add(&self, range: i64, transactions: &[u64]) {
        let mut own = self.lock();
        if own.doubtful || transactions.is_empty() || own.known + transactions.len() > KNOWN_MAX {
            return;
        }
        own.known += transactions.len();
        own.oldest = own.oldest.iter().chain(transactions).min().copied();
        let lower_halves = transactions.iter().map(|transaction| *transaction as u32);
        own.ranges.entry(range).or_default().extend(lower_halves);
    }

    /// A connection was lost, and with it perhaps the server: nothing is known from here on.
    pub fn doubt(&self) {
        *self.lock() = Own {
            doubtful: true,
            ..Own::default()
        };
    }

    /// The transactions of each range, as long as rows can tell at the transaction `now` that they bear them.
    pub fn by_range(&self, now: u64) -> BTreeMap<i64, Arc<[u32]>> {
        let own = self.lock();
        let told = own.oldest.is_some_and(|oldest| now.abs_diff(oldest) <= PASSED_MAX);
        let ranges = own.ranges.iter().filter(|_| told);
        ranges
            .map(|(range, transactions)| (*range, Arc::from(&**transactions)))
            .collect()
    }

    /// Whether what bears their numbers may be something else.
    pub fn is_doubtful(&self) -> bool {
        self.lock().doubtful
    }

    fn lock(&self) -> MutexGuard<'_, Own> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mebibyte of them, a billion rows in batches of the usual size. What is written beyond is read again.
const KNOWN_MAX: usize = 1 << 18;
/// Their numbers come round after four times as many.
const PASSED_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn known(own: &OwnWrites, now: u64) -> Vec<(i64, Vec<u32>)> {
        own.by_range(now)
            .iter()
            .map(|(range, transactions)| (*range, transactions.to_vec()))
            .collect()
    }

    #[test]
    fn transactions_are_known_by_range_and_by_what_rows_bear_of_them() {
        let own = OwnWrites::of(&[]);
        own.add(3, &[(7 << 32) + 1, (7 << 32) + 5]);
        own.add(4, &[(7 << 32) + 3]);
        own.add(3, &[(7 << 32) + 9]);
        assert_eq!(known(&own, (7 << 32) + 10), [(3, vec![1, 5, 9]), (4, vec![3])]);
        assert_eq!(known(&own, (7 << 32) + 1 + PASSED_MAX).len(), 2);
        assert_eq!(
            known(&own, (7 << 32) + 2 + PASSED_MAX),
            [],
            "their numbers may be others' by now"
        );
    }

    #[test]
    fn where_a_trigger_fires_nothing_is_learnt() {
        let own = OwnWrites::of(&[Observation::Leaves(2), Observation::UpdateTrigger("looks".to_owned())]);
        own.add(1, &[10]);
        assert!(own.is_doubtful());
        assert_eq!(known(&own, 12), []);
    }

    #[test]
    fn after_a_lost_connection_nothing_is_known_and_nothing_is_learnt() {
        let own = OwnWrites::of(&[]);
        own.add(1, &[10]);
        own.doubt();
        assert!(own.is_doubtful());
        own.add(1, &[11]);
        assert_eq!(known(&own, 12), []);
    }

    #[test]
    fn memory_has_an_end() {
        let own = OwnWrites::of(&[]);
        let batch: Vec<u64> = (1..=1_000).collect();
        for range in 0..1_000 {
            own.add(range, &batch);
        }
        let all: usize = known(&own, 1_000).iter().map(|(_, transactions)| transactions.len()).sum();
        assert!(all > KNOWN_MAX - 1_000 && all <= KNOWN_MAX, "{all}");
    }
}
