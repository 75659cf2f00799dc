//! Users who log in, come back and log out all along, and what becomes of their sessions: nobody is logged out by accident, and when a
//! key has leaked, no session of before lives on.
//!
//! One thread keeps the sessions in a store beside the customers, and remembers them by itself; whoever ends them in the store does not
//! ask it.

mod ledger;
mod store;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha20Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::DrillError;
use super::clock::{Moment, now};
use super::table::{Place, TableError};

pub use ledger::LoginReport;
use ledger::{Ledger, Login};
pub use store::LoginPlace;
use store::LoginStore;

/// The users.
pub struct Logins {
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Box<dyn LoginStore>>>,
}

impl Logins {
    /// The first of them are logged in when this returns.
    pub fn start(place: &LoginPlace, table: &Place, role: &str, seed: u64) -> Result<Self, DrillError> {
        let mut users = Users {
            store: place.open(table, role).map_err(DrillError::Logins)?,
            ledger: Arc::new(Mutex::new(Ledger::new(place.describe(table)))),
            rng: ChaCha20Rng::seed_from_u64(seed),
        };
        let ledger = Arc::clone(&users.ledger);
        for _ in 0..AT_FIRST {
            users.log_in();
        }
        if let Some(why) = users.ledger().first_failure() {
            return Err(DrillError::Logins(TableError::Refused(why)));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("logins".to_owned())
            .spawn(move || users.work(&stopped))
            .map_err(DrillError::Stage)?;
        Ok(Self {
            ledger,
            stop,
            thread: Some(thread),
        })
    }

    /// From now on somebody may end the sessions that exist.
    pub fn may_end(&self, at: Moment) {
        lock(&self.ledger).may_end(at);
    }

    /// The cut-off is on record: whoever logs in from now on stays.
    pub fn cut_off(&self, at: Moment) {
        lock(&self.ledger).cut_off(at);
    }

    /// Ends one session behind the users' backs: for sabotage.
    pub fn lose_one(&self, place: &LoginPlace, table: &Place, role: &str) -> Result<(), TableError> {
        let id = lock(&self.ledger).any().map(|login| login.id.clone());
        let mut store = place.open(table, role)?;
        id.map_or(Ok(()), |id| store.remove(&id).map(drop))
    }

    /// Ends the users' work, and looks at every session once more. The store is empty of them then.
    pub fn finish(mut self) -> Result<LoginReport, DrillError> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        let Some(Ok(mut store)) = ended else {
            let why = "the users' thread ended unexpectedly".to_owned();
            return Err(DrillError::Logins(TableError::Refused(why)));
        };
        let begun = now();
        let present = store.list().map_err(DrillError::Logins)?;
        let report = lock(&self.ledger).settle(&present, begun);
        store.clear(&present).map_err(DrillError::Logins)?;
        Ok(report)
    }
}

impl Drop for Logins {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(Ok(mut store)) = self.thread.take().map(JoinHandle::join) {
            // What a broken-off rehearsal leaves in Redis expires by itself.
            if let Ok(present) = store.list() {
                let _ = store.clear(&present);
            }
        }
    }
}

/// The thread's own.
struct Users {
    store: Box<dyn LoginStore>,
    ledger: Arc<Mutex<Ledger>>,
    rng: ChaCha20Rng,
}

impl Users {
    fn work(mut self, stop: &AtomicBool) -> Box<dyn LoginStore> {
        let mut looked = Instant::now();
        while !stop.load(Ordering::SeqCst) {
            let begun = Instant::now();
            match self.rng.random_range(0..100) {
                0..20 => self.log_in(),
                20..38 => self.log_out(),
                _ => self.come_back(),
            }
            if looked.elapsed() >= LOOK_FOR_OLD_EVERY && self.ledger().waits_for_end() {
                looked = Instant::now();
                self.look_for_old();
            }
            thread::sleep(BETWEEN.saturating_sub(begun.elapsed()));
        }
        self.store
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    fn log_in(&mut self) {
        let id = format!("{:032x}", self.rng.random::<u128>());
        let customer = self.rng.random_range(1..=1_000);
        let begun = now();
        let done = self.store.insert(&id, customer);
        let login = Login {
            id,
            begun,
            confirmed: now(),
        };
        self.ledger().logged_in(login, done.as_ref().err());
        self.recover(done.err());
    }

    fn log_out(&mut self) {
        let Some(login) = self.choose(true) else { return };
        let begun = now();
        let done = self.store.remove(&login.id);
        self.ledger().logged_out(&login, begun, done.as_ref());
        self.recover(done.err());
    }

    /// Whoever is no longer known logs in again.
    fn come_back(&mut self) {
        let Some(login) = self.choose(false) else { return };
        let begun = now();
        let done = self.store.is_there(&login.id);
        let is_known = self.ledger().came_back(&login, begun, done.as_ref());
        self.recover(done.err());
        if !is_known {
            self.log_in();
        }
    }

    fn look_for_old(&mut self) {
        match self.store.list() {
            Ok(present) => self.ledger().saw(&present, now()),
            Err(error) => self.recover(Some(error)),
        }
    }

    fn choose(&mut self, takes: bool) -> Option<Login> {
        let mut ledger = lock(&self.ledger);
        let count = ledger.live();
        // A few always stay: there is somebody whom an accident could meet.
        if count <= if takes { STAY } else { 0 } {
            return None;
        }
        let at = self.rng.random_range(0..count);
        ledger.at(at, takes)
    }

    fn recover(&mut self, error: Option<TableError>) {
        if matches!(error, Some(TableError::Lost(_))) {
            // The next operation says whether it helped.
            let _ = self.store.renew();
        }
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    // It is changed one event at a time.
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sessions at the beginning.
const AT_FIRST: usize = 200;
const STAY: usize = 50;
/// Sixty operations a second: enough to meet every moment, nothing beside the customers' traffic.
const BETWEEN: Duration = Duration::from_millis(16);
const LOOK_FOR_OLD_EVERY: Duration = Duration::from_millis(100);
