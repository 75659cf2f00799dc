//! The phases of a run: re-encrypt by ranges, sweep until nothing is due, verify, and sweep once more.

mod late;
mod ranges;
mod sweeps;
mod writers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::sweeps::Swept;
use super::census::Census;
use super::crew::{Crew, Labour};
use super::error::RotationError;
use super::guard::{Guard, GuardReport, Proof};
use super::judge::Depth;
use super::outcome::RotationReport;
use super::own::OwnWrites;
use super::pace::BatchController;
use super::passes::{ReEncrypt, Verify, Workshop};
use super::plan::Prepared;
use super::preflight::Finding;
use super::profile::{Profile, Task};
use super::progress::{Progress, Step, Stop, Table};
use super::range::RangeWork;
use super::rewriter::Rewriters;
use super::shared::Shared;
use super::vacuum::Wear;
use crate::store::control::{Counters, Interval, LateValues, Plan, PlanStatus, Range};
use crate::store::page::Page;
use crate::store::spare::Spare;
use crate::store::{Control, Session, Store, StoreError};

/// One run over a table, with everything its phases share.
pub(super) struct Run<'a> {
    store: &'a Arc<dyn Store>,
    prepared: &'a Prepared,
    plan: Option<Plan>,
    workshop: Workshop,
    guard: Option<Guard>,
    writers: usize,
    readers: usize,
    sessions: Arc<Spare<Box<dyn Session>>>,
    controls: Spare<Box<dyn Control>>,
}

impl<'a> Run<'a> {
    /// A run with a claimed plan; without one nothing is fenced and no progress is kept.
    pub(super) fn new(
        store: &'a Arc<dyn Store>,
        prepared: &'a Prepared,
        progress: &Arc<Progress>,
        stop: &Arc<Stop>,
        plan: Option<Plan>,
    ) -> Self {
        let options = &prepared.options;
        let proposed = store.workers();
        let single_writer = proposed.max == 1;
        let pace = |task| {
            let controller = BatchController::new(task, options.profile, single_writer, options.batch_rows);
            Arc::new(Mutex::new(controller))
        };
        let wished = options.workers_wished(proposed);
        let columns: Vec<String> = prepared.recipe.columns.iter().map(|column| column.name.clone()).collect();
        let columns = Arc::new(columns);
        progress.turn_to(Table {
            of: (store.describe(), prepared.target.clone()),
            survey: Arc::clone(&prepared.survey),
            columns: Arc::clone(&columns),
            census: Census::default(),
        });
        let work = RangeWork {
            store: Arc::clone(store),
            survey: Arc::clone(&prepared.survey),
            shared: Shared {
                pace: pace(Task::Rewrite),
                reading_pace: pace(Task::Read),
                progress: Arc::clone(progress),
                stop: Arc::clone(stop),
                refusal: Arc::default(),
                value_bytes_max: options.value_bytes_max,
                columns,
                withheld: Arc::default(),
                left_behind: Arc::default(),
                late: Arc::default(),
                wear: Arc::default(),
                own: Arc::new(OwnWrites::of(&prepared.survey.observations)),
            },
            plan: plan.as_ref().map(|plan| plan.identity.id.clone()),
            away_max: options.away_max,
            step: "re-encrypt",
        };
        Self {
            store,
            prepared,
            plan,
            workshop: Workshop {
                rewriters: Rewriters {
                    recipe: Arc::clone(&prepared.recipe),
                    on_unreadable: options.on_unreadable,
                    refusal: Arc::clone(&work.shared.refusal),
                    late: None,
                },
                work,
            },
            guard: None,
            writers: wished.clamp(1, proposed.max),
            readers: match options.workers {
                // Whoever is to be gentle leaves a core to the application.
                None if options.profile != Profile::Gentle => wished.max(READERS_MIN),
                None | Some(_) => wished,
            },
            sessions: Arc::default(),
            controls: Spare::default(),
        }
    }

