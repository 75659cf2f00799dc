//! Telling a database which revision of each keyset this instance seals with next, so that a rotation can wait for it.
//!
//! One thread, beside everything else: sealing and opening never wait for it and never fail because of it. What it says is what the
//! rings in use would do, not what stands in the file. An instance that ends takes its entries away; one that dies leaves them to
//! their lease.

use std::convert::Infallible;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::keyring::{Keyring, NextSeal, Shared};
use crate::store::ledger::instance::{Instances, Report};
use crate::store::{self, Control, Store, StoreError};

/// How an instance reports.
#[derive(Debug, Clone)]
pub struct ReportOptions {
    /// How often, while nothing changes. 3 s unless told otherwise. Other keys are reported at once.
    pub every: Duration,
    /// How long a rotation counts on an instance that it no longer hears from. 30 s unless told otherwise.
    pub lease: Duration,
    /// The application and its version, for people.
    pub version: String,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self {
            every: EVERY_DEFAULT,
            lease: LEASE_DEFAULT,
            version: concat!("reseal ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Reports until it is dropped; then it takes the instance's entries away, and waits for that a moment at most.
#[must_use = "reporting ends when this is dropped: keep it as long as the application runs"]
pub struct Reporting {
    instance: String,
    status: Arc<Mutex<ReportStatus>>,
    /// Nothing is ever sent: its end tells the thread to end.
    alive: Option<mpsc::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// Whether reports arrive.
#[derive(Debug, Clone, Default)]
pub struct ReportStatus {
    /// When the last report was written; `None` before the first one.
    pub reported_at: Option<Instant>,
    /// The keysets in it, with the revision that the next seal uses. Those count that a handle was asked for.
    pub reported: Vec<(String, u64)>,
    /// Why the attempt after it failed; `None` while all is well.
    pub fault: Option<Arc<StoreError>>,
}

/// Why reporting could not begin. Nothing else is wrong with the keyring.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The text cannot name an instance.
    #[error("the name of an instance has 1 to {NAME_CHARS_MAX} characters, and no control characters")]
    Name,
    /// The URL cannot be used. A database that is merely away is waited for.
    #[error(transparent)]
    Database(#[from] StoreError),
    /// The thread that reports could not be started.
    #[error("the thread that reports could not be started")]
    Thread(#[source] std::io::Error),
}

impl Keyring {
    /// Reports to the database at this URL (`postgres://…`, `sqlite:PATH`) from now on, under this name and a suffix of its own.
    ///
    /// Returns at once. A child process that is forked off later does not report: begin in each process.
    pub fn report_to(&self, database: &str, instance: &str) -> Result<Reporting, ReportError> {
        self.report_with(database, instance, ReportOptions::default())
    }

    /// [`report_to`](Self::report_to), with options.
    pub fn report_with(&self, database: &str, instance: &str, options: ReportOptions) -> Result<Reporting, ReportError> {
        let length = instance.chars().count();
        if !(1..=NAME_CHARS_MAX).contains(&length) || instance.contains(char::is_control) {
            return Err(ReportError::Name);
        }
        // Two processes with one name would take each other for one instance, and the one that lags behind would not be seen.
        let instance = format!("{instance}/{:08x}", rand::rng().random::<u32>());
        let store = store::open(database, "reseal instance")?;
        let status = Arc::new(Mutex::new(ReportStatus::default()));
        let (alive, ended) = mpsc::channel();
        let mut reporter = Reporter {
            shared: Arc::downgrade(&self.shared),
            store,
            control: None,
            instance: instance.clone(),
            options,
            status: Arc::clone(&status),
            left_to_take_away: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ReportError::Thread)?;
        let thread = thread::Builder::new()
            .name("reseal-report".to_owned())
            .spawn(move || reporter.work(&runtime, &ended))
            .map_err(ReportError::Thread)?;
        Ok(Reporting {
            instance,
            status,
            alive: Some(alive),
            thread: Some(thread),
        })
    }
}

impl Reporting {
    /// The name that the instance is listed under.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether reports arrive: for a health check.
    pub fn status(&self) -> ReportStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            // It ends within its own limits; a panic in it was shown when it happened.
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Reporter {
    shared: Weak<Shared>,
    store: Arc<dyn Store>,
    control: Option<Box<dyn Control>>,
    instance: String,
    options: ReportOptions,
    status: Arc<Mutex<ReportStatus>>,
    /// Keysets with an entry of ours.
    left_to_take_away: Vec<String>,
}

impl Reporter {
    fn work(&mut self, runtime: &Runtime, ended: &mpsc::Receiver<Infallible>) {
        let mut last: Option<(Instant, Vec<NextSeal>)> = None;
        let mut failures = 0;
        // The keyring is not kept alive from here: without it nothing seals any more.
        while let Some(seals) = self.shared.upgrade().map(|shared| shared.next_seals()) {
            let is_news = |known: &[NextSeal]| {
                known.len() != seals.len() || known.iter().zip(&seals).any(|(one, other)| one.revision != other.revision)
            };
            let wait = if failures == 0 {
                self.options.every
            } else {
                backoff(failures)
            };
            let is_due = last
                .as_ref()
                .is_none_or(|(at, known)| at.elapsed() >= wait || (failures == 0 && is_news(known)));
            if is_due {
                let outcome = runtime.block_on(async { timeout(ATTEMPT_MAX, self.report(&seals)).await });
                let outcome = outcome.unwrap_or_else(|_| Err(StoreError::Disconnected("no answer in time".to_owned())));
                failures = if outcome.is_ok() { 0 } else { failures + 1 };
                self.note(outcome, &seals);
                last = Some((Instant::now(), seals));
            }
            match ended.recv_timeout(LOOK_EVERY.min(self.options.every)) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(never) => match never {},
            }
        }
        // An entry that cannot be taken away ends with its lease.
        let _ = runtime.block_on(async { timeout(LEAVE_MAX, self.leave()).await });
    }

    async fn report(&mut self, seals: &[NextSeal]) -> Result<(), StoreError> {
        let mut control = match self.control.take() {
            Some(control) => control,
            None => {
                let mut control = self.store.control().await?;
                control.migrate().await?;
                Instances::of(&mut *control).forget().await?;
                control
            }
        };
        for seal in seals {
            let keyset = seal.keyset.as_str();
            if !self.left_to_take_away.iter().any(|known| known == keyset) {
                self.left_to_take_away.push(keyset.to_owned());
            }
            let report = Report {
                instance: &self.instance,
                keyset,
                revision: seal.revision,
                seals_with: Some(seal.key.0),
                compromised_opens: seal.compromised_opens,
                version: &self.options.version,
                lease: self.options.lease,
            };
            Instances::of(&mut *control).report(&report).await?;
        }
        // Kept only after a success: whatever went wrong, the next attempt begins with a fresh connection.
        self.control = Some(control);
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), StoreError> {
        if self.left_to_take_away.is_empty() {
            return Ok(());
        }
        let mut control = match self.control.take() {
            Some(control) => control,
            None => self.store.control().await?,
        };
        for keyset in &self.left_to_take_away {
            Instances::of(&mut *control).leave(&self.instance, keyset).await?;
        }
        Ok(())
    }

    fn note(&self, outcome: Result<(), StoreError>, seals: &[NextSeal]) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                let reported = seals.iter().map(|seal| (seal.keyset.as_str().to_owned(), seal.revision));
                *status = ReportStatus {
                    reported_at: Some(Instant::now()),
                    reported: reported.collect(),
                    fault: None,
                };
            }
            Err(error) => {
                if status.fault.is_none() {
                    tracing::warn!(%error, "which keys are in use could not be reported; rotations wait for this instance or name it as gone");
                }
                status.fault = Some(Arc::new(error));
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.min(8)).min(RETRY_MAX)
}

/// A rotation waits for about as long as it takes to say it; a row written that often costs a database nothing.
const EVERY_DEFAULT: Duration = Duration::from_secs(3);
/// Ten reports lost in a row are no hiccup.
const LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// How soon other keys are noticed: comparing two numbers.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longer than the database's own limits for a statement of this kind, shorter than a lease.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);
/// How long the end of an application may wait for its entries to be taken away.
const LEAVE_MAX: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Long enough for a host's name and a pod's; short enough for a line.
const NAME_CHARS_MAX: usize = 200;
