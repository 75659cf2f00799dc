//! The rotation of a whole keyset, with gates: introduce, promote, re-encrypt, verify, retire.
//!
//! ```text
//! introduce ─ gate ─► promote ─ gate ─► re-encrypt ─► verify ─► retire ─ gate ─► done
//! ```
//!
//! Keys change in the keyring file, instances acknowledge in their database, and the record of the rotation stands in the first database
//! of the keyset. Whatever stops a run, the same command goes on in the phase in which it died: where it stands is derived from the
//! states of the keys and from the record, and every gate is asked anew.

mod begin;
mod dataset;
mod decide;
mod destroy;
mod gate;
mod guards;
mod keyring;
mod ledgers;
mod machine;
mod operators;
mod phase;
mod presence;
mod replicas;
mod retire;
mod seen;
mod sessions;
mod undeclared;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::preflight::Finding;
use super::{Options, RotationError};
use crate::format::Format;
use crate::key::{KeyId, KeyringError, KeysetError, KeysetName, Unlock};
use crate::session::SessionError;
use crate::store::{Store, StoreError};

pub use begin::rotate;
pub use dataset::{DatasetReport, for_reader, plan, verify};
pub use decide::{Direction, Mode, Policy};
pub use destroy::destroy;
#[cfg(debug_assertions)]
pub use gate::break_gates;
pub use gate::{Gate, GateKind, GateRules, Missing, Passed};
pub use machine::{ManagedReport, PhaseReport};
pub use phase::{ForbiddenPhase, Phase, STEPS, Step};
pub use retire::{Need, RetirementProof, retire};
pub use sessions::{ManagedSessions, SessionsPlan, SessionsReport, plan_sessions};
pub use undeclared::{Undeclared, UndeclaredColumn, undeclared};

/// A keyset, where its values are, and how to go about rotating it.
pub struct Managed {
    /// The keyset.
    pub keyset: KeysetName,
    /// The keyring file.
    pub keyring: PathBuf,
    /// What opens it.
    pub unlock: Unlock,
    /// The databases with datasets of the keyset, or with instances that use it; the first one keeps the record. Not empty.
    pub places: Vec<Place>,
    /// The datasets of the keyset.
    pub datasets: Vec<ManagedDataset>,
    /// How values are rewritten.
    pub options: Options,
    /// How gates wait.
    pub gates: GateRules,
    /// How long backups are kept; `None` while nobody has decided.
    pub backup_horizon: Option<SignedDuration>,
    /// Tells the time that key transitions are recorded with. Nothing is decided by it alone.
    pub now: fn() -> Timestamp,
    /// The sessions that end before values are moved: when a key has leaked, all of them.
    pub sessions: Vec<ManagedSessions>,
}

/// A database.
pub struct Place {
    /// Its name in the configuration.
    pub name: String,
    /// The database.
    pub store: Arc<dyn Store>,
}

/// A table with values of the keyset.
pub struct ManagedDataset {
    /// Its name in the configuration.
    pub name: String,
    /// Which of the places it is in.
    pub place: usize,
    /// The table.
    pub table: String,
    /// The encrypted columns.
    pub columns: Vec<ManagedColumn>,
    /// The condition on its rows, in SQL. Rows outside are another keyset's, and are never looked at.
    pub filter: Option<String>,
}

/// An encrypted column of a dataset.
pub struct ManagedColumn {
    /// The column.
    pub name: String,
    /// The format of its values; detected when left out.
    pub format: Option<&'static dyn Format>,
    /// The template of the associated data.
    pub associated_data: Option<String>,
}

/// What the operator wants of a rotation.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Forwards to a new key, or back to the old one.
    pub direction: Direction,
    /// Whether a key has leaked, and what applications may still do with it then.
    pub compromised: Option<Policy>,
    /// Whether an open rotation may be ended in favour of a third key.
    pub supersede: bool,
    /// Whether the old keys are taken from readers in the end.
    pub retire: bool,
    /// Whether sessions end; otherwise the operator sees to them.
    pub sessions: bool,
}

