//! VACUUM beside the rotation, on the operator's word: each time that a share of a table's rows has been rewritten, the room of their old
//! versions is made free for the next ones, so that the table does not grow to twice its size.
//!
//! It is upkeep and no part of the proof: a VACUUM that fails, or that makes way for somebody, is told and ends nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::RotationError;
use super::outcome::RotationReport;
use super::plan::Prepared;
use super::preflight::{Finding, refused_as};
use super::profile::Profile;
use super::progress::{Progress, Step, Stop};
use super::retry::{ANSWERS_AN_ATTEMPT, Before, answered, before_the_first_write};
use crate::store::survey::{Relation, Survey};
use crate::store::vacuum::{Vacuum, VacuumOptions, Vacuumed};
use crate::store::{Store, StoreError};

/// Rows of each physical table that were rewritten since it was vacuumed.
#[derive(Debug, Default)]
pub struct Wear(Mutex<BTreeMap<String, u64>>);

impl Wear {
    /// Rows were rewritten.
    pub fn add(&self, relation: &str, rows: u64) {
        let mut worn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match worn.get_mut(relation) {
            Some(known) => *known += rows,
            None => drop(worn.insert(relation.to_owned(), rows)),
        }
    }

    fn list(&self) -> Vec<(String, u64)> {
        let worn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        worn.iter().map(|(relation, rows)| (relation.clone(), *rows)).collect()
    }

    /// What was rewritten before a VACUUM began is what it freed.
    fn take(&self, relation: &str, rows: u64) {
        let mut worn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = worn.get_mut(relation) {
            *known = known.saturating_sub(rows);
        }
    }
}

/// How the upkeep went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VacuumReport {
    /// How often a physical table was vacuumed to the end.
    pub runs: u64,
    /// How often it was not, because somebody else held the table or waited for it.
    pub made_way: u64,
    /// What went wrong last, if anything did.
    pub failed: Option<String>,
    /// Whether every physical table was vacuumed in the end, indexes included.
    pub finished: bool,
    /// Bytes of the table without its indexes, when this run began.
    pub bytes_before: u64,
    /// Now.
    pub bytes_after: u64,
}

/// Vacuums a table beside the workers.
pub(super) struct Upkeep<'a> {
    store: &'a dyn Store,
    survey: &'a Survey,
    profile: Profile,
    vacuum: Box<dyn Vacuum>,
    relations: Vec<Relation>,
    progress: Arc<Progress>,
    stop: Arc<Stop>,
    report: VacuumReport,
    not_before: BTreeMap<String, Instant>,
}

impl<'a> Upkeep<'a> {
    /// One that has not begun, if this table can be vacuumed and this user may do it. Changes nothing.
    pub(super) async fn ready(
        store: &'a dyn Store,
        prepared: &'a Prepared,
        progress: &Arc<Progress>,
        stop: &Arc<Stop>,
    ) -> Result<Self, RotationError> {
        Ok(Self {
            vacuum: permitted(store, &prepared.survey).await?,
            store,
            survey: &prepared.survey,
            profile: prepared.options.profile,
            relations: prepared.survey.relations.clone(),
            progress: Arc::clone(progress),
            stop: Arc::clone(stop),
            report: VacuumReport::default(),
            not_before: BTreeMap::new(),
        })
    }

    /// Vacuums while `work` goes on, and as a whole when it has come to its end.
    pub(super) async fn beside(
        mut self,
        wear: &Wear,
        work: impl Future<Output = Result<RotationReport, RotationError>>,
    ) -> Result<RotationReport, RotationError> {
        self.report.bytes_before = self.bytes().await;
        let over = AtomicBool::new(false);
        let work = async {
            let outcome = work.await;
            over.store(true, Ordering::Release);
            outcome
        };
        let (outcome, ()) = tokio::join!(work, self.look_after(wear, &over));
        let mut report = outcome?;
        if report.counters.rows_reencrypted > 0 {
            self.conclude().await;
        }
        self.report.bytes_after = self.bytes().await;
        report.vacuum = Some(self.report);
        Ok(report)
    }

    async fn look_after(&mut self, wear: &Wear, over: &AtomicBool) {
        let stop = Arc::clone(&self.stop);
        let is_over = || over.load(Ordering::Acquire) || stop.requested();
        while !is_over() {
            tokio::time::sleep(LOOK_EVERY).await;
            for (name, rows) in wear.list() {
                if !is_over() && self.is_due(&name, rows).await {
                    self.one(&name, rows, wear, &is_over).await;
                }
            }
        }
    }

