//! The "not before" marks where an application asks for them: a trait, and the file that `reseal sessions invalidate` writes.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::error::MarksUnknown;
use crate::session::{MARK_FILE_BYTES_MAX, Marks};

/// Where an application looks up marks. In Redis that is the highest of `HMGET key all tenant:NAME user:NAME`; in a table,
/// `SELECT max(not_before) … WHERE scope = 'all' OR scope = 'tenant' AND name = … OR scope = 'user' AND name = …`.
pub trait NotBefore {
    /// The highest mark of everybody, of this tenant and of this user, in seconds since 1970; 0 when there is none.
    ///
    /// Whoever cannot tell says so: then the token is not accepted.
    fn not_before(&self, tenant: Option<&str>, user: Option<&str>) -> Result<i64, MarksUnknown>;
}

/// The file of marks, looked at (not read, unless it changed) for every token. Marks never get lower: a file that vanishes, or is
/// replaced by an older one, brings no token back.
pub struct MarkFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

struct Seen {
    stamp: Option<Stamp>,
    marks: Marks,
}

/// A replaced file is another inode; one that is written in place has another time or size.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl MarkFile {
    /// Begins to follow a file. Before the first mark was set there is none; a file that cannot be used is an error.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MarksUnknown> {
        let marks = Self {
            path: path.as_ref().to_owned(),
            seen: Mutex::new(Seen {
                stamp: None,
                marks: Marks::default(),
            }),
        };
        marks.not_before(None, None)?;
        Ok(marks)
    }

    fn read(&self) -> Result<Option<(Stamp, Marks)>, MarksUnknown> {
        let unreadable = |source| MarksUnknown::Unreadable {
            path: self.path.clone(),
            source,
        };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let stamp = Stamp::of(&file.metadata().map_err(unreadable)?);
        let mut content = Vec::new();
        let limit = u64::try_from(MARK_FILE_BYTES_MAX).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut content).map_err(unreadable)?;
        let marks = Marks::parse(&content).map_err(|fault| MarksUnknown::Unusable {
            path: self.path.clone(),
            fault,
        })?;
        Ok(Some((stamp, marks)))
    }
}

impl NotBefore for MarkFile {
    fn not_before(&self, tenant: Option<&str>, user: Option<&str>) -> Result<i64, MarksUnknown> {
        let stamp = std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        // Changed by single assignments: after a panic it is one version or the other.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp.is_none() || stamp != seen.stamp {
            // The same answer for every token until the file is whole again: what it would say is not known.
            if let Some((stamp, marks)) = self.read()? {
                seen.marks = std::mem::take(&mut seen.marks).raised_by(marks);
                seen.stamp = Some(stamp);
            }
        }
        Ok(seen.marks.not_before(tenant, user))
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
