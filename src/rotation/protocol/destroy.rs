//! Wiping a key for good, once nothing needs it: no value, declared or forgotten, no instance, no replica, no backup.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::progress::{Progress, Stop};
use super::gate::{self, GateKind};
use super::ledgers::Ledgers;
use super::replicas::{Replicas, Watches};
use super::retire::{Need, needs};
use super::{Managed, ProtocolError, dataset, undeclared};
use crate::key::{KeyId, KeyState, Previous};

/// Wipes a key that was retired, after a look at every dataset and every instance of the keyset. Backups are waited for as long as the
/// configuration says, and at least for `horizon`, by the clock of this machine and of every database. The reasons against it are a
/// result, not an error; then nothing was changed.
pub async fn destroy(
    managed: &Managed,
    key: KeyId,
    horizon: SignedDuration,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
) -> Result<Result<(), Vec<Need>>, ProtocolError> {
    let mut ledgers = Ledgers::of(&managed.places, managed.keyset.as_str(), managed.options.away_max);
    let open = ledgers.open_rotation(stop).await?;
    let keyring = managed.open_keyring(open.as_ref().map_or(0, |(_, record)| record.keyring_generation))?;
    let keyset = managed.keyset_of(&keyring)?;
    let is_wiped = keyset.get(key).is_some_and(|key| key.state() == KeyState::Destroyed);
    if !is_wiped {
        // What can be known without a look at the values: its state, and the backups.
        let mut trial = managed.edit_keyring(keyring.generation())?;
        let horizon = managed.backup_horizon.unwrap_or_default().max(horizon);
        let at = agreed_time(managed, key, &mut ledgers, stop).await?;
        managed.keyset_in(&mut trial)?.destroy(key, horizon, at)?;
        drop(trial);
        let asked = (GateKind::Retire, keyset.revision(), keyset.primary().id());
        let censuses = dataset::verify_towards(managed, keyset, progress, stop).await?;
        let now = gate::look(asked, &BTreeSet::new(), &mut ledgers, stop).await?;
        let mut needs = needs(managed, &[key], &now, censuses.iter().map(|(_, _, report)| &report.census));
        needs.extend(Replicas::mark(Watches::of(managed)?, managed, stop).await?.need().await);
        let surveys = censuses.iter().map(|(name, survey, _)| (name.as_str(), &**survey));
        needs.extend(undeclared::look(managed, keyset, &[key], surveys, stop).await?.needs());
        needs.extend(open.map(|(_, record)| Need::Rotation {
            id: record.id,
            owner: record.owner,
        }));
        if !needs.is_empty() {
            return Ok(Err(needs));
        }
    }
    let at = match is_wiped {
        false => agreed_time(managed, key, &mut ledgers, stop).await?,
        true => (managed.now)(),
    };
    let mut edit = managed.edit_keyring(keyring.generation())?;
    let keyset = managed.keyset_in(&mut edit)?;
    if !is_wiped {
        let horizon = managed.backup_horizon.unwrap_or_default().max(horizon);
        keyset.destroy(key, horizon, at)?;
    }
    // Asked again, for instance after a crash: the commit makes sure that .bak has no bytes of it either.
    edit.commit(Previous::Forgotten)?;
    Ok(Ok(()))
}

/// The earliest time of all clocks, so that what has passed by it has passed by each. Clocks that disagree tell no time at all.
async fn agreed_time(
    managed: &Managed,
    key: KeyId,
    ledgers: &mut Ledgers<'_>,
    stop: &Stop,
) -> Result<Timestamp, ProtocolError> {
    let mut earliest = (managed.now)();
    for (at, place) in managed.places.iter().enumerate() {
        let theirs = ledgers.time(at, stop).await?;
        let ours = (managed.now)();
        if ours.duration_since(theirs).abs() > CLOCKS_APART_MAX {
            return Err(ProtocolError::refused(
                format!(
                    "this machine says that it is {ours:.0}, and database {} that it is {theirs:.0}: nobody knows whether backups have expired",
                    place.name
                ),
                format!(
                    "set the clock that is wrong (timedatectl shows this machine's), then run again: reseal keys destroy {} {key} --yes",
                    managed.keyset
                ),
            ));
        }
        earliest = earliest.min(ours).min(theirs);
    }
    Ok(earliest)
}

/// Clocks that are kept by NTP are apart by less than a second; a horizon is counted in days.
const CLOCKS_APART_MAX: SignedDuration = SignedDuration::from_mins(5);
