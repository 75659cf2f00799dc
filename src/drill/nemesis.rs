//! Faults, done on purpose: which, when, and what came of them.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::ChaCha20Rng;
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rustix::process::Signal;
use serde::Serialize;

use super::clock::{Moment, now, seconds_between};
use super::faults::{FaultKind, Faults};
use super::fleet::Fleet;
use super::operator::Run;
use super::proxy::{Cut, Proxy};
use super::watch::Position;
use super::{Cancel, DrillError};

/// A fault that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// What was done.
    pub name: String,
    /// Seconds after the beginning of the rehearsal.
    pub at_seconds: f64,
    /// What came of it.
    pub outcome: String,
}

/// Something to be done while values are moved.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    KillRotation,
    /// Once all values were moved, and are being proven.
    KillProof,
    KillInstance(String),
    PauseRotation,
    PauseInstance(String),
    Cut(Cut),
    CutEverything,
}

/// What is still to be done, in order, and what was.
pub struct Nemesis<'a> {
    origin: Moment,
    rng: ChaCha20Rng,
    proxy: Option<&'a Proxy>,
    /// From the last to the first, each with the hundredths of the rows after which it is due.
    due: Vec<(u64, Act)>,
    paused: Vec<(Instant, Option<String>)>,
    /// A cut that waits for its transaction.
    armed: Option<(Instant, u64)>,
    done: Vec<Fault>,
}

/// What the rotation's side has to do.
pub enum Demand {
    /// Nothing.
    GoOn,
    /// Kill it, and start it again.
    KillRotation,
}

