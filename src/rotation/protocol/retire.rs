//! Taking keys from readers, once nothing needs them: the proof of that, and the reasons against it, each with its count.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::census::Census;
use super::super::progress::{Progress, Stop};
use super::gate::{self, Gate, GateKind, Passed};
use super::ledgers::Ledgers;
use super::replicas::{Replicas, Watches};
use super::undeclared::{self, UNDECLARED};
use super::{Managed, ProtocolError, dataset, label};
use crate::key::{Key, KeyId, KeyState, Keyset, KeysetError, Previous};
use crate::store::ledger::rotation::RotationRecord;

/// Something that needs a key, or may need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Values are under it.
    Values {
        /// The key.
        key: KeyId,
        /// How many.
        count: u64,
    },
    /// Values are readable under some other key than the primary, among them plaintext that is to be sealed.
    NotCurrent {
        /// How many.
        count: u64,
    },
    /// Values could not be opened, and may be under it.
    Quarantine {
        /// How many.
        count: u64,
    },
    /// The database itself found values under it, after the verification found none.
    Refuted {
        /// In how many datasets.
        datasets: u64,
    },
    /// Replicas have not replayed the last values that were moved from it.
    Replicas {
        /// Which, and how far they are.
        names: Vec<String>,
        /// What lets this user see those that are hidden from it, if any are.
        grant: Option<String>,
    },
    /// Live instances have not acknowledged the promotion, and may seal with it.
    Instances {
        /// Their names.
        names: Vec<String>,
        /// Why, for people.
        why: String,
    },
    /// Values in columns that no dataset of the keyset declares are under it.
    Undeclared {
        /// Tables and columns.
        columns: Vec<String>,
        /// How many of the values that were sampled.
        count: u64,
    },
    /// Columns that no dataset declares could not be read, and may hold values under it.
    Unseen {
        /// Tables and columns, and why.
        columns: Vec<(String, String)>,
    },
    /// Nobody has decided how long backups need it.
    BackupHorizon,
    /// A rotation of the keyset is open.
    Rotation {
        /// Its id.
        id: String,
        /// Who runs it.
        owner: String,
    },
}

impl Need {
    /// How many things of this kind need the key.
    pub fn count(&self) -> u64 {
        match self {
            Self::Values { count, .. }
            | Self::NotCurrent { count }
            | Self::Quarantine { count }
            | Self::Undeclared { count, .. } => *count,
            Self::Unseen { columns } => columns.len() as u64,
            Self::Refuted { datasets } => *datasets,
            Self::Instances { names, .. } | Self::Replicas { names, .. } => names.len() as u64,
            Self::BackupHorizon | Self::Rotation { .. } => 1,
        }
    }

    /// The word in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Values { .. } => "values",
            Self::NotCurrent { .. } => "not-current",
            Self::Quarantine { .. } => "quarantine",
            Self::Refuted { .. } => "refuted",
            Self::Replicas { .. } => "replicas",
            Self::Instances { .. } => "instances",
            Self::Undeclared { .. } => "undeclared",
            Self::Unseen { .. } => "unseen",
            Self::BackupHorizon => "backup-horizon",
            Self::Rotation { .. } => "rotation",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values { key, count } => write!(f, "{count} values are under key {key}"),
            Self::NotCurrent { count } => write!(f, "{count} values are not under the primary key"),
            Self::Quarantine { count } => write!(f, "{count} values are quarantined and may need it"),
            Self::Refuted { datasets } => write!(
                f,
                "the database found values under it in {datasets} datasets that were verified: somebody writes past the guard"
            ),
            Self::Replicas { names, grant } => {
                write!(
                    f,
                    "{} replicas are not known to have replayed the last values that were moved from it: {}",
                    names.len(),
                    names.join("; ")
                )?;
                match grant {
                    Some(grant) => write!(f, " (an administrator can change that: {grant})"),
                    None => Ok(()),
                }
            }
            Self::Instances { names, why } => write!(f, "{} instances may seal with it: {why}", names.len()),
            Self::Undeclared { columns, count } => {
                let first = columns.first().map_or("", String::as_str).escape_debug();
                write!(
                    f,
                    "{count} sampled values are under it in columns that no dataset of the keyset declares in whole: {}; \
                     declare them in reseal.toml, or accept each that may become unreadable: --accept {UNDECLARED}:{first}",
                    some(columns.iter().map(|column| column.escape_debug().to_string()))
                )
            }
            Self::Unseen { columns } => {
                let first = columns.first().map_or("", |(column, _)| column).escape_debug();
                write!(
                    f,
                    "{} columns could not be looked at, and may hold values under it: {}; \
                     run it again when they can be read, or accept each: --accept {UNDECLARED}:{first}",
                    columns.len(),
                    some(
                        columns
                            .iter()
                            .map(|(column, why)| format!("{} ({})", column.escape_debug(), why.escape_debug()))
                    )
                )
            }
            Self::BackupHorizon => f.write_str("nobody has decided how long backups need it: [policy] backup_horizon"),
            Self::Rotation { id, owner } => write!(f, "rotation {id} is open ({owner})"),
        }
    }
}

/// The first few, and how many more there are.
fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = names.take(NAMED_MAX).collect();
    match more {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    }
}

/// The proof that nothing needs some keys any more. Only [`prove`] makes one.
#[derive(Debug)]
pub struct RetirementProof {
    keys: Vec<KeyId>,
}

