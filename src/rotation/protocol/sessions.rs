//! Sessions inside a rotation: they end when every writer has switched to the new key, and before the first value is moved.
//!
//! Not earlier: an instance that still takes the old key would let its holder log in again after the cut-off. The cut-off of each store
//! is taken once in a rotation and durable, with what existed then, before the first session ends. Whoever goes on after a stop ends
//! what existed then and nothing else: whoever has logged in since stays, however long the stop was.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::RngExt as _;

use super::decide::{Direction, Mode};
use super::ledgers::Ledgers;
use super::{Managed, ProtocolError, Watch, Wish};
use crate::rotation::progress::Stop;
use crate::session::{CutOff, DecidedBy, KnownSessions, SessionError, SessionStore};
use crate::store::ledger::ending::{EndingCounts, EndingName, EndingRecord, NewEnding};

/// A store of sessions of the configuration.
pub struct ManagedSessions {
    /// Its name in the configuration.
    pub name: String,
    /// The store; or why it is not known, which matters once its sessions are to end.
    pub store: Result<SessionStore, String>,
    /// Whether they are tokens, which end by a mark.
    pub is_of_tokens: bool,
    /// Whether a scheduled rotation ends them, too.
    pub in_scheduled: bool,
}

/// How the end of one store's sessions stands.
#[derive(Debug, Clone)]
pub struct SessionsReport {
    /// The store's name in the configuration.
    pub name: String,
    /// Whether they are tokens, which end by a mark.
    pub is_of_tokens: bool,
    /// What is on record of it in this rotation. `None`: they were left to the operator.
    pub record: Option<EndingRecord>,
}

/// What a rotation would end of one store.
pub struct SessionsPlan {
    /// The store's name in the configuration.
    pub name: String,
    /// Whether a scheduled rotation ends them, too.
    pub in_scheduled: bool,
    /// How many sessions there are; none of tokens is counted.
    pub count: Result<Option<u64>, SessionError>,
}

/// What is decided of the sessions in one run.
pub(super) struct Ending<'e> {
    pub(super) managed: &'e Managed,
    pub(super) wish: &'e Wish,
    pub(super) direction: Direction,
    pub(super) mode: Mode,
}

impl SessionsReport {
    /// Whether nothing is left of them.
    pub fn is_ended(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.ended_at.is_some())
    }
}

/// Counts the sessions that a rotation of the keyset would end. Changes nothing.
pub async fn plan_sessions(managed: &Managed) -> Vec<SessionsPlan> {
    let mut plans = Vec::new();
    for sessions in &managed.sessions {
        let count = match &sessions.store {
            Ok(store) => store.count(managed.now).await,
            Err(why) => Err(SessionError::Reference(why.clone())),
        };
        plans.push(SessionsPlan {
            name: sessions.name.clone(),
            in_scheduled: sessions.in_scheduled,
            count,
        });
    }
    plans
}

