//! A file that holds secrets: read with care, replaced whole and durably.
//!
//! The folder is opened once and everything happens relative to it, so that no path is resolved twice. Temporary files have
//! fixed names (`<file>.tmp`, `<file>.bak.tmp`): a crash leaves at most one of each, and the next writer, who holds the lock,
//! removes it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use ring::digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A file name in an open folder.
pub(crate) struct Place {
    folder: OwnedFd,
    name: OsString,
    readers: Readers,
    mode: Mode,
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

/// What must be at a place for a replacement to go ahead.
pub(crate) enum Expected {
    /// No file.
    Nothing,
    /// The file that was read (B51).
    Content(Digest),
    /// Whatever is there may go.
    Anything,
}

/// The steps of a replacement, in order. A test may fail or kill the process before each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the temporary file.
    Create,
    /// Write the first half.
    Write,
    /// Write the second half.
    WriteRest,
    /// Make the content durable.
    Sync,
    /// Compare the present file with what was read.
    Recheck,
    /// Put the temporary file in place.
    Rename,
    /// Make the name durable.
    SyncFolder,
    /// Read the file back and compare.
    ReadBack,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Write,
        Self::WriteRest,
        Self::Sync,
        Self::Recheck,
        Self::Rename,
        Self::SyncFolder,
        Self::ReadBack,
    ];

    fn describe(self) -> &'static str {
        match self {
            Self::Create => "creating the temporary file",
            Self::Write | Self::WriteRest => "writing the temporary file",
            Self::Sync => "fsync of the temporary file",
            Self::Recheck => "looking at the present file again",
            Self::Rename => "renaming the temporary file",
            Self::SyncFolder => "fsync of the folder",
            Self::ReadBack => "reading the new file back",
        }
    }
}

/// Called before every step. What it returns is taken for the step's own result.
pub trait Steps {
    /// `target` is the name of the file being replaced; an error stops the replacement.
    fn before(&mut self, target: &OsStr, step: Step) -> io::Result<()>;
}

/// Lets every step happen.
pub struct Uninterrupted;

