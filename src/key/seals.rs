//! How many values a key has sealed: counted by whoever seals, in blocks that are reserved on disk beforehand, like the numbers of a
//! sequence with a cache.
//!
//! The count on disk is never below the truth: a block is durable before its first value is sealed, and what a crash leaves of it
//! counts as used. The file stands beside the keyring (`reseal.keyring.seals`) and holds fingerprints and numbers, no secret. Its
//! lock is its own: whoever only reads the keyring can count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::file::{Digest, Place, ReadFault};
use super::lock::Lock;
use super::replace::{Expected, Uninterrupted};
use super::{Fingerprint, LockFault, ReplaceFault};

/// The counts of a file, per key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealCounts {
    counts: BTreeMap<String, u64>,
}

/// Counts what one key seals in this process. Dropping it gives the rest of its block back.
pub struct SealMeter {
    path: PathBuf,
    fingerprint: Fingerprint,
    warned_at: u64,
    /// No value is sealed beyond this count.
    refused_at: u64,
    /// Values sealed here.
    used: AtomicU64,
    /// Values that may be sealed here before the next block.
    granted: AtomicU64,
    reserve: Mutex<Reserve>,
    unrecorded: AtomicBool,
}

/// What changes only when a block is reserved.
struct Reserve {
    /// The next block.
    block: u64,
    /// Granted here, and not in the file, because it could not be written.
    owed: u64,
    /// The count of the file when it was seen last.
    seen: u64,
    is_warned: bool,
}

/// The key has sealed as many values as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key with fingerprint {fingerprint} has sealed {sealed} values, and may seal no more: rotate to a new key")]
pub struct Exhausted {
    /// The key.
    pub fingerprint: Fingerprint,
    /// How many.
    pub sealed: u64,
}

/// Why counts cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SealsFault {
    /// The folder cannot be opened.
    #[error("its folder cannot be opened")]
    Folder(#[source] std::io::Error),
    /// The file cannot be read.
    #[error(transparent)]
    Read(ReadFault),
    /// The file is locked by somebody who does not let go.
    #[error(transparent)]
    Lock(LockFault),
    /// The file was not written.
    #[error(transparent)]
    Replace(ReplaceFault),
    /// Not a file of counts, or one of a later version.
    #[error("it is not a file of seal counts that this version knows")]
    Shape,
}

/// The count from which a key that may seal `max` values is refused: a tenth before, as the storage barrier of Vault and OpenBao does
/// (3,865,470,566 of 2^32). Room for other libraries that seal with the same key and count nothing.
pub const fn seals_refused_at(max: u64) -> u64 {
    ((max as u128) * 9 / 10) as u64
}

/// The count from which a successor should be on its way: half of what is allowed, so that as much time is left as it took.
pub const fn seals_warned_at(max: u64) -> u64 {
    max / 2
}

impl SealCounts {
    /// Where the counts of a keyring stand.
    pub fn beside(keyring: &Path) -> PathBuf {
        let mut path = keyring.as_os_str().to_owned();
        path.push(".seals");
        path.into()
    }

    /// Reads counts; `None` when there is no file: nobody has counted here.
    pub fn read(path: &Path) -> Result<Option<Self>, SealsFault> {
        let place = Place::at(path).map_err(SealsFault::Folder)?;
        Ok(parse(&place)?.map(|(counts, _)| counts))
    }