/// Hears what goes on: who is waited for, what is done. The lines are for people.
pub trait Watch: Send + Sync {
    /// One line.
    fn say(&self, line: &str);

    /// The rotation has this id, whatever becomes of the run.
    fn rotation(&self, _id: &str) {}
}

/// Why the rotation of a keyset did not run to its end. Whatever was done before is durable, and the same command goes on.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// It was not begun, or not gone on with. Nothing was touched.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
        /// What to do.
        next: String,
    },
    /// Preflight found reasons in a dataset. Nothing was touched.
    #[error("dataset {dataset}: refused before the first write")]
    Preflight {
        /// The dataset.
        dataset: String,
        /// The reasons.
        findings: Vec<Finding>,
    },
    /// Somebody else is rotating the keyset.
    #[error("{holder} is rotating this keyset{}", .rotation.as_ref().map(|id| format!(" (rotation {id})")).unwrap_or_default())]
    Held {
        /// Who.
        holder: String,
        /// The rotation's id, once it has one.
        rotation: Option<String>,
    },
    /// A gate did not open in time.
    #[error("gate {}: not open after {} s: {waiting_for}", .gate.kind.as_str(), .gate.waited.as_secs())]
    Gate {
        /// How it stood.
        gate: Box<Gate>,
        /// The same, for people.
        waiting_for: String,
    },
    /// The keyring file cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The keyset refused a change.
    #[error(transparent)]
    Keyset(#[from] KeysetError),
    /// A dataset stopped the run.
    #[error("dataset {dataset}: {cause}")]
    Dataset {
        /// The dataset.
        dataset: String,
        /// Why.
        #[source]
        cause: RotationError,
    },
    /// A database failed.
    #[error("{step}: {cause}")]
    Store {
        /// What was being done.
        step: &'static str,
        /// What happened.
        #[source]
        cause: StoreError,
    },
    /// Sessions could not be ended, and no value was moved after that; or it was found out before anything was touched.
    #[error("sessions {name}: {cause}")]
    Sessions {
        /// Their name in the configuration.
        name: String,
        /// Why.
        #[source]
        cause: SessionError,
        /// Whether keys had changed before.
        begun: bool,
        /// How it stands with all of them.
        reports: Vec<SessionsReport>,
    },
    /// A phase would follow one that it does not follow: the record was edited, or this is a bug.
    #[error(transparent)]
    Phase(#[from] ForbiddenPhase),
    /// Stopped on request.
    #[error("stopped on request")]
    Stopped,
    /// Ended by an operator's request, or because it had waited for too long.
    #[error("{0}")]
    Ended(String),
}

impl ProtocolError {
    fn store(step: &'static str, cause: StoreError) -> Self {
        Self::Store { step, cause }
    }

    fn refused(why: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Refused {
            why: why.into(),
            next: next.into(),
        }
    }

    fn dataset(name: &str) -> impl Fn(RotationError) -> Self {
        move |cause| match cause {
            RotationError::Stopped => Self::Stopped,
            RotationError::Ended(why) => Self::Ended(why),
            RotationError::Refused(findings) => Self::Preflight {
                dataset: name.to_owned(),
                findings,
            },
            cause => Self::Dataset {
                dataset: name.to_owned(),
                cause,
            },
        }
    }
}

/// How a key of a keyset is named in a census.
fn label(keyset: &KeysetName, key: KeyId) -> String {
    format!("{keyset}@{key}")
}

/// How long another writer of the keyring is waited for.
const KEYRING_WAIT: Duration = Duration::from_secs(10);

/// Longer than a rolling deployment of a few instances, shorter than anybody's patience.
pub const GATE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// In a compromise every second counts; instances that follow the keyring file need one or two.
pub const EVICT_AFTER_DEFAULT: Duration = Duration::from_secs(15);