impl Ending<'_> {
    /// The stores whose sessions end. A way back ends none: nobody has leaked anything.
    fn meant(&self) -> impl Iterator<Item = &ManagedSessions> {
        let forward = self.direction == Direction::Forward;
        let leaked = matches!(self.mode, Mode::Compromised(_));
        let meant = move |sessions: &&ManagedSessions| forward && (leaked || sessions.in_scheduled);
        self.managed.sessions.iter().filter(meant)
    }

    /// What can be known to fail later is refused before anything is touched. A store that is away for a moment does not hold up the
    /// promotion when a key has leaked.
    pub(super) async fn check(&self, known: &[EndingRecord], watch: &dyn Watch) -> Result<(), ProtocolError> {
        if !self.wish.sessions {
            return Ok(());
        }
        for sessions in self.meant() {
            if self.recorded(sessions, known).is_some_and(|record| record.ended_at.is_some()) {
                continue;
            }
            let checked = match &sessions.store {
                Ok(store) => store.check(self.managed.now).await,
                Err(why) => Err(SessionError::Reference(why.clone())),
            };
            match checked {
                Ok(()) => {}
                Err(cause) if cause.may_pass() && (matches!(self.mode, Mode::Compromised(_)) || !known.is_empty()) => {
                    watch.say(&format!(
                        "sessions {}: {cause}; they are to end before values are moved",
                        sessions.name
                    ));
                }
                Err(cause) => {
                    return Err(ProtocolError::Sessions {
                        name: sessions.name.clone(),
                        cause,
                        begun: false,
                        reports: Vec::new(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Ends them, all stores in turn: one that fails does not save the sessions of the next. An error says that some are left, and
    /// that no value may be moved yet.
    pub(super) async fn run(
        &self,
        (home, rotation): (usize, &str),
        ledgers: &mut Ledgers<'_>,
        stop: &Stop,
        watch: &dyn Watch,
    ) -> Result<(), ProtocolError> {
        if !self.wish.sessions || self.meant().next().is_none() {
            return Ok(());
        }
        let known = ledgers.endings(home, rotation, stop).await?;
        let mut failed: Option<(String, SessionError)> = None;
        let mut under_way = Vec::new();
        // All cut-offs before the first end: whoever logs in while one store is worked through stays logged in to the others.
        for sessions in self.meant() {
            let record = self.recorded(sessions, &known);
            if record.is_some_and(|record| record.ended_at.is_some()) {
                continue;
            }
            let one = One {
                managed: self.managed,
                sessions,
                home,
                name: self.name(sessions, rotation),
            };
            match one.cut(record.cloned(), ledgers, stop, watch).await {
                Ok((record, cut_off)) => under_way.push((one, record, cut_off)),
                Err(OneError::Sessions(cause)) => {
                    failed.get_or_insert((sessions.name.clone(), cause));
                }
                Err(OneError::Protocol(error)) => return Err(error),
            }
        }
        for (one, record, cut_off) in under_way {
            match one.end(&record, &cut_off, ledgers, stop, watch).await {
                Ok(()) => {}
                Err(OneError::Sessions(cause)) => {
                    failed.get_or_insert((one.sessions.name.clone(), cause));
                }
                Err(OneError::Protocol(error)) => return Err(error),
            }
        }
        let Some((name, cause)) = failed else {
            return ledgers.forget_snapshots(home, rotation, stop).await;
        };
        Err(ProtocolError::Sessions {
            name,
            cause,
            begun: true,
            reports: self.reports((home, rotation), ledgers, stop).await?,
        })
    }

    /// How it stands, for the report of a run.
    pub(super) async fn reports(
        &self,
        (home, rotation): (usize, &str),
        ledgers: &mut Ledgers<'_>,
        stop: &Stop,
    ) -> Result<Vec<SessionsReport>, ProtocolError> {
        let known = ledgers.endings(home, rotation, stop).await?;
        let reports = self.meant().map(|sessions| SessionsReport {
            name: sessions.name.clone(),
            is_of_tokens: sessions.is_of_tokens,
            record: self.recorded(sessions, &known).cloned(),
        });
        Ok(reports.collect())
    }

    fn recorded<'r>(&self, sessions: &ManagedSessions, known: &'r [EndingRecord]) -> Option<&'r EndingRecord> {
        known
            .iter()
            .find(|record| record.name.session == sessions.name && record.name.mode == self.mode.as_str())
    }

    fn name(&self, sessions: &ManagedSessions, rotation: &str) -> EndingName {
        EndingName {
            rotation: rotation.to_owned(),
            session: sessions.name.clone(),
            mode: self.mode.as_str().to_owned(),
        }
    }
}

/// The sessions of one store, while they end.
struct One<'o> {
    managed: &'o Managed,
    sessions: &'o ManagedSessions,
    home: usize,
    name: EndingName,
}

enum OneError {
    Sessions(SessionError),
    Protocol(ProtocolError),
}

impl One<'_> {
    fn store(&self) -> Result<&SessionStore, SessionError> {
        self.sessions
            .store
            .as_ref()
            .map_err(|why| SessionError::Reference(why.clone()))
    }

    /// The cut-off: the one on record, or a new one, which is on record then.
    async fn cut(
        &self,
        record: Option<EndingRecord>,
        ledgers: &mut Ledgers<'_>,
        stop: &Stop,
        watch: &dyn Watch,
    ) -> Result<(EndingRecord, CutOff), OneError> {
        if let Some(record) = record {
            return self.cut_off_of(record, ledgers, stop).await;
        }
        let (store, now) = (self.store()?, self.managed.now);
        let salt = format!("{:032x}", rand::rng().random::<u128>());
        let taken = self.patiently(stop, watch, async || store.cut(&salt, now).await).await?;
        self.make_durable(taken, ledgers, stop).await
    }

    async fn end(
        &self,
        record: &EndingRecord,
        cut_off: &CutOff,
        ledgers: &mut Ledgers<'_>,
        stop: &Stop,
        watch: &dyn Watch,
    ) -> Result<(), OneError> {
        let (store, now) = (self.store()?, self.managed.now);
        let ended = self.patiently(stop, watch, async || store.end(cut_off, now).await).await?;
        let counts = EndingCounts {
            matched: record.counts.matched,
            ended: record.counts.ended + ended.ended,
            created_since: ended.created_since,
            index_entries: record.counts.index_entries + ended.index_entries,
            left: ended.left,
            passes: record.counts.passes + u64::from(ended.passes),
        };
        let name = (self.home, &self.name);
        ledgers.record_ending(name, counts, ended.left == 0, stop).await?;
        let at = cut_off.at.strftime("%Y-%m-%d %H:%M:%SZ");
        if ended.left > 0 {
            return Err(OneError::Sessions(SessionError::Left(ended.left)));
        }
        watch.say(&if self.sessions.is_of_tokens {
            format!("sessions {}: tokens issued before {at} are dead", self.sessions.name)
        } else {
            format!(
                "sessions {}: of {} that existed at {at}, 0 are left; {} created since stay",
                self.sessions.name, counts.matched, counts.created_since
            )
        });
        Ok(())
    }

    /// The digests first: they count only when the record names them.
    async fn make_durable(
        &self,
        taken: CutOff,
        ledgers: &mut Ledgers<'_>,
        stop: &Stop,
    ) -> Result<(EndingRecord, CutOff), OneError> {
        let snapshot = taken.sessions.salt();
        for (part, digests) in taken.sessions.parts().enumerate() {
            ledgers
                .keep_snapshot((self.home, &self.name.rotation), (snapshot, part as u64), digests, stop)
                .await?;
        }
        let new = NewEnding {
            name: self.name.clone(),
            snapshot: snapshot.to_owned(),
            cut_off_us: taken.at.as_microsecond(),
            decided_by: taken.decided_by.as_str().to_owned(),
            matched: taken.sessions.len(),
        };
        let record = ledgers.begin_ending(self.home, new, stop).await?;
        if record.snapshot == snapshot {
            return Ok((record, taken));
        }
        // Somebody else was first.
        self.cut_off_of(record, ledgers, stop).await
    }

    async fn cut_off_of(
        &self,
        record: EndingRecord,
        ledgers: &mut Ledgers<'_>,
        stop: &Stop,
    ) -> Result<(EndingRecord, CutOff), OneError> {
        let parts = ledgers.snapshot_parts(self.home, &record.snapshot, stop).await?;
        let damaged =
            || SessionError::Refused("the record of their cut-off in the database is not what reseal wrote".to_owned());
        let sessions = KnownSessions::of_parts(&record.snapshot, parts).filter(|known| known.len() == record.counts.matched);
        let cut_off = CutOff {
            at: Timestamp::from_microsecond(record.cut_off_us).map_err(|_| damaged())?,
            decided_by: DecidedBy::parse(&record.decided_by).ok_or_else(damaged)?,
            sessions: sessions.ok_or_else(damaged)?,
        };
        Ok((record, cut_off))
    }

    /// A server that is restarted, and slots that move, are waited for, as long as a database is.
    async fn patiently<T>(
        &self,
        stop: &Stop,
        watch: &dyn Watch,
        mut attempt: impl AsyncFnMut() -> Result<T, SessionError>,
    ) -> Result<T, OneError> {
        let begun = Instant::now();
        let mut is_said = false;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !error.may_pass() || begun.elapsed() >= self.managed.options.away_max {
                return Err(OneError::Sessions(error));
            }
            if !is_said {
                watch.say(&format!("sessions {}: {error}; trying again", self.sessions.name));
                is_said = true;
            }
            stop.sleep(PAUSE).await;
            if stop.requested() {
                return Err(OneError::Protocol(ProtocolError::Stopped));
            }
        }
    }
}

impl From<SessionError> for OneError {
    fn from(error: SessionError) -> Self {
        Self::Sessions(error)
    }
}

impl From<ProtocolError> for OneError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// Between attempts at a store that is away.
const PAUSE: Duration = Duration::from_secs(1);