impl Steps for Uninterrupted {
    fn before(&mut self, _: &OsStr, _: Step) -> io::Result<()> {
        Ok(())
    }
}

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

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceFault {
    /// There is a file, and none was expected.
    #[error("the file exists already")]
    Exists,
    /// The file is not the one that was read.
    #[error("it was changed by somebody else meanwhile; nothing was written")]
    Changed,
    /// A step before the rename failed: the old version is in place.
    #[error("{} failed; the old version is unchanged", .step.describe())]
    Before {
        /// The step.
        step: Step,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The rename happened, and a later step failed: whether the new version survives a power failure is unknown.
    #[error("{} failed; the new version is in place, but it may not survive a power failure", .step.describe())]
    NotDurable {
        /// The step.
        step: Step,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
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
    pub(crate) fn read(&self, bytes_max: usize) -> Result<Option<Vec<u8>>, ReadFault> {
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

    /// Replaces the file by `content`, atomically and durably.
    pub(crate) fn replace(&self, content: &[u8], expected: &Expected, steps: &mut dyn Steps) -> Result<(), ReplaceFault> {
        self.replace_as(&self.name, content, expected, steps)
    }

    /// Keeps the present file as `.bak`, as durably as the file itself. Nothing to do when none is expected.
    pub(crate) fn keep_copy(&self, expected: &Expected, steps: &mut dyn Steps) -> Result<(), ReplaceFault> {
        let Expected::Content(digest) = expected else { return Ok(()) };
        let unreadable = |source| ReplaceFault::Before {
            step: Step::Recheck,
            source,
        };
        let present = self.read(usize::MAX).map_err(|fault| unreadable(io::Error::other(fault)))?;
        match present {
            Some(bytes) if Digest::of(&bytes) == *digest => self.overwrite_copy(&bytes, steps),
            Some(_) | None => Err(ReplaceFault::Changed),
        }
    }

    /// Makes `.bak` hold `content`.
    pub(crate) fn overwrite_copy(&self, content: &[u8], steps: &mut dyn Steps) -> Result<(), ReplaceFault> {
        self.replace_as(&with_suffix(&self.name, ".bak"), content, &Expected::Anything, steps)
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

    fn replace_as(
        &self,
        target: &OsStr,
        content: &[u8],
        expected: &Expected,
        steps: &mut dyn Steps,
    ) -> Result<(), ReplaceFault> {
        let temporary = with_suffix(target, ".tmp");
        let mut replacement = Replacement {
            place: self,
            target,
            temporary: &temporary,
            is_renamed: false,
        };
        let done = replacement.run(content, expected, steps);
        if done.is_err() && !replacement.is_renamed {
            // Best effort: a leftover is sealed, private, and removed by the next writer.
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        }
        done
    }
}

/// Writes a secret to a file of its own, mode 0600; an existing file is replaced only if `force` says so.
pub fn write_private(path: &Path, content: &[u8], force: bool) -> Result<(), ReplaceFault> {
    write_new(path, content, force, |place| place)
}

/// Writes what is no secret to a file of its own, mode 0644, as durably as a secret.
pub fn write_public(path: &Path, content: &[u8], force: bool) -> Result<(), ReplaceFault> {
    write_new(path, content, force, Place::public)
}

fn write_new(path: &Path, content: &[u8], force: bool, kind: fn(Place) -> Place) -> Result<(), ReplaceFault> {
    let place = Place::at(path).map(kind).map_err(|source| ReplaceFault::Before {
        step: Step::Create,
        source,
    })?;
    let expected = if force { Expected::Anything } else { Expected::Nothing };
    place.replace(content, &expected, &mut Uninterrupted)
}

/// One replacement under way.
struct Replacement<'a> {
    place: &'a Place,
    target: &'a OsStr,
    temporary: &'a OsStr,
    is_renamed: bool,
}

impl Replacement<'_> {
    fn run(&mut self, content: &[u8], expected: &Expected, steps: &mut dyn Steps) -> Result<(), ReplaceFault> {
        let folder = &self.place.folder;
        let (first, rest) = content.split_at(content.len() / 2);

        self.announce(steps, Step::Create)?;
        let mut file = self.create_temporary().map_err(|error| self.failed(Step::Create, error))?;
        self.announce(steps, Step::Write)?;
        file.write_all(first).map_err(|error| self.failed(Step::Write, error))?;
        self.announce(steps, Step::WriteRest)?;
        file.write_all(rest).map_err(|error| self.failed(Step::WriteRest, error))?;
        self.announce(steps, Step::Sync)?;
        file.sync_all().map_err(|error| self.failed(Step::Sync, error))?;

        self.announce(steps, Step::Recheck)?;
        self.recheck(expected)?;
        self.announce(steps, Step::Rename)?;
        self.rename(expected)?;
        self.is_renamed = true;

        self.announce(steps, Step::SyncFolder)?;
        rustix::fs::fsync(folder).map_err(|error| self.failed(Step::SyncFolder, error.into()))?;
        self.announce(steps, Step::ReadBack)?;
        match self.read(self.target) {
            Ok(Some(back)) if back == content => Ok(()),
            Ok(_) => Err(self.failed(Step::ReadBack, io::Error::other("the file does not hold what was written"))),
            Err(fault) => Err(self.failed(Step::ReadBack, io::Error::other(fault))),
        }
    }

    fn announce(&self, steps: &mut dyn Steps, step: Step) -> Result<(), ReplaceFault> {
        steps.before(self.target, step).map_err(|error| self.failed(step, error))
    }

    fn failed(&self, step: Step, source: io::Error) -> ReplaceFault {
        if self.is_renamed {
            ReplaceFault::NotDurable { step, source }
        } else {
            ReplaceFault::Before { step, source }
        }
    }

    fn create_temporary(&self) -> io::Result<File> {
        match rustix::fs::unlinkat(&self.place.folder, self.temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        // EXCL follows no link; a umask can only take rights away, so the mode is right from the first instant.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&self.place.folder, self.temporary, flags, PRIVATE)?;
        // And a umask such as 0777 does take rights away.
        rustix::fs::fchmod(&descriptor, self.place.mode)?;
        Ok(File::from(descriptor))
    }

    fn recheck(&self, expected: &Expected) -> Result<(), ReplaceFault> {
        let unreadable = |fault: ReadFault| self.failed(Step::Recheck, io::Error::other(fault));
        match expected {
            Expected::Anything => Ok(()),
            Expected::Nothing => match rustix::fs::statat(&self.place.folder, self.target, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(()),
                Ok(_) => Err(ReplaceFault::Exists),
                Err(error) => Err(self.failed(Step::Recheck, error.into())),
            },
            Expected::Content(digest) => match self.read(self.target).map_err(unreadable)? {
                Some(bytes) if Digest::of(&bytes) == *digest => Ok(()),
                Some(_) | None => Err(ReplaceFault::Changed),
            },
        }
    }

    fn rename(&self, expected: &Expected) -> Result<(), ReplaceFault> {
        let folder = &self.place.folder;
        let renamed = match expected {
            Expected::Nothing => {
                match rustix::fs::renameat_with(folder, self.temporary, folder, self.target, RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => return Err(ReplaceFault::Exists),
                    // Some file systems cannot do this; the check one step ago is the best there is.
                    Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(folder, self.temporary, folder, self.target),
                    done => done,
                }
            }
            Expected::Content(_) | Expected::Anything => rustix::fs::renameat(folder, self.temporary, folder, self.target),
        };
        renamed.map_err(|error| self.failed(Step::Rename, error.into()))
    }

    fn read(&self, name: &OsStr) -> Result<Option<Vec<u8>>, ReadFault> {
        let folder = self.place.folder.try_clone().map_err(ReadFault::Io)?;
        Place {
            folder,
            name: name.to_owned(),
            readers: self.place.readers,
            mode: self.place.mode,
        }
        .read(usize::MAX)
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

fn read_bounded(file: File, bytes_max: usize) -> Result<Vec<u8>, ReadFault> {
    let size = file.metadata().map_err(ReadFault::Io)?.len();
    let max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    if size > max {
        return Err(ReadFault::TooLarge { max: bytes_max });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
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

fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(suffix);
    name
}

/// Read and write for the owner, nothing for anybody else.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
/// The same, and everybody may read.
const PUBLIC: Mode = PRIVATE.union(Mode::RGRP).union(Mode::ROTH);
