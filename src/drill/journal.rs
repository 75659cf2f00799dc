//! What an instance did, as it tells it itself: an append-only file outside the database, which survives a kill -9 of the instance.
//!
//! A write is told before it is sent and again when its reply is there; a read when it is over. What is told has reached the kernel
//! before the instance goes on, so that whoever reads all journals at one moment knows every write that a finished read can have seen.
//! The file is a row of segments, and a segment that has been read is removed: the disk holds seconds of history, not hours.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::clock::Moment;
use super::customer::Content;
use super::failure::Failure;

/// What an instance tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The keyset revision of its next seal; everything that it sealed with an older one is committed.
    Follows {
        /// The revision.
        revision: u64,
    },
    /// A write is about to be sent; no content deletes the row.
    Begins {
        /// The row.
        id: i64,
        /// What it shall hold.
        content: Option<Content>,
        /// When.
        at: Moment,
    },
    /// The row's last write is committed.
    Confirmed {
        /// The row.
        id: i64,
        /// When that was known.
        at: Moment,
        /// Microseconds since the write was due.
        took: u64,
    },
    /// A write failed, and has changed nothing.
    WriteFailed {
        /// The row.
        id: i64,
        /// When.
        at: Moment,
        /// Why.
        failure: Failure,
    },
    /// The reply to the row's last write was lost: a look at the row, once that write could no longer be under way.
    Looked {
        /// The row.
        id: i64,
        /// What it holds.
        content: Option<Content>,
        /// Before the look.
        begun: Moment,
        /// After the look.
        ended: Moment,
        /// Microseconds since the write was due.
        took: u64,
    },
    /// A read of the rows from `first` on, every one of them.
    Read {
        /// The first row.
        first: i64,
        /// What each holds, if it is there.
        seen: Vec<Option<Content>>,
        /// Rows that are there and did not open; they are `None` in `seen`.
        unopened: Vec<(i64, Failure)>,
        /// Before the read.
        begun: Moment,
        /// After it.
        ended: Moment,
        /// Microseconds since it was due. `None` for a read inside a write, which is no operation of its own.
        took: Option<u64>,
    },
    /// A read that the database did not answer.
    ReadFailed {
        /// The first row.
        first: i64,
        /// When.
        at: Moment,
        /// Why.
        failure: Failure,
    },
    /// The connection was lost, and an operation is done again on another.
    Interrupted {
        /// When.
        at: Moment,
    },
}

/// The instance's side.
pub struct Journal {
    stem: PathBuf,
    number: u32,
    file: File,
    told: Vec<u8>,
    written: u64,
}

impl Journal {
    /// Begins one; its segments are `stem.0`, `stem.1`, ….
    pub fn create(stem: PathBuf) -> io::Result<Self> {
        Ok(Self {
            file: create(&segment(&stem, 0))?,
            stem,
            number: 0,
            told: Vec::with_capacity(2 * FLUSHED_AT),
            written: 0,
        })
    }

    /// Tells something, soon: for what nobody must know before the instance goes on.
    pub fn tell(&mut self, event: &Event) -> io::Result<()> {
        let at = self.told.len();
        self.told.extend_from_slice(&[0; LENGTH_BYTES]);
        let told = std::mem::take(&mut self.told);
        self.told = postcard::to_extend(event, told).map_err(io::Error::other)?;
        let length = u32::try_from(self.told.len() - at - LENGTH_BYTES).map_err(io::Error::other)?;
        self.told[at..at + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        if self.told.len() >= FLUSHED_AT { self.flush() } else { Ok(()) }
    }

    /// Tells something now: it is in the kernel's hands when this returns.
    pub fn tell_now(&mut self, event: &Event) -> io::Result<()> {
        self.tell(event)?;
        self.flush()
    }

    /// Hands over what was told.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.told.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.told)?;
        self.written += self.told.len() as u64;
        self.told.clear();
        if self.written >= SEGMENT_BYTES {
            self.number += 1;
            self.file = create(&segment(&self.stem, self.number))?;
            self.written = 0;
        }
        Ok(())
    }
}

