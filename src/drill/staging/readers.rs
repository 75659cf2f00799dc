//! Readers of a staging environment's own tables: they open existing values with the keys that an application is given, all along.
//!
//! They write nothing, and they are no instances: no gate waits for them. A value that does not open is looked at again with the newest
//! keyring, as an application that uses the crate does, before it counts as a failure.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha20Rng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::{Builder, Runtime};

use crate::app::follow::Changes;
use crate::drill::DrillError;
use crate::drill::clock::now;
use crate::drill::failure::Failure;
use crate::drill::latency::Kind;
use crate::drill::tally::Tally;
use crate::key::Keyring;
use crate::rotation::census::Counter;
use crate::rotation::plan::Prepared;
use crate::rotation::protocol::{Managed, ProtocolError, for_reader};
use crate::store::control::Interval;
use crate::store::page::Page;
use crate::store::{PageLimits, Session, StoreError};

/// Readers that work by themselves.
pub(super) struct Readers {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts `count` of them, each with so many reads a second.
    pub(super) fn start(
        managed: &Arc<Managed>,
        count: usize,
        per_second: f64,
        seed: u64,
        tally: Tally,
    ) -> Result<Self, DrillError> {
        let mut readers = Self {
            tally: Arc::new(Mutex::new(tally)),
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for number in 0..count {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(DrillError::Stage)?;
            let mut file = Following::of(managed.keyring.clone());
            let mut reader = Reader {
                name: format!("reader-{number}"),
                managed: Arc::clone(managed),
                keyring: file.read_first(|| open(managed))?,
                file,
                looked: Instant::now(),
                tables: Vec::new(),
                rng: ChaCha20Rng::seed_from_u64(seed.wrapping_add(number as u64)),
                tally: Arc::clone(&readers.tally),
            };
            reader.tables = runtime.block_on(reader.tables())?;
            let stop = Arc::clone(&readers.stop);
            let every = Duration::from_secs_f64(1.0 / per_second.max(RATE_MIN));
            let thread = thread::Builder::new()
                .name(format!("reader-{number}"))
                .spawn(move || reader.work(&runtime, every, &stop))
                .map_err(DrillError::Stage)?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// What they did so far.
    pub(super) fn tally<T>(&self, look: impl FnOnce(&mut Tally) -> T) -> T {
        look(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends them, each after its present read.
    pub(super) fn finish(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A reader that panicked has told so, and stopped counting.
            let _ = thread.join();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Reader {
    name: String,
    managed: Arc<Managed>,
    file: Following,
    keyring: Keyring,
    /// When the keyring file was looked at last.
    looked: Instant,
    tables: Vec<ReadTable>,
    rng: ChaCha20Rng,
    tally: Arc<Mutex<Tally>>,
}

/// A dataset, as a reader sees it.
struct ReadTable {
    dataset: usize,
    prepared: Prepared,
    intervals: Vec<Interval>,
    session: Box<dyn Session>,
}

impl Reader {
    fn work(mut self, runtime: &Runtime, every: Duration, stop: &AtomicBool) {
        let mut due = Instant::now();
        while !stop.load(Ordering::SeqCst) {
            due += every;
            match due.checked_duration_since(Instant::now()) {
                Some(early) => thread::sleep(early),
                // Whoever had to wait for longer has gone away.
                None => due = due.max(Instant::now() - BACKLOG_MAX),
            }
            if self.looked.elapsed() >= LOOK_EVERY
                && let Some(opened) = self.look()
            {
                // A file that cannot be read now is read next time; the keys that are there stay.
                if let Ok(keyring) = opened {
                    let _ = runtime.block_on(self.take(keyring));
                }
                // An application opens its keyring beside its reads: what it takes (a passphrase, half a second) delays none of them.
                due = Instant::now();
            }
            let begun = now();
            let outcome = runtime.block_on(self.read());
            let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(rows) => {
                    tally.rows_checked += rows;
                    tally.done(Kind::Read, begun, took);
                }
                Err(failure) => {
                    tally.reads += 1;
                    if tally.incidents.len() < INCIDENTS_MAX {
                        let why = failure.describe();
                        tally.incidents.push(format!("{} at {begun}: {why}", self.name));
                    }
                    *tally.failed_reads.entry(failure).or_default() += 1;
                    tally.series.record_failure(Kind::Read, begun);
                }
            }
        }
    }

    /// A page somewhere in one of the datasets, every value of it opened. Gives the number of rows.
    async fn read(&mut self) -> Result<u64, Failure> {
        let at = self.rng.random_range(0..self.tables.len());
        let database = |error: StoreError| Failure::Database(error.to_string());
        let table = &mut self.tables[at];
        let Some(interval) = table.intervals.choose(&mut self.rng).cloned() else {
            return Ok(0);
        };
        for attempt in 0.. {
            let table = &mut self.tables[at];
            let mut page = Page::to_look_at(table.session.shape());
            let limits = PageLimits {
                rows: PAGE_ROWS,
                bytes: PAGE_BYTES_MAX,
                value_bytes_max: table.prepared.options.value_bytes_max,
                stands_back: false,
            };
            if let Err(error) = table.session.page(&interval, None, limits, &mut page).await {
                if !error.wants_reconnect() || attempt >= ATTEMPTS_MAX {
                    return Err(database(error));
                }
                // The next attempt says whether it helped.
                let _ = table.session.reconnect().await;
                continue;
            }
            let mut counter = Counter::opening(Arc::clone(&table.prepared.recipe));
            counter.count(&interval.relation, &page);
            let census = &counter.census;
            let unreadable = census.quarantined().saturating_sub(census.too_wide);
            if unreadable == 0 {
                return Ok(census.rows);
            }
            let unopened = |error: DrillError| Failure::Unopened(error.to_string());
            let is_other = match self.look() {
                Some(opened) => self.take(opened.map_err(unopened)?).await.map_err(unopened)?,
                None => false,
            };
            if !is_other {
                let reason = counter.census.quarantined_values.first();
                let reason = reason.map_or_else(String::new, |(_, value)| format!(": {}", value.reason));
                return Err(Failure::Unopened(format!(
                    "{}{reason}",
                    self.managed.datasets[self.tables[at].dataset].name
                )));
            }
        }
        Ok(0)
    }

    /// Opens the keyring if its file has changed.
    fn look(&mut self) -> Option<Result<Keyring, DrillError>> {
        self.looked = Instant::now();
        self.file.read_if_changed(|| open(&self.managed))
    }

    /// Takes the keyring if it is a newer one. Says whether it is.
    async fn take(&mut self, keyring: Keyring) -> Result<bool, DrillError> {
        if keyring.generation() == self.keyring.generation() {
            return Ok(false);
        }
        self.keyring = keyring;
        for table in &mut self.tables {
            let dataset = &self.managed.datasets[table.dataset];
            table.prepared = for_reader(&self.managed, dataset, &self.keyring).await.map_err(unread)?;
        }
        Ok(true)
    }

    async fn tables(&self) -> Result<Vec<ReadTable>, DrillError> {
        let mut tables = Vec::new();
        for (at, dataset) in self.managed.datasets.iter().enumerate() {
            let store = &self.managed.places[dataset.place].store;
            let prepared = for_reader(&self.managed, dataset, &self.keyring).await.map_err(unread)?;
            tables.push(ReadTable {
                dataset: at,
                intervals: store.intervals(&prepared.survey, PIECES, false).await?,
                session: store.session(&prepared.survey).await?,
                prepared,
            });
        }
        Ok(tables)
    }
}

/// A file that is read when it has changed, and again as long as it cannot be read.
struct Following {
    changes: Changes,
    is_unread: bool,
}

impl Following {
    fn of(path: PathBuf) -> Self {
        Self {
            changes: Changes::of(path),
            is_unread: false,
        }
    }

    fn read_first<T, E>(&mut self, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.changes.are_there();
        read()
    }

    fn read_if_changed<T, E>(&mut self, read: impl FnOnce() -> Result<T, E>) -> Option<Result<T, E>> {
        self.is_unread |= self.changes.are_there();
        let read = self.is_unread.then(read)?;
        self.is_unread = read.is_err();
        Some(read)
    }
}

fn open(managed: &Managed) -> Result<Keyring, DrillError> {
    Ok(Keyring::open(&managed.keyring, &managed.unlock, 0)?)
}

fn unread(error: ProtocolError) -> DrillError {
    DrillError::Staging(error.to_string())
}

/// Pieces of each dataset, at whose beginnings pages are read.
const PIECES: usize = 64;
const PAGE_ROWS: usize = 20;
const PAGE_BYTES_MAX: usize = 1 << 20;
/// How soon a new keyring is noticed; a gate is polled about as often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const BACKLOG_MAX: Duration = Duration::from_secs(2);
const RATE_MIN: f64 = 1.0 / 60.0;
const ATTEMPTS_MAX: u32 = 3;
const INCIDENTS_MAX: usize = 50;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_changed_and_again_while_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        std::fs::write(&path, "one").unwrap();
        let mut file = Following::of(path.clone());
        let read = || std::fs::read_to_string(&path);
        assert_eq!(file.read_first(read).unwrap(), "one");
        for _ in 0..100 {
            assert!(file.read_if_changed(read).is_none(), "it costs half a second");
        }
        let next = folder.path().join("next");
        std::fs::write(&next, "two").unwrap();
        std::fs::rename(&next, &path).unwrap();
        for _ in 0..2 {
            let broken: Option<Result<String, ()>> = file.read_if_changed(|| Err(()));
            assert!(broken.is_some_and(|read| read.is_err()));
        }
        assert_eq!(file.read_if_changed(read).unwrap().unwrap(), "two");
        assert!(file.read_if_changed(read).is_none());
    }
}
