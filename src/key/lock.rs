//! The exclusive lock of whoever changes a keyring: an advisory lock on `<file>.lock`, which the kernel releases when its
//! holder dies. The file names the holder and is never deleted: deleting it would let two writers lock two different files.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::time::{Duration, Instant};

use super::file::{Place, ReadFault};

/// Held until dropped.
pub(crate) struct Lock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockFault {
    /// Somebody else holds it.
    #[error("another process is changing it: {holder}")]
    Held {
        /// What the holder wrote about itself: process id and host.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error("its lock file cannot be used")]
    Unusable(#[source] io::Error),
    /// The lock file is not a plain file of ours.
    #[error("its lock file cannot be used: {0}")]
    Unfit(ReadFault),
}

impl Lock {
    /// Takes the lock of the file at `place`, waiting at most `wait`.
    pub(crate) fn take(place: &Place, wait: Duration) -> Result<Self, LockFault> {
        let mut file = place.open_lock_file()?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() < wait => std::thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => {
                    return Err(LockFault::Held {
                        holder: read_holder(&mut file),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(LockFault::Unusable(error)),
            }
        }
        name_holder(&mut file).map_err(LockFault::Unusable)?;
        Ok(Self { _file: file })
    }
}

fn name_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let host = rustix::system::uname();
    let text = format!("process {} on {}\n", std::process::id(), host.nodename().to_string_lossy());
    file.write_all(text.as_bytes())
}

fn read_holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(HOLDER_BYTES_MAX).read_to_end(&mut bytes));
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .collect();
    if read.is_err() || text.is_empty() {
        "a process that has not named itself".to_owned()
    } else {
        text
    }
}

/// How often a held lock is tried again: far below what a person notices, far above what a busy loop costs.
const POLL: Duration = Duration::from_millis(25);

/// A process id and a host name fit; what is longer was not written by us.
const HOLDER_BYTES_MAX: u64 = 300;
