//! Replacing a file: whole, durably, step by step.
//!
//! A temporary file has a fixed name, `.<file>.reseal-tmp`: a crash leaves at most one, and the next writer removes it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::file::{Digest, PRIVATE, Place, ReadFault, with_suffix};

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

    fn replace_as(
        &self,
        target: &OsStr,
        content: &[u8],
        expected: &Expected,
        steps: &mut dyn Steps,
    ) -> Result<(), ReplaceFault> {
        let mut temporary = OsString::from(".");
        temporary.push(with_suffix(target, ".reseal-tmp"));
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
            Ok(Some(back)) if *back == content => Ok(()),
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

    fn read(&self, name: &OsStr) -> Result<Option<Zeroizing<Vec<u8>>>, ReadFault> {
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
