//! How many values keys have sealed, from the file beside the keyring and from files that were brought from elsewhere.

use std::path::{Path, PathBuf};

use crate::cli::{CliError, Exit};
use crate::format::RANDOM_NONCES_PER_KEY_MAX;
use crate::key::{Algorithm, Key, SealCounts, SealsFault, seals_refused_at, seals_warned_at};

/// The count of a key, where it matters.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(super) struct Sealed {
    /// Values sealed, at most; `None` when nobody has counted.
    pub(super) counted: Option<u64>,
    /// From here on a successor is due.
    pub(super) warned_at: u64,
    /// From here on it seals no more.
    pub(super) refused_at: u64,
}

/// The counts of a keyring.
pub(super) struct Tallies {
    counts: Option<SealCounts>,
}

impl Tallies {
    /// Reads what was counted beside the keyring, and adds the files of other hosts, which must be there.
    pub(super) fn read(keyring: &Path, elsewhere: &[PathBuf]) -> Result<Self, CliError> {
        let beside = SealCounts::beside(keyring);
        let mut counts = SealCounts::read(&beside).map_err(|fault| unreadable(&beside, &fault))?;
        for path in elsewhere {
            let more = SealCounts::read(path).map_err(|fault| unreadable(path, &fault))?;
            let more = more.ok_or_else(|| {
                CliError::new(Exit::Unusable, "there is no such file").at(format!("seal counts {}", path.display()))
            })?;
            counts.get_or_insert_default().add(&more);
        }
        Ok(Self { counts })
    }

    /// The count of a key; `None` where no number of values is too many (Fernet: 128-bit initialisation vectors; signatures).
    pub(super) fn of(&self, key: &Key) -> Option<Sealed> {
        match key.algorithm() {
            Algorithm::Aes256Gcm | Algorithm::Aes128Gcm => {}
            Algorithm::Fernet | Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 | Algorithm::Ed25519 => return None,
        }
        let fingerprint = key.fingerprint()?;
        Some(Sealed {
            counted: self.counts.as_ref().map(|counts| counts.of(fingerprint)),
            warned_at: seals_warned_at(RANDOM_NONCES_PER_KEY_MAX),
            refused_at: seals_refused_at(RANDOM_NONCES_PER_KEY_MAX),
        })
    }
}

fn unreadable(path: &Path, fault: &SealsFault) -> CliError {
    CliError::from_error(Exit::Unusable, fault)
        .at(format!("seal counts {}", path.display()))
        .next("look at the file; moved away, counting begins anew, and what was sealed before must be added by hand")
}
