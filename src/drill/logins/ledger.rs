//! What the users know of their sessions, and what must have become of each. Knows no store and no clock.
//!
//! A session is *old* when it was there before anybody could end sessions, and *new* when its login began after their cut-off was on
//! record. Between the two it may live or be gone. Where nobody ends any, all are new.

use std::collections::HashSet;

use serde::Serialize;

use super::super::clock::{Moment, seconds_between};
use super::super::table::TableError;

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The session.
    pub id: String,
    /// Before it was written.
    pub begun: Moment,
    /// When it was known to be written.
    pub confirmed: Moment,
}

/// What became of sessions. The names of the fields are a contract with scripts.
#[derive(Debug, Clone, Serialize)]
pub struct LoginReport {
    /// Where they were kept.
    pub store: String,
    /// Logins.
    pub logins: u64,
    /// Logouts.
    pub logouts: u64,
    /// Requests by somebody who was logged in.
    pub requests: u64,
    /// Logins, logouts and requests that the store refused.
    pub failed: u64,
    /// Sessions of before the end that are gone, as they must be; 0 in a scheduled rotation.
    pub ended: u64,
    /// Sessions that are gone although nobody was to end them.
    pub lost: u64,
    /// Sessions that are there although they must be gone.
    pub left: u64,
    /// Seconds from the promotion of the new key until no session of before was there; `None` where none was to end, or some are left.
    pub old_dead_after_seconds: Option<f64>,
    /// Single failures, the first of them.
    #[serde(skip)]
    pub incidents: Vec<String>,
}

/// The users' own record.
pub struct Ledger {
    live: Vec<Login>,
    /// Sessions of which it is not known whether they are there: the reply was lost.
    uncertain: HashSet<String>,
    may_end: Option<Moment>,
    cut_off: Option<Moment>,
    old_gone: Option<Moment>,
    report: LoginReport,
}

impl Ledger {
    /// Nobody is logged in.
    pub fn new(store: &str) -> Self {
        Self {
            live: Vec::new(),
            uncertain: HashSet::new(),
            may_end: None,
            cut_off: None,
            old_gone: None,
            report: LoginReport {
                store: store.to_owned(),
                logins: 0,
                logouts: 0,
                requests: 0,
                failed: 0,
                ended: 0,
                lost: 0,
                left: 0,
                old_dead_after_seconds: None,
                incidents: Vec::new(),
            },
        }
    }

    /// From this moment on somebody may end sessions. Only the first call counts.
    pub fn may_end(&mut self, at: Moment) {
        self.may_end.get_or_insert(at);
    }

    /// At this moment it was on record which sessions end; no later one is among them. Only the first call counts.
    pub fn cut_off(&mut self, at: Moment) {
        self.cut_off.get_or_insert(at);
    }

    /// Whether it is still to be seen that the old sessions are gone.
    pub fn waits_for_end(&self) -> bool {
        self.may_end.is_some() && self.old_gone.is_none()
    }

    /// How many are logged in.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// One of them.
    pub fn any(&self) -> Option<&Login> {
        self.live.first()
    }

    /// The one at this place; who `leaves` is no longer counted as logged in.
    pub fn at(&mut self, at: usize, leaves: bool) -> Option<Login> {
        if leaves {
            (at < self.live.len()).then(|| self.live.swap_remove(at))
        } else {
            self.live.get(at).cloned()
        }
    }

    /// What the first operation that failed met.
    pub fn first_failure(&self) -> Option<String> {
        self.report.incidents.first().cloned()
    }

    /// Somebody logged in.
    pub fn logged_in(&mut self, login: Login, error: Option<&TableError>) {
        match error {
            None => {
                self.report.logins += 1;
                self.live.push(login);
            }
            Some(error) => {
                self.uncertain.insert(login.id);
                self.failed("login", error);
            }
        }
    }

    /// Somebody logged out; `done` says whether the session was there.
    pub fn logged_out(&mut self, login: &Login, begun: Moment, done: Result<&bool, &TableError>) {
        match done {
            Ok(was_there) => {
                self.report.logouts += 1;
                if !was_there {
                    self.gone(login, begun);
                }
            }
            Err(error) => {
                self.uncertain.insert(login.id.clone());
                self.failed("logout", error);
            }
        }
    }

    /// Somebody came back; says whether the session was still known.
    pub fn came_back(&mut self, login: &Login, begun: Moment, done: Result<&bool, &TableError>) -> bool {
        match done {
            Ok(is_there) => {
                self.report.requests += 1;
                if !is_there {
                    self.live.retain(|known| known.id != login.id);
                    self.gone(login, begun);
                }
                *is_there
            }
            Err(error) => {
                self.failed("request", error);
                true
            }
        }
    }

