//! The database guard of a rotation: what it refuses, when it stands, and when it goes.
//!
//! It is put up before the first value is rewritten, when every writer is said to seal with the new key, and goes when the database
//! itself has proved that no value under the old key is left. A run that ends early leaves it: the next one finds it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::RotationError;
use super::plan::Prepared;
use super::preflight::Finding;
use super::progress::Stop;
use super::recipe::{ColumnRecipe, Recipe};
use super::retry::{ANSWERS_AN_ATTEMPT, Before, answered, before_the_first_write, patiently};
use crate::key::KeyId;
use crate::store::guard::{GuardSpec, GuardedColumn, Guards};
use crate::store::survey::{Observation, Survey};
use crate::store::{Store, StoreError};

/// How a guard ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuardReport {
    /// The database proved that no value under an old key is left.
    pub proved: bool,
    /// The guard was taken away.
    pub removed: bool,
}

/// What the database's proof said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// No value begins as one under an old key does.
    Given,
    /// Some value does.
    Refuted,
    /// Somebody held the table for too long for the question to be asked.
    NotAsked,
}

/// The guard of one rotation.
pub(super) struct Guard {
    store: Arc<dyn Store>,
    survey: Arc<Survey>,
    stop: Arc<Stop>,
    spec: GuardSpec,
}

impl Guard {
    /// The guard of this table's columns, or why there can be none; `None` when there is no old key whose values could be refused.
    pub(super) fn of(store: &Arc<dyn Store>, prepared: &Prepared, stop: &Arc<Stop>) -> Result<Option<Self>, Finding> {
        let (survey, recipe) = (&prepared.survey, &prepared.recipe);
        possible(survey, recipe)?;
        let columns = recipe.columns.iter().enumerate();
        let columns = columns
            .map(|(at, column)| guarded(at, column, &survey.table))
            .collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<GuardedColumn> = columns.into_iter().filter(|column| !column.beginnings.is_empty()).collect();
        Ok((!columns.is_empty()).then(|| Self {
            store: Arc::clone(store),
            survey: Arc::clone(survey),
            stop: Arc::clone(stop),
            spec: GuardSpec {
                plan: own_plan(prepared),
                columns,
            },
        }))
    }