impl<'a> Nemesis<'a> {
    /// Plans the faults of a rehearsal that began at `origin`.
    pub fn plan(faults: &Faults, fleet: &Fleet<'_>, proxy: Option<&'a Proxy>, seed: u64, origin: Moment) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut due: Vec<(u64, Act)> = Vec::new();
        let pick = |readers: bool, rng: &mut ChaCha20Rng| fleet.names(readers).choose(rng).cloned().unwrap_or_default();
        if faults.contains(FaultKind::Pause) {
            due.push((8, Act::PauseRotation));
            due.push((20, Act::PauseInstance(pick(false, &mut rng))));
            due.push((24, Act::PauseInstance(pick(true, &mut rng))));
        }
        if faults.contains(FaultKind::Cut) && proxy.is_some() {
            due.push((12, Act::Cut(Cut::Before)));
            due.push((28, Act::Cut(Cut::ReplyLost)));
            due.push((48, Act::Cut(Cut::Middle)));
            due.push((58, Act::CutEverything));
        }
        if faults.contains(FaultKind::Kill) {
            due.push((16, Act::KillInstance(pick(true, &mut rng))));
            due.push((32, Act::KillInstance(pick(false, &mut rng))));
            due.push((40, Act::KillRotation));
        }
        for (percent, _) in &mut due {
            *percent += rng.random_range(0..4);
        }
        if faults.contains(FaultKind::Kill) {
            due.push((WHEN_MOVED, Act::KillProof));
        }
        due.sort_by_key(|(percent, _)| std::cmp::Reverse(*percent));
        Self {
            origin,
            rng,
            proxy,
            due,
            paused: Vec::new(),
            armed: None,
            done: Vec::new(),
        }
    }

    /// Called again and again while values are moved and proven; `of` is how many rows there were.
    pub fn act(&mut self, at: &Position, of: u64, run: &Run, fleet: &mut Fleet<'_>) -> Result<Demand, DrillError> {
        self.resume(Instant::now(), Some(run), fleet)?;
        if self.is_waiting_for_its_cut() {
            return Ok(Demand::GoOn);
        }
        let is_due = |(percent, _): &mut (u64, Act)| match *percent {
            WHEN_MOVED => at.is_proving(),
            percent => at.rows * 100 >= of * percent || at.is_proving(),
        };
        let Some((_, act)) = self.due.pop_if(is_due) else {
            return Ok(Demand::GoOn);
        };
        match act {
            Act::KillRotation => return Ok(Demand::KillRotation),
            Act::KillProof => {
                thread::sleep(self.rng.random_range(Duration::ZERO..PROOF_MAX));
                return Ok(Demand::KillRotation);
            }
            Act::KillInstance(name) => {
                let unconfirmed = fleet.kill(&name)?;
                let outcome = match unconfirmed {
                    Some(id) => format!("started again; it settled the write to row {id}, whose reply was lost"),
                    None => "started again".to_owned(),
                };
                self.note(&format!("kill -9 of {name}"), outcome);
            }
            Act::PauseRotation => {
                run.signal(Signal::STOP);
                self.paused.push((Instant::now() + PAUSE, None));
                self.note("SIGSTOP of the rotation", paused());
            }
            Act::PauseInstance(name) => {
                fleet.pause(&name)?;
                self.note(&format!("SIGSTOP of {name}"), paused());
                self.paused.push((Instant::now() + PAUSE, Some(name)));
            }
            Act::Cut(cut) => {
                if let Some(proxy) = self.proxy {
                    self.armed = Some((Instant::now() + CUT_WITHIN, proxy.cuts()));
                    proxy.arm(cut);
                    self.note(cut.describe(), String::new());
                }
            }
            Act::CutEverything => {
                let cut = self.proxy.map_or(0, Proxy::cut_all);
                self.note("all connections cut at once", format!("{cut} connections"));
            }
        }
        Ok(Demand::GoOn)
    }

    /// The rotation is over: nobody stays paused. Returns what was not done.
    pub fn end(&mut self, fleet: &mut Fleet<'_>) -> Result<Vec<String>, DrillError> {
        self.resume(Instant::now() + PAUSE, None, fleet)?;
        self.armed = self.armed.take().map(|(_, before)| (Instant::now(), before));
        self.is_waiting_for_its_cut();
        let left = std::mem::take(&mut self.due);
        Ok(left.into_iter().rev().map(|(_, act)| act.describe()).collect())
    }

    /// Replaces the keyring file of a reader again and again while it works: by halves, by nothing, by the version before, and back.
    pub fn replace_keyrings(
        &mut self,
        fleet: &Fleet<'_>,
        (before, right): (&[u8], &[u8]),
        cancel: &Cancel,
    ) -> Result<(), DrillError> {
        let Some(name) = fleet.names(true).choose(&mut self.rng).cloned() else {
            return Ok(());
        };
        let path = fleet.keyring_file(&name)?;
        let begun = now();
        for wrong in [&right[..right.len() / 2], b"", before].iter().cycle().take(REPLACEMENTS) {
            // As `cp` writes: into the file that is being read.
            let file = fs::OpenOptions::new().write(true).truncate(true).mode(0o600).open(&path);
            file.and_then(|mut file| std::io::Write::write_all(&mut file, wrong))
                .map_err(DrillError::Stage)?;
            cancel.sleep(BETWEEN_REPLACEMENTS)?;
            fleet.hand_out(&name)?;
            cancel.sleep(BETWEEN_REPLACEMENTS)?;
        }
        self.note_at(
            begun,
            &format!("keyring file of {name} replaced while it was read"),
            format!("{REPLACEMENTS} times by half a file, nothing, or the version before, and back; it kept its keys"),
        );
        Ok(())
    }

    /// Notes a fault that happened now.
    pub fn note(&mut self, name: &str, outcome: String) {
        self.note_at(now(), name, outcome);
    }

    /// Notes what came of the last fault.
    pub fn note_outcome(&mut self, outcome: String) {
        if let Some(last) = self.done.last_mut() {
            last.outcome = outcome;
        }
    }

    /// Adds to what came of the last fault of this name.
    pub fn append_outcome(&mut self, name: &str, more: &str) {
        self.append_outcome_at(name, "", more);
    }

    /// Adds to what came of the last fault of this name whose outcome begins like this.
    pub fn append_outcome_at(&mut self, name: &str, known: &str, more: &str) {
        let mut faults = self.done.iter_mut().rev();
        if let Some(fault) = faults.find(|fault| fault.name == name && fault.outcome.starts_with(known)) {
            fault.outcome = format!("{}; {more}", fault.outcome);
        }
    }

    /// What was done.
    pub fn done(self) -> Vec<Fault> {
        self.done
    }

    fn note_at(&mut self, at: Moment, name: &str, outcome: String) {
        self.done.push(Fault {
            name: name.to_owned(),
            at_seconds: (seconds_between(self.origin, at) * 1e3).round() / 1e3,
            outcome,
        });
    }

    fn resume(&mut self, now: Instant, run: Option<&Run>, fleet: &mut Fleet<'_>) -> Result<(), DrillError> {
        let (over, paused): (Vec<_>, Vec<_>) = std::mem::take(&mut self.paused)
            .into_iter()
            .partition(|(until, _)| *until <= now);
        self.paused = paused;
        for (_, who) in over {
            match (who, run) {
                (Some(name), _) => fleet.resume(&name)?,
                (None, Some(run)) => run.signal(Signal::CONT),
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Whether a cut was ordered and has not come yet; notes it when it has.
    fn is_waiting_for_its_cut(&mut self) -> bool {
        let (Some(proxy), Some((until, before))) = (self.proxy, self.armed) else {
            return false;
        };
        let outcome = if proxy.cuts() > before {
            "cut; the operation was done again, or found done".to_owned()
        } else if Instant::now() >= until {
            proxy.disarm();
            "no transaction came by that could be cut".to_owned()
        } else {
            return true;
        };
        self.armed = None;
        self.note_outcome(outcome);
        false
    }
}

impl Act {
    fn describe(&self) -> String {
        match self {
            Self::KillRotation => "kill -9 of the rotation".to_owned(),
            Self::KillProof => "kill -9 of the rotation while it proved its result".to_owned(),
            Self::KillInstance(name) => format!("kill -9 of {name}"),
            Self::PauseRotation => "SIGSTOP of the rotation".to_owned(),
            Self::PauseInstance(name) => format!("SIGSTOP of {name}"),
            Self::Cut(cut) => cut.describe().to_owned(),
            Self::CutEverything => "a cut of all connections".to_owned(),
        }
    }
}

fn paused() -> String {
    format!("stood still for {:.1} s, then went on", PAUSE.as_secs_f64())
}

/// Longer than any transaction should take, shorter than an application waits for a lock.
const PAUSE: Duration = Duration::from_millis(1_000);
/// Transactions come by many times a second.
const CUT_WITHIN: Duration = Duration::from_secs(2);
/// Instead of hundredths of the rows: when all of them were moved.
const WHEN_MOVED: u64 = u64::MAX;
/// Shorter than the sweeps and the verification of the smallest table.
const PROOF_MAX: Duration = Duration::from_millis(40);
const REPLACEMENTS: usize = 12;
/// The instance looks at its file twenty times a second, and whenever it meets a key that it does not know.
const BETWEEN_REPLACEMENTS: Duration = Duration::from_millis(30);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_typed() {
        assert_eq!("all".parse::<Faults>().unwrap(), Faults::of(FaultKind::ALL));
        assert_eq!("none".parse::<Faults>().unwrap(), Faults::of([]));
        let some: Faults = "kill, lag".parse().unwrap();
        assert_eq!(some, Faults::of([FaultKind::Kill, FaultKind::Lag]));
        for wrong in ["", "kill,", "kill;lag", "everything"] {
            assert!(wrong.parse::<Faults>().is_err(), "{wrong:?}");
        }
    }
}
