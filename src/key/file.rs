//! A file that holds secrets: where it is, and reading it with care.
//!
//! The folder is opened once and everything happens relative to it, so that no path is resolved twice.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use ring::digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// A file name in an open folder.
pub(crate) struct Place {
    pub(super) folder: OwnedFd,
    pub(super) name: OsString,
    pub(super) readers: Readers,
    pub(super) mode: Mode,
}

/// Who may be able to read a file that is read here. Write access for anybody but the owner is refused in both cases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// The owner alone.
    Owner,
    /// Anybody: files that were there before Reseal. What replaces them is private.
    Anybody,
}

/// The SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

/// Why a file is not read: it is not a plain file that only its owner can reach (B50), or reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// A symbolic link.
    #[error("it is a symbolic link; name the file itself")]
    Symlink,
    /// A folder, pipe, device or socket.
    #[error("it is {0}, not a file")]
    NotAFile(&'static str),
    /// More than one name: somebody may keep a copy under another.
    #[error("it has {0} hard links; copy it to a file of its own")]
    HardLinks(u64),
    /// Owned by somebody else.
    #[error("it belongs to user {owner}, not to user {user} who runs this")]
    Owner {
        /// The owner's user id.
        owner: u32,
        /// The effective user id of the process.
        user: u32,
    },
    /// Group or others have rights.
    #[error("its mode is {mode:04o}: group or others can reach it; run chmod 600 on it")]
    Mode {
        /// The permission bits.
        mode: u32,
    },
    /// Larger than anything sensible.
    #[error("it is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// The operating system refused.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}

impl Place {
    /// The place that `path` names. Its folder must exist.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
        Ok(Self {
            folder,
            name: name.to_owned(),
            readers: Readers::Owner,
            mode: PRIVATE,
        })
    }

    /// The same place, where the present file may be one that others can read.
    pub(crate) fn with_readers(mut self, readers: Readers) -> Self {
        self.readers = readers;
        self
    }

    /// The same place for a file that holds no secret: others may read it, before and after.
    pub(crate) fn public(mut self) -> Self {
        self.readers = Readers::Anybody;
        self.mode = PUBLIC;
        self
    }

    /// The permission bits of the file, if there is one.
    pub(crate) fn mode(&self) -> io::Result<Option<u32>> {
        match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status.st_mode & 0o7777)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The whole file, if there is one and it is fit to hold keys. One open; every check is on what was opened.
    pub(crate) fn read(&self, bytes_max: usize) -> Result<Option<Zeroizing<Vec<u8>>>, ReadFault> {
        // NONBLOCK: opening a pipe must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(ReadFault::Symlink),
            Err(Errno::NXIO) => return Err(ReadFault::NotAFile("a socket or device")),
            Err(error) => return Err(ReadFault::Io(error.into())),
        };
        check(&file, self.readers)?;
        read_bounded(file, bytes_max).map(Some)
    }

    /// The lock file beside the file, made if need be.
    pub(super) fn open_lock_file(&self) -> Result<File, super::lock::LockFault> {
        use super::lock::LockFault;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let name = with_suffix(&self.name, ".lock");
        let file = match rustix::fs::openat(&self.folder, &name, flags, PRIVATE) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::LOOP) => return Err(LockFault::Unfit(ReadFault::Symlink)),
            Err(error) => return Err(LockFault::Unusable(error.into())),
        };
        check_private(&file).map_err(LockFault::Unfit)?;
        // A umask may have taken the owner's own rights away, and then the next writer could not open it.
        rustix::fs::fchmod(&file, PRIVATE).map_err(|error| LockFault::Unusable(error.into()))?;
        Ok(file)
    }
}

impl Digest {
    /// The digest of `content`.
    pub(crate) fn of(content: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, content).as_ref());
        Self(bytes)
    }
}

/// Refuses whatever is not a plain file with one name, owned by the caller, and closed to everybody else.
pub(crate) fn check_private(file: &File) -> Result<(), ReadFault> {
    check(file, Readers::Owner)
}

fn check(file: &File, readers: Readers) -> Result<(), ReadFault> {
    let status = rustix::fs::fstat(file).map_err(|error| ReadFault::Io(error.into()))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(ReadFault::NotAFile("a folder")),
        FileType::Fifo => return Err(ReadFault::NotAFile("a pipe")),
        FileType::CharacterDevice | FileType::BlockDevice => return Err(ReadFault::NotAFile("a device")),
        FileType::Symlink => return Err(ReadFault::Symlink),
        FileType::Socket | FileType::Unknown => return Err(ReadFault::NotAFile("something else")),
    }
    let user = rustix::process::geteuid().as_raw();
    if status.st_uid != user {
        return Err(ReadFault::Owner {
            owner: status.st_uid,
            user,
        });
    }
    let mode = status.st_mode & 0o7777;
    let forbidden = match readers {
        Readers::Owner => 0o077,
        Readers::Anybody => 0o022,
    };
    if mode & forbidden != 0 {
        return Err(ReadFault::Mode { mode });
    }
    // `st_nlink` is narrower on some platforms.
    #[allow(clippy::useless_conversion)]
    match u64::from(status.st_nlink) {
        1 => Ok(()),
        links => Err(ReadFault::HardLinks(links)),
    }
}

fn read_bounded(file: File, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, ReadFault> {
    let size = file.metadata().map_err(ReadFault::Io)?.len();
    let max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    if size > max {
        return Err(ReadFault::TooLarge { max: bytes_max });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
    // The file may grow while it is read.
    file.take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(ReadFault::Io)?;
    if bytes.len() > bytes_max {
        Err(ReadFault::TooLarge { max: bytes_max })
    } else {
        Ok(bytes)
    }
}

pub(super) fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(suffix);
    name
}

/// Read and write for the owner, nothing for anybody else.
pub(super) const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
/// The same, and everybody may read.
const PUBLIC: Mode = PRIVATE.union(Mode::RGRP).union(Mode::ROTH);
