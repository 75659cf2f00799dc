//! What is asked for, and what was done.

use std::time::Duration;

use jiff::Timestamp;

/// Which sessions are meant. Nothing given: all that exist at the cut-off.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Those of one user.
    pub user: Option<String>,
    /// Those of one tenant.
    pub tenant: Option<String>,
    /// Those created before this time, instead of the moment at which the run begins.
    pub before: Option<Timestamp>,
}

/// How sessions are ended.
#[derive(Debug, Clone)]
pub struct EndingOptions {
    /// Which.
    pub selection: Selection,
    /// Count, change nothing.
    pub dry_run: bool,
    /// A pattern that matches everything is meant.
    pub all_sessions: bool,
    /// How long requests that were under way at the cut-off may still write before the second pass looks.
    pub settle: Duration,
}

/// What decided whether a session was created before or after the cut-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedBy {
    /// The server announced every key that was created after the cut-off.
    NewKeyEvents,
    /// One statement read all rows that existed at the cut-off.
    Snapshot,
    /// A column with the time of creation.
    CreationColumn,
    /// Nothing: what the passes met was ended, and a session that was created meanwhile may be among it.
    Scan,
    /// The "not before" mark of tokens, which is compared with the time at which each was issued.
    Mark,
    /// Nothing was changed.
    DryRun,
}

/// Counts of one store.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The cut-off, on the store's clock.
    pub cut_off: Timestamp,
    /// What decided which side of it a session is on.
    pub decided_by: DecidedBy,
    /// Sessions that were meant.
    pub matched: u64,
    /// Sessions that were ended.
    pub ended: u64,
    /// Sessions that were created after the cut-off and stay.
    pub created_since: u64,
    /// Entries of secondary indexes that went with their sessions.
    pub index_entries: u64,
    /// Sessions that could not be told to be somebody's, because their value is too large or unreadable. They stay.
    pub unreadable: u64,
    /// Sessions that are left although they should be gone.
    pub left: u64,
    /// Passes over the store.
    pub passes: u32,
    /// The longest that one batch took.
    pub slowest_batch: Duration,
}

impl Ended {
    pub(super) fn new(cut_off: Timestamp, decided_by: DecidedBy) -> Self {
        Self {
            cut_off,
            decided_by,
            matched: 0,
            ended: 0,
            created_since: 0,
            index_entries: 0,
            unreadable: 0,
            left: 0,
            passes: 0,
            slowest_batch: Duration::ZERO,
        }
    }

    /// Whether nothing is left that should be gone.
    pub fn is_complete(&self) -> bool {
        self.left == 0 && self.unreadable == 0
    }
}

impl DecidedBy {
    /// Its name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewKeyEvents => "new-key-events",
            Self::Snapshot => "snapshot",
            Self::CreationColumn => "creation-column",
            Self::Scan => "scan",
            Self::Mark => "mark",
            Self::DryRun => "dry-run",
        }
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::NewKeyEvents,
            Self::Snapshot,
            Self::CreationColumn,
            Self::Scan,
            Self::Mark,
            Self::DryRun,
        ]
        .into_iter()
        .find(|decided_by| decided_by.as_str() == name)
    }
}

impl EndingOptions {
    /// Everybody's sessions.
    pub(super) fn of_everybody(settle: Duration) -> Self {
        Self {
            selection: Selection::default(),
            dry_run: false,
            all_sessions: false,
            settle,
        }
    }
}

/// How long requests that were under way at the cut-off may still write before the second pass looks.
pub const SETTLE: Duration = Duration::from_secs(1);
