//! Databases behind one trait. A store moves bytes; it knows no keys and no formats.
//!
//! The contract, for every implementation (`tests/stores.rs` runs the same suite against each):
//!
//! * A row changes only by compare-and-swap: it is still the version that was read, and its key columns are still the same. A row
//!   that somebody else wrote, moved or deleted in between is a lost race: not written, counted, never an error. Nothing inserts.
//! * One batch is one transaction: fence, swaps, quarantine entries, cursor and counters commit together or not at all.
//! * A batch whose fence no longer matches writes nothing and returns [`StoreError::Superseded`].
//! * The end of an interval is only reported by a successful read that found no further row. A failed read is an error.
//! * Order is the database's own. Keys are compared by the database only.
//! * No transaction is open between calls.

pub mod control;
pub mod error;
pub mod guard;
pub mod ident;
mod identity;
pub mod ledger;
mod moment;
pub mod page;
pub mod postgres;
pub mod replicas;
pub(crate) mod spare;
pub mod sqlite;
pub mod survey;
pub mod vacuum;
pub mod value;
pub mod waves;
mod writer;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use control::{Counters, Interval, LateValues, Plan, PlanIdentity, PlanStatus, Range, StoredQuarantine};
pub use error::{RetryClass, StoreError};
pub use identity::DatabaseIdentity;
use ledger::{Dialect, Field, Row};
pub use moment::{Moment, Sieve};
use page::{Page, Shape};
use survey::{Survey, Target};
use value::Key;
pub use writer::{
    Follow, InPlaceBatch, InPlaceWriter, RewriteStopped, Rewriter, SetBatch, SetWriter, Witness, Writer, Written,
};

/// The database at this URL (`sqlite:PATH`, `postgres://…`); nothing is connected yet. `role` names this program to a server.
pub fn open(url: &str, role: &str) -> Result<Arc<dyn Store>, StoreError> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return Ok(Arc::new(sqlite::SqliteStore::open(Path::new(path))?));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Arc::new(postgres::PostgresStore::new(url, role)?));
    }
    Err(StoreError::UnknownScheme)
}

/// A database that holds encrypted columns.
#[async_trait]
pub trait Store: Send + Sync {
    /// The database without credentials, for people.
    fn describe(&self) -> String;

    /// Reads the catalogue. Writes nothing.
    async fn survey(&self, target: &Target) -> Result<Survey, StoreError>;

    /// The physical tables that hold rows now: partitions come and go while a rotation runs.
    async fn relations(&self, survey: &Survey) -> Result<Vec<survey::Relation>, StoreError>;

    /// Divides every relation into about `pieces` adjacent intervals that together cover all keys up to the largest one now
    /// (`frozen`), or without an upper end. Boundaries come from a sample, so pieces are of similar size at best.
    async fn intervals(&self, survey: &Survey, pieces: usize, frozen: bool) -> Result<Vec<Interval>, StoreError>;

    /// Now, where the database can tell later which rows were written since (PostgreSQL), or whether any was (SQLite).
    async fn moment(&self, _survey: &Survey) -> Result<Option<Moment>, StoreError> {
        Ok(None)
    }

    /// Transactions of others under way that may have written to the table: what they wrote becomes visible when they commit, whenever
    /// that is.
    async fn writers(&self, survey: &Survey) -> Result<Vec<OpenWriter>, StoreError>;

    /// Opens a connection for one worker.
    async fn session(&self, survey: &Survey) -> Result<Box<dyn Session>, StoreError>;

    /// Takes the one operator's lock on a table. It is freed when the value is dropped, and by the operating system or the server
    /// when this process dies. `take_over` wrests it from a holder that hangs.
    async fn lock(&self, survey: &Survey, owner: &str, take_over: bool) -> Result<Box<dyn OperatorLock>, StoreError>;

    /// Takes the one operator's lock on the rotation of a keyset, on the same terms. Locks of tables are taken inside it.
    async fn lock_keyset(&self, keyset: &str, owner: &str, take_over: bool) -> Result<Box<dyn OperatorLock>, StoreError>;

    /// The control tables.
    async fn control(&self) -> Result<Box<dyn Control>, StoreError>;

    /// Guards, where the database can have them: PostgreSQL. Elsewhere [`StoreError::Refused`].
    async fn guards(&self) -> Result<Box<dyn guard::Guards>, StoreError> {
        Err(StoreError::Refused(
            "only PostgreSQL can guard a table against values under the old key; run without --guard".to_owned(),
        ))
    }

