//! The counts of what this process seals, one for each key: they outlive the versions of the keyring.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::format::Format;
use crate::key::{Key, SealMeter};

/// The meters of a followed keyring; none for keys in memory.
pub(super) struct Meters {
    path: Option<PathBuf>,
    known: Mutex<Vec<(u64, Arc<SealMeter>)>>,
}

impl Meters {
    /// Meters that keep their counts in the file at `path`; with none, nothing is counted.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            known: Mutex::default(),
        }
    }

    /// The meter of a key that seals values of `format`; `None` where no number of values is too many.
    pub(super) fn meter(&self, key: &Key, format: &dyn Format) -> Option<Arc<SealMeter>> {
        let (path, fingerprint, max) = (self.path.as_ref()?, key.fingerprint()?, format.values_per_key_max());
        if max == u64::MAX {
            return None;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known
            .iter()
            .find(|(limit, meter)| *limit == max && meter.fingerprint() == fingerprint);
        if let Some((_, meter)) = found {
            return Some(Arc::clone(meter));
        }
        let meter = Arc::new(SealMeter::new(path.clone(), fingerprint, max));
        known.push((max, Arc::clone(&meter)));
        Some(meter)
    }

    /// Whether values were sealed that the file does not count.
    pub(super) fn are_unrecorded(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|(_, meter)| meter.is_unrecorded())
    }
}
