//! How a rotation of a keyset begins: one operator, what must be refused early, the new key on disk, and then the record.

use std::sync::Arc;

use rand::RngExt as _;

use super::super::lag;
use super::super::overseer::{Overseer, take_leave};
use super::super::preflight;
use super::super::progress::{Progress, Stop};
use super::super::retry::{Before, patiently};
use super::dataset;
use super::decide::{self, Aim, Mode, Policy, Start};
use super::ledgers::Ledgers;
use super::machine::{Machine, ManagedReport};
use super::operators::Operators;
use super::phase::Phase;
use super::replicas::Watches;
use super::seen;
use super::sessions::Ending;
use super::{Managed, ProtocolError, Watch, Wish, undeclared};
use crate::key::{Entry, KeyId, KeyState, Keyring, Keyset, Previous};
use crate::store::ledger::request::Subject;
use crate::store::ledger::rotation::{Change, NewRotation, RotationRecord};
use crate::store::survey::Survey;

/// Rotates a keyset. Errors leave everything readable and everything done in place; the same call goes on.
pub async fn rotate(
    managed: &Managed,
    wish: &Wish,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
    watch: &dyn Watch,
) -> Result<ManagedReport, ProtocolError> {
    let mut ledgers = Ledgers::of(&managed.places, managed.keyset.as_str(), managed.options.away_max);
    let (home, before) = ledgers.open_rotation(stop).await?.unzip();
    let operators = Operators::take(managed, wish.supersede, before.as_ref()).await?;
    let subject = Subject::Keyset(managed.keyset.as_str().to_owned());
    let (home, owner) = (&managed.places[home.unwrap_or(0)].store, managed.options.owner.as_str());
    let overseer = patiently(&**home, Before::Answered, || {
        Overseer::start(home, subject.clone(), owner, (progress, stop))
    })
    .await
    .map_err(|error| ProtocolError::store("requests", error))?;
    let work = async {
        tokio::select! {
            outcome = run(managed, wish, ledgers, progress, stop, watch) => outcome,
            lost = operators.keep() => {
                // Batches under way are finished or rejected by their fence; keys and the record are guarded by its generation.
                stop.request();
                Err(lost)
            }
        }
    };
    let outcome = overseer.beside(work).await;
    take_leave(&**home, &subject, owner).await;
    outcome.map_err(|error| match (error, stop.why()) {
        (ProtocolError::Stopped, Some(why)) => ProtocolError::Ended(why),
        (error, _) => error,
    })
}

async fn run(
    managed: &Managed,
    wish: &Wish,
    mut ledgers: Ledgers<'_>,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
    watch: &dyn Watch,
) -> Result<ManagedReport, ProtocolError> {
    let open = ledgers.open_rotation(stop).await?;
    let finished = ledgers.latest_finished(stop).await?;
    let seen = open.as_ref().map(|(_, record)| record).or(finished.as_ref());
    let keyring = managed.open_keyring(seen.map_or(0, |record| record.keyring_generation))?;
    let keyset = managed.keyset_of(&keyring)?;
    let aim = decide::decide(wish, keyset, open.as_ref().map(|(_, record)| record), finished.as_ref())?;
    let mut replicas = Watches::of(managed)?;
    let surveys = refuse_early((managed, wish), &aim, keyset, &mut replicas, &mut ledgers, stop).await?;
    seen::compare(managed, &mut ledgers, stop).await?;
    let goes_on = open.as_ref().filter(|_| matches!(aim.start, Start::Resume));
    let endings = match goes_on {
        Some((home, record)) => ledgers.endings(*home, &record.id, stop).await?,
        None => Vec::new(),
    };
    let (direction, mode) = (aim.direction, aim.mode);
    let ending = Ending {
        managed,
        wish,
        direction,
        mode,
    };
    ending.check(&endings, watch).await?;
    if wish.retire {
        let surveys = surveys.iter().map(|(name, survey)| (*name, &**survey));
        undeclared::warn(managed, keyset, surveys, stop, watch).await;
    }

    ledgers.migrate(stop).await?;
    let (keyring, target) = make_target_durable(managed, &aim, keyring, open.as_ref().map(|(_, record)| record))?;
    let (home, record) = open_record(managed, &aim, target, &keyring, open, &mut ledgers, stop).await?;
    watch.rotation(&record.id);
    seen::remember(managed, &mut ledgers, true, stop).await?;
    watch.say(&format!(
        "rotation {} of keyset {}: {} to key {target}, {}",
        record.id,
        managed.keyset,
        aim.direction.as_str(),
        aim.mode.as_str()
    ));
    let machine = Machine::new(
        (managed, wish),
        (ledgers, replicas),
        (progress, stop, watch),
        (home, record),
        keyring,
        &aim,
        target,
    );
    let report = machine.go().await?;
    let mut ledgers = Ledgers::of(&managed.places, managed.keyset.as_str(), managed.options.away_max);
    let is_open = report.record.finished_at.is_none();
    if let Err(error) = seen::remember(managed, &mut ledgers, is_open, stop).await {
        watch.say(&error.to_string());
    }
    Ok(report)
}