    /// The replicas of this database, where it can have any: PostgreSQL. Elsewhere [`StoreError::Refused`]. Nothing is connected yet.
    fn replicas(&self) -> Result<Box<dyn replicas::ReplicaWatch>, StoreError> {
        Err(StoreError::Refused(
            "only PostgreSQL has replicas whose lag could be measured".to_owned(),
        ))
    }

    /// What makes the room of dead row versions free again, where changing a row leaves any: PostgreSQL. Elsewhere
    /// [`StoreError::Refused`]. Nothing is connected yet.
    fn vacuum(&self) -> Result<Box<dyn vacuum::Vacuum>, StoreError> {
        Err(StoreError::Refused(
            "only PostgreSQL leaves dead row versions that VACUUM could free; here rows are rewritten where they stand"
                .to_owned(),
        ))
    }

    /// Samples every column of the database that could hold sealed values and that this user may read, and hands one after the other to
    /// `take`, until it breaks off. Reads only. A column that cannot be read is handed over with the reason; a lost connection is an
    /// error.
    async fn column_samples(&self, limits: SampleLimits, take: TakesSamples<'_>) -> Result<(), StoreError>;

    /// Makes everything that was committed durable, where a store lets commits reach the disk later. Called before a rotation says that
    /// it is finished.
    async fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How long one answer may take, where there is a network that can swallow it; `None` where calls end by themselves.
    fn answer_max(&self) -> Option<Duration> {
        None
    }

    /// Grows whenever it is noticed that another server has taken over. What was read in one era proves nothing in the next.
    fn era(&self) -> u64 {
        0
    }

    /// How many workers are useful by default, and at most.
    fn workers(&self) -> WorkerLimits;
}

/// A transaction under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWriter {
    /// The database's name for it. No other transaction has the same while it lasts.
    pub id: String,
    /// Whose it is, for people.
    pub whose: String,
}

/// Some values of a column.
#[derive(Debug, Clone)]
pub struct ColumnSample {
    /// The table, as [`Survey::table`] names it.
    pub table: String,
    /// The column.
    pub column: String,
    /// Values that are not NULL, as stored, from all over the table; or why they cannot be read.
    pub values: Result<Vec<Vec<u8>>, String>,
}

/// How much of a column is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleLimits {
    /// At most so many values.
    pub rows: usize,
    /// Larger values are passed over.
    pub value_bytes_max: usize,
}

/// What columns are handed to, one after the other.
pub type TakesSamples<'t> = &'t mut (dyn FnMut(ColumnSample) -> ControlFlow<()> + Send);

/// The lock of one operator. Dropping it frees it.
///
/// Whoever holds it asks every [`LOCK_ASKED_EVERY`] whether it is still held.
#[async_trait]
pub trait OperatorLock: Send {
    /// Fails when the lock was lost (a connection cut, a take-over).
    async fn still_held(&mut self) -> Result<(), StoreError>;

    /// Takes a lock again whose connection was lost. What the server still keeps of that connection is ended: a network that swallows
    /// everything lets it stand there for hours, and nobody else is behind it.
    async fn retake(&mut self) -> Result<(), StoreError>;
}

/// So much later at most it is noticed that a lock was lost.
pub const LOCK_ASKED_EVERY: Duration = Duration::from_secs(3);

/// How many workers a database can use.
#[derive(Debug, Clone, Copy)]
pub struct WorkerLimits {
    /// Without `--workers`.
    pub default: usize,
    /// At most, for writing.
    pub max: usize,
}

/// How much one page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Rows.
    pub rows: usize,
    /// The page ends after the row that passes this many bytes.
    pub bytes: usize,
    /// Larger values are not read: they come as [`value::Kind::Oversize`].
    pub value_bytes_max: u64,
    /// Every few rows, whoever waits for the same processor goes first. For databases that work in this process.
    pub stands_back: bool,
}

/// How a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageEnd {
    /// There may be more rows in the interval.
    More,
    /// A successful read found the end of the interval.
    End,
}

/// One worker's connection.
#[async_trait]
pub trait Session: Send {
    /// Columns of each row.
    fn shape(&self) -> Shape;

    /// Reads the next rows of `interval` after `cursor` into `page`, which is cleared first. Read-only.
    async fn page(
        &mut self,
        interval: &Interval,
        cursor: Option<&Key>,
        limits: PageLimits,
        page: &mut Page,
    ) -> Result<PageEnd, StoreError>;