    async fn is_due(&mut self, name: &str, rows: u64) -> bool {
        // Whoever lets batches wait, a replica that lags among them, does not want this either.
        if rows < ROWS_MIN || !self.progress.throttle.closed().is_empty() {
            return false;
        }
        if self.not_before.get(name).is_some_and(|time| Instant::now() < *time) {
            return false;
        }
        if self.relation(name).is_none() {
            self.refresh().await;
        }
        let all = self.relation(name).map_or(0, |relation| relation.rows_estimate);
        rows >= all / SHARE
    }

    async fn one(&mut self, name: &str, rows: u64, wear: &Wear, is_over: &(dyn Fn() -> bool + Sync)) {
        let Some(relation) = self.relation(name).cloned() else {
            // It was detached or dropped.
            return wear.take(name, rows);
        };
        let again_after = match self.vacuum(&relation, false, is_over).await {
            Ok(Vacuumed::Done) => {
                wear.take(name, rows);
                // How many rows a table has that was never analyzed is known now.
                self.refresh().await;
                return;
            }
            Ok(Vacuumed::Busy | Vacuumed::GaveWay) => AGAIN_AFTER,
            Ok(Vacuumed::Ended) => return,
            Err(_) => AGAIN_AFTER_ERROR,
        };
        self.not_before.insert(name.to_owned(), Instant::now() + again_after);
    }

    /// Once more over everything, this time with the indexes. It may be ended: the rotation is proven already.
    async fn conclude(&mut self) {
        self.refresh().await;
        let relations = self.relations.clone();
        self.progress.begin(Step::Vacuum, relations.len(), 0);
        let stop = Arc::clone(&self.stop);
        self.report.finished = true;
        for relation in &relations {
            let (mut attempts, mut is_done) = (0, false);
            while !is_done && attempts < CONCLUDE_ATTEMPTS && !stop.requested() {
                if attempts > 0 {
                    stop.sleep(AGAIN_AFTER).await;
                }
                attempts += 1;
                let outcome = self.vacuum(relation, true, &|| stop.requested()).await;
                is_done = matches!(outcome, Ok(Vacuumed::Done));
            }
            self.report.finished &= is_done;
            Progress::add(&self.progress.ranges_done, 1);
        }
    }

    /// One VACUUM, counted. A partition that is gone needs none.
    async fn vacuum(
        &mut self,
        relation: &Relation,
        indexes: bool,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vacuumed, StoreError> {
        let profile = self.progress.throttle.profile().unwrap_or(self.profile);
        let options = VacuumOptions {
            indexes,
            gently: profile == Profile::Gentle,
        };
        let outcome = self.vacuum.vacuum(relation, options, is_over).await;
        match &outcome {
            Ok(Vacuumed::Done) => self.report.runs += 1,
            Ok(Vacuumed::Busy | Vacuumed::GaveWay) => self.report.made_way += 1,
            Ok(Vacuumed::Ended) => {}
            Err(StoreError::Vanished(_)) => return Ok(Vacuumed::Done),
            Err(error) => {
                tracing::warn!(%error, table = relation.sql_name, "VACUUM failed; the rotation goes on");
                self.report.failed = Some(error.to_string());
            }
        }
        outcome
    }

    fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.sql_name == name)
    }

    /// Partitions come and go, and numbers of rows change.
    async fn refresh(&mut self) {
        match answered(self.store, 1, self.store.relations(self.survey)).await {
            Ok(relations) => self.relations = relations,
            Err(error) => tracing::debug!(%error, "the partitions of the table were not looked up again"),
        }
    }

    async fn bytes(&mut self) -> u64 {
        let bytes = answered(self.store, ANSWERS_AN_ATTEMPT, self.vacuum.bytes(self.survey)).await;
        bytes.unwrap_or_else(|error| {
            tracing::debug!(%error, "the size of the table is not known");
            0
        })
    }
}

/// What vacuums tables of this database; refused where there is nothing to vacuum, or this user may not. Changes nothing.
pub(super) async fn permitted(store: &dyn Store, survey: &Survey) -> Result<Box<dyn Vacuum>, RotationError> {
    let permitted = before_the_first_write(store, Before::Answered, || async {
        let mut vacuum = store.vacuum()?;
        let forbidden = vacuum.forbidden(survey).await?;
        Ok((vacuum, forbidden))
    });
    match permitted.await.map_err(refused_as("vacuum", "run without --vacuum"))? {
        (vacuum, None) => Ok(vacuum),
        (_, Some(why)) => {
            let finding = Finding::refusal("vacuum", why, "connect as its owner, or run without --vacuum");
            Err(RotationError::Refused(vec![finding]))
        }
    }
}

/// A table is vacuumed whenever one of so many rows has been rewritten.
const SHARE: u64 = 20;
/// Fewer are not worth it.
const ROWS_MIN: u64 = 500;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Whoever was made way for, or held the table, gets so much time.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_AFTER_ERROR: Duration = Duration::from_secs(10);
/// In the end, so many times.
const CONCLUDE_ATTEMPTS: u32 = 6;
