//! Replicas of a database and how far they are behind: a safety signal of a rotation, which writes as much as a replica must replay.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;

/// A replica as the primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// How it names itself.
    pub name: String,
    /// How far it is behind.
    pub lag: Lag,
}

/// How far a replica is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// The primary was so long ago where the replica is now.
    Is(Duration),
    /// It followed and does not any more, or has not said yet where it is.
    Away,
    /// The primary does not tell this user.
    Hidden,
}

/// A replica that has not replayed everything up to a position of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// How it names itself, or the slot that is kept for it.
    pub name: String,
    /// How much it has still to replay.
    pub left: Left,
}

/// How much a replica has still to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// So many bytes of the log.
    Bytes(u64),
    /// It is away, and may come back.
    Away,
    /// The primary does not tell this user.
    Hidden,
}

impl Lag {
    /// The lag, where it is known.
    pub fn known(self) -> Option<Duration> {
        match self {
            Self::Is(lag) => Some(lag),
            Self::Away | Self::Hidden => None,
        }
    }
}

/// Looks at the replicas again and again. It remembers those that it has seen: one that goes away is not one that has caught up.
#[async_trait]
pub trait ReplicaWatch: Send {
    /// Looks. After an error the next look connects again.
    async fn look(&mut self) -> Result<Vec<Replica>, StoreError>;

    /// What an administrator has to type so that this user may see how far replicas are; `None` when it may.
    async fn forbidden(&mut self) -> Result<Option<String>, StoreError>;

    /// The position of the primary after everything that is durable now.
    async fn position(&mut self) -> Result<i64, StoreError>;

    /// The replicas that have not replayed everything up to this position: those that follow, those that followed when this watch looked
    /// before, and those for which a slot is kept.
    async fn behind(&mut self, position: i64) -> Result<Vec<Behind>, StoreError>;

    /// Lets go of its connection until it is asked again, and remembers whom it has seen.
    fn rest(&mut self);
}
