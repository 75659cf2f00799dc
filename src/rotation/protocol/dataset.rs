//! The datasets of a keyset as jobs of the rotation of single tables.

use std::sync::Arc;

use super::super::guard;
use super::super::keyed::{NamedKey, Trust};
use super::super::plan::{self as planning, PlanReport, Prepared};
use super::super::preflight::{self, Purpose};
use super::super::progress::{Progress, Stop};
use super::super::recipe::{ColumnSpec, PlaintextPolicy, Recipe};
use super::super::{Guarding, Job, RotationReport, VerifyReport, detect, vacuum};
use super::{Managed, ManagedDataset, ProtocolError, guards, label, seen};
use crate::format::{Format, Verdict, by_name};
use crate::key::{Key, KeyId, KeyMaterial, KeyState, Keyring, Keyset, SealCounts};
use crate::store::survey::Survey;

/// What was done in a dataset.
pub struct DatasetReport {
    /// Its name in the configuration.
    pub name: String,
    /// The name of its database.
    pub place: String,
    /// The catalogue's facts.
    pub survey: Arc<Survey>,
    /// Whether late values were left as they are.
    pub left_late_values: bool,
    /// What the rotation of the table did and found.
    pub report: RotationReport,
}

/// What a rotation of the keyset would meet in each dataset. Changes nothing.
pub async fn plan(managed: &Managed) -> Result<Vec<(String, PlanReport)>, ProtocolError> {
    let keyring = managed.open_keyring(0)?;
    let keyset = managed.keyset_of(&keyring)?;
    let mut reports = Vec::new();
    for dataset in &managed.datasets {
        reports.push((
            dataset.name.clone(),
            preflight(managed, dataset, keyset, keyset.primary().id()).await?,
        ));
    }
    Ok(reports)
}

/// Opens every value of every dataset, and counts them per key. Writes nothing.
pub async fn verify(
    managed: &Managed,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
) -> Result<Vec<(String, Arc<Survey>, VerifyReport)>, ProtocolError> {
    let keyring = managed.open_keyring(0)?;
    let keyset = managed.keyset_of(&keyring)?;
    verify_towards(managed, keyset, progress, stop).await
}

pub(super) async fn verify_towards(
    managed: &Managed,
    keyset: &Keyset,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
) -> Result<Vec<(String, Arc<Survey>, VerifyReport)>, ProtocolError> {
    let mut reports = Vec::new();
    for dataset in &managed.datasets {
        let (survey, report) = verify_one(managed, dataset, keyset, progress, stop).await?;
        reports.push((dataset.name.clone(), survey, report));
    }
    Ok(reports)
}

pub(super) async fn verify_one(
    managed: &Managed,
    dataset: &ManagedDataset,
    keyset: &Keyset,
    progress: &Arc<Progress>,
    stop: &Arc<Stop>,
) -> Result<(Arc<Survey>, VerifyReport), ProtocolError> {
    let prepared = prepare(managed, dataset, keyset, keyset.primary().id()).await?;
    let report = super::super::verify(&managed.places[dataset.place].store, &prepared, progress, stop)
        .await
        .map_err(ProtocolError::dataset(&dataset.name))?;
    Ok((Arc::clone(&prepared.survey), report))
}

/// Looks for reasons not to write into a dataset.
pub(super) async fn preflight(
    managed: &Managed,
    dataset: &ManagedDataset,
    keyset: &Keyset,
    target: KeyId,
) -> Result<PlanReport, ProtocolError> {
    let prepared = prepare(managed, dataset, keyset, target).await?;
    if managed.options.guard == Guarding::Wanted {
        guard::require_possible(&*managed.places[dataset.place].store, &prepared)
            .await
            .map_err(ProtocolError::dataset(&dataset.name))?;
    }
    if managed.options.vacuum {
        vacuum::permitted(&*managed.places[dataset.place].store, &prepared.survey)
            .await
            .map_err(ProtocolError::dataset(&dataset.name))?;
    }
    planning::plan(&managed.places[dataset.place].store, &prepared, Purpose::Write)
        .await
        .map_err(ProtocolError::dataset(&dataset.name))
}

/// What an application that follows this keyring can open of a dataset: with the keys that it is given, and no other.
pub async fn for_reader(managed: &Managed, dataset: &ManagedDataset, keyring: &Keyring) -> Result<Prepared, ProtocolError> {
    let keyset = managed.keyset_of(keyring)?;
    prepare_with(managed, dataset, keyset, keyset.primary().id(), Key::is_offered).await
}

/// Joins a dataset with its table and with the keys of the keyset: `target` seals, every other key whose bytes are there opens.
pub(super) async fn prepare(
    managed: &Managed,
    dataset: &ManagedDataset,
    keyset: &Keyset,
    target: KeyId,
) -> Result<Prepared, ProtocolError> {
    prepare_with(managed, dataset, keyset, target, |key| key.state().opens_for_reencryption()).await
}

