//! What was written, kept outside the database: an append-only history of every row, and the judgement of what is read.
//!
//! A write takes effect at some moment between its beginning and its acknowledgement, so that a read is right when it equals a
//! version that was possibly the current one at some moment between the read's own beginning and end. Each row has one writer at
//! a time; its versions are therefore in order, and nothing has to be guessed.
//!
//! Knows no database and no clock: moments are numbers that the caller takes from one clock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::customer::Content;

/// A moment, in nanoseconds of the caller's clock.
pub type Moment = u64;

/// The history of every row.
pub struct Model {
    shards: Vec<Mutex<HashMap<i64, Vec<Version>>>>,
}

/// What a row held, or that it was gone, and when that began.
#[derive(Debug, Clone, Copy)]
struct Version {
    content: Option<Content>,
    /// When the write was sent.
    begun: Moment,
    /// When it was known to be committed; [`PENDING`] until then.
    acknowledged: Moment,
}

/// How what was seen differs from everything that was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deviation {
    /// An earlier version: a later write is lost, or the read was stale.
    Stale,
    /// There is no row where one must be.
    Vanished,
    /// There is a row where it was deleted, or never was.
    Resurrected,
    /// Something that nobody ever wrote to this row.
    Wrong,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Model {
    /// A write is about to be sent; `None` deletes the row.
    pub fn begin(&self, id: i64, content: Option<Content>, now: Moment) {
        self.shard(id).entry(id).or_default().push(Version {
            content,
            begun: now,
            acknowledged: PENDING,
        });
    }

    /// The row's last write was acknowledged.
    pub fn acknowledge(&self, id: i64, now: Moment) {
        if let Some(version) = self.shard(id).get_mut(&id).and_then(|versions| versions.last_mut()) {
            version.acknowledged = now;
        }
    }

    /// The row's last write is known not to have happened.
    pub fn revoke(&self, id: i64) {
        if let Some(versions) = self.shard(id).get_mut(&id) {
            versions.pop_if(|version| version.acknowledged == PENDING);
        }
    }

    /// Judges what a read that lasted from `begun` to `ended` saw; `None` is no row.
    pub fn judge(&self, id: i64, seen: Option<Content>, begun: Moment, ended: Moment) -> Result<(), Deviation> {
        let shard = self.shard(id);
        let versions = shard.get(&id).map_or(&[][..], Vec::as_slice);
        // Before its first version a row is not there.
        let birth = versions.first().map_or(PENDING, |first| first.acknowledged);
        let mut allowed = vec![];
        if begun <= birth {
            allowed.push(None);
        }
        for (at, version) in versions.iter().enumerate() {
            let replaced = versions.get(at + 1).map_or(PENDING, |next| next.acknowledged);
            if version.begun <= ended && begun <= replaced {
                allowed.push(version.content);
            }
        }
        if allowed.contains(&seen) {
            return Ok(());
        }
        let was_written = versions.iter().any(|version| version.content == seen);
        Err(match seen {
            None => Deviation::Vanished,
            Some(_) if allowed.iter().all(Option::is_none) && (was_written || versions.is_empty()) => Deviation::Resurrected,
            Some(_) if was_written => Deviation::Stale,
            Some(_) => Deviation::Wrong,
        })
    }

    /// Every row that was ever written.
    pub fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = Vec::new();
        for shard in &self.shards {
            ids.extend(locked(shard).keys());
        }
        ids.sort_unstable();
        ids
    }

    fn shard(&self, id: i64) -> MutexGuard<'_, HashMap<i64, Vec<Version>>> {
        let shard = usize::try_from(id.rem_euclid(SHARDS)).unwrap_or(0);
        locked(&self.shards[shard])
    }
}

impl Deviation {
    /// For a sentence: "rows that …".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Stale => "showed an older version than was current",
            Self::Vanished => "were missing",
            Self::Resurrected => "were there though deleted, or never written",
            Self::Wrong => "held what nobody wrote to them",
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // One push or one assignment at a time: a panic leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A write that is not acknowledged may take effect at any later moment.
const PENDING: Moment = Moment::MAX;

/// Readers and writers of different rows rarely meet.
const SHARDS: i64 = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::ChaCha20Rng;

    use super::super::customer::Customer;
    use super::*;

    /// Three contents, each another.
    fn contents() -> [Content; 3] {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        [(); 3].map(|()| Customer::invent(&mut rng).content())
    }

