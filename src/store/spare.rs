//! Connections that are used again within a moment: making one costs a server more than most questions do.
//!
//! Only what has just answered is kept, and only for a second: a connection that is older may have been closed by whoever stands between,
//! or lead to a server that is the primary no more, and whoever connects anew finds out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Things to be used again, each with when it was put back.
pub(crate) struct Spare<T>(Mutex<Vec<(T, Instant)>>);

impl<T> Spare<T> {
    /// One that was put back within the last second, if there is one. Older ones are dropped.
    pub(crate) fn take(&self) -> Option<T> {
        let mut kept = self.lock();
        kept.retain(|(_, since)| since.elapsed() < KEPT_FOR);
        kept.pop().map(|(thing, _)| thing)
    }

    /// Puts back what has answered well: nothing of what it was asked is under way.
    pub(crate) fn put_back(&self, thing: T) {
        self.lock().push((thing, Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(T, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

const KEPT_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_back_is_used_again_but_not_when_it_is_old() {
        let spare = Spare::default();
        assert_eq!(spare.take(), None);
        spare.put_back("first");
        spare.put_back("second");
        assert_eq!(spare.take(), Some("second"));
        for (_, since) in spare.lock().iter_mut() {
            *since -= KEPT_FOR;
        }
        assert_eq!(spare.take(), None);
        assert!(spare.lock().is_empty(), "an old one is closed");
    }
}
