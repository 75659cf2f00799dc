//! What every instance works with, and its way through a lost connection.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Assignment, InstanceError};
use crate::app::{Keyring, Options, ReportOptions, Reporting, Unlock};
use crate::drill::clock::now;
use crate::drill::customer::Cabinet;
use crate::drill::failure::Failure;
use crate::drill::journal::{Event, Journal};
use crate::drill::sabotage::{Boast, Sabotage};
use crate::drill::table::{Table, TableError};
use crate::key;

/// Keys, connection, journal.
pub(super) struct Seat {
    /// The application's columns, as this instance's keyring opens them.
    pub(super) cabinet: Cabinet,
    /// Its connection.
    pub(super) table: Table,
    /// Where it tells what it does.
    pub(super) journal: Journal,
    stop: Arc<AtomicBool>,
    /// The last revision that it told.
    told: Option<u64>,
    /// Connections lost since the last operation that went through.
    lost_in_a_row: u32,
    /// Tells the rotation which revision the next seal uses.
    _reporting: Reports,
    /// Keeps the file followed.
    _keyring: Keyring,
}

/// What the rotation hears of an instance. Held, not looked at.
enum Reports {
    Truth(#[allow(dead_code)] Reporting),
    Lie(#[allow(dead_code)] Boast),
}

impl Seat {
    pub(super) fn take(assignment: &Assignment, stop: Arc<AtomicBool>) -> Result<Self, InstanceError> {
        let identity = fs::read_to_string(&assignment.identity)?;
        let identity = identity
            .trim()
            .parse()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let unlock = Unlock::Identities(vec![identity]);
        let sabotage = assignment.sabotage.filter(|_| Sabotage::IS_POSSIBLE);
        let keeps_its_keys = sabotage.is_some_and(Sabotage::keeps_first_keys);
        let keyring = if keeps_its_keys {
            Keyring::in_memory(key::Keyring::open(&assignment.keyring, &unlock, 0)?)
        } else {
            let options = Options {
                poll_every: POLL_EVERY,
                now: Timestamp::now,
                ..Options::default()
            };
            Keyring::open_with(&assignment.keyring, unlock, options)?
        };
        let cabinet = Cabinet::new(&keyring, &assignment.keyset)?;
        let (url, name) = (&assignment.place.url, &assignment.name);
        let reporting = if sabotage.is_some_and(Sabotage::lies) {
            Reports::Lie(Boast::start(url, name, &assignment.keyset)?)
        } else {
            let options = ReportOptions {
                every: REPORT_EVERY,
                lease: LEASE,
                version: concat!("reseal drill ", env!("CARGO_PKG_VERSION")).to_owned(),
            };
            Reports::Truth(keyring.report_with(url, name, options)?)
        };
        Ok(Self {
            cabinet,
            table: first_connection(assignment, &stop)?,
            journal: Journal::create(assignment.journal.clone())?,
            stop,
            told: None,
            lost_in_a_row: 0,
            _reporting: reporting,
            _keyring: keyring,
        })
    }

    /// Whether to go on. Called between operations: what was sealed before is committed, so that the revision of the next seal can be
    /// told.
    pub(super) fn goes_on(&mut self) -> io::Result<bool> {
        self.lost_in_a_row = 0;
        let revision = self.cabinet.revision();
        if self.told != Some(revision) {
            self.journal.tell_now(&Event::Follows { revision })?;
            self.told = Some(revision);
        }
        Ok(!self.stop.load(Ordering::Relaxed))
    }

    /// Sleeps until the next operation is due; what was told meanwhile goes out first.
    pub(super) fn wait(&mut self, early: Option<Duration>) -> io::Result<()> {
        if let Some(early) = early {
            if early >= WORTH_A_FLUSH {
                self.journal.flush()?;
            }
            thread::sleep(early);
        }
        Ok(())
    }

    /// What the table says, asked again on another connection as often as one is lost.
    pub(super) fn ask<T>(&mut self, mut ask: impl FnMut(&mut Table) -> Result<T, TableError>) -> Result<T, InstanceError> {
        loop {
            match ask(&mut self.table) {
                Err(TableError::Lost(_)) => self.reconnect()?,
                answer => return Ok(answer?),
            }
        }
    }

    /// After a lost connection: another one, as soon as there is one. An error says that it took too long.
    pub(super) fn reconnect(&mut self) -> Result<(), InstanceError> {
        self.journal.tell_now(&Event::Interrupted { at: now() })?;
        self.lost_in_a_row += 1;
        let begun = Instant::now();
        loop {
            match self.table.renew() {
                Ok(()) if self.lost_in_a_row <= LOST_IN_A_ROW_MAX => return Ok(()),
                Ok(()) => return Err(TableError::Lost("again and again".to_owned()).into()),
                Err(error) if begun.elapsed() >= AWAY_MAX || self.stop.load(Ordering::Relaxed) => return Err(error.into()),
                Err(_) => thread::sleep(RETRY_PAUSE),
            }
        }
    }
}

/// Everything may be cut at the moment when an instance starts, too.
fn first_connection(assignment: &Assignment, stop: &AtomicBool) -> Result<Table, InstanceError> {
    let begun = Instant::now();
    loop {
        match assignment.place.open(&assignment.role) {
            Err(TableError::Lost(_)) if begun.elapsed() < AWAY_MAX && !stop.load(Ordering::Relaxed) => {
                thread::sleep(RETRY_PAUSE)
            }
            opened => return Ok(opened?),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self::Database(error.to_string())
    }
}

/// An instance notices a new keyring within this time.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Shorter waits are not worth a system call.
const WORTH_A_FLUSH: Duration = Duration::from_micros(500);
/// How long a database may be away before its application gives up.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// A server that takes connections and drops them is no server.
const LOST_IN_A_ROW_MAX: u32 = 50;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// One that is killed is waited for this long; one that is stopped for a second, or starved, must not be taken for gone.
pub(in crate::drill) const LEASE: Duration = Duration::from_secs(5);
