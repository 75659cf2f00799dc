//! Why a rehearsal could not take place. What goes wrong inside one is not an error but a finding.

use std::io;

use super::customer::CabinetError;
use crate::app::{FollowError, SealError};
use crate::format::{RandomFailed, UnfitKey, UnknownFormat};
use crate::key::{KeyringError, KeysetError, ReplaceFault};
use crate::store::StoreError;

/// Why a rehearsal could not take place.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// Somebody asked for it to end.
    #[error("the drill was stopped")]
    Cancelled,
    /// Its folder, files or threads could not be made.
    #[error("the drill could not be set up")]
    Stage(#[source] io::Error),
    /// The program that rotates could not be run.
    #[error("the rotation could not be run")]
    Rotation(#[source] io::Error),
    /// A thread of ours panicked.
    #[error("{0} ended unexpectedly")]
    InstanceDied(String),
    /// SQLite refused outside the application's traffic.
    #[error("the drill's database")]
    Database(#[from] rusqlite::Error),
    /// The rotation's state could not be read.
    #[error("the rotation's state")]
    State(#[from] StoreError),
    /// A keyring file.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A change to the keyset was refused.
    #[error(transparent)]
    Keyset(#[from] KeysetError),
    /// The file of the identity could not be written.
    #[error("the drill's identity")]
    Identity(#[from] ReplaceFault),
    /// An instance could not open its keyring.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// An instance has no access to its columns.
    #[error(transparent)]
    Cabinet(#[from] CabinetError),
    /// A record could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A key does not fit.
    #[error(transparent)]
    Unfit(#[from] UnfitKey),
    /// A format of the table is unknown.
    #[error(transparent)]
    Format(#[from] UnknownFormat),
    /// The operating system's generator failed.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// A histogram could not be made.
    #[error("a histogram could not be made")]
    Histogram(#[from] hdrhistogram::CreationError),
}
