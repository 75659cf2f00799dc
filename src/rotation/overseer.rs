//! Hears what operators ask of a rotation that is under way, and tells them that it runs and what it waits for: it looks at the control
//! tables beside the workers, so that a batch pays nothing for it, and sets the gate that they pass.
//!
//! A pause outlives the run: the next one waits as well, until it is withdrawn. A request to end is obeyed once.

use std::convert::Infallible;
use std::pin::pin;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::profile::Profile;
use super::progress::{Progress, Stop};
use super::retry::{ANSWERS_AN_ATTEMPT, answered};
use super::throttle::{Orders, Reason};
use crate::store::ledger::request::{Order, Request, Requests, Subject};
use crate::store::ledger::running::{HEARD_WITHIN, Runs};
use crate::store::{Control, Store, StoreError};

/// Listens for one rotation, and speaks for it.
pub(super) struct Overseer {
    store: Arc<dyn Store>,
    subject: Subject,
    owner: String,
    progress: Arc<Progress>,
    stop: Arc<Stop>,
    control: Option<Box<dyn Control>>,
    paused_since: Option<Instant>,
    said: Option<(Instant, Vec<String>)>,
}

impl Overseer {
    /// Looks for the first time, before the first batch. A request to end that an earlier run did not live to obey is withdrawn: this
    /// run was begun after it. The caller holds the rotation's lock.
    pub(super) async fn start(
        store: &Arc<dyn Store>,
        subject: Subject,
        owner: &str,
        (progress, stop): (&Arc<Progress>, &Arc<Stop>),
    ) -> Result<Self, StoreError> {
        let mut overseer = Self {
            store: Arc::clone(store),
            subject,
            owner: owner.to_owned(),
            progress: Arc::clone(progress),
            stop: Arc::clone(stop),
            control: None,
            paused_since: None,
            said: None,
        };
        if let Some(request) = overseer.ask().await? {
            if request.order == Some(Order::Abort) {
                overseer.obeyed().await?;
                overseer.heed(&Request { order: None, ..request });
            } else {
                overseer.heed(&request);
            }
        }
        Ok(overseer)
    }

    /// Listens while `work` goes on, and gives its outcome. A word that is being said then is said first: whoever takes leave afterwards
    /// has the last one.
    pub(super) async fn beside<T>(self, work: impl Future<Output = T>) -> T {
        let leaving = Notify::new();
        let mut listening = pin!(self.listen(&leaving));
        let outcome = tokio::select! {
            outcome = work => outcome,
            // Not before it is told to leave.
            never = async {
                (&mut listening).await;
                std::future::pending::<Infallible>().await
            } => match never {},
        };
        leaving.notify_one();
        if tokio::time::timeout(LEAVE_MAX, listening).await.is_err() {
            tracing::debug!("the database did not answer in time what was said last");
        }
        outcome
    }

