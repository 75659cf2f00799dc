//! What rotations of secrets leave behind: when each value was written, and a digest by which it is known again.
//!
//! The time stamp of a file says when something in it changed, not when a secret did; a restored file has a new one, and an edited
//! file, too. So an age is only believed when the value that stands there is the one that was written then. An entry is durable before
//! its value is written: whatever a crash leaves in the file is in the record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::rotate::Occasion;
use super::{FileFault, SecretText};
use crate::key::{Digest, Expected, Lock, Place, Uninterrupted};

/// The record, as it was read.
pub struct Record {
    secrets: BTreeMap<String, Vec<Entry>>,
}

/// The record under its lock, to be written.
pub(super) struct RecordEdit {
    place: Place,
    expected: Expected,
    record: Record,
    _lock: Lock,
}

/// Why there is no usable record.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileFault),
    /// Not a record, or one of a later version.
    #[error("it is not a record of secrets that this version knows")]
    Shape,
    /// No salt: the operating system's random generator failed.
    #[error("the random generator of the operating system failed")]
    Random,
}

/// One value that a rotation wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    at: Timestamp,
    /// What a value is known by; none for a value that went to a program, from which nothing is read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Known>,
    /// Whether the write is known to have happened. Until then it may have, or not.
    written: bool,
    /// How far a rotation in steps has come with it.
    #[serde(default, skip_serializing_if = "Stage::is_none")]
    stage: Stage,
}

/// How far a rotation in steps has come with a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    /// It is in no such rotation, or at its end.
    #[default]
    None,
    /// It is accepted, and signs nothing.
    Introduced,
    /// It signs, and older values are still accepted.
    Promoted,
}

impl Stage {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// The value that a rotation in steps is about.
pub(super) struct Staged {
    at: Timestamp,
    value: Option<Known>,
    stage: Stage,
    written: bool,
}

impl Staged {
    /// Whether it is this value.
    pub(super) fn is(&self, value: &str) -> bool {
        self.value.as_ref().is_some_and(|known| known.is(value))
    }

    /// Whether it is introduced and, as far as the record knows, not promoted.
    pub(super) fn is_waiting(&self) -> bool {
        self.stage == Stage::Introduced
    }

    /// Whether it is known to have arrived.
    pub(super) fn is_written(&self) -> bool {
        self.written
    }

    /// When it was made.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(super) fn for_test(value: &str) -> Self {
        Self {
            at: Timestamp::UNIX_EPOCH,
            value: Some(Known::of(&SecretText::new(value.to_owned())).unwrap()),
            stage: Stage::Introduced,
            written: true,
        }
    }
}

/// A salted digest of a value. Values are random, of 72 bits at the least (`kind.rs`), so that none can be guessed from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    salt: String,
    digest: String,
}

/// What the record says about a value that stands somewhere now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// It is the latest one, written then.
    Latest(Timestamp),
    /// It was written then, and replaced later: an old file was put back.
    Earlier(Timestamp),
    /// It is none of those that were written: edited by hand, or from before the first rotation.
    Stranger,
    /// No rotation of this secret is recorded.
    Nothing,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: String,
    secrets: BTreeMap<String, Vec<Entry>>,
}

impl Record {
    /// Where the record of a configuration lies: beside it.
    pub fn beside(config: &Path) -> PathBuf {
        config.with_extension("secrets.json")
    }

    /// Reads the record; a file that is not there is an empty one.
    pub fn read(path: &Path) -> Result<Self, RecordFault> {
        let place = Place::at(path).map_err(FileFault::Folder)?;
        Ok(Self::parse(&place)?.0)
    }

    fn parse(place: &Place) -> Result<(Self, Expected), RecordFault> {
        let Some(bytes) = place.read(BYTES_MAX).map_err(FileFault::Read)? else {
            let secrets = BTreeMap::new();
            return Ok((Self { secrets }, Expected::Nothing));
        };
        let document: Document = serde_json::from_slice(&bytes).map_err(|_| RecordFault::Shape)?;
        if document.schema != SCHEMA {
            return Err(RecordFault::Shape);
        }
        let record = Self {
            secrets: document.secrets,
        };
        Ok((record, Expected::Content(Digest::of(&bytes))))
    }

    /// What is known of the value that `secret` has now.
    pub(super) fn find(&self, secret: &str, value: &SecretText) -> Recorded {
        let Some(entries) = self.entries(secret) else {
            return Recorded::Nothing;
        };
        let Some(at) = entries
            .iter()
            .rposition(|entry| entry.value.as_ref().is_some_and(|known| known.is(value.expose())))
        else {
            return Recorded::Stranger;
        };
        // An entry behind it that is not known to be written is a rotation that was cut off before it wrote.
        // One that is only introduced replaces nothing yet.
        let replaces = |later: &Entry| later.written && later.stage != Stage::Introduced;
        if entries[at + 1..].iter().any(replaces) {
            Recorded::Earlier(entries[at].at)
        } else {
            Recorded::Latest(entries[at].at)
        }
    }