    /// The same, of the rows that pass `sieve`. The others are passed over inside the database: where the interval is large, that takes
    /// one statement for all of them.
    async fn page_sifted(
        &mut self,
        _sieve: &Sieve,
        _interval: &Interval,
        _cursor: Option<&Key>,
        _limits: PageLimits,
        _page: &mut Page,
    ) -> Result<PageEnd, StoreError> {
        Err(StoreError::Refused(
            "this database does not tell when rows were written".to_owned(),
        ))
    }

    /// How this database takes new values.
    fn writer(&mut self) -> Writer<'_>;

    /// Opens the connection again after [`StoreError::Disconnected`].
    async fn reconnect(&mut self) -> Result<(), StoreError>;
}

/// The control tables: created by migrations, changed by compare-and-swap.
#[async_trait]
pub trait Control: Send {
    /// Creates or upgrades the tables. Refuses a newer version.
    async fn migrate(&mut self) -> Result<(), StoreError>;

    /// The version of the tables, `None` without tables (a read-only command must not create them). Refuses a newer one.
    async fn version(&mut self) -> Result<Option<i64>, StoreError>;

    /// Which database this is. Writes nothing.
    async fn identity(&mut self) -> Result<DatabaseIdentity, StoreError>;

    /// Whether the tables exist.
    async fn exists(&mut self) -> Result<bool, StoreError> {
        Ok(self.version().await?.is_some())
    }

    /// How statements of the [`ledger`] are said here.
    fn dialect(&self) -> &'static Dialect;

    /// Runs one statement of the [`ledger`], as a transaction of its own, and returns its rows. Refuses tables of a newer version.
    async fn ledger(&mut self, statement: &str, values: &[Field]) -> Result<Vec<Row>, StoreError>;

    /// The plan with this id.
    async fn plan(&mut self, id: &str) -> Result<Option<Plan>, StoreError>;

    /// All plans, newest first.
    async fn plans(&mut self) -> Result<Vec<Plan>, StoreError>;

    /// Starts a plan, or takes it over. The generation of every plan of the table grows, and with it the epoch of all their ranges
    /// (sweeps write to finished ones, too), so that no earlier holder of any of them can write. Those that this one
    /// [undoes](PlanIdentity::undoes) begin their ranges afresh; that one was verified stays on record. Returns the plan as it is now.
    async fn claim_plan(&mut self, identity: &PlanIdentity, owner: &str) -> Result<Plan, StoreError>;

    /// Adds ranges to a plan, numbered after those that it has. All or none.
    async fn add_ranges(&mut self, plan: &Plan, intervals: &[Interval]) -> Result<(), StoreError>;

    /// The ranges of a plan, in order.
    async fn ranges(&mut self, plan: &str) -> Result<Vec<Range>, StoreError>;

    /// One range as it stands: after a lost reply to a commit.
    async fn range(&mut self, plan: &str, range: i64) -> Result<Option<Range>, StoreError>;

    /// Moves the plan's status, if `generation` is still current.
    async fn set_status(&mut self, plan: &Plan, status: PlanStatus) -> Result<(), StoreError>;

    /// Begins a plan's ranges afresh and makes it running again, in one transaction: a rotation that was verified is due once more.
    /// Counters stay: they speak of all runs.
    async fn restart(&mut self, plan: &Plan) -> Result<(), StoreError>;

    /// What is in quarantine for a plan, `most` entries of it.
    async fn quarantine(&mut self, plan: &str, most: usize) -> Result<Vec<StoredQuarantine>, StoreError>;

    /// How many values are in quarantine for a plan: all, or those that are there for a reason.
    async fn quarantined(&mut self, plan: &str, reason: Option<&str>) -> Result<u64, StoreError>;

    /// Forgets quarantine entries: a verification found that the values open now, or are gone.
    async fn clear_quarantine(&mut self, plan: &Plan) -> Result<(), StoreError>;

    /// The late values of a plan, at most `listed` of them one by one.
    async fn late(&mut self, plan: &str, listed: usize) -> Result<LateValues, StoreError>;

    /// The database's time, RFC 3339. Needs no control tables.
    async fn now(&mut self) -> Result<String, StoreError>;

    /// Sums the counters of a plan's ranges.
    async fn totals(&mut self, plan: &str) -> Result<Counters, StoreError> {
        let mut sum = Counters::default();
        for range in self.ranges(plan).await? {
            sum += range.counters;
        }
        Ok(sum)
    }
}
