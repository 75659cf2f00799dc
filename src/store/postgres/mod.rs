//! PostgreSQL 14 and later, through sqlx.

mod arrays;
mod claim;
mod connect;
mod control;
mod control_rows;
mod control_sql;
mod error;
mod guard;
mod hazards;
mod identity;
mod intervals;
mod late;
mod lock;
mod moment;
mod parameters;
mod pooler;
mod replicas;
mod rows;
mod scan;
mod session;
mod statements;
mod survey;
mod tidy;
mod types;
mod vacuum;
mod wide;
mod writers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;
use tokio::sync::OnceCell;

use self::connect::Server;
pub(crate) use self::error::store_error;
use self::identity::Met;
use self::lock::{AdvisoryLock, LockName};
use super::control::Interval;
use super::guard::Guards;
use super::replicas::ReplicaWatch;
use super::spare::Spare;
use super::survey::{Observation, Relation, Survey, Target};
use super::vacuum::Vacuum;
use super::{Control, Moment, OpenWriter, OperatorLock, SampleLimits, Session, Store, StoreError, TakesSamples, WorkerLimits};

/// A PostgreSQL database.
pub struct PostgresStore {
    server: Server,
    role: String,
    /// Set once it is known that a connection keeps its session.
    keeps_sessions: OnceCell<()>,
    /// For questions about the catalogue.
    spare: Spare<(PgConnection, Met)>,
}

impl PostgresStore {
    /// A database at this `postgres://` URL; nothing is connected yet. `role` becomes the `application_name` of every connection, so
    /// that an administrator sees who is at work.
    pub fn new(url: &str, role: &str) -> Result<Self, StoreError> {
        Ok(Self {
            server: Server::parse(url)?,
            role: role.to_owned(),
            keeps_sessions: OnceCell::new(),
            spare: Spare::default(),
        })
    }

    /// How long an answer is waited for (60 s unless told otherwise) before the connection counts as lost.
    #[must_use]
    pub fn answer_within(mut self, answer_max: Duration) -> Self {
        self.server.set_answer_max(answer_max);
        self
    }

    /// A connection for a question: one that has just answered another, or a new one. To be put back once it has answered.
    async fn asking(&self) -> Result<(PgConnection, Met), StoreError> {
        match self.spare.take() {
            Some((connection, met)) if self.server.require_latest(met).is_ok() => Ok((connection, met)),
            _ => self.server.connect_and_meet(&self.role).await,
        }
    }
}

/// A connection of its own with the settings of all connections of ours, for work beside the rewriting of values.
pub(crate) async fn connect(url: &str, role: &str) -> Result<PgConnection, StoreError> {
    Server::parse(url)?.connect(role).await
}

#[async_trait]
impl Store for PostgresStore {
    fn describe(&self) -> String {
        self.server.describe().to_owned()
    }

    async fn survey(&self, target: &Target) -> Result<Survey, StoreError> {
        self.keeps_sessions
            .get_or_try_init(|| pooler::require_sessions(&self.server, &self.role))
            .await?;
        let (mut connection, met) = self.asking().await?;
        let mut survey = survey::survey(&mut connection, target).await?;
        for relation in &survey.relations {
            for column in survey::missing_update_privileges(&mut connection, relation, &survey.values).await? {
                survey.observations.push(Observation::MissingPrivilege(format!(
                    "UPDATE on column {column} of {}",
                    relation.sql_name
                )));
            }
        }
        self.spare.put_back((connection, met));
        Ok(survey)
    }

    async fn relations(&self, survey: &Survey) -> Result<Vec<Relation>, StoreError> {
        let (mut connection, met) = self.asking().await?;
        let relations = survey::relations(&mut connection, survey.table_id).await?;
        self.spare.put_back((connection, met));
        Ok(relations)
    }

    async fn intervals(&self, survey: &Survey, pieces: usize, frozen: bool) -> Result<Vec<Interval>, StoreError> {
        // Not a spare one: statements on the table itself, prepared before it was altered, would fail.
        let mut connection = self.server.connect(&self.role).await?;
        survey::require_usable(&mut connection, survey).await?;
        let relations = survey::relations(&mut connection, survey.table_id).await?;
        intervals::intervals(&mut connection, survey, &relations, pieces, frozen).await
    }

    async fn moment(&self, survey: &Survey) -> Result<Option<Moment>, StoreError> {
        let (mut connection, met) = self.asking().await?;
        let moment = moment::now(&mut connection, survey.table_id).await?;
        self.spare.put_back((connection, met));
        Ok(Some(moment))
    }

    async fn writers(&self, survey: &Survey) -> Result<Vec<OpenWriter>, StoreError> {
        let (mut connection, met) = self.asking().await?;
        let open = writers::open(&mut connection, survey.table_id).await?;
        self.spare.put_back((connection, met));
        Ok(open)
    }

    async fn session(&self, survey: &Survey) -> Result<Box<dyn Session>, StoreError> {
        let session = session::PostgresSession::open(self.server.clone(), self.role.clone(), Arc::new(survey.clone())).await?;
        Ok(Box::new(session))
    }

    async fn lock(&self, survey: &Survey, owner: &str, take_over: bool) -> Result<Box<dyn OperatorLock>, StoreError> {
        let name = LockName::table(survey.table_id);
        Ok(Box::new(AdvisoryLock::take(&self.server, name, owner, take_over).await?))
    }

    async fn lock_keyset(&self, keyset: &str, owner: &str, take_over: bool) -> Result<Box<dyn OperatorLock>, StoreError> {
        let name = LockName::keyset(keyset);
        Ok(Box::new(AdvisoryLock::take(&self.server, name, owner, take_over).await?))
    }

    async fn control(&self) -> Result<Box<dyn Control>, StoreError> {
        let connection = self.server.connect(&self.role).await?;
        Ok(Box::new(control::PostgresControl::new(connection)))
    }

    async fn guards(&self) -> Result<Box<dyn Guards>, StoreError> {
        let connection = self.server.connect(&self.role).await?;
        Ok(Box::new(guard::PostgresGuards::new(connection)))
    }

    fn replicas(&self) -> Result<Box<dyn ReplicaWatch>, StoreError> {
        let watch = replicas::PostgresReplicas::new(self.server.clone(), self.role.clone());
        Ok(Box::new(watch))
    }

    fn vacuum(&self) -> Result<Box<dyn Vacuum>, StoreError> {
        let vacuum = vacuum::PostgresVacuum::new(self.server.clone(), self.role.clone());
        Ok(Box::new(vacuum))
    }

    async fn column_samples(&self, limits: SampleLimits, take: TakesSamples<'_>) -> Result<(), StoreError> {
        let connection = self.server.connect(&self.role).await?;
        scan::samples(connection, self.server.answer_max(), limits, take).await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.server.settle(&self.role).await
    }

    fn answer_max(&self) -> Option<Duration> {
        Some(self.server.answer_max())
    }

    fn era(&self) -> u64 {
        self.server.era()
    }

    fn workers(&self) -> WorkerLimits {
        // Two connections keep two cores of a server busy, four overlap the flushes of their commits as well.
        WorkerLimits { default: 4, max: 64 }
    }
}