    /// The same, with a guard that stands.
    pub(super) fn guarded_by(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// All phases up to the verification; an unclean verification goes back to the sweep.
    pub(super) async fn all(&self, plan_id: &str, findings: Vec<Finding>) -> Result<RotationReport, RotationError> {
        let writers = self.outlast_writers().await?;
        let ranges = self.ranges().await?;
        let begun = std::time::Instant::now();
        let mut counters = self.re_encrypt(ranges).await?;
        // Partitions that appeared meanwhile become ranges of their own.
        while let Some(more) = self.ranges_of_new_relations().await? {
            counters += self.re_encrypt(more).await?;
        }
        let this_run = (counters.rows_reencrypted, begun.elapsed());
        self.set_status(PlanStatus::Swept).await?;
        self.remember_quarantine().await?;
        // After a leak nobody is excused, lest a forgery passes for it.
        let excuses = !writers.is_empty() && !self.prepared.is_wary();
        self.outlast_the_last(writers).await?;

        let (mut swept, mut eras) = (Swept::nothing(excuses), 0);
        let (census, proof) = loop {
            let era = self.store.era();
            self.sweep_until_clean(&mut swept).await?;
            self.patiently("verify", || self.store.settle()).await?;
            let mut census = self.verify().await?;
            swept.verifications += 1;
            let proof = match &self.guard {
                Some(guard) if census.is_clean() => Some(guard.prove().await?),
                _ => None,
            };
            let is_clean = census.due == 0 && proof != Some(Proof::Refuted);
            // Behind the verification's back, values may have come where it had been.
            let came = match is_clean {
                true => {
                    let last = self.sweep_once(&mut swept).await?;
                    last.due + last.withheld.saturating_sub(census.withheld)
                }
                false => 0,
            };
            self.patiently("verify", || self.store.settle()).await?;
            // A former primary was read, or may have been: that says nothing about its successor.
            if self.has_passed(era, &mut eras)? {
                swept.forget();
                continue;
            }
            if is_clean && came == 0 {
                break (census, proof);
            }
            // What appeared between the last sweep and the verification goes back to the sweep, as long as there is hope.
            if swept.is_enough() {
                census.due += came;
                break (census, proof);
            }
            // Whatever it was that the sweeps have passed over, from here on they read it.
            swept.doubt();
            self.workshop.shared().own.doubt();
        };
        counters += swept.counters;
        let clean = census.is_clean() && proof != Some(Proof::Refuted);
        if clean {
            self.set_status(PlanStatus::Verified).await?;
        }
        if let Some(plan) = &self.plan {
            let opens = census.quarantined() == 0;
            counters = self.patiently("verify", || self.settle(plan, opens)).await?;
        }
        let mut report = self.report(plan_id, counters, this_run, census, swept.sweeps, findings);
        report.late = self.late().await?;
        report.verified = clean;
        if let Some(guard) = &self.guard {
            // What is not verified stays guarded: the next run goes on with it.
            report.guard = Some(GuardReport {
                proved: proof == Some(Proof::Given),
                removed: clean && guard.take_away().await?,
            });
        }
        Ok(report)
    }

    /// The control tables, over a connection that has just answered or a new one. To be put back once it has answered.
    async fn control(&self) -> Result<Box<dyn Control>, StoreError> {
        match self.controls.take() {
            Some(control) => Ok(control),
            None => self.store.control().await,
        }
    }

    /// Makes an attempt until it succeeds or patience ends. What is attempted may have succeeded before, with its reply lost.
    async fn patiently<T, F>(&self, step: &'static str, attempt: impl FnMut() -> F) -> Result<T, RotationError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.workshop.work.patiently(step, attempt).await
    }

    /// Forgets quarantine entries when every value `opens`, and adds up the counters of all runs.
    async fn settle(&self, plan: &Plan, opens: bool) -> Result<Counters, StoreError> {
        let mut control = self.control().await?;
        if opens && control.quarantined(&plan.identity.id, None).await? > 0 {
            control.clear_quarantine(plan).await?;
        }
        let totals = control.totals(&plan.identity.id).await?;
        self.controls.put_back(control);
        Ok(totals)
    }

    /// What is reported at the end.
    pub(super) fn report(
        &self,
        plan: &str,
        counters: Counters,
        this_run: (u64, Duration),
        census: Census,
        sweeps: u32,
        findings: Vec<Finding>,
    ) -> RotationReport {
        RotationReport {
            plan: plan.to_owned(),
            counters,
            this_run,
            verified: census.is_clean(),
            census,
            columns: self.columns(),
            sweeps,
            findings,
            late: LateValues::default(),
            guard: None,
            vacuum: None,
        }
    }

    /// Rows that were rewritten since their table was vacuumed.
    pub(super) fn wear(&self) -> &Wear {
        &self.workshop.shared().wear
    }

    /// The columns' names, in the order of the recipe.
    pub(super) fn columns(&self) -> Vec<String> {
        self.workshop.shared().columns.to_vec()
    }

    async fn re_encrypt(&self, mut ranges: Vec<Range>) -> Result<Counters, RotationError> {
        let total = ranges.len();
        ranges.retain(|range| !range.done);
        let progress = &self.workshop.shared().progress;
        progress.begin(Step::ReEncrypt, total, self.prepared.survey.rows_estimate);
        Progress::add(&progress.ranges_done, (total - ranges.len()) as u64);
        let workshop = self.workshop.clone();
        let yields = self
            .crew("re-encrypt", self.writers, ranges, move |session| {
                let labour: Box<dyn Labour<Piece = Range, Yield = Counters>> = Box::new(ReEncrypt {
                    buffers: workshop.buffers(session)?,
                    work: workshop.work.clone(),
                    counters: Counters::default(),
                });
                Ok(labour)
            })
            .await?;
        Ok(sum(yields))
    }

    /// Opens every value of one server, which has all of it for good. Another one that takes over meanwhile is read from the beginning.
    pub(super) async fn verify_one_era(&self) -> Result<Census, RotationError> {
        let mut eras = 0;
        loop {
            let era = self.store.era();
            let census = self.verify().await?;
            // Whoever connects meets the server that answers now.
            self.patiently("verify", || self.store.control()).await?;
            if !self.has_passed(era, &mut eras)? {
                return Ok(census);
            }
        }
    }

    /// Whether another server has taken over since `era`. Fails when that happens again and again.
    fn has_passed(&self, era: u64, eras: &mut u32) -> Result<bool, RotationError> {
        if self.store.era() == era {
            return Ok(false);
        }
        if *eras == ERAS_MAX {
            let cause = StoreError::Disconnected("another server has taken over again and again".to_owned());
            return Err(RotationError::store("verify")(cause));
        }
        *eras += 1;
        Ok(true)
    }

    /// Opens every value.
    async fn verify(&self) -> Result<Census, RotationError> {
        let intervals = self.intervals(false).await?;
        self.begin(Step::Verify, intervals.len());
        let mut workshop = self.workshop.clone();
        workshop.work.step = "verify";
        let yields = self
            .crew("verify", self.readers, intervals, move |session| {
                let labour: Box<dyn Labour<Piece = Interval, Yield = Census>> = Box::new(Verify {
                    counter: workshop.counter(Depth::Open),
                    page: Page::to_look_at(session.shape()),
                    work: workshop.work.clone(),
                });
                Ok(labour)
            })
            .await?;
        let mut census = Census::default();
        for part in yields {
            census.merge(part);
        }
        self.withhold(&mut census);
        Ok(census)
    }

    /// What the database refuses, and what may be forged, stays due however often it is swept.
    fn withhold(&self, census: &mut Census) {
        let shared = self.workshop.shared();
        census.withhold(&shared.withheld.list());
        census.withhold(&shared.late.forged());
    }

    fn begin(&self, step: Step, pieces: usize) {
        self.workshop
            .shared()
            .progress
            .begin(step, pieces, self.prepared.survey.rows_estimate);
    }

    async fn set_status(&self, status: PlanStatus) -> Result<(), RotationError> {
        match &self.plan {
            Some(plan) => self.patiently("re-encrypt", || self.store_status(plan, status)).await,
            None => Ok(()),
        }
    }

    async fn store_status(&self, plan: &Plan, status: PlanStatus) -> Result<(), StoreError> {
        let mut control = self.control().await?;
        control.set_status(plan, status).await?;
        self.controls.put_back(control);
        Ok(())
    }

    async fn crew<P, Y, L>(
        &self,
        step: &'static str,
        workers: usize,
        pieces: Vec<P>,
        labour: L,
    ) -> Result<Vec<Y>, RotationError>
    where
        P: Send + 'static,
        Y: Send + 'static,
        L: Fn(&dyn Session) -> Result<Box<dyn Labour<Piece = P, Yield = Y>>, RotationError> + Send + Sync + 'static,
    {
        let crew = Crew {
            work: &self.workshop.work,
            survey: &self.prepared.survey,
            sessions: &self.sessions,
            workers,
        };
        crew.run(step, pieces, labour).await
    }
}

fn sum(parts: Vec<Counters>) -> Counters {
    parts.into_iter().fold(Counters::default(), |mut sum, part| {
        sum += part;
        sum
    })
}

/// Reading is half database and half opening: two connections keep two cores busy on any database.
const READERS_MIN: usize = 2;
/// Failovers during the sweeps and the verification of one run; after so many somebody has to look at the servers.
const ERAS_MAX: u32 = 5;