/// Everything that can be known to fail later is refused before anything is touched. Gives what the catalogues say of the datasets.
async fn refuse_early<'m>(
    (managed, wish): (&'m Managed, &Wish),
    aim: &Aim,
    keyset: &Keyset,
    replicas: &mut Watches<'_>,
    ledgers: &mut Ledgers<'_>,
    stop: &Stop,
) -> Result<Vec<(&'m str, Arc<Survey>)>, ProtocolError> {
    if wish.retire && managed.backup_horizon.is_none() {
        return Err(ProtocolError::refused(
            "nobody has decided how long backups need the old key: backup_horizon is missing in [policy]",
            "write backup_horizon = \"35d\" (or what holds) into the configuration; or leave the old key with readers: --no-retire",
        ));
    }
    match aim.mode {
        _ if !wish.retire => {}
        Mode::Scheduled => replicas.refuse_blind().await?,
        // Nothing is put off for that: it is said in the end, when everything is moved.
        Mode::Compromised(_) => replicas.meet().await,
    }
    let live = ledgers
        .instances(stop)
        .await?
        .iter()
        .filter(|instance| instance.is_live())
        .count();
    if live == 0 && managed.gates.expect.is_none() {
        return Err(ProtocolError::refused(
            format!(
                "no instance that uses keyset {} is known: nobody could be waited for",
                managed.keyset
            ),
            "let the instances report (Keyring::report_to, or reseal ack); or say how many there are: --expect-instances N, 0 for none",
        ));
    }
    // A key that is not there yet has the form of the one that is.
    let seals = aim
        .target
        .filter(|target| keyset.get(*target).is_some_and(|key| key.state().opens()));
    let mut surveys = Vec::new();
    for dataset in &managed.datasets {
        if managed.options.max_replica_lag.is_some() {
            let visible = lag::visible(&*managed.places[dataset.place].store).await;
            visible.map_err(ProtocolError::dataset(&dataset.name))?;
        }
        let report = dataset::preflight(managed, dataset, keyset, seals.unwrap_or(keyset.primary().id())).await?;
        if !preflight::allows(&report.findings) {
            return Err(ProtocolError::Preflight {
                dataset: dataset.name.clone(),
                findings: report.findings,
            });
        }
        // A rotation to a third key begins with every value that is there.
        let begins_anew = matches!(aim.start, Start::Supersede);
        let forged = match begins_anew && !managed.options.accepted.iter().any(|name| name == preflight::FORGED) {
            true => ledgers.forged(dataset.place, &report.survey.table, stop).await?,
            false => 0,
        };
        if forged > 0 {
            return Err(ProtocolError::refused(
                format!(
                    "{forged} values of dataset {} are in quarantine because they may be forged: another rotation would move them",
                    dataset.name
                ),
                format!(
                    "rewrite the genuine ones through the application, and end the rotation that found them: reseal rotate {}; or, when each of them has been looked at and found genuine: --accept {}",
                    managed.keyset,
                    preflight::FORGED
                ),
            ));
        }
        surveys.push((dataset.name.as_str(), report.survey));
    }
    Ok(surveys)
}