    /// All sessions that were there at this moment.
    pub fn saw(&mut self, present: &[String], at: Moment) {
        let present: HashSet<&str> = present.iter().map(String::as_str).collect();
        let is_left = self
            .live
            .iter()
            .any(|login| self.is_old(login) && present.contains(login.id.as_str()));
        if !is_left {
            self.old_gone.get_or_insert(at);
        }
    }

    /// The end: nobody logs in or out any more, and these sessions are there.
    pub fn settle(&mut self, present: &[String], begun: Moment) -> LoginReport {
        let present: HashSet<&str> = present.iter().map(String::as_str).collect();
        let known: HashSet<String> = self.live.iter().map(|login| login.id.clone()).collect();
        for login in std::mem::take(&mut self.live) {
            match (present.contains(login.id.as_str()), self.is_old(&login)) {
                (false, _) => self.gone(&login, begun),
                (true, true) => {
                    self.report.left += 1;
                    self.tell(format!("session {} of before is still there", short(&login.id)));
                }
                (true, false) => {}
            }
        }
        for id in present {
            if !known.contains(id) && !self.uncertain.contains(id) {
                self.report.left += 1;
                self.tell(format!("session {} is there, and nobody is logged in with it", short(id)));
            }
        }
        if self.report.left == 0 {
            let gone = self.may_end.zip(self.old_gone);
            self.report.old_dead_after_seconds = gone.map(|(from, to)| (seconds_between(from, to) * 1e3).round() / 1e3);
        }
        self.report.clone()
    }

    fn is_old(&self, login: &Login) -> bool {
        self.may_end.is_some_and(|at| login.confirmed < at)
    }

    fn is_new(&self, login: &Login) -> bool {
        match (self.may_end, self.cut_off) {
            (None, _) => true,
            (Some(_), cut_off) => cut_off.is_some_and(|at| login.begun > at),
        }
    }

    /// A session is not there, as was seen by a look that began at this moment.
    fn gone(&mut self, login: &Login, begun: Moment) {
        // Whoever looked before anybody could end anything saw an accident.
        let was_early = self.may_end.is_none_or(|at| begun < at);
        if was_early || self.is_new(login) {
            self.report.lost += 1;
            self.tell(format!("session {} is gone, and nobody was to end it", short(&login.id)));
        } else {
            self.report.ended += 1;
        }
    }

    fn failed(&mut self, what: &str, error: &TableError) {
        self.report.failed += 1;
        self.tell(format!("a {what} failed: {error}"));
    }

    fn tell(&mut self, incident: String) {
        if self.report.incidents.len() < INCIDENTS_MAX {
            self.report.incidents.push(incident);
        }
    }
}

/// Enough to tell sessions apart.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

const INCIDENTS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn with(logins: &[(&str, Moment)]) -> Ledger {
        let mut ledger = Ledger::new("memory");
        for (id, at) in logins {
            let login = Login {
                id: (*id).to_owned(),
                begun: *at,
                confirmed: at + 1,
            };
            ledger.logged_in(login, None);
        }
        ledger
    }

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn in_a_scheduled_rotation_nobody_may_be_gone() {
        let mut ledger = with(&[("a", 1), ("b", 2)]);
        let report = ledger.settle(&ids(&["a"]), 9);
        assert_eq!((report.lost, report.left, report.ended), (1, 0, 0));
        assert_eq!(report.old_dead_after_seconds, None);
    }

    #[test]
    fn after_a_leak_old_sessions_are_gone_and_new_ones_stay() {
        let mut ledger = with(&[("old", 1), ("between", 20), ("new", 40)]);
        ledger.may_end(10);
        ledger.cut_off(30);
        ledger.saw(&ids(&["between", "new"]), 10 + 2_000_000_000);
        let report = ledger.settle(&ids(&["new"]), 50);
        assert_eq!((report.lost, report.left, report.ended), (0, 0, 2));
        assert_eq!(report.old_dead_after_seconds, Some(2.0));

        let mut ledger = with(&[("old", 1), ("new", 40)]);
        ledger.may_end(10);
        ledger.cut_off(30);
        ledger.saw(&ids(&["old", "new"]), 20);
        let report = ledger.settle(&ids(&["old"]), 50);
        assert_eq!((report.lost, report.left, report.ended), (1, 1, 0));
        assert_eq!(report.old_dead_after_seconds, None);
    }

    #[test]
    fn a_session_that_was_logged_out_and_is_back_is_left() {
        let mut ledger = with(&[("a", 1)]);
        let login = ledger.at(0, true);
        ledger.logged_out(&login.into_iter().next_back().unwrap_or_else(|| unreachable!()), 2, Ok(&true));
        assert_eq!(ledger.settle(&ids(&["a"]), 9).left, 1);
    }
}
