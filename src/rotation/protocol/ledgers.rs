//! The ledgers of a keyset's databases: who is there, and the record of the rotation.

use std::time::Instant;

use jiff::Timestamp;

use super::super::overseer::announce;
use super::super::retry::{ANSWERS_AN_ATTEMPT, Patience, Remedy, answered};
use super::presence::Presence;
use super::{Place, ProtocolError};
use crate::rotation::progress::Stop;
use crate::rotation::run::forged_of;
use crate::store::ledger::ending::{EndingCounts, EndingName, EndingRecord, Endings, NewEnding};
use crate::store::ledger::instance::{Instance, Instances};
use crate::store::ledger::request::Subject;
use crate::store::ledger::rotation::{Change, NewRotation, RotationRecord, Rotations};
use crate::store::{Control, DatabaseIdentity, StoreError};

/// Connections to the control tables of every database of a keyset, opened when needed and again after a failure.
pub struct Ledgers<'p> {
    places: &'p [Place],
    keyset: String,
    away_max: std::time::Duration,
    open: Vec<Option<Box<dyn Control>>>,
    presence: Presence,
}

impl<'p> Ledgers<'p> {
    /// Those of these databases; nothing is connected yet.
    pub fn of(places: &'p [Place], keyset: &str, away_max: std::time::Duration) -> Self {
        Self {
            places,
            keyset: keyset.to_owned(),
            away_max,
            open: places.iter().map(|_| None).collect(),
            presence: Presence::default(),
        }
    }

    /// Creates or upgrades the control tables.
    pub async fn migrate(&mut self, stop: &Stop) -> Result<(), ProtocolError> {
        let migrate = async |control: &mut dyn Control, ()| control.migrate().await;
        self.everywhere(stop, migrate, ()).await.map(drop)
    }

    /// The instances of all databases, each name once: the entry that lags behind counts. Writes nothing.
    pub async fn instances(&mut self, stop: &Stop) -> Result<Vec<Instance>, ProtocolError> {
        let keyset = self.keyset.clone();
        let list = async |control: &mut dyn Control, keyset: String| Instances::of(control).list(Some(&keyset)).await;
        let mut all: Vec<Instance> = Vec::new();
        for instance in self.everywhere(stop, list, keyset).await?.into_iter().flatten() {
            match all.iter_mut().find(|known| known.instance == instance.instance) {
                None => all.push(instance),
                Some(known) => {
                    let (live, revision) = (instance.is_live(), instance.revision);
                    if (live && !known.is_live()) || (live == known.is_live() && revision < known.revision) {
                        *known = instance;
                    }
                }
            }
        }
        self.presence.look(&all, Instant::now());
        Ok(all)
    }

    /// What was heard of them so far.
    pub(super) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// The time of a database. Writes nothing.
    pub(super) async fn time(&mut self, at: usize, stop: &Stop) -> Result<Timestamp, ProtocolError> {
        let now = async |control: &mut dyn Control, ()| {
            let told = control.now().await?;
            told.parse::<Timestamp>()
                .map_err(|_| StoreError::Implausible(format!("its time is {told:?}")))
        };
        self.patiently(at, stop, now, ()).await
    }

    /// The open rotation of the keyset, and the database that has its record. Writes nothing.
    pub async fn open_rotation(&mut self, stop: &Stop) -> Result<Option<(usize, RotationRecord)>, ProtocolError> {
        let keyset = self.keyset.clone();
        let open = async |control: &mut dyn Control, keyset: String| Rotations::of(control).open(&keyset).await;
        let found = self.everywhere(stop, open, keyset).await?;
        Ok(found.into_iter().enumerate().find_map(|(at, record)| Some((at, record?))))
    }

    /// The rotation of the keyset that ended last, of all databases. Writes nothing.
    pub async fn latest_finished(&mut self, stop: &Stop) -> Result<Option<RotationRecord>, ProtocolError> {
        let keyset = self.keyset.clone();
        let latest = async |control: &mut dyn Control, keyset: String| Rotations::of(control).latest_finished(&keyset).await;
        let found = self.everywhere(stop, latest, keyset).await?;
        let order = |one: &RotationRecord, other: &RotationRecord| one.finished_at.cmp(&other.finished_at);
        Ok(found.into_iter().flatten().max_by(order))
    }

