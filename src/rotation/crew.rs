//! Workers: each has a connection, takes the next piece from a common queue, and stops when another one fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::error::RotationError;
use super::range::RangeWork;
use crate::store::Session;
use crate::store::spare::Spare;
use crate::store::survey::Survey;

/// A kind of work on pieces of a table. One value per worker: it owns the worker's buffers.
#[async_trait]
pub trait Labour: Send {
    /// A range or an interval.
    type Piece: Send + 'static;
    /// What a worker brings home.
    type Yield: Send + 'static;

    /// Works on one piece.
    async fn work(&mut self, session: &mut dyn Session, piece: Self::Piece) -> Result<(), RotationError>;

    /// Ends the worker's shift.
    fn finish(self: Box<Self>) -> Self::Yield;
}

/// Workers over the connections that there are.
pub struct Crew<'a> {
    /// How work is retried.
    pub work: &'a RangeWork,
    /// The table.
    pub survey: &'a Arc<Survey>,
    /// Connections that workers of the pass before have left.
    pub sessions: &'a Arc<Spare<Box<dyn Session>>>,
    /// Workers at most.
    pub workers: usize,
}

impl Crew<'_> {
    /// Works through `pieces`. The first error ends the pass.
    pub async fn run<P, Y, L>(self, step: &'static str, pieces: Vec<P>, labour: L) -> Result<Vec<Y>, RotationError>
    where
        P: Send + 'static,
        Y: Send + 'static,
        L: Fn(&dyn Session) -> Result<Box<dyn Labour<Piece = P, Yield = Y>>, RotationError> + Send + Sync + 'static,
    {
        let workers = self.workers.min(pieces.len());
        let queue = Arc::new(Mutex::new(VecDeque::from(pieces)));
        let labour = Arc::new(labour);
        let mut shift = JoinSet::new();
        for _ in 0..workers {
            let (queue, labour, sessions) = (Arc::clone(&queue), Arc::clone(&labour), Arc::clone(self.sessions));
            let (work, survey) = (self.work.clone(), Arc::clone(self.survey));
            shift.spawn(async move {
                let mut session = match sessions.take() {
                    Some(session) => session,
                    None => work.patiently(step, || work.store.session(&survey)).await?,
                };
                let mut worker = labour(&*session)?;
                loop {
                    if work.shared.stop.requested() {
                        return Err(RotationError::Stopped);
                    }
                    let Some(piece) = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front() else {
                        break;
                    };
                    worker.work(&mut *session, piece).await?;
                }
                sessions.put_back(session);
                Ok(worker.finish())
            });
        }
        all(shift).await
    }
}

/// What all workers bring home, or the error that ended the first of them.
async fn all<Y: 'static>(mut shift: JoinSet<Result<Y, RotationError>>) -> Result<Vec<Y>, RotationError> {
    let mut yields = Vec::new();
    let mut first_error = None;
    while let Some(joined) = shift.join_next().await {
        match joined {
            Ok(Ok(result)) => yields.push(result),
            // A request to stop is what followed from another's error, unless it is all there is.
            Ok(Err(RotationError::Stopped)) => {
                first_error.get_or_insert(RotationError::Stopped);
            }
            Ok(Err(error)) => {
                // The others' batches commit whole or not at all, wherever they are broken off.
                shift.abort_all();
                if matches!(first_error, None | Some(RotationError::Stopped)) {
                    first_error = Some(error);
                }
            }
            Err(end) if end.is_cancelled() => {}
            Err(_) => {
                shift.abort_all();
                first_error.get_or_insert(RotationError::WorkerDied);
            }
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(yields),
    }
}
