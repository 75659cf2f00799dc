//! A moment in the life of a database, to ask later what was written since: most of a table that was just read has not changed, and need
//! not be read again to be known.

use std::sync::Arc;

/// A moment, as the database names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// What becomes visible later was written at this position or after it (PostgreSQL: by the oldest transaction that was under way, or
    /// a later one). In SQLite, as long as the position stays the same, nothing has.
    pub position: u64,
    /// The relations of the table, by oid and name. Rows of one that joins it later may have been written long before.
    pub relations: Vec<(u32, String)>,
}

impl Moment {
    /// Whether it can be told at `now` what was written since: no relation has come or gone, and positions have not come round.
    pub fn reaches(&self, now: &Self) -> bool {
        let passed = now.position.checked_sub(self.position);
        self.relations == now.relations && passed.is_some_and(|passed| passed <= POSITIONS_MAX)
    }

    /// Whether the table had this relation then.
    pub fn has(&self, relation: &str) -> bool {
        self.relations.iter().any(|(_, name)| name == relation)
    }
}

/// Rows bear 32 bits of their position, which are compared as on a circle. Half of what can be told is left for the time that reading takes.
const POSITIONS_MAX: u64 = 1 << 30;

/// Which rows are of interest, by when and by whom they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sieve {
    /// Those written at this position ([`Moment::position`]) or after it.
    Since(u64),
    /// Those that none of these transactions wrote ([`SetWriter::transaction`](super::SetWriter::transaction), the lower halves).
    Except(Arc<[u32]>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reaches_as_far_as_rows_can_tell() {
        let moment = |position, relations: &[u32]| Moment {
            position,
            relations: relations.iter().map(|oid| (*oid, format!("part {oid}"))).collect(),
        };
        let then = moment(7, &[1, 2]);
        assert!(then.reaches(&then));
        assert!(then.reaches(&moment(7 + POSITIONS_MAX, &[1, 2])));
        assert!(!then.reaches(&moment(8 + POSITIONS_MAX, &[1, 2])));
        assert!(!then.reaches(&moment(6, &[1, 2])), "a database of the past");
        assert!(!then.reaches(&moment(8, &[1, 2, 3])), "a partition was attached");
        assert!(!then.reaches(&moment(8, &[1])), "one was detached");
        assert!(then.has("part 2") && !then.has("part 3"));
    }
}
