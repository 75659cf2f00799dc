//! The room of dead row versions, made free again beside the application: for databases that change a row by adding a version of it.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use super::survey::{Relation, Survey};

/// How thoroughly, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VacuumOptions {
    /// Whether entries of indexes that lead to dead versions are taken away, too: that reads every index as a whole.
    pub indexes: bool,
    /// Whether it rests between blocks.
    pub gently: bool,
}

/// How one went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vacuumed {
    /// To its end.
    Done,
    /// It could not begin: somebody else vacuums or alters the table.
    Busy,
    /// It was ended, because somebody waited for a lock that it held. What it had freed is free.
    GaveWay,
    /// It was ended on the caller's word. What it had freed is free.
    Ended,
}

/// A connection that vacuums, and one that watches over it.
#[async_trait]
pub trait Vacuum: Send {
    /// Why this user may not vacuum the table; `None` when it may.
    async fn forbidden(&mut self, survey: &Survey) -> Result<Option<String>, StoreError>;

    /// Bytes of the table, of all its partitions, without its indexes; 0 when it is gone.
    async fn bytes(&mut self, survey: &Survey) -> Result<u64, StoreError>;

    /// Frees what nobody can see any more in one physical table. Waits for nobody, and ends when somebody waits for it or when `is_over`
    /// says so; both are looked at every [`LOOK_EVERY`]. After an error the next call connects again. Dropped meanwhile, it ends at the
    /// server within seconds.
    async fn vacuum(
        &mut self,
        relation: &Relation,
        options: VacuumOptions,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vacuumed, StoreError>;
}

/// Whoever waits for a lock on the table has the application's statements queue up behind.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
