//! Why a rehearsal could not take place. What goes wrong inside one is not an error but a finding.

use std::io;

use super::customer::CabinetError;
use super::table::TableError;
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
    /// The staging environment cannot be read.
    #[error("the staging environment: {0}")]
    Staging(String),
    /// The plan of the rotation found reasons against it.
    #[error("the plan found reasons against a rotation: {0}")]
    Planned(String),
    /// Rotations of the keyset have begun and not ended.
    #[error("a rotation of keyset {0} is unfinished (phase {1}): a rehearsal of what is left of it would prove little")]
    Unfinished(String, &'static str),
    /// Its folder, files or processes could not be made.
    #[error("the drill could not be set up")]
    Stage(#[source] io::Error),
    /// The folder for temporary files is full, or cannot be written.
    #[error("the folder for temporary files, {folder}, takes no files of the drill")]
    NoRoom {
        /// The folder.
        folder: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A command of the operator could not be run.
    #[error("a command of the operator could not be run")]
    Rotation(#[source] io::Error),
    /// A command without which there is no rehearsal failed.
    #[error("{0} failed: {1}")]
    Command(&'static str, String),
    /// An instance ended by itself.
    #[error("{0} ended unexpectedly: {1}")]
    InstanceDied(String, String),
    /// What instances tell cannot be read.
    #[error("the journals of the instances cannot be read")]
    Journal,
    /// Connections cannot be cut where none can be reached.
    #[error("connections can only be cut on the way to a PostgreSQL server on this machine")]
    NothingToCut,
    /// The drill's table.
    #[error("the drill's table")]
    Table(#[from] TableError),
    /// The store of sessions.
    #[error("the store of sessions")]
    Logins(#[source] TableError),
    /// The rotation's state could not be read.
    #[error("the rotation's state")]
    State(#[from] StoreError),
    /// A keyring file.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A change to the keyset was refused.
    #[error(transparent)]
    Keyset(#[from] KeysetError),
    /// A private file could not be written.
    #[error("the drill's files")]
    Private(#[from] ReplaceFault),
    /// The keyring could not be opened for the first records.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The keyring does not serve the columns.
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