    /// Row 7 holds `first` since 10, and `second` since some moment from 20 to 30.
    fn replaced([first, second, _]: [Content; 3]) -> Model {
        let model = Model::default();
        model.begin(7, Some(first), 10);
        model.acknowledge(7, 10);
        model.begin(7, Some(second), 20);
        model.acknowledge(7, 30);
        model
    }

    #[test]
    fn during_a_write_both_versions_are_right_and_afterwards_only_the_new_one() {
        let all @ [first, second, _] = contents();
        let model = replaced(all);
        for (content, begun, ended) in [
            (first, 12, 15),
            (first, 21, 22),
            (second, 21, 22),
            (first, 30, 90),
            (second, 15, 20),
            (second, 31, 40),
        ] {
            assert_eq!(model.judge(7, Some(content), begun, ended), Ok(()), "{begun} to {ended}");
        }
    }

    #[test]
    fn a_stale_read_is_seen() {
        let all @ [first, second, _] = contents();
        let model = replaced(all);
        assert_eq!(model.judge(7, Some(first), 31, 40), Err(Deviation::Stale));
        assert_eq!(model.judge(7, Some(second), 12, 19), Err(Deviation::Stale), "from the future");
    }

    #[test]
    fn a_lost_row_is_seen() {
        let model = replaced(contents());
        assert_eq!(model.judge(7, None, 31, 40), Err(Deviation::Vanished));
    }

    #[test]
    fn a_wrong_value_is_seen_also_one_that_belongs_to_another_row() {
        let all @ [first, second, third] = contents();
        let model = replaced(all);
        model.begin(8, Some(third), 10);
        model.acknowledge(8, 10);
        assert_eq!(model.judge(7, Some(third), 31, 40), Err(Deviation::Wrong));
        assert_eq!(model.judge(8, Some(first), 31, 40), Err(Deviation::Wrong));
        assert_eq!(model.judge(8, Some(second), 31, 40), Err(Deviation::Wrong));
    }

    #[test]
    fn a_resurrected_row_is_seen_and_a_reborn_one_is_not() {
        let all @ [first, second, third] = contents();
        let model = replaced(all);
        model.begin(7, None, 40);
        model.acknowledge(7, 50);
        assert_eq!(model.judge(7, None, 45, 46), Ok(()), "deleting");
        assert_eq!(model.judge(7, Some(second), 45, 46), Ok(()), "not yet deleted");
        assert_eq!(model.judge(7, None, 51, 60), Ok(()));
        assert_eq!(model.judge(7, Some(second), 51, 60), Err(Deviation::Resurrected));
        assert_eq!(model.judge(7, Some(first), 51, 60), Err(Deviation::Resurrected));
        model.begin(7, Some(third), 70);
        assert_eq!(model.judge(7, Some(third), 71, 72), Ok(()));
        assert_eq!(model.judge(7, None, 71, 72), Ok(()), "not yet inserted");
        model.acknowledge(7, 80);
        assert_eq!(model.judge(7, None, 81, 90), Err(Deviation::Vanished));
        assert_eq!(model.judge(7, Some(second), 81, 90), Err(Deviation::Stale));
    }

    #[test]
    fn a_row_that_nobody_wrote_must_not_be_there() {
        let [first, ..] = contents();
        let model = Model::default();
        assert_eq!(model.judge(1, None, 0, 1), Ok(()));
        assert_eq!(model.judge(1, Some(first), 0, 1), Err(Deviation::Resurrected));
        model.begin(1, Some(first), 10);
        assert_eq!(model.judge(1, None, 11, 12), Ok(()), "on its way");
        model.acknowledge(1, 20);
        assert_eq!(model.judge(1, None, 5, 6), Ok(()), "before its time");
        assert_eq!(model.judge(1, None, 21, 22), Err(Deviation::Vanished));
    }

    #[test]
    fn a_revoked_write_never_was_and_an_acknowledged_one_stays() {
        let all @ [_, second, third] = contents();
        let model = replaced(all);
        model.begin(7, Some(third), 40);
        model.revoke(7);
        model.revoke(7);
        assert_eq!(model.judge(7, Some(second), 50, 60), Ok(()));
        assert_eq!(model.judge(7, Some(third), 50, 60), Err(Deviation::Wrong));
        assert_eq!(model.ids(), [7]);
    }
}