    /// The value that a rotation of `secret` in steps is about, while there is such a rotation.
    pub(super) fn staged(&self, secret: &str) -> Option<Staged> {
        let entries = self.entries(secret)?;
        let latest = entries.iter().rfind(|entry| entry.written || entry.stage != Stage::None)?;
        (latest.stage != Stage::None).then(|| Staged {
            at: latest.at,
            value: latest.value.clone(),
            stage: latest.stage,
            written: latest.written,
        })
    }

    /// When a value was last handed to a program that took it.
    pub(super) fn delivered(&self, secret: &str) -> Option<Timestamp> {
        let entries = self.entries(secret)?;
        let is_in_use = |entry: &&Entry| entry.written && entry.stage != Stage::Introduced;
        entries.iter().rfind(is_in_use).map(|entry| entry.at)
    }

    fn entries(&self, secret: &str) -> Option<&[Entry]> {
        self.secrets
            .get(secret)
            .map(Vec::as_slice)
            .filter(|entries| !entries.is_empty())
    }
}

impl RecordEdit {
    /// Locks and reads the record, waiting at most `wait` for another rotation.
    pub(super) fn begin(path: &Path, wait: Duration) -> Result<Self, RecordFault> {
        let place = Place::at(path).map_err(FileFault::Folder)?;
        let lock = Lock::take(&place, wait).map_err(FileFault::Lock)?;
        let (record, expected) = Record::parse(&place)?;
        Ok(Self {
            place,
            expected,
            record,
            _lock: lock,
        })
    }

    /// The record as it stands.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Notes that `secret` is about to get a value; with none, that a program is about to be given one.
    pub(super) fn intend(
        &mut self,
        secret: &str,
        value: Option<&SecretText>,
        occasion: Occasion,
        at: Timestamp,
    ) -> Result<(), RecordFault> {
        let value = value.map(Known::of).transpose()?;
        let entries = self.record.secrets.entry(secret.to_owned()).or_default();
        entries.push(Entry {
            at,
            value,
            written: false,
            stage: match occasion {
                Occasion::Introduce => Stage::Introduced,
                _ => Stage::None,
            },
        });
        let surplus = entries.len().saturating_sub(ENTRIES_MAX);
        entries.drain(..surplus);
        Ok(())
    }

    /// Notes that what was to be done with `secret` is done.
    pub(super) fn confirm(&mut self, secret: &str, occasion: Occasion) {
        let Some(entries) = self.record.secrets.get_mut(secret) else {
            return;
        };
        let latest = match occasion {
            Occasion::Scheduled | Occasion::Compromised => entries.last_mut(),
            Occasion::Introduce | Occasion::Promote | Occasion::Retire => {
                entries.iter_mut().rfind(|entry| entry.stage != Stage::None)
            }
        };
        if let Some(latest) = latest {
            latest.written = true;
            latest.stage = match occasion {
                Occasion::Scheduled | Occasion::Compromised | Occasion::Retire => Stage::None,
                Occasion::Introduce => Stage::Introduced,
                Occasion::Promote => Stage::Promoted,
            };
        }
    }

    /// Makes the record durable as it is now.
    pub(super) fn save(&mut self) -> Result<(), RecordFault> {
        let document = Document {
            schema: SCHEMA.to_owned(),
            secrets: self.record.secrets.clone(),
        };
        let mut bytes = serde_json::to_vec_pretty(&document).map_err(|_| RecordFault::Shape)?;
        bytes.push(b'\n');
        self.place
            .replace(&bytes, &self.expected, &mut Uninterrupted)
            .map_err(FileFault::Replace)?;
        self.expected = Expected::Content(Digest::of(&bytes));
        Ok(())
    }
}

impl Known {
    fn of(value: &SecretText) -> Result<Self, RecordFault> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| RecordFault::Random)?;
        let salt = hex(&salt);
        let digest = digest(&salt, value.expose());
        Ok(Self { salt, digest })
    }

    fn is(&self, value: &str) -> bool {
        digest(&self.salt, value).as_bytes().ct_eq(self.digest.as_bytes()).into()
    }
}

fn digest(salt: &str, value: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt.as_bytes());
    hex(&hmac::sign(&key, value.as_bytes()).as_ref()[..DIGEST_BYTES])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const SCHEMA: &str = "reseal.secret-record/1";

/// Different for every entry, so that equal values cannot be told from two records.
const SALT_BYTES: usize = 16;

/// Two values of one secret never share one by chance.
const DIGEST_BYTES: usize = 16;

/// Values remembered for each secret. A file from further back is a stranger, which is a finding as well.
const ENTRIES_MAX: usize = 32;

/// Thousands of secrets.
const BYTES_MAX: usize = 16 * 1024 * 1024;
