//! A file of somebody else's that holds secrets: locked, read once, replaced whole with a backup.
//!
//! The file may have been readable by others before; what replaces it is not. A file that others can write to is refused, and so is
//! a link, because whoever placed it decides what is written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::key::{Digest, Expected, Lock, LockFault, Place, ReadFault, Readers, ReplaceFault, Steps, Uninterrupted};

/// An existing file, held for a change. The lock is freed when the value is dropped.
pub struct SecretFile {
    path: PathBuf,
    place: Place,
    content: Zeroizing<Vec<u8>>,
    mode: u32,
    _lock: Lock,
}

/// Why a file cannot be changed, or was not.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It does not exist.
    #[error("there is no such file")]
    Missing,
    /// Its folder cannot be opened.
    #[error("its folder cannot be opened")]
    Folder(#[source] std::io::Error),
    /// It is not a plain file of the caller's own, or cannot be read.
    #[error(transparent)]
    Read(ReadFault),
    /// Somebody else is changing it.
    #[error(transparent)]
    Lock(LockFault),
    /// It was not replaced.
    #[error(transparent)]
    Replace(ReplaceFault),
}

impl SecretFile {
    /// Locks and reads the file, waiting at most `wait` for another writer.
    pub fn open(path: &Path, wait: Duration) -> Result<Self, FileFault> {
        let place = Place::at(path).map_err(FileFault::Folder)?.with_readers(Readers::Anybody);
        // Looked at before the lock file is made, so that a mistyped path leaves nothing behind.
        let mode = place.mode().map_err(|error| FileFault::Read(ReadFault::Io(error)))?;
        let mode = mode.ok_or(FileFault::Missing)?;
        let lock = Lock::take(&place, wait).map_err(FileFault::Lock)?;
        let content = place.read(BYTES_MAX).map_err(FileFault::Read)?;
        Ok(Self {
            path: path.to_owned(),
            place,
            content: content.ok_or(FileFault::Missing)?,
            mode,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The mode that it loses when it is replaced, if others can read it now.
    pub fn mode_lost(&self) -> Option<u32> {
        (self.mode & 0o077 != 0).then_some(self.mode)
    }

    /// Replaces it, mode 0600. The version before is durable as `<file>.bak` first.
    pub fn replace(&self, content: &[u8]) -> Result<(), FileFault> {
        self.replace_with(content, &mut Uninterrupted)
    }

    /// The same, telling `steps` what comes next.
    pub fn replace_with(&self, content: &[u8], steps: &mut dyn Steps) -> Result<(), FileFault> {
        let expected = Expected::Content(Digest::of(&self.content));
        self.place
            .keep_copy(&expected, steps)
            .and_then(|()| self.place.replace(content, &expected, steps))
            .map_err(FileFault::Replace)
    }
}

/// Far more than any env file or manifest of secrets; Kubernetes itself stops at 1 MiB.
pub(super) const BYTES_MAX: usize = 1024 * 1024;
