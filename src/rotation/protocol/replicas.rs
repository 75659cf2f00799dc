//! Replicas before a key is retired: whoever reads on one sees values under the old key until it has replayed the last batch that moved
//! them, and must be able to open them until then.

use std::time::Instant;

use super::super::progress::{Progress, Stop};
use super::super::retry::{ANSWERS_AN_ATTEMPT, Before, Early, Patience, Remedy, answered};
use super::super::throttle::Reason;
use super::retire::Need;
use super::{Managed, Place, ProtocolError, Watch};
use crate::store::StoreError;
use crate::store::replicas::{Behind, Left, ReplicaWatch};

/// A database, and what watches its replicas.
type Watched<'m> = (&'m Place, Box<dyn ReplicaWatch>);

/// What watches the replicas of a keyset's databases. It remembers whom it has met: a replica that connects again at the moment when it
/// is asked for is not seen then, and not taken for one that has caught up.
pub(super) struct Watches<'m>(Vec<Watched<'m>>);

/// The replicas of a keyset's databases, and the positions that they must have replayed.
pub(super) struct Replicas<'m> {
    watched: Vec<(Watched<'m>, i64)>,
    /// Databases that cannot tell a position, and why.
    mute: Vec<String>,
}

impl<'m> Replicas<'m> {
    /// Takes the position of each database after everything that was moved so far; patiently, since all the work is done by then.
    pub(super) async fn mark(watches: Watches<'m>, managed: &Managed, stop: &Stop) -> Result<Self, ProtocolError> {
        let (mut watched, mut mute) = (Vec::new(), Vec::new());
        for (place, mut watch) in watches.0 {
            let mut patience = Patience::new(managed.options.away_max);
            loop {
                let error = match settled_position(place, &mut *watch).await {
                    Ok(position) => break watched.push(((place, watch), position)),
                    Err(error @ StoreError::Statement { .. }) => break mute.push(format!("those of {}: {error}", place.name)),
                    Err(error) => error,
                };
                match patience.after(&error) {
                    Remedy::GiveUp => return Err(ProtocolError::store("replicas", error)),
                    Remedy::Again { wait, .. } | Remedy::Reconnect { wait } => stop.sleep(wait).await,
                }
                if stop.requested() {
                    return Err(ProtocolError::Stopped);
                }
            }
        }
        Ok(Self { watched, mute })
    }

    /// Those that have not replayed it yet. What cannot be asked is not known to have.
    pub(super) async fn need(&mut self) -> Option<Need> {
        let (mut names, mut grant) = (self.mute.clone(), None);
        for ((place, watch), position) in &mut self.watched {
            match watch.behind(*position).await {
                Ok(behind) => {
                    names.extend(behind.iter().map(|replica| describe(place, replica)));
                    if behind.iter().any(|replica| replica.left == Left::Hidden) {
                        grant = grant.or(watch.forbidden().await.ok().flatten());
                    }
                }
                Err(error) => names.push(format!("those of {}: {error}", place.name)),
            }
        }
        (!names.is_empty()).then_some(Need::Replicas { names, grant })
    }

    /// The same, once they have had the time that a gate waits. What is hidden from this user does not come to light by waiting.
    pub(super) async fn wait(
        &mut self,
        managed: &Managed,
        (progress, stop): (&Progress, &Stop),
        watch: &dyn Watch,
    ) -> Result<Option<Need>, ProtocolError> {
        let begun = Instant::now();
        let mut said_at: Option<Instant> = None;
        let waiting = progress.throttle.hold(Reason::ReplicaReplay);
        while let Some(need) = self.need().await {
            let is_hidden = matches!(need, Need::Replicas { grant: Some(_), .. });
            if is_hidden || !self.mute.is_empty() || begun.elapsed() >= managed.gates.timeout {
                return Ok(Some(need));
            }
            waiting.why(need.to_string());
            if said_at.is_none_or(|at| at.elapsed() >= super::gate::SAY_EVERY) {
                watch.say(&format!("waiting for replicas, {} s: {need}", begun.elapsed().as_secs()));
                said_at = Some(Instant::now());
            }
            stop.sleep(super::gate::POLL).await;
            if stop.requested() {
                return Err(ProtocolError::Stopped);
            }
        }
        Ok(None)
    }
}

