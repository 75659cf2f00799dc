//! Watching a keyring file: what it looked like when it was read last, and whether it deserves another reading.
//!
//! Opening the file can cost a quarter of a gigabyte and half a second (scrypt), so that it is read when it changed, and not else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::key::{Keyring, KeyringError, Unlock};

/// Reads one keyring file whenever it is another than before.
pub(super) struct Follower {
    changes: Changes,
    unlock: Unlock,
    forced_at: Option<Instant>,
}

/// Tells whether a file looks different from when it was looked at last.
pub(crate) struct Changes {
    path: PathBuf,
    seen: Option<Seen>,
}

/// What the file system says about a file without opening it. A replaced file is another inode; a file written in place has
/// another time or size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Seen {
    stamp: Option<Stamp>,
    since: Instant,
    /// Read once more after its time stamps could no longer be shared with a later change.
    is_settled: bool,
}

impl Follower {
    pub(super) fn new(path: PathBuf, unlock: Unlock) -> Self {
        Self {
            changes: Changes::of(path),
            unlock,
            forced_at: None,
        }
    }

    /// Reads the file. Versions older than `generation_min` are refused.
    pub(super) fn read(&mut self, generation_min: u64) -> Result<Keyring, KeyringError> {
        // Looked at before it is read: a change in between is then seen as a change at the next look.
        self.changes.are_there();
        Keyring::open(&self.changes.path, &self.unlock, generation_min)
    }

    /// Reads the file if it looks different from when it was read last.
    pub(super) fn read_if_changed(&mut self, generation_min: u64) -> Option<Result<Keyring, KeyringError>> {
        self.changes
            .are_there()
            .then(|| Keyring::open(&self.changes.path, &self.unlock, generation_min))
    }

    /// Whether a failing reader may ask for a look now; if so, the next one waits.
    pub(super) fn may_be_forced(&mut self) -> bool {
        let may = self.forced_at.is_none_or(|at| at.elapsed() >= FORCED_EVERY);
        if may {
            self.forced_at = Some(Instant::now());
        }
        may
    }
}

impl Changes {
    /// Of this file, which was not looked at yet.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// Whether the file deserves a reading.
    pub(crate) fn are_there(&mut self) -> bool {
        let stamp = fs::symlink_metadata(&self.path).ok().map(|metadata| Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
        match &mut self.seen {
            Some(seen) if seen.stamp == stamp => {
                let settles = !seen.is_settled && seen.since.elapsed() >= STAMP_RESOLUTION_MAX;
                seen.is_settled |= settles;
                settles
            }
            _ => {
                self.seen = Some(Seen {
                    stamp,
                    since: Instant::now(),
                    is_settled: stamp.is_none(),
                });
                true
            }
        }
    }
}

/// Two writes closer together than this may share a time stamp on some file system (NFS and FAT count in seconds), so that a file
/// is read once more this long after it was first seen.
const STAMP_RESOLUTION_MAX: Duration = Duration::from_secs(2);

/// Values with made-up key ids must not keep the application busy with its keyring file, also where it lies on a network; and a
/// value under a key that was promoted a moment ago must not wait for the next regular look. A look is a stat; the file is read only
/// when it changed.
const FORCED_EVERY: Duration = Duration::from_millis(10);
