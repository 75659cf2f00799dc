//! SQLite: one file, one writer. New values are computed inside its own UPDATE, where no other writer can come between.
//!
//! Calls block, so that all of them run on the blocking pool. The file is never created; its journal mode stays as the application
//! chose it.

mod ahead;
mod batch;
mod catalogue;
mod cell;
mod connect;
mod control;
mod control_rows;
mod control_sql;
mod ddl;
mod error;
mod filter;
mod holder;
mod interval;
mod late;
mod lex;
mod lock;
mod queue;
mod read;
mod rewrite;
mod scan;
mod session;
mod size;
mod statement;
mod survey;
mod table_key;
mod transaction;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub(crate) use self::connect::{DatabaseFile, blocking};
pub(crate) use self::error::from_sqlite;
use self::statement::Dataset;
use self::transaction::WriteTransaction;
use self::watch::Watch;
use super::control::Interval;
use super::survey::{Relation, Survey, Target};
use super::{Control, Moment, OpenWriter, OperatorLock, SampleLimits, Session, Store, StoreError, TakesSamples, WorkerLimits};

/// A database file.
pub struct SqliteStore {
    file: DatabaseFile,
    watch: Arc<Watch>,
}

impl SqliteStore {
    /// Opens an existing database. A file that is not there, or is no database, is an error; nothing is created.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = DatabaseFile::find(path)?;
        file.open_query_only().map_err(|error| match error {
            // Before anything was done. Later the same error means that the file system has turned read-only.
            StoreError::ReadOnly(_) => StoreError::Refused(format!(
                "{} cannot be read without writing beside it, and this user may not: it is in WAL mode, or a program that died has left a journal; run as a user who may write to it and to its folder, or look at a copy of it",
                file.path.display()
            )),
            error => error,
        })?;
        let watch = Arc::new(Watch::new(file.clone()));
        Ok(Self { file, watch })
    }

    /// How long to wait for another program's write (10 s unless told otherwise) before [`StoreError::Retry`].
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.file.busy_timeout = timeout;
        self.watch = Arc::new(Watch::new(self.file.clone()));
        self
    }
}

/// A connection of its own to an existing file, for work beside the rewriting of values.
pub(crate) fn connect(path: &Path) -> Result<rusqlite::Connection, StoreError> {
    DatabaseFile::find(path)?.open()
}

#[async_trait]
impl Store for SqliteStore {
    fn describe(&self) -> String {
        format!("sqlite:{}", self.file.path.display())
    }

    async fn survey(&self, target: &Target) -> Result<Survey, StoreError> {
        let (file, target) = (self.file.clone(), target.clone());
        blocking(move || survey::survey(&file, &target)).await
    }

    async fn relations(&self, survey: &Survey) -> Result<Vec<Relation>, StoreError> {
        // No partitions: the table is there as it was, or it is not.
        let (file, survey) = (self.file.clone(), survey.clone());
        blocking(move || {
            Dataset::find(&file.open()?, &survey)?;
            Ok(survey.relations)
        })
        .await
    }

    async fn intervals(&self, survey: &Survey, pieces: usize, frozen: bool) -> Result<Vec<Interval>, StoreError> {
        let (file, survey) = (self.file.clone(), survey.clone());
        blocking(move || {
            let connection = file.open_query_only()?;
            let dataset = Dataset::find(&connection, &survey)?;
            interval::divide(&connection, &dataset, survey.rows_estimate, pieces, frozen)
        })
        .await
    }

    /// It cannot be told which rows were written since, but whether any was.
    async fn moment(&self, survey: &Survey) -> Result<Option<Moment>, StoreError> {
        let (watch, survey) = (Arc::clone(&self.watch), survey.clone());
        blocking(move || {
            Ok(Some(Moment {
                position: watch.changes()?,
                relations: survey
                    .relations
                    .into_iter()
                    .map(|relation| (relation.oid, relation.sql_name))
                    .collect(),
            }))
        })
        .await
    }

    /// There is one at most, and none once somebody else had its turn.
    async fn writers(&self, _survey: &Survey) -> Result<Vec<OpenWriter>, StoreError> {
        let file = self.file.clone();
        blocking(move || match WriteTransaction::begin(&file.open()?) {
            Ok(_rolled_back) => Ok(Vec::new()),
            Err(StoreError::Retry { message, .. }) => Ok(vec![OpenWriter {
                id: file.path.display().to_string(),
                whose: message,
            }]),
            Err(error) => Err(error),
        })
        .await
    }

    async fn session(&self, survey: &Survey) -> Result<Box<dyn Session>, StoreError> {
        let session = session::SqliteSession::open(self.file.clone(), Arc::clone(&self.watch), survey.clone()).await?;
        Ok(Box::new(session))
    }

    async fn lock(&self, _survey: &Survey, owner: &str, take_over: bool) -> Result<Box<dyn OperatorLock>, StoreError> {
        // One lock for the file, not one for each table: SQLite has one writer.
        let (file, owner) = (self.file.clone(), owner.to_owned());
        let lock = blocking(move || lock::LockFile::take(&file.path, TABLES_LOCK, &owner, take_over)).await?;
        Ok(Box::new(lock))
    }

    async fn lock_keyset(&self, keyset: &str, owner: &str, take_over: bool) -> Result<Box<dyn OperatorLock>, StoreError> {
        let (file, owner) = (self.file.clone(), owner.to_owned());
        // Names of keysets fit into names of files.
        let suffix = format!("{TABLES_LOCK}-{keyset}");
        let lock = blocking(move || lock::LockFile::take(&file.path, &suffix, &owner, take_over)).await?;
        Ok(Box::new(lock))
    }

    async fn control(&self) -> Result<Box<dyn Control>, StoreError> {
        Ok(Box::new(control::SqliteControl::open(self.file.clone()).await?))
    }

    async fn column_samples(&self, limits: SampleLimits, take: TakesSamples<'_>) -> Result<(), StoreError> {
        scan::samples(self.file.clone(), limits, take).await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        let file = self.file.clone();
        blocking(move || file.settle()).await
    }

    fn workers(&self) -> WorkerLimits {
        WorkerLimits { default: 1, max: 1 }
    }
}

/// What the name of a lock file has beyond that of the database.
const TABLES_LOCK: &str = "-reseal-lock";