    /// A number that grows with every run of a rotation that a database sees, of all plans and keysets; `None` without progress tables.
    /// Writes nothing.
    pub async fn runs(&mut self, at: usize, stop: &Stop) -> Result<Option<u64>, ProtocolError> {
        let count = async |control: &mut dyn Control, ()| {
            if !control.exists().await? {
                return Ok(None);
            }
            let plans = control.plans().await?.iter().map(|plan| plan.generation).sum::<i64>();
            let rotations = Rotations::of(control).list().await?;
            let rotations = rotations.iter().map(|record| record.generation).sum::<i64>();
            Ok(Some((plans + rotations).unsigned_abs()))
        };
        self.patiently(at, stop, count, ()).await
    }

    /// How many values of a table an earlier rotation has left as perhaps forged. Writes nothing.
    pub async fn forged(&mut self, at: usize, table: &str, stop: &Stop) -> Result<u64, ProtocolError> {
        let count = async |control: &mut dyn Control, table: String| {
            let mut forged = 0;
            if control.exists().await? {
                let plans = control.plans().await?.into_iter();
                for plan in plans.filter(|plan| plan.identity.table == table) {
                    forged += forged_of(control, &plan.identity.id).await?;
                }
            }
            Ok(forged)
        };
        self.patiently(at, stop, count, table.to_owned()).await
    }

    /// Which database it is. Writes nothing.
    pub(super) async fn identity(&mut self, at: usize, stop: &Stop) -> Result<DatabaseIdentity, ProtocolError> {
        let identity = async |control: &mut dyn Control, ()| control.identity().await;
        self.patiently(at, stop, identity, ()).await
    }

    /// Opens the record of a new rotation. One whose reply was lost is found again.
    pub async fn begin(&mut self, at: usize, new: NewRotation, stop: &Stop) -> Result<Option<RotationRecord>, ProtocolError> {
        self.patiently(
            at,
            stop,
            async |control, new: NewRotation| {
                let mut rotations = Rotations::of(control);
                let record = match rotations.begin(&new).await? {
                    Some(record) => Some(record),
                    None => rotations.open(&new.keyset).await?.filter(|record| record.id == new.id),
                };
                if record.is_some() {
                    announce(control, &Subject::Keyset(new.keyset), &new.owner).await?;
                }
                Ok(record)
            },
            new,
        )
        .await
    }

    /// Takes the record over.
    pub async fn claim(&mut self, at: usize, id: &str, owner: &str, stop: &Stop) -> Result<RotationRecord, ProtocolError> {
        let names = (id.to_owned(), owner.to_owned());
        self.patiently(
            at,
            stop,
            async |control, (id, owner): (String, String)| {
                let record = Rotations::of(control).claim(&id, &owner).await?;
                announce(control, &Subject::Keyset(record.keyset.clone()), &owner).await?;
                Ok(record)
            },
            names,
        )
        .await
    }

    /// Changes the record, if it is still ours. A change whose reply was lost is made again, which changes nothing but its time; an end
    /// is recognised.
    pub async fn change(
        &mut self,
        at: usize,
        record: &RotationRecord,
        change: Change<'_>,
        stop: &Stop,
    ) -> Result<RotationRecord, ProtocolError> {
        let mut may_be_done = false;
        let attempt = async |control: &mut dyn Control, ()| {
            let mut rotations = Rotations::of(control);
            let may_have_ended = change.is_end && std::mem::replace(&mut may_be_done, true);
            match rotations.change(record, &change).await {
                Err(StoreError::Superseded) if may_have_ended => {
                    let is_ended = |known: &RotationRecord| {
                        known.id == record.id && known.generation == record.generation && known.finished_at.is_some()
                    };
                    let ended = rotations.list().await?.into_iter().find(is_ended);
                    ended.ok_or(StoreError::Superseded)
                }
                changed => changed,
            }
        };
        self.patiently(at, stop, attempt, ()).await
    }

    /// The same of every database, in their order.
    async fn everywhere<T, A>(
        &mut self,
        stop: &Stop,
        mut attempt: impl AsyncFnMut(&mut dyn Control, A) -> Result<T, StoreError>,
        arguments: A,
    ) -> Result<Vec<T>, ProtocolError>
    where
        A: Clone,
    {
        let mut all = Vec::with_capacity(self.places.len());
        for at in 0..self.places.len() {
            all.push(self.patiently(at, stop, &mut attempt, arguments.clone()).await?);
        }
        Ok(all)
    }

