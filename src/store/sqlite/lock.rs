//! One operator at a time: a lock file beside the database, locked by the operating system, which frees it when the process dies.
//!
//! The file's content only names the holder. What counts is the lock on the file that stands at the path: after locking, the two
//! are compared, because a take-over puts a new file there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::OFlags;

use crate::store::{OperatorLock, StoreError};

/// The lock, held until it is dropped.
pub(super) struct LockFile {
    path: PathBuf,
    file: File,
}

impl LockFile {
    /// Takes the lock beside `database` whose name ends in `suffix`, or says who holds it. With `take_over` the holder's file is replaced: it notices at its
    /// next look, and its writes end at the fence.
    pub(super) fn take(database: &Path, suffix: &str, owner: &str, take_over: bool) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        if take_over {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(unusable(&path, &error)),
                _ => {}
            }
        }
        for _ in 0..ATTEMPTS {
            let mut file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Held {
                        holder: holder(&mut file),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
            }
            let mut lock = Self {
                path: path.clone(),
                file,
            };
            if lock.is_at_path()? {
                lock.write_owner(owner)?;
                return Ok(lock);
            }
            // Between opening and locking, another run let its lock go or took one over: the file at the path is another now.
        }
        Err(StoreError::Held {
            holder: "several runs at once".to_owned(),
        })
    }

    fn write_owner(&mut self, owner: &str) -> Result<(), StoreError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.write_all(owner.as_bytes()))
            .map_err(|error| unusable(&self.path, &error))
    }

    fn is_at_path(&self) -> Result<bool, StoreError> {
        let ours = self.file.metadata().map_err(|error| unusable(&self.path, &error))?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(unusable(&self.path, &error)),
        }
    }
}

#[async_trait]
impl OperatorLock for LockFile {
    async fn still_held(&mut self) -> Result<(), StoreError> {
        if self.is_at_path()? {
            return Ok(());
        }
        let holder = open_existing(&self.path).map_or_else(|_| UNNAMED.to_owned(), |mut file| holder(&mut file));
        Err(StoreError::Held { holder })
    }

    /// A file has no connection that could be lost.
    async fn retake(&mut self) -> Result<(), StoreError> {
        self.still_held().await
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // It stays, and names nobody: between a look at the path and a removal, a take-over may put a file of its own there.
        let _ = self.file.set_len(0);
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(|error| unusable(path, &error))
}

fn open_existing(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

fn holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file.take(OWNER_BYTES_MAX).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).replace(char::is_control, " ");
    match (read, text.trim()) {
        (Ok(1..), text) if !text.is_empty() => text.to_owned(),
        _ => UNNAMED.to_owned(),
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Refused(format!("the lock file {} cannot be used: {error}", path.display()))
}

/// A holder that has not written its name yet.
const UNNAMED: &str = "another run";
/// Enough for a name; nobody's memory is filled by a strange file.
const OWNER_BYTES_MAX: u64 = 1024;
/// Each further attempt means that another run came and went in between.
const ATTEMPTS: usize = 16;