/// The position behind which everything lies that was moved so far.
async fn settled_position(place: &Place, watch: &mut dyn ReplicaWatch) -> Result<i64, StoreError> {
    answered(&*place.store, ANSWERS_AN_ATTEMPT, place.store.settle()).await?;
    watch.position().await
}

/// What a database tells this user of its replicas.
enum Sight {
    /// How far each is.
    Clear,
    /// Less than that. What would let this user see it, if it is not allowed to.
    Hidden(Option<String>),
}

/// Meets the replicas that follow now.
async fn sight(place: &Place, watch: &mut dyn ReplicaWatch) -> Result<Sight, StoreError> {
    let mut early = Early::new(Before::Answered);
    loop {
        let look = async {
            watch.position().await?;
            let seen = watch.behind(0).await?;
            if seen.iter().any(|replica| replica.left == Left::Hidden) {
                return Ok(Sight::Hidden(watch.forbidden().await?));
            }
            Ok(Sight::Clear)
        };
        match answered(&*place.store, ANSWERS_AN_ATTEMPT, look).await {
            Ok(sight) => return Ok(sight),
            Err(error) => early.pause_after(error).await?,
        }
    }
}

impl<'m> Watches<'m> {
    /// Those of the databases that have replicas; nobody is met yet.
    pub(super) fn of(managed: &'m Managed) -> Result<Self, ProtocolError> {
        let mut watches = Vec::new();
        for place in managed.places.iter().filter(|_| managed.options.replica_check) {
            match place.store.replicas() {
                Ok(watch) => watches.push((place, watch)),
                Err(StoreError::Refused(_)) => {}
                Err(error) => return Err(ProtocolError::store("replicas", error)),
            }
        }
        Ok(Self(watches))
    }

    /// Meets those that follow now. What cannot be asked is asked again in the end.
    pub(super) async fn meet(&mut self) {
        for (_, watch) in &mut self.0 {
            let _ = watch.behind(0).await;
            watch.rest();
        }
    }

    /// The same, and refuses a rotation that could not know in the end what replicas have replayed. Asked before anything is touched.
    pub(super) async fn refuse_blind(&mut self) -> Result<(), ProtocolError> {
        for (place, watch) in &mut self.0 {
            match sight(place, &mut **watch).await {
                Ok(Sight::Clear) => watch.rest(),
                Ok(Sight::Hidden(None)) => {}
                Ok(Sight::Hidden(Some(grant))) => {
                    return Err(ProtocolError::refused(
                        format!(
                            "database {} has replicas, and does not tell this user what they have replayed: the old key could not be taken from readers",
                            place.name
                        ),
                        format!(
                            "let an administrator run: {grant}; or do not ask replicas: --no-replica-check; or leave the old key with readers: --no-retire"
                        ),
                    ));
                }
                Err(error @ StoreError::Statement { .. }) => {
                    return Err(ProtocolError::refused(
                        format!("database {} cannot tell what its replicas have replayed: {error}", place.name),
                        "if nobody reads on a replica of it: --no-replica-check; or leave the old key with readers: --no-retire",
                    ));
                }
                Err(error) => return Err(ProtocolError::store("replicas", error)),
            }
        }
        Ok(())
    }
}

fn describe(place: &Place, replica: &Behind) -> String {
    let what = match replica.left {
        Left::Bytes(bytes) => format!("has {bytes} bytes to replay"),
        Left::Away => "is away".to_owned(),
        Left::Hidden => "is hidden from this user".to_owned(),
    };
    format!("{} of {} {what}", replica.name.escape_debug(), place.name)
}