/// The target is in the keyring file, and that is on disk, before anything else knows of it. In the same change an open rotation that
/// is superseded takes back its own target, if nobody has sealed with it yet.
fn make_target_durable(
    managed: &Managed,
    aim: &Aim,
    keyring: Keyring,
    open: Option<&RotationRecord>,
) -> Result<(Keyring, KeyId), ProtocolError> {
    let superseded = match (&aim.start, open) {
        (Start::Supersede, Some(record)) => Some(KeyId(record.to_key)),
        _ => None,
    };
    let is_staged = |keyset: &Keyset, id: KeyId| keyset.get(id).is_some_and(|key| key.state() == KeyState::Staged);
    let takes_back = superseded.filter(|id| keyring.keyset(&managed.keyset).is_some_and(|keyset| is_staged(keyset, *id)));
    if let Some(target) = aim.target
        && takes_back.is_none()
    {
        return Ok((keyring, target));
    }
    let mut edit = managed.edit_keyring(keyring.generation())?;
    let keyset = managed.keyset_in(&mut edit)?;
    let now = (managed.now)();
    let target = match aim.target {
        Some(target) => target,
        None => keyset.add(keyset.primary().algorithm(), Entry::Staged, now)?,
    };
    if let Some(old) = takes_back {
        match aim.mode {
            Mode::Scheduled => keyset.retire(old, now)?,
            Mode::Compromised(_) => keyset.mark_compromised(old, now)?,
        }
    }
    Ok((edit.commit(Previous::Kept)?, target))
}

/// Opens, claims or turns the record.
async fn open_record(
    managed: &Managed,
    aim: &Aim,
    target: KeyId,
    keyring: &Keyring,
    open: Option<(usize, RotationRecord)>,
    ledgers: &mut Ledgers<'_>,
    stop: &Stop,
) -> Result<(usize, RotationRecord), ProtocolError> {
    let owner = &managed.options.owner;
    let mut follows = None;
    let mut to = target;
    match (&aim.start, open) {
        (Start::Resume | Start::Turn, Some((home, record))) => {
            let claimed = take_over(managed, keyring, (home, &record.id), ledgers, stop).await?;
            let turns = matches!(aim.start, Start::Turn);
            let change = Change {
                phase: turns.then_some(Phase::Introduce.as_str()),
                direction: turns.then_some(aim.direction.as_str()),
                mode: Some(aim.mode.as_str()),
                policy: aim.mode.policy().map(Policy::as_str),
                keyring_generation: Some(keyring.generation()),
                is_end: false,
            };
            return Ok((home, ledgers.change(home, &claimed, change, stop).await?));
        }
        (Start::Supersede, Some((home, record))) => {
            let claimed = take_over(managed, keyring, (home, &record.id), ledgers, stop).await?;
            let end = Change {
                phase: Some(Phase::Superseded.as_str()),
                is_end: true,
                ..Change::default()
            };
            ledgers.change(home, &claimed, end, stop).await?;
            ledgers.forget_snapshots(home, &record.id, stop).await?;
            follows = Some(record.id);
        }
        (
            Start::New {
                undoes: Some((id, led_to)),
            },
            _,
        ) => {
            follows = Some(id.clone());
            to = *led_to;
        }
        _ => {}
    }
    let new = NewRotation {
        id: format!("{:016x}", rand::rng().random::<u64>()),
        keyset: managed.keyset.as_str().to_owned(),
        from_key: aim.from.0,
        to_key: to.0,
        mode: aim.mode.as_str().to_owned(),
        policy: aim.mode.policy().map(|policy| policy.as_str().to_owned()),
        direction: aim.direction.as_str().to_owned(),
        phase: Phase::Introduce.as_str().to_owned(),
        owner: owner.clone(),
        keyring_generation: keyring.generation(),
        follows,
    };
    match ledgers.begin(0, new, stop).await? {
        Some(record) => Ok((0, record)),
        None => Err(ProtocolError::Held {
            holder: "another operator".to_owned(),
            rotation: ledgers.open_rotation(stop).await?.map(|(_, record)| record.id),
        }),
    }
}

/// Takes the record over. Whoever had it begins no change of a key any more; one that was under way is waited for, and what was decided
/// without it is not gone on with.
async fn take_over(
    managed: &Managed,
    keyring: &Keyring,
    (home, id): (usize, &str),
    ledgers: &mut Ledgers<'_>,
    stop: &Stop,
) -> Result<RotationRecord, ProtocolError> {
    let claimed = ledgers.claim(home, id, &managed.options.owner, stop).await?;
    let edit = managed.edit_keyring(keyring.generation())?;
    if managed.keyset_of(edit.keyring())?.revision() != managed.keyset_of(keyring)?.revision() {
        return Err(ProtocolError::refused(
            format!("keyset {} was changed while its rotation was taken over", managed.keyset),
            "run the command again: it goes on from where the keys stand now",
        ));
    }
    Ok(claimed)
}