async fn prepare_with(
    managed: &Managed,
    dataset: &ManagedDataset,
    keyset: &Keyset,
    target: KeyId,
    opens: fn(&Key) -> bool,
) -> Result<Prepared, ProtocolError> {
    let failed = ProtocolError::dataset(&dataset.name);
    let store = &managed.places[dataset.place].store;
    let mut sources = Vec::new();
    let mut to = None;
    for key in keyset.keys() {
        let Some(material) = key.material() else { continue };
        if key.algorithm().signs() {
            return Err(ProtocolError::refused(
                format!("keyset {} signs tokens and opens no values", managed.keyset),
                format!("give dataset {} a keyset of its own", dataset.name),
            ));
        }
        let is_target = key.id() == target;
        if !is_target && !opens(key) {
            continue;
        }
        let named = NamedKey {
            label: label(&managed.keyset, key.id()),
            id: Some(key.id()),
            material: KeyMaterial::import(material.expose())
                .map_err(|error| ProtocolError::refused(error.to_string(), "look at the keyset: reseal keys list"))?,
        };
        if is_target {
            to = Some(named);
        } else {
            sources.push(named);
        }
    }
    let to = to.ok_or_else(|| {
        ProtocolError::refused(
            format!("keyset {} has no key {target} to rotate to", managed.keyset),
            "see reseal keys list",
        )
    })?;
    let ids: Vec<KeyId> = sources.iter().chain([&to]).filter_map(|key| key.id).collect();
    let specs = specs(managed, dataset, &ids).await?;
    let now = u64::try_from((managed.now)().as_second()).unwrap_or(0);
    let recipe = Recipe::new(specs, &sources, &to, PlaintextPolicy::Refuse, now).map_err(|error| failed(error.into()))?;
    let destroyed: Vec<KeyId> = keyset
        .keys()
        .iter()
        .filter(|key| key.state() == KeyState::Destroyed)
        .map(|key| key.id())
        .collect();
    let believed = [preflight::FORGED, seen::RESTORED];
    let believes = managed.options.accepted.iter().any(|name| believed.contains(&name.as_str()));
    let trust: Vec<(KeyId, Trust)> = match believes {
        true => Vec::new(),
        false => keyset.keys().iter().map(|key| (key.id(), trust(key))).collect(),
    };
    let job = Job {
        table: dataset.table.clone(),
        filter: dataset.filter.clone(),
        recipe: recipe
            .with_destroyed(&destroyed)
            .with_trust(&trust)
            .with_seals_counted(SealCounts::beside(&managed.keyring)),
        options: managed.options.clone(),
    };
    let mut prepared = planning::prepare(&**store, job).await.map_err(failed)?;
    let known = guards::accepted(&prepared.survey, keyset);
    prepared.options.accepted.extend(known);
    Ok(prepared)
}

/// A key that was retired had no value left; after a leak, whatever is under it since came from somebody who should not have it.
fn trust(key: &Key) -> Trust {
    match (key.state(), key.retired_at()) {
        (KeyState::Compromised, Some(_)) => Trust::Spent,
        (KeyState::Compromised, None) => Trust::Leaked,
        _ => Trust::Full,
    }
}

async fn specs(managed: &Managed, dataset: &ManagedDataset, ids: &[KeyId]) -> Result<Vec<ColumnSpec>, ProtocolError> {
    let store = &managed.places[dataset.place].store;
    let names: Vec<String> = dataset.columns.iter().map(|column| column.name.clone()).collect();
    let detected = if dataset.columns.iter().all(|column| column.format.is_some()) {
        Vec::new()
    } else {
        detect::formats(&**store, &dataset.table, &names, dataset.filter.as_deref(), ids)
            .await
            .map_err(ProtocolError::dataset(&dataset.name))?
    };
    dataset
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let format = match (column.format, detected.get(at)) {
                (Some(format), _) => format,
                (None, Some(Verdict::Certain(name))) => by_name(name).map_err(|_| undecided(dataset, &column.name))?,
                (None, _) => return Err(undecided(dataset, &column.name)),
            };
            Ok(ColumnSpec {
                name: column.name.clone(),
                from: format,
                to: format as &'static dyn Format,
                associated_data: column.associated_data.clone(),
            })
        })
        .collect()
}

fn undecided(dataset: &ManagedDataset, column: &str) -> ProtocolError {
    ProtocolError::refused(
        format!(
            "dataset {}, column {column}: no sample decides which format its values have",
            dataset.name
        ),
        "write format = \"…\" beside its name in the configuration",
    )
}