/// The side that reads along.
pub struct Tail {
    stem: PathBuf,
    number: u32,
    /// `None` until the segment exists.
    file: Option<File>,
    /// Read, and not yet a whole event.
    rest: Vec<u8>,
}

impl Tail {
    /// Of the journal with this stem, which need not have begun.
    pub fn new(stem: PathBuf) -> Self {
        Self {
            stem,
            number: 0,
            file: None,
            rest: Vec::new(),
        }
    }

    /// Gives everything that was told since the last time, and removes segments that are over.
    pub fn read(&mut self, mut each: impl FnMut(Event)) -> io::Result<()> {
        loop {
            // Asked first: a segment that has a successor is written no more.
            let is_over = segment(&self.stem, self.number + 1).exists();
            let path = segment(&self.stem, self.number);
            if self.file.is_none() {
                match File::open(&path) {
                    Ok(file) => self.file = Some(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut self.rest)?;
            }
            self.take(&mut each)?;
            if !is_over {
                return Ok(());
            }
            self.file = None;
            fs::remove_file(&path)?;
            self.number += 1;
        }
    }

    fn take(&mut self, each: &mut impl FnMut(Event)) -> io::Result<()> {
        let mut at = 0;
        while let Some(length) = self.rest.get(at..at + LENGTH_BYTES) {
            let length = length.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            let Some(event) = self.rest.get(at + LENGTH_BYTES..at + LENGTH_BYTES + length) else {
                break;
            };
            each(postcard::from_bytes(event).map_err(io::Error::other)?);
            at += LENGTH_BYTES + length;
        }
        self.rest.drain(..at);
        Ok(())
    }
}

fn segment(stem: &Path, number: u32) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

const LENGTH_BYTES: usize = 4;
/// Reads are told in pieces of this size, or when the instance has nothing else to do.
const FLUSHED_AT: usize = 16 * 1024;
/// A second of a busy reader.
const SEGMENT_BYTES: u64 = 1 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(tail: &mut Tail) -> Vec<Event> {
        let mut events = Vec::new();
        tail.read(|event| events.push(event)).unwrap();
        events
    }

    #[test]
    fn what_is_told_is_read_in_order_over_many_segments_and_leaves_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut tail = Tail::new(folder.path().join("reader"));
        assert_eq!(read(&mut tail), []);
        let mut journal = Journal::create(folder.path().join("reader")).unwrap();
        let event = |at| Event::ReadFailed {
            first: 1,
            at,
            failure: Failure::RowGone,
        };
        journal.tell(&event(0)).unwrap();
        assert_eq!(read(&mut tail), [], "not handed over");
        journal.flush().unwrap();
        assert_eq!(read(&mut tail), [event(0)]);
        let mut seen = Vec::new();
        for at in 1..=400_000 {
            journal.tell(&event(at)).unwrap();
            if at % 150_000 == 0 {
                seen.extend(read(&mut tail));
            }
        }
        journal.flush().unwrap();
        seen.extend(read(&mut tail));
        assert_eq!(seen.len(), 400_000);
        assert!(seen.iter().zip(1..).all(|(seen, at)| *seen == event(at)));
        assert!(tail.number > 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn half_an_event_waits_for_its_other_half() {
        let folder = tempfile::tempdir().unwrap();
        let stem = folder.path().join("writer");
        let mut journal = Journal::create(stem.clone()).unwrap();
        journal.tell_now(&Event::Follows { revision: 7 }).unwrap();
        let whole = fs::read(segment(&stem, 0)).unwrap();
        fs::write(segment(&stem, 0), &whole[..whole.len() - 1]).unwrap();
        let mut tail = Tail::new(stem.clone());
        assert_eq!(read(&mut tail), []);
        fs::write(segment(&stem, 0), &whole).unwrap();
        assert_eq!(read(&mut tail), [Event::Follows { revision: 7 }]);
    }
}