    /// Looks again and again. What was asked last holds while the database does not answer.
    async fn listen(mut self, leaving: &Notify) {
        let mut last = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = leaving.notified() => return,
            }
            let since = std::mem::replace(&mut last, Instant::now()).elapsed();
            self.progress.throttle.spend(Reason::Paused, since);
            match self.ask().await {
                Ok(Some(request)) if request.order == Some(Order::Abort) => match self.obeyed().await {
                    Ok(()) => self.stop.end(format!("aborted by {} at {}", request.by, request.at)),
                    Err(error) => unheard(&error),
                },
                Ok(Some(request)) => self.heed(&request),
                Ok(None) => self.heed_nothing(),
                Err(error) => unheard(&error),
            }
            if let Err(error) = self.speak().await {
                unheard(&error);
            }
            if self.paused_since.is_some_and(|since| since.elapsed() >= PAUSE_MAX) {
                self.stop.end(format!("paused for {} h", PAUSE_MAX.as_secs() / 3600));
            }
        }
    }

    async fn ask(&mut self) -> Result<Option<Request>, StoreError> {
        let mut control = self.connected().await?;
        let work = async { Requests::of(&mut *control).of_subject(&self.subject).await };
        let request = answered(&*self.store, ANSWERS_AN_ATTEMPT, work).await?;
        self.control = Some(control);
        Ok(request)
    }

    async fn obeyed(&mut self) -> Result<(), StoreError> {
        let mut control = self.connected().await?;
        let work = async { Requests::of(&mut *control).obeyed(&self.subject).await };
        answered(&*self.store, ANSWERS_AN_ATTEMPT, work).await?;
        self.control = Some(control);
        Ok(())
    }

    /// Says what is waited for: when that changes, and every few seconds, so that it is known that this run lives.
    async fn speak(&mut self) -> Result<(), StoreError> {
        let waits: Vec<String> = self.progress.throttle.closed().into_iter().map(|(_, why)| why).collect();
        if let Some((at, said)) = &self.said
            && at.elapsed() < SPEAK_EVERY
            && is_same(said, &waits)
        {
            return Ok(());
        }
        let mut control = self.connected().await?;
        let work = async { Runs::of(&mut *control).report(&self.subject, &self.owner, &waits).await };
        answered(&*self.store, ANSWERS_AN_ATTEMPT, work).await?;
        self.control = Some(control);
        self.said = Some((Instant::now(), waits));
        Ok(())
    }

    /// The connection, to be put back when it has answered: after an error the next look connects again.
    async fn connected(&mut self) -> Result<Box<dyn Control>, StoreError> {
        match self.control.take() {
            Some(control) => Ok(control),
            None => answered(&*self.store, ANSWERS_AN_ATTEMPT, self.store.control()).await,
        }
    }

    fn heed(&mut self, request: &Request) {
        let paused = (request.order == Some(Order::Pause)).then(|| format!("paused by {} at {}", request.by, request.at));
        match &paused {
            Some(_) => self.paused_since = self.paused_since.or_else(|| Some(Instant::now())),
            None => self.paused_since = None,
        }
        let orders = Orders {
            paused,
            rows_per_second: request.rows_per_second,
            profile: request.profile.as_deref().and_then(|word| Profile::from_str(word).ok()),
        };
        self.progress.throttle.heed(&self.subject.name(), orders);
    }

    fn heed_nothing(&mut self) {
        self.paused_since = None;
        self.progress.throttle.heed(&self.subject.name(), Orders::default());
    }
}

/// What was asked of one table is not asked of the next.
impl Drop for Overseer {
    fn drop(&mut self) {
        self.progress.throttle.heed(&self.subject.name(), Orders::default());
    }
}

/// Says for the first time that a rotation runs, once its record is this run's own: whoever sees it move may ask something of it.
pub(super) async fn announce(control: &mut dyn Control, subject: &Subject, owner: &str) -> Result<(), StoreError> {
    Runs::of(control).report(subject, owner, &[]).await
}

/// Takes that back in the end. A database that is away is not waited for: it is found out by the silence.
pub(super) async fn take_leave(store: &dyn Store, subject: &Subject, owner: &str) {
    let work = async { Runs::of(&mut *store.control().await?).end(subject, owner).await };
    match tokio::time::timeout(LEAVE_MAX, work).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => unheard(&error),
        Err(_) => tracing::debug!("the end of the run could not be recorded in time"),
    }
}

/// Numbers in it (a lag) change all the time, and are no news.
fn is_same(said: &[String], waits: &[String]) -> bool {
    let plain = |text: &String| text.replace(|c: char| c.is_ascii_digit(), "");
    said.iter().map(plain).eq(waits.iter().map(plain))
}

fn unheard(error: &StoreError) {
    tracing::debug!(%error, "requests of operators could not be read, or what is waited for could not be said");
}

/// An operator who pauses is heard within this and a batch. One row is read by its key.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// One small row is written as often.
const SPEAK_EVERY: Duration = Duration::from_secs(HEARD_WITHIN.as_secs() / 4);
/// Somebody waits at the terminal for the end.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// A pause that nobody withdraws for a day was forgotten: the run ends, and the same command goes on.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