    /// How many values a key has sealed, at most.
    pub fn of(&self, key: Fingerprint) -> u64 {
        self.counts.get(&key.to_string()).copied().unwrap_or(0)
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            let sum = self.counts.entry(key.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}

impl SealMeter {
    /// A meter for the key of this fingerprint, which may seal `max` values. Touches no file before the first value.
    pub fn new(path: PathBuf, fingerprint: Fingerprint, max: u64) -> Self {
        Self {
            path,
            fingerprint,
            warned_at: seals_warned_at(max),
            refused_at: seals_refused_at(max),
            used: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            reserve: Mutex::new(Reserve {
                block: BLOCK_FIRST.min(block_max(max)),
                owed: 0,
                seen: 0,
                is_warned: false,
            }),
            unrecorded: AtomicBool::new(false),
        }
    }

    /// Counts `values` that are about to leave. Costs an addition, but for the one in a block that reserves the next.
    pub fn take(&self, values: u64) -> Result<(), Exhausted> {
        let used = self.used.fetch_add(values, Ordering::Relaxed).saturating_add(values);
        if used <= self.granted.load(Ordering::Acquire) {
            return Ok(());
        }
        let outcome = self.reserve(used);
        if outcome.is_err() {
            self.used.fetch_sub(values, Ordering::Relaxed);
        }
        outcome
    }

    /// How many values the key has sealed, as far as the file tells; 0 when it cannot be read.
    pub fn recorded(&self) -> u64 {
        SealCounts::read(&self.path)
            .ok()
            .flatten()
            .map_or(0, |counts| counts.of(self.fingerprint))
    }

    /// The count from which the key seals no more.
    pub fn refused_at(&self) -> u64 {
        self.refused_at
    }

    /// Whether values were sealed that the file does not count, because it could not be written.
    pub fn is_unrecorded(&self) -> bool {
        self.unrecorded.load(Ordering::Relaxed)
    }

    /// The key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn reserve(&self, used: u64) -> Result<(), Exhausted> {
        let mut reserve = lock(&self.reserve);
        let granted = self.granted.load(Ordering::Relaxed);
        if used <= granted {
            // Somebody else was faster.
            return Ok(());
        }
        let needed = used - granted;
        let wanted = needed.max(reserve.block);
        let (seen, owed) = (reserve.seen, reserve.owed);
        // A file that shows less than this process alone has put into it was lost, or an old one was put back.
        let own = granted - owed;
        let mut given = 0;
        let written = change(&self.path, self.fingerprint, |count| {
            let count = count.max(own).saturating_add(owed);
            given = wanted.min(self.refused_at.saturating_sub(count));
            if given < needed { count } else { count + given }
        });
        match written {
            Ok(count) => {
                reserve.seen = count;
                reserve.owed = 0;
                self.unrecorded.store(false, Ordering::Relaxed);
                self.warn(&mut reserve, count);
                if given < needed {
                    return Err(self.exhausted(count));
                }
                reserve.block = (reserve.block * 2).min(block_max(self.refused_at));
            }
            // An application must not stop because a disk is full: it goes on in small blocks, which the next write makes good.
            Err(fault) => {
                let count = seen.saturating_add(owed);
                given = needed.max(BLOCK_FIRST).min(self.refused_at.saturating_sub(count));
                if given < needed {
                    return Err(self.exhausted(count));
                }
                reserve.owed += given;
                if !self.unrecorded.swap(true, Ordering::Relaxed) {
                    tracing::warn!(file = %self.path.display(), %fault, "seals are not counted durably");
                }
            }
        }
        self.granted.store(granted + given, Ordering::Release);
        Ok(())
    }

    fn warn(&self, reserve: &mut Reserve, count: u64) {
        if count >= self.warned_at && !reserve.is_warned {
            reserve.is_warned = true;
            tracing::warn!(key = %self.fingerprint, count, refused_at = self.refused_at, "a key has sealed half of what it may: rotate");
        }
    }

    fn exhausted(&self, sealed: u64) -> Exhausted {
        Exhausted {
            fingerprint: self.fingerprint,
            sealed,
        }
    }
}

impl Drop for SealMeter {
    fn drop(&mut self) {
        let owed = lock(&self.reserve).owed;
        let granted = self.granted.load(Ordering::Relaxed);
        let rest = granted.saturating_sub(self.used.load(Ordering::Relaxed));
        if rest != owed {
            // If the file cannot be written, it counts the rest as used, which is the safe side, and lacks what is owed.
            let own = granted - owed;
            let _ = change(&self.path, self.fingerprint, |count| {
                count.max(own).saturating_add(owed).saturating_sub(rest)
            });
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: String,
    /// Fingerprint → values sealed, the rest of blocks in use included.
    sealed: BTreeMap<String, u64>,
}

/// Changes one count under the lock, durably, and returns it.
fn change(path: &Path, key: Fingerprint, next: impl FnOnce(u64) -> u64) -> Result<u64, SealsFault> {
    let place = Place::at(path).map_err(SealsFault::Folder)?;
    let _lock = Lock::take(&place, LOCK_WAIT).map_err(SealsFault::Lock)?;
    let (mut counts, expected) = parse(&place)?.unwrap_or((SealCounts::default(), Expected::Nothing));
    let count = counts.counts.entry(key.to_string()).or_default();
    let before = *count;
    *count = next(before);
    let after = *count;
    if after != before {
        let document = Document {
            schema: SCHEMA.to_owned(),
            sealed: counts.counts,
        };
        let bytes = serde_json::to_vec(&document).map_err(|_| SealsFault::Shape)?;
        place
            .replace(&bytes, &expected, &mut Uninterrupted)
            .map_err(SealsFault::Replace)?;
    }
    Ok(after)
}

fn parse(place: &Place) -> Result<Option<(SealCounts, Expected)>, SealsFault> {
    let Some(bytes) = place.read(BYTES_MAX).map_err(SealsFault::Read)? else {
        return Ok(None);
    };
    let document: Document = serde_json::from_slice(&bytes).map_err(|_| SealsFault::Shape)?;
    let is_sound = document.schema == SCHEMA && document.sealed.keys().all(|key| Fingerprint::parse(key).is_some());
    if !is_sound {
        return Err(SealsFault::Shape);
    }
    let counts = SealCounts { counts: document.sealed };
    Ok(Some((counts, Expected::Content(Digest::of(&bytes)))))
}

/// Blocks grow to this, or to a 64th of a smaller limit, so that many instances can hold one at a time.
fn block_max(max: u64) -> u64 {
    BLOCK_MAX.min((max / 64).max(1))
}

fn lock(reserve: &Mutex<Reserve>) -> MutexGuard<'_, Reserve> {
    // After a panic the numbers are those before or after a block; both are on the safe side.
    reserve.lock().unwrap_or_else(PoisonError::into_inner)
}

const SCHEMA: &str = "reseal.seals/1";

/// The first block. What a crash wastes is at most about what was sealed, or this: four million crashes exhaust a key.
const BLOCK_FIRST: u64 = 1024;
/// At a million values a second one write a second; below that, next to none.
const BLOCK_MAX: u64 = 1 << 20;
/// Longer than any other's write; a thread that seals waits for it.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// [`KEYS_MAX`](super::KEYS_MAX) keys and more.
const BYTES_MAX: usize = 1024 * 1024;
