//! Late values: found under an old key after the ranges were worked through, when every writer was to have switched.
//!
//! In a scheduled rotation they are re-encrypted and reported: a writer still seals with the old key. After a compromise they may have
//! been forged by whoever holds it: they are quarantined as they are, never given the new key's seal. What a sweep finds because this
//! run itself left it there — the row was lost to a faster writer again and again, or the database refuses its new value — is not late.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::census::{Census, LISTED_MAX};
use super::isolate::Withheld;
use crate::store::control::{LateValues, StoredLate, StoredQuarantine};
use crate::store::page::{Late, Page, Quarantined};
use crate::store::value::Key;

/// What becomes of a late value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatePolicy {
    /// The rotation is scheduled: it is re-encrypted and reported.
    Report,
    /// The old key is compromised: it is quarantined and reported.
    Quarantine,
}

/// Tells late values from those that this run left behind.
#[derive(Clone)]
pub struct LateWatch {
    policy: LatePolicy,
    left: Arc<LeftBehind>,
    withheld: Arc<Withheld>,
}

impl LateWatch {
    /// For sweeps under this policy.
    pub fn new(policy: LatePolicy, left: Arc<LeftBehind>, withheld: Arc<Withheld>) -> Self {
        Self { policy, left, withheld }
    }

    /// What becomes of late values.
    pub fn policy(&self) -> LatePolicy {
        self.policy
    }

    /// The value as a late one, unless this run explains it.
    pub fn late(&self, page: &Page, row: usize, column: usize) -> Option<Late> {
        let late = Late {
            key: page.owned_key(row),
            column,
        };
        (!self.left.holds(&late) && !self.withheld.holds(&late.key, column)).then_some(late)
    }
}

/// Values that this run left under the old key in the ranges, so that a sweep that finds them accuses nobody.
#[derive(Debug, Default)]
pub struct LeftBehind(Mutex<HashSet<(Vec<u8>, usize)>>);

impl LeftBehind {
    /// Remembers what was still due where a lost race could not be made good.
    pub fn add(&self, census: &Census) {
        let due = census.due_values.iter().map(|(_, value)| name(&value.key, value.column));
        self.lock().extend(due);
    }

    /// Values that an earlier run quarantined: mended since, they are not news.
    pub fn add_quarantined(&self, quarantined: &[StoredQuarantine]) {
        self.lock()
            .extend(quarantined.iter().map(|stored| name(&stored.entry.key, stored.entry.column)));
    }

    /// After a sweep only what it still found there is explained.
    pub fn keep_what_is_still_due(&self, census: &Census) {
        let due = census.due_values.iter().map(|(_, value)| name(&value.key, value.column));
        let due: HashSet<_> = due.collect();
        self.lock().retain(|value| due.contains(value));
    }

    /// After a leak nothing is explained, lest a forgery passes for it.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn holds(&self, value: &Late) -> bool {
        let left = self.lock();
        !left.is_empty() && left.contains(&name(&value.key, value.column))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(Vec<u8>, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(key: &Key, column: usize) -> (Vec<u8>, usize) {
    (key.as_bytes().to_vec(), column)
}

/// What this run has seen of late values, after the batches that met them were committed.
#[derive(Debug, Default)]
pub struct LateLog(Mutex<Seen>);

/// Relation, key and column.
type Place = (String, Vec<u8>, usize);

#[derive(Debug, Default)]
struct Seen {
    /// With the time at which a sweep that met them ended, where no control table has their own.
    values: BTreeMap<Place, (Late, Option<String>)>,
    forged: Vec<(String, Quarantined)>,
}

impl LateLog {
    /// A batch in `relation` was committed that met these, and quarantined those.
    pub fn add(&self, relation: &str, late: &[Late], quarantined: &[Quarantined]) {
        if late.is_empty() {
            return;
        }
        let mut seen = self.lock();
        for value in late {
            let (key, column) = name(&value.key, value.column);
            let place = (relation.to_owned(), key, column);
            let is_new = seen.values.len() < LISTED_MAX && !seen.values.contains_key(&place);
            if is_new {
                seen.values.insert(place, (value.clone(), None));
                let entry = quarantined
                    .iter()
                    .find(|entry| entry.key == value.key && entry.column == value.column);
                seen.forged.extend(entry.map(|entry| (relation.to_owned(), entry.clone())));
            }
        }
    }

    /// Whether some have no time yet.
    pub fn wants_time(&self) -> bool {
        self.lock().values.values().any(|(_, time)| time.is_none())
    }

    /// A sweep ended at this time.
    pub fn seen_by(&self, now: &str) {
        for (_, time) in self.lock().values.values_mut() {
            time.get_or_insert_with(|| now.to_owned());
        }
    }

    /// Those that were quarantined, by relation.
    pub fn forged(&self) -> Vec<(String, Quarantined)> {
        self.lock().forged.clone()
    }

    /// Everything, for a run that keeps no state.
    pub fn values(&self) -> LateValues {
        let values: Vec<StoredLate> = self
            .lock()
            .values
            .iter()
            .map(|((relation, ..), (value, time))| StoredLate {
                relation: relation.clone(),
                value: value.clone(),
                seen_at: time.clone().unwrap_or_default(),
                last_seen_at: time.clone().unwrap_or_default(),
            })
            .collect();
        LateValues {
            total: values.len() as u64,
            values,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