impl RetirementProof {
    /// Takes the keys from readers.
    pub(super) fn retire(self, keyset: &mut Keyset, at: Timestamp) -> Result<Vec<KeyId>, KeysetError> {
        for key in &self.keys {
            keyset.retire(*key, at)?;
        }
        Ok(self.keys)
    }
}

/// What needs one of `keys`: by scans of every dataset, which began after `promoted` was passed, and by the instances as they are
/// `now`; `beyond` is what else does. Nothing at all is a proof.
pub(super) fn prove<'c>(
    managed: &Managed,
    keys: Vec<KeyId>,
    _promoted: &Passed,
    now: &Gate,
    censuses: impl Iterator<Item = &'c Census>,
    beyond: Vec<Need>,
) -> Result<RetirementProof, Vec<Need>> {
    let mut needs = needs(managed, &keys, now, censuses);
    needs.extend(beyond);
    if needs.is_empty() {
        Ok(RetirementProof { keys })
    } else {
        Err(needs)
    }
}

pub(super) fn needs<'c>(
    managed: &Managed,
    keys: &[KeyId],
    now: &Gate,
    censuses: impl Iterator<Item = &'c Census>,
) -> Vec<Need> {
    let mut needs = Vec::new();
    let (mut due, mut quarantined) = (0, 0);
    let mut under: Vec<u64> = vec![0; keys.len()];
    for census in censuses {
        due += census.due;
        quarantined += census.quarantined();
        for (key, count) in keys.iter().zip(&mut under) {
            *count += census.per_key.get(&label(&managed.keyset, *key)).copied().unwrap_or(0);
        }
    }
    for (key, count) in keys.iter().zip(under) {
        if count > 0 {
            needs.push(Need::Values { key: *key, count });
        }
    }
    if due > 0 && needs.is_empty() {
        needs.push(Need::NotCurrent { count: due });
    }
    if quarantined > 0 {
        needs.push(Need::Quarantine { count: quarantined });
    }
    if !now.is_open(&managed.gates) {
        needs.push(Need::Instances {
            names: now.missing.iter().map(|missing| missing.instance.clone()).collect(),
            why: now.describe(&managed.gates),
        });
    }
    if managed.backup_horizon.is_none() {
        needs.push(Need::BackupHorizon);
    }
    needs
}

/// Keys that readers are still given, or that were never taken from them for good, beside the primary and those on their way in.
pub(super) fn retirable(keyset: &Keyset) -> Vec<KeyId> {
    keyset
        .keys()
        .iter()
        .filter(|key| matches!(key.state(), KeyState::Retiring | KeyState::Compromised) && key.retired_at().is_none())
        .map(Key::id)
        .collect()
}

/// Takes one key from readers, after a look at every dataset and every instance of the keyset. The reasons against it are a result, not
/// an error; then nothing was changed.
pub async fn retire(
    managed: &Managed,
    key: KeyId,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
) -> Result<Result<(), Vec<Need>>, ProtocolError> {
    let mut ledgers = Ledgers::of(&managed.places, managed.keyset.as_str(), managed.options.away_max);
    let open: Option<(usize, RotationRecord)> = ledgers.open_rotation(stop).await?;
    let keyring = managed.open_keyring(open.as_ref().map_or(0, |(_, record)| record.keyring_generation))?;
    let keyset = managed.keyset_of(&keyring)?;
    let primary = keyset.primary().id();
    let (asked, nobody) = ((GateKind::Promote, keyset.revision(), primary), BTreeSet::new());
    // Asked before the scan: what is sealed after it by those who have acknowledged is under the primary key.
    let before = gate::look(asked, &nobody, &mut ledgers, stop).await?.pass(&managed.gates);
    let censuses = dataset::verify_towards(managed, keyset, progress, stop).await?;
    let now = gate::look(asked, &nobody, &mut ledgers, stop).await?;
    let mut needs: Vec<Need> = Replicas::mark(Watches::of(managed)?, managed, stop)
        .await?
        .need()
        .await
        .into_iter()
        .collect();
    if let Some((_, record)) = open {
        needs.push(Need::Rotation {
            id: record.id,
            owner: record.owner,
        });
    }
    let surveys = censuses.iter().map(|(name, survey, _)| (name.as_str(), &**survey));
    needs.extend(undeclared::look(managed, keyset, &[key], surveys, stop).await?.needs());
    let censuses = censuses.iter().map(|(_, _, report)| &report.census);
    let proof = match before {
        Ok(passed) => prove(managed, vec![key], &passed, &now, censuses, Vec::new()),
        // Whoever has acknowledged since may have sealed while the scan was under way; what it found is told all the same.
        Err(before) => Err(self::needs(managed, &[key], &before, censuses)),
    };
    match proof {
        Ok(proof) if needs.is_empty() => {
            let mut edit = managed.edit_keyring(keyring.generation())?;
            let keyset = managed.keyset_in(&mut edit)?;
            if keyset.primary().id() != primary {
                return Err(ProtocolError::refused(
                    "another key was promoted meanwhile",
                    "run the command again",
                ));
            }
            proof.retire(keyset, (managed.now)())?;
            edit.commit(Previous::Kept)?;
            Ok(Ok(()))
        }
        Ok(_) => Ok(Err(needs)),
        Err(more) => {
            needs.extend(more);
            Ok(Err(needs))
        }
    }
}

/// Names in one sentence.
const NAMED_MAX: usize = 10;
