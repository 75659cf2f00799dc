//! Reads along in the journals of all instances, keeps the model, and judges every read.
//!
//! First what readers told is taken in, then what writers told: a write that a finished read can have seen was told before it was sent,
//! and is therefore known when the read is judged.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::clock::Moment;
use super::customer::Content;
use super::failure::Failure;
use super::journal::{Event, Tail};
use super::latency::Kind;
use super::model::Model;
use super::tally::Tally;

/// Everything that is known of the application.
pub struct Checker {
    /// What was written.
    pub model: Model,
    /// What was done.
    pub tally: Tally,
    sources: Vec<Source>,
    /// Reads that are over and not judged yet.
    waiting: Vec<Read>,
}

/// One process of an instance: a restarted one has a new journal.
struct Source {
    name: String,
    is_reader: bool,
    tail: Tail,
    /// It will not tell any more.
    is_over: bool,
    /// Nothing that it tells from now on began earlier.
    last: Moment,
    follows: Option<u64>,
    /// The row that it is writing.
    unconfirmed: BTreeMap<i64, Moment>,
}

struct Read {
    source: usize,
    first: i64,
    seen: Vec<Option<Content>>,
    unopened: Vec<(i64, Failure)>,
    begun: Moment,
    ended: Moment,
    took: Option<u64>,
    /// It settles a write whose reply was lost.
    settles: bool,
}

/// Which journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceId(usize);

impl Checker {
    /// Nothing known yet.
    pub fn new(origin: Moment) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            model: Model::default(),
            tally: Tally::new(origin)?,
            sources: Vec::new(),
            waiting: Vec::new(),
        })
    }

    /// Reads along in one more journal.
    pub fn add(&mut self, name: &str, is_reader: bool, journal: PathBuf, now: Moment) -> SourceId {
        self.sources.push(Source {
            name: name.to_owned(),
            is_reader,
            tail: Tail::new(journal),
            is_over: false,
            last: now,
            follows: None,
            unconfirmed: BTreeMap::new(),
        });
        SourceId(self.sources.len() - 1)
    }

    /// The keyset revision that the process follows, if it has told one.
    pub fn follows(&self, source: SourceId) -> Option<u64> {
        self.sources[source.0].follows
    }

    /// The process is gone: its journal is complete. Returns the row that it was writing.
    pub fn ended(&mut self, source: SourceId) -> io::Result<Option<i64>> {
        self.catch_up()?;
        let source = &mut self.sources[source.0];
        source.is_over = true;
        Ok(source.unconfirmed.pop_last().map(|(id, _)| id))
    }

    /// Takes in everything that was told until now.
    pub fn catch_up(&mut self) -> io::Result<()> {
        for is_reader in [true, false] {
            for at in 0..self.sources.len() {
                if self.sources[at].is_reader == is_reader && !self.sources[at].is_over {
                    self.take_in(at)?;
                }
            }
        }
        for read in std::mem::take(&mut self.waiting) {
            self.judge(read);
        }
        let live = self.sources.iter().filter(|source| !source.is_over);
        if let Some(horizon) = live.map(|source| source.last).min() {
            self.model.forget(horizon);
        }
        Ok(())
    }

    fn take_in(&mut self, at: usize) -> io::Result<()> {
        let Self {
            model,
            tally,
            sources,
            waiting,
        } = self;
        let source = &mut sources[at];
        let Source {
            name,
            tail,
            last,
            follows,
            unconfirmed,
            ..
        } = source;
        tail.read(|event| match event {
            Event::Follows { revision } => *follows = Some(revision),
            Event::Begins { id, content, at } => {
                model.begin(id, content, at);
                unconfirmed.insert(id, at);
                *last = at;
            }
            Event::Confirmed { id, at, took } => {
                model.acknowledge(id, at);
                let begun = unconfirmed.remove(&id).unwrap_or(at);
                tally.done(Kind::Write, begun, took);
                *last = at;
            }
            Event::WriteFailed { id, at, failure } => {
                model.revoke(id);
                unconfirmed.remove(&id);
                tally.failed(Kind::Write, name, id, at, failure, &model.tell(id));
                *last = at;
            }
            Event::Looked {
                id,
                content,
                begun,
                ended,
                took,
            } => {
                let happened = model.settle(id, content, ended);
                tally.settled[usize::from(!happened)] += 1;
                unconfirmed.remove(&id);
                if happened {
                    tally.done(Kind::Write, begun, took);
                }
                waiting.push(Read {
                    source: at,
                    first: id,
                    seen: vec![content],
                    unopened: Vec::new(),
                    begun,
                    ended,
                    took: None,
                    settles: true,
                });
                *last = ended;
            }
            Event::Read {
                first,
                seen,
                unopened,
                begun,
                ended,
                took,
            } => {
                *last = ended;
                waiting.push(Read {
                    source: at,
                    first,
                    seen,
                    unopened,
                    begun,
                    ended,
                    took,
                    settles: false,
                });
            }
            Event::ReadFailed { first, at, failure } => {
                tally.failed(Kind::Read, name, first, at, failure, &model.tell(first));
                *last = at;
            }
            Event::Interrupted { at } => {
                tally.interrupted += 1;
                *last = at;
            }
        })
    }

    fn judge(&mut self, read: Read) {
        // One operation fails once, however many of its rows are wrong.
        let mut failure: Option<(i64, Failure)> = read.unopened.first().cloned();
        for (seen, id) in read.seen.iter().zip(read.first..) {
            self.tally.rows_checked += 1;
            if read.unopened.iter().any(|(unopened, _)| *unopened == id) {
                continue;
            }
            if let Err(deviation) = self.model.judge(id, *seen, read.begun, read.ended) {
                failure.get_or_insert((id, Failure::Deviates(deviation)));
            }
        }
        match (failure, read.took) {
            (None, Some(took)) => self.tally.done(Kind::Read, read.begun, took),
            (None, None) => {}
            (Some((id, failure)), took) => {
                let kind = if took.is_some() || read.settles {
                    Kind::Read
                } else {
                    Kind::Write
                };
                let known = self.model.tell(id);
                let name = &self.sources[read.source].name;
                self.tally.failed(kind, name, id, read.begun, failure, &known);
            }
        }
    }
}

/// A checker that keeps up by itself.
pub struct Checking {
    checker: Arc<Mutex<Checker>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Checking {
    /// Starts it.
    pub fn start(checker: Checker) -> io::Result<Self> {
        let checker = Arc::new(Mutex::new(checker));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&checker), Arc::clone(&stop));
        let thread = thread::Builder::new().name("checker".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                locked(&shared).catch_up()?;
                thread::sleep(CATCH_UP_EVERY);
            }
            Ok(())
        })?;
        Ok(Self {
            checker,
            stop,
            thread: Some(thread),
        })
    }

    /// The checker, for a moment.
    pub fn checker(&self) -> MutexGuard<'_, Checker> {
        locked(&self.checker)
    }

    /// Whether it cannot read the journals any more.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Ends the thread; an error is one of reading the journals.
    pub fn stop(&mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(io::Error::other("the checker ended unexpectedly")),
            None => Ok(()),
        }
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn locked(checker: &Mutex<Checker>) -> MutexGuard<'_, Checker> {
    // Counters and histories are changed one event at a time; a panic is reported by `stop`.
    checker.lock().unwrap_or_else(PoisonError::into_inner)
}

const CATCH_UP_EVERY: Duration = Duration::from_millis(20);
