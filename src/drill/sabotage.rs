//! Ways to break the tool on purpose, so that tests can see the rehearsal fail with the right sentence. No command line reaches them,
//! and a release build does nothing about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::DrillError;
use super::table::{Place, TableError};
use crate::store::ledger::instance::{Instances, Report};
use crate::store::{self, StoreError};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sabotage {
    /// A reader keeps the first key only, and says that it has the others.
    ReaderWithOldKeyOnly,
    /// A writer goes on sealing with the old key, and says that it does not.
    WriterWithOldKeyOnly,
    /// An instance never follows its keyring, and does not say that it does.
    InstanceLagsBehind,
    /// The rotation's gates stand open: the new key is promoted although an instance has not got it.
    PromoteBeforeAcknowledgement,
    /// The old key is taken from readers while values need it.
    RetireBeforeRotate,
    /// Somebody writes back what he read a while ago, without comparing.
    SwapWithoutComparison,
    /// A key has leaked, and nobody ends the sessions.
    SessionsForgotten,
    /// Somebody who is logged in is logged out by accident.
    SessionLost,
}

impl Sabotage {
    /// Only where tests run.
    pub const IS_POSSIBLE: bool = cfg!(debug_assertions);

    /// Which instance is broken, if one is.
    pub fn hits(self) -> Option<&'static str> {
        match self {
            Self::ReaderWithOldKeyOnly | Self::InstanceLagsBehind | Self::PromoteBeforeAcknowledgement => Some("reader-0"),
            Self::WriterWithOldKeyOnly => Some("writer-0"),
            Self::RetireBeforeRotate | Self::SwapWithoutComparison | Self::SessionsForgotten | Self::SessionLost => None,
        }
    }

    /// Whether the instance that it hits stays with the keys that it had first.
    pub fn keeps_first_keys(self) -> bool {
        self.hits().is_some()
    }

    /// Whether that instance says that it has others.
    pub fn lies(self) -> bool {
        matches!(self, Self::ReaderWithOldKeyOnly | Self::WriterWithOldKeyOnly)
    }
}

/// Reports to the rotation, until dropped, that an instance has every revision that there will be.
pub struct Boast {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Boast {
    /// Starts it for the instance of this name.
    pub fn start(url: &str, instance: &str, keyset: &str) -> Result<Self, StoreError> {
        let stop = Arc::new(AtomicBool::new(false));
        let store = store::open(url, "reseal instance")?;
        let (instance, keyset, stopped) = (instance.to_owned(), keyset.to_owned(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| StoreError::Disconnected(error.to_string()))?;
            let mut control = runtime.block_on(store.control())?;
            runtime.block_on(control.migrate())?;
            while !stopped.load(Ordering::Relaxed) {
                let report = Report {
                    instance: &instance,
                    keyset: &keyset,
                    revision: BOAST,
                    seals_with: None,
                    compromised_opens: 0,
                    version: "broken on purpose",
                    lease: BOAST_LEASE,
                };
                runtime.block_on(Instances::of(&mut *control).report(&report))?;
                thread::sleep(HELD_BACK);
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Boast {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it says is not true anyway.
            let _ = thread.join();
        }
    }
}

/// Rewrites rows blindly until dropped: what a batch script does that reads a page and updates by primary key.
pub struct BlindRewriter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), TableError>>>,
}

impl BlindRewriter {
    /// Starts it on a table.
    pub fn start(place: &Place) -> Result<Self, DrillError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut table = place.open("reseal drill blind rewriter")?;
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let page = table.fetch(0, i64::MAX)?;
                thread::sleep(HELD_BACK);
                for (id, row) in page {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    table.replace(id, &row)?;
                }
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for BlindRewriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It is meant to do damage; how it ended does not matter.
            let _ = thread.join();
        }
    }
}

/// A variable of the rotation's environment that lets its gates stand open. Only builds with debug assertions look at it.
pub const OPEN_GATES: &str = "RESEAL_DEBUG_OPEN_GATES";

/// Above every revision that a rehearsal comes to.
const BOAST: u64 = 1_000;
const BOAST_LEASE: Duration = Duration::from_secs(5);
/// Long enough for a write of the application to come between.
const HELD_BACK: Duration = Duration::from_millis(300);
