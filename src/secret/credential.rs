//! Credentials that `systemd-creds` seals to this machine. The name is sealed in, so that one cannot stand in for another.

use std::path::Path;
use std::process::Command;

use zeroize::Zeroizing;

use super::child::{self, ChildFault};
use super::rotate::{RotateFault, Surroundings};
use super::{FileFault, SecretText};
use crate::key::{Digest, Expected, Lock, Place, Readers, Uninterrupted};

/// The present credential; `None` when there is no file yet.
pub(super) fn decrypt(file: &Path, name: &str, around: &Surroundings) -> Result<Option<SecretText>, RotateFault> {
    let place = place(file)?;
    let Some(sealed) = place
        .read(BYTES_MAX)
        .map_err(|fault| RotateFault::File(FileFault::Read(fault)))?
    else {
        return Ok(None);
    };
    let mut command = systemd_creds(around)?;
    command.args(["decrypt", &format!("--name={name}"), "-", "-"]);
    let opened = child::run(command, &sealed, around.command_timeout).map_err(RotateFault::Child)?;
    let text = std::str::from_utf8(&opened).map_err(|_| RotateFault::List(name.to_owned()))?;
    Ok(Some(SecretText::new(text.to_owned())))
}

/// Seals a credential and replaces the file, if there is one; the version before stays as `.bak`. Says whether there was one.
pub(super) fn encrypt(file: &Path, name: &str, value: &SecretText, around: &Surroundings) -> Result<bool, RotateFault> {
    let place = place(file)?;
    let lock = Lock::take(&place, around.lock_wait).map_err(|fault| RotateFault::File(FileFault::Lock(fault)))?;
    let present = place
        .read(BYTES_MAX)
        .map_err(|fault| RotateFault::File(FileFault::Read(fault)))?;
    let expected = present
        .as_deref()
        .map_or(Expected::Nothing, |bytes| Expected::Content(Digest::of(bytes)));
    let mut command = systemd_creds(around)?;
    command.args(["encrypt", &format!("--name={name}"), "-", "-"]);
    let sealed = child::run(command, value.expose().as_bytes(), around.command_timeout).map_err(RotateFault::Child)?;
    let sealed: Zeroizing<Vec<u8>> = sealed;
    place
        .keep_copy(&expected, &mut Uninterrupted)
        .and_then(|()| place.replace(&sealed, &expected, &mut Uninterrupted))
        .map_err(|fault| RotateFault::File(FileFault::Replace(fault)))?;
    drop(lock);
    Ok(present.is_some())
}

/// Whether sealing is possible at all: asked before anything is written.
pub(super) fn require(around: &Surroundings) -> Result<(), RotateFault> {
    let mut command = systemd_creds(around)?;
    command.arg("--version");
    child::run(command, b"", around.command_timeout)
        .map(drop)
        .map_err(RotateFault::Child)
}

fn place(file: &Path) -> Result<Place, RotateFault> {
    let place = Place::at(file).map_err(|error| RotateFault::File(FileFault::Folder(error)))?;
    Ok(place.with_readers(Readers::Anybody))
}

fn systemd_creds(around: &Surroundings) -> Result<Command, RotateFault> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file());
    if !is_there {
        return Err(RotateFault::Child(ChildFault::NotInstalled(PROGRAM)));
    }
    let mut command = Command::new(PROGRAM);
    for name in &around.kept_from_children {
        command.env_remove(name);
    }
    Ok(command)
}

const PROGRAM: &str = "systemd-creds";

/// systemd itself takes credentials of up to 1 MiB.
const BYTES_MAX: usize = 1024 * 1024;