    /// Puts it up, or finds it standing.
    pub(super) async fn put_up(&self) -> Result<(), RotationError> {
        let mut attempts = Attempts::begin(&*self.store, &self.stop).await?;
        loop {
            let work = attempts.guards.put_up(&self.survey, &self.spec);
            match answered(&*self.store, ANSWERS_AN_ATTEMPT, work).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.pause_after(error).await?,
            }
        }
    }

    /// Asks for the database's proof. That reads the whole table, so that a request to stop is heard meanwhile.
    pub(super) async fn prove(&self) -> Result<Proof, RotationError> {
        let mut attempts = Attempts::begin(&*self.store, &self.stop).await?;
        loop {
            let answer = tokio::select! {
                answer = tokio::time::timeout(PROOF_MAX, attempts.guards.prove(&self.survey, &self.spec)) => answer,
                () = requested(&self.stop) => return Err(RotationError::Stopped),
            };
            let error = match answer {
                Ok(Ok(true)) => return Ok(Proof::Given),
                Ok(Ok(false)) => return Ok(Proof::Refuted),
                Ok(Err(error)) => error,
                Err(_) => StoreError::Disconnected("no answer to the question for the proof".to_owned()),
            };
            match attempts.pause_after(error).await {
                Err(error) if is_locked_out(&error) => return Ok(Proof::NotAsked),
                paused => paused?,
            }
        }
    }

    /// Takes it away. `false` when somebody held the table for too long.
    pub(super) async fn take_away(&self) -> Result<bool, RotationError> {
        match take_away(&*self.store, &self.stop, self.survey.table_id, &self.spec.plan).await {
            Ok(()) => Ok(true),
            Err(error) if is_locked_out(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether this table can be guarded by this user: asked before anything is written.
pub(super) async fn require_possible(store: &dyn Store, prepared: &Prepared) -> Result<(), RotationError> {
    // Where no table can be guarded at all, that is said first.
    drop(before_the_first_write(store, Before::Answered, || store.guards()).await?);
    possible(&prepared.survey, &prepared.recipe).map_err(|finding| RotationError::Refused(vec![finding]))?;
    before_the_first_write(store, Before::Answered, || async {
        store.guards().await?.require_possible(&prepared.survey).await
    })
    .await
}

/// Whether the guard of this very rotation was left by an earlier run.
pub(super) fn stands(prepared: &Prepared) -> bool {
    let own = own_plan(prepared);
    standing(&prepared.survey).any(|(plan, _)| plan == own)
}

/// The guards that stand on a table: their rotations, and the keys whose values they refuse.
pub(super) fn standing(survey: &Survey) -> impl Iterator<Item = (&str, &[String])> {
    survey.observations.iter().filter_map(|fact| match fact {
        Observation::Guard { plan, refuses } => Some((plan.as_str(), refuses.as_slice())),
        _ => None,
    })
}

/// The part of a guard's name that says whose it is.
pub(super) fn own_plan(prepared: &Prepared) -> String {
    prepared.recipe.identity(&prepared.survey.table, &prepared.target).id
}

/// Takes away the guard of a rotation from the table with this oid.
pub async fn take_away(store: &dyn Store, stop: &Stop, table: u32, plan: &str) -> Result<(), RotationError> {
    let mut attempts = Attempts::begin(store, stop).await?;
    loop {
        let work = attempts.guards.take_away(table, plan);
        match answered(store, ANSWERS_AN_ATTEMPT, work).await {
            Ok(()) => return Ok(()),
            Err(error) => attempts.pause_after(error).await?,
        }
    }
}

/// Tries again while somebody holds a lock that is in the way: each attempt waits so briefly that nobody queues behind it for long, and
/// the pauses between them let the application through.
struct Attempts<'a> {
    store: &'a dyn Store,
    stop: &'a Stop,
    failing_since: Option<Instant>,
    guards: Box<dyn Guards>,
}

impl<'a> Attempts<'a> {
    async fn begin(store: &'a dyn Store, stop: &'a Stop) -> Result<Self, RotationError> {
        let guards = patiently(store, Before::Answered, || store.guards()).await;
        Ok(Self {
            store,
            stop,
            failing_since: None,
            guards: guards.map_err(RotationError::store("guard"))?,
        })
    }

    /// Pauses before the next attempt, or gives up with the error.
    async fn pause_after(&mut self, error: StoreError) -> Result<(), RotationError> {
        let failed = RotationError::store("guard");
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if !(error.is_retryable() || error.wants_reconnect()) || since.elapsed() >= PATIENCE {
            return Err(failed(error));
        }
        tracing::debug!(%error, "the guard has to wait");
        let pause = PAUSE.mul_f64(rand::rng().random_range(0.5..=1.5));
        self.stop.sleep(pause).await;
        if self.stop.requested() {
            return Err(RotationError::Stopped);
        }
        if error.wants_reconnect() {
            match self.store.guards().await {
                Ok(connected) => self.guards = connected,
                Err(error) if error.wants_reconnect() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

/// Whether somebody held the table for too long.
pub(super) fn is_locked_out(error: &RotationError) -> bool {
    matches!(error, RotationError::Store { cause, .. } if cause.is_retryable())
}

async fn requested(stop: &Stop) {
    while !stop.requested() {
        stop.sleep(PAUSE).await;
    }
}

fn possible(survey: &Survey, recipe: &Recipe) -> Result<(), Finding> {
    if survey.filter.is_some() {
        return Err(impossible(
            "a guard is for the whole table, and --where leaves rows that may stay under the old key".to_owned(),
        ));
    }
    let nameless = recipe
        .columns
        .iter()
        .find(|column| column.from.beginnings(KeyId(0)).is_none());
    nameless.map_or(Ok(()), |column| {
        Err(impossible(format!(
            "column {}: no guard is possible: a value of format {} does not say which key sealed it",
            column.name,
            column.from.name()
        )))
    })
}

fn impossible(what: String) -> Finding {
    Finding::refusal("guard", what, "run without --guard")
}

fn guarded(at: usize, column: &ColumnRecipe, table: &str) -> Result<GuardedColumn, Finding> {
    let mut beginnings = Vec::new();
    for source in &column.sources {
        let of_source = source.id.and_then(|id| column.from.beginnings(id));
        beginnings.extend(of_source.ok_or_else(|| {
            impossible(format!(
                "column {}: no guard is possible: an old key has no id that its values could name",
                column.name
            ))
        })?);
    }
    let new = column.target.id.and_then(|id| column.to.beginnings(id)).unwrap_or_default();
    if beginnings.iter().any(|beginning| new.contains(beginning)) {
        return Err(impossible(format!(
            "column {}: no guard is possible: values under the new key begin as those under the old one",
            column.name
        )));
    }
    let old = Old(column);
    Ok(GuardedColumn {
        column: at,
        keys: column.sources.iter().filter_map(|source| source.id).map(|id| id.to_string()).collect(),
        beginnings,
        message: format!(
            "a value for {table}.{} was sealed with the old key ({old}), which is being rotated away: refused by the reseal guard",
            column.name
        ),
        hint: "This instance of the application still seals with the old key: give it the new key as the one that it seals with, and restart it."
            .to_owned(),
    })
}

/// The ids of a column's old keys.
struct Old<'a>(&'a ColumnRecipe);

impl fmt::Display for Old<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, id) in self.0.sources.iter().filter_map(|source| source.id).enumerate() {
            let separator = if at == 0 { "id " } else { ", " };
            write!(f, "{separator}{id}")?;
        }
        Ok(())
    }
}

/// How long a table may be held by others before the guard gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// A little more than the database itself takes for a proof at most.
const PROOF_MAX: Duration = Duration::from_secs(6 * 3600 + 300);