    /// What a rotation has ended of sessions. Writes nothing.
    pub async fn endings(&mut self, at: usize, rotation: &str, stop: &Stop) -> Result<Vec<EndingRecord>, ProtocolError> {
        self.patiently(
            at,
            stop,
            async |control, rotation: String| Endings::of(control).list(&rotation).await,
            rotation.to_owned(),
        )
        .await
    }

    /// Keeps a part of what existed at a cut-off.
    pub async fn keep_snapshot(
        &mut self,
        (at, rotation): (usize, &str),
        (snapshot, part): (&str, u64),
        digests: String,
        stop: &Stop,
    ) -> Result<(), ProtocolError> {
        self.patiently(
            at,
            stop,
            async |control, (rotation, snapshot, digests): (String, String, String)| {
                Endings::of(control).keep(&rotation, &snapshot, part, &digests).await
            },
            (rotation.to_owned(), snapshot.to_owned(), digests),
        )
        .await
    }

    /// Records a cut-off, or gives the one that was recorded first.
    pub async fn begin_ending(&mut self, at: usize, new: NewEnding, stop: &Stop) -> Result<EndingRecord, ProtocolError> {
        self.patiently(
            at,
            stop,
            async |control, new: NewEnding| Endings::of(control).begin(&new).await,
            new,
        )
        .await
    }

    /// What existed at a cut-off.
    pub async fn snapshot_parts(&mut self, at: usize, snapshot: &str, stop: &Stop) -> Result<Vec<String>, ProtocolError> {
        self.patiently(
            at,
            stop,
            async |control, snapshot: String| Endings::of(control).parts(&snapshot).await,
            snapshot.to_owned(),
        )
        .await
    }

    /// Records what a run counted.
    pub async fn record_ending(
        &mut self,
        (at, name): (usize, &EndingName),
        counts: EndingCounts,
        is_end: bool,
        stop: &Stop,
    ) -> Result<(), ProtocolError> {
        self.patiently(
            at,
            stop,
            async |control, name: EndingName| Endings::of(control).record(&name, counts, is_end).await,
            name.clone(),
        )
        .await
    }

    /// Forgets what existed at the cut-offs of a rotation.
    pub async fn forget_snapshots(&mut self, at: usize, rotation: &str, stop: &Stop) -> Result<(), ProtocolError> {
        self.patiently(
            at,
            stop,
            async |control, rotation: String| Endings::of(control).forget(&rotation).await,
            rotation.to_owned(),
        )
        .await
    }

    async fn patiently<T, A>(
        &mut self,
        at: usize,
        stop: &Stop,
        mut attempt: impl AsyncFnMut(&mut dyn Control, A) -> Result<T, StoreError>,
        arguments: A,
    ) -> Result<T, ProtocolError>
    where
        A: Clone,
    {
        let mut patience = Patience::new(self.away_max);
        let store = &*self.places[at].store;
        loop {
            let work = async { attempt(self.control(at).await?, arguments.clone()).await };
            let error = match answered(store, ANSWERS_AN_ATTEMPT, work).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            self.recover(at, error, &mut patience, stop).await?;
        }
    }

    async fn control(&mut self, at: usize) -> Result<&mut dyn Control, StoreError> {
        if self.open[at].is_none() {
            self.open[at] = Some(self.places[at].store.control().await?);
        }
        // Filled in the line above.
        self.open[at]
            .as_deref_mut()
            .map(|control| control as &mut dyn Control)
            .ok_or_else(|| StoreError::Disconnected("no connection".to_owned()))
    }

    async fn recover(
        &mut self,
        at: usize,
        error: StoreError,
        patience: &mut Patience,
        stop: &Stop,
    ) -> Result<(), ProtocolError> {
        self.open[at] = None;
        match patience.after(&error) {
            Remedy::GiveUp => return Err(ProtocolError::store("record", error)),
            Remedy::Again { wait, .. } | Remedy::Reconnect { wait } => stop.sleep(wait).await,
        }
        if stop.requested() {
            return Err(ProtocolError::Stopped);
        }
        Ok(())
    }
}
