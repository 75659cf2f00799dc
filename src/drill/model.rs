//! What was written, kept outside the database: a history of every row, and the judgement of what is read.
//!
//! A write takes effect at some moment between its beginning and its acknowledgement, so that a read is right when it equals a
//! version that was possibly the current one at some moment between the read's own beginning and end. Each row has one writer at
//! a time, and a write whose reply was lost is settled by a look at the row before the next one; versions are therefore in order, and
//! nothing has to be guessed.
//!
//! Knows no database and no clock: moments are numbers that the caller takes from one clock.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::clock::Moment;
use super::customer::Content;

/// The history of every row. It grows with the rows, not with the writes: see [`forget`](Self::forget).
#[derive(Default)]
pub struct Model {
    rows: HashMap<i64, Vec<Version>>,
    /// Nothing that is judged from now on began earlier.
    horizon: Moment,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Deviation {
    /// An earlier version: a later write is lost, or the read was stale.
    Stale,
    /// There is no row where one must be.
    Vanished,
    /// There is a row where it was deleted, or never was.
    Resurrected,
    /// Something that nobody wrote to this row, as far back as its history is kept.
    Wrong,
}

impl Model {
    /// A row is there since before anything was read.
    pub fn found(&mut self, id: i64, content: Content, now: Moment) {
        // Most rows never have a second version, and this makes no room for one.
        let first = Version {
            content: Some(content),
            begun: now,
            acknowledged: now,
        };
        self.rows.insert(id, vec![first]);
    }

    /// A write is about to be sent; `None` deletes the row.
    pub fn begin(&mut self, id: i64, content: Option<Content>, now: Moment) {
        let versions = self.rows.entry(id).or_default();
        // A read that began before the horizon is judged already: what was replaced by then is of interest only for telling an old value
        // from a foreign one.
        while versions.len() >= VERSIONS_KEPT && versions[1].acknowledged < self.horizon {
            versions.remove(0);
        }
        versions.push(Version {
            content,
            begun: now,
            acknowledged: PENDING,
        });
    }

    /// The row's last write was acknowledged.
    pub fn acknowledge(&mut self, id: i64, now: Moment) {
        if let Some(version) = self.rows.get_mut(&id).and_then(|versions| versions.last_mut()) {
            version.acknowledged = version.acknowledged.min(now);
        }
    }

    /// The row's last write is known not to have happened.
    pub fn revoke(&mut self, id: i64) {
        if let Some(versions) = self.rows.get_mut(&id) {
            versions.pop_if(|version| version.acknowledged == PENDING);
        }
    }

    /// The reply to the row's last write was lost; somebody looked at the row when the write could no longer be under way. Says whether
    /// it had happened; anything but the version before or the new one is left for [`judge`](Self::judge).
    pub fn settle(&mut self, id: i64, found: Option<Content>, looked: Moment) -> bool {
        let last = self.rows.get(&id).and_then(|versions| versions.last());
        let happened = last.is_some_and(|version| version.content == found);
        if happened {
            self.acknowledge(id, looked);
        } else {
            self.revoke(id);
        }
        happened
    }

    /// Nothing that began before `horizon` will be judged any more.
    pub fn forget(&mut self, horizon: Moment) {
        self.horizon = self.horizon.max(horizon);
    }

    /// Judges what a read that lasted from `begun` to `ended` saw; `None` is no row.
    pub fn judge(&self, id: i64, seen: Option<Content>, begun: Moment, ended: Moment) -> Result<(), Deviation> {
        let versions = self.rows.get(&id).map_or(&[][..], Vec::as_slice);
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
        let mut ids: Vec<i64> = self.rows.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The row's history in a few words, for whoever looks into an incident.
    pub fn tell(&self, id: i64) -> String {
        let versions = self.rows.get(&id).map_or(&[][..], Vec::as_slice);
        let told = versions.iter().rev().take(VERSIONS_TOLD).map(|version| {
            let what = version
                .content
                .map_or_else(|| "deleted".to_owned(), |content| content.to_string());
            match version.acknowledged {
                PENDING => format!("{what} sent at {}, not confirmed", version.begun),
                confirmed => format!("{what} sent at {}, confirmed at {confirmed}", version.begun),
            }
        });
        let told: Vec<String> = told.collect();
        if told.is_empty() {
            "never written".to_owned()
        } else {
            told.join("; before that ")
        }
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

/// A write that is not acknowledged may take effect at any later moment.
const PENDING: Moment = Moment::MAX;

/// Far more than a row is written while a read of it is under way; the rest names old values in incidents.
const VERSIONS_KEPT: usize = 16;
const VERSIONS_TOLD: usize = 3;

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
        let mut model = Model::default();
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
        let mut model = replaced(all);
        model.begin(8, Some(third), 10);
        model.acknowledge(8, 10);
        assert_eq!(model.judge(7, Some(third), 31, 40), Err(Deviation::Wrong));
        assert_eq!(model.judge(8, Some(first), 31, 40), Err(Deviation::Wrong));
        assert_eq!(model.judge(8, Some(second), 31, 40), Err(Deviation::Wrong));
    }

    #[test]
    fn a_resurrected_row_is_seen_and_a_reborn_one_is_not() {
        let all @ [first, second, third] = contents();
        let mut model = replaced(all);
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
        let mut model = Model::default();
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
        let mut model = replaced(all);
        model.begin(7, Some(third), 40);
        model.revoke(7);
        model.revoke(7);
        assert_eq!(model.judge(7, Some(second), 50, 60), Ok(()));
        assert_eq!(model.judge(7, Some(third), 50, 60), Err(Deviation::Wrong));
        assert_eq!(model.ids(), [7]);
    }

    #[test]
    fn a_write_whose_reply_was_lost_is_settled_by_what_stands_there() {
        let all @ [_, second, third] = contents();
        let mut model = replaced(all);
        model.begin(7, Some(third), 40);
        assert!(model.settle(7, Some(third), 60), "it happened");
        assert_eq!(model.judge(7, Some(second), 50, 55), Ok(()), "any time before the look");
        assert_eq!(model.judge(7, Some(second), 61, 70), Err(Deviation::Stale));
        let mut model = replaced(all);
        model.begin(7, Some(third), 40);
        assert!(!model.settle(7, Some(second), 60), "it did not");
        assert_eq!(model.judge(7, Some(third), 61, 70), Err(Deviation::Wrong));
        assert_eq!(model.judge(7, Some(second), 61, 70), Ok(()));
    }

    #[test]
    fn histories_do_not_grow_without_end_and_what_may_still_be_judged_stays() {
        let [first, second, _] = contents();
        let mut model = Model::default();
        model.found(7, first, 0);
        for write in 1..=1000_u64 {
            let content = if write.is_multiple_of(2) { first } else { second };
            model.begin(7, Some(content), write * 10);
            model.acknowledge(7, write * 10 + 1);
            model.forget((write * 10).saturating_sub(500));
        }
        assert!(model.rows[&7].len() < 70, "{}", model.rows[&7].len());
        // A read that began at the horizon is still judged by what was current then.
        assert_eq!(model.judge(7, Some(second), 9_502, 9_509), Err(Deviation::Stale));
        assert_eq!(model.judge(7, Some(first), 9_502, 9_509), Ok(()));
    }
}
