//! Columns that hold values under a keyset's keys although none of its datasets declares them: forgotten ones, copies, columns of another
//! keyset. Nobody moves their values, and without the old key they are lost.
//!
//! A sample of every column is looked at: what is rare in a large table may be missed, and so is what [`Recogniser`] does not recognise.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use super::super::plan::PlanReport;
use super::super::progress::Stop;
use super::super::recognise::Recogniser;
use super::super::retry::{Patience, Remedy};
use super::retire::Need;
use super::{Managed, ProtocolError, Watch};
use crate::key::{KeyId, Keyset};
use crate::store::survey::Survey;
use crate::store::{ColumnSample, SampleLimits, StoreError};

/// What was found beside the datasets of a keyset.
#[derive(Debug, Default)]
pub struct Undeclared {
    /// Columns with values under its keys.
    pub columns: Vec<UndeclaredColumn>,
    /// Columns that could not be read, and why.
    pub unseen: Vec<(String, String)>,
    /// Why not every column was looked at, where that is so.
    pub unfinished: Option<String>,
}

/// A column with values under the keyset's keys.
#[derive(Debug)]
pub struct UndeclaredColumn {
    /// Table and column.
    pub name: String,
    /// How many of its sampled values.
    pub count: u64,
}

impl Undeclared {
    /// The reasons against taking the keys from readers.
    pub fn needs(&self) -> Vec<Need> {
        let found = (!self.columns.is_empty()).then(|| Need::Undeclared {
            columns: self.columns.iter().map(|column| column.name.clone()).collect(),
            count: self.columns.iter().map(|column| column.count).sum(),
        });
        let unseen = (!self.unseen.is_empty()).then(|| Need::Unseen {
            columns: self.unseen.clone(),
        });
        found.into_iter().chain(unseen).collect()
    }

    /// The same before a rotation, for people.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .needs()
            .iter()
            .map(|need| format!("before the old key can be retired: {need}"))
            .collect();
        notes.extend(
            self.unfinished
                .as_ref()
                .map(|why| format!("not every column was looked at for values under the keys: {why}")),
        );
        notes
    }
}

/// Which columns are passed over because datasets declare them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declared {
    /// Those whose every row is a dataset's: rows beyond a condition are looked at by nobody else.
    InWhole,
    /// All: before a rotation the rows within a condition are under the old keys, and a sample does not tell which they are.
    AtAll,
}

/// Looks for values under `keys` in all databases of the keyset, patiently. `surveys` are those of the datasets, by their names.
pub(super) async fn look<'s>(
    managed: &Managed,
    keyset: &Keyset,
    keys: &[KeyId],
    surveys: impl Iterator<Item = (&'s str, &'s Survey)>,
    stop: &Stop,
) -> Result<Undeclared, ProtocolError> {
    let mut found = Undeclared::default();
    let keys = keyset.keys().iter().filter(|key| keys.contains(&key.id()));
    let Some(mut look) = Look::new(managed, Recogniser::of(keys), surveys, Declared::InWhole) else {
        return Ok(found);
    };
    for place in 0..managed.places.len() {
        let mut patience = Patience::new(managed.options.away_max);
        loop {
            let mut here = Undeclared::default();
            let outcome = look.at(place, AT_THE_END, &mut here, stop).await;
            if stop.requested() {
                return Err(ProtocolError::Stopped);
            }
            let Err(error) = outcome else {
                found.columns.append(&mut here.columns);
                found.unseen.append(&mut here.unseen);
                break;
            };
            match patience.after(&error) {
                Remedy::GiveUp => return Err(ProtocolError::store("scan", error)),
                Remedy::Again { wait, .. } | Remedy::Reconnect { wait } => stop.sleep(wait).await,
            }
        }
    }
    Ok(found)
}

/// What would keep the old keys with readers in the end, as far as a moment's look tells. Never an error.
pub async fn undeclared(managed: &Managed, reports: &[(String, PlanReport)]) -> Undeclared {
    let mut found = Undeclared::default();
    let keyring = managed.open_keyring(0);
    match keyring
        .as_ref()
        .map_err(ToString::to_string)
        .map(|keyring| managed.keyset_of(keyring))
    {
        Ok(Ok(keyset)) => {
            let surveys = reports.iter().map(|(name, report)| (name.as_str(), &*report.survey));
            glance(managed, keyset, surveys, &Stop::default(), &mut found).await;
        }
        Ok(Err(error)) => found.unfinished = Some(error.to_string()),
        Err(error) => found.unfinished = Some(error),
    }
    found
}

/// The same for whoever begins a rotation.
pub(super) async fn warn<'s>(
    managed: &Managed,
    keyset: &Keyset,
    surveys: impl Iterator<Item = (&'s str, &'s Survey)>,
    stop: &Stop,
    watch: &dyn Watch,
) {
    let mut found = Undeclared::default();
    glance(managed, keyset, surveys, stop, &mut found).await;
    for note in found.notes() {
        watch.say(&note);
    }
}

async fn glance<'s>(
    managed: &Managed,
    keyset: &Keyset,
    surveys: impl Iterator<Item = (&'s str, &'s Survey)>,
    stop: &Stop,
    found: &mut Undeclared,
) {
    let keys = keyset.keys().iter().filter(|key| key.material().is_some());
    let Some(mut look) = Look::new(managed, Recogniser::of(keys), surveys, Declared::AtAll) else {
        return;
    };
    let everywhere = async {
        for place in 0..managed.places.len() {
            look.at(place, BEFOREHAND, found, stop).await?;
        }
        Ok::<(), StoreError>(())
    };
    let why = match tokio::time::timeout(BEFOREHAND_MAX, everywhere).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("that takes longer than {} s", BEFOREHAND_MAX.as_secs())),
    };
    found.unfinished = why;
}

/// What is looked for, and where it is expected.
struct Look<'m> {
    managed: &'m Managed,
    recogniser: Recogniser,
    declared: BTreeSet<(usize, String, String)>,
}

impl<'m> Look<'m> {
    /// `None` where the operator has accepted whatever there is.
    fn new<'s>(
        managed: &'m Managed,
        recogniser: Recogniser,
        surveys: impl Iterator<Item = (&'s str, &'s Survey)>,
        which: Declared,
    ) -> Option<Self> {
        if managed.options.accepted.iter().any(|name| name == UNDECLARED) {
            return None;
        }
        let mut declared = BTreeSet::new();
        for (name, survey) in surveys {
            let dataset = managed.datasets.iter().find(|dataset| dataset.name == name);
            let of_datasets = |filter: &Option<String>| which == Declared::AtAll || filter.is_none();
            let Some(dataset) = dataset.filter(|dataset| of_datasets(&dataset.filter)) else {
                continue;
            };
            let columns = survey.values.iter().map(|column| column.name.clone());
            declared.extend(columns.map(|column| (dataset.place, survey.table.clone(), column)));
        }
        Some(Self {
            managed,
            recogniser,
            declared,
        })
    }

    async fn at(&mut self, place: usize, limits: SampleLimits, found: &mut Undeclared, stop: &Stop) -> Result<(), StoreError> {
        let store = &self.managed.places[place].store;
        let mut take = |sample: ColumnSample| {
            self.judge(place, sample, found);
            match stop.requested() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        store.column_samples(limits, &mut take).await
    }

    fn judge(&mut self, place: usize, sample: ColumnSample, found: &mut Undeclared) {
        // Without the quotes of unusual names, which a shell would take away.
        let name = format!("{}.{}", sample.table.replace('"', ""), sample.column);
        let accepted = self.managed.options.accepted.iter();
        let is_accepted = accepted
            .filter_map(|accepted| accepted.strip_prefix(UNDECLARED)?.strip_prefix(':'))
            .any(|accepted| accepted == name);
        if is_accepted || self.declared.contains(&(place, sample.table, sample.column)) {
            return;
        }
        match sample.values {
            Err(why) => found.unseen.push((name, why)),
            Ok(values) => {
                let count = self.recogniser.count(&values);
                if count > 0 {
                    found.columns.push(UndeclaredColumn { name, count });
                }
            }
        }
    }
}

/// What `--accept` takes: alone for whatever there is, or with a colon and a column.
pub(super) const UNDECLARED: &str = "undeclared";

/// Of a column with one value in a hundred under the key, all but one in a hundred and fifty such samples hold one. One column at a time is
/// held: 32 MiB at most.
const AT_THE_END: SampleLimits = SampleLimits {
    rows: 500,
    value_bytes_max: 64 << 10,
};

/// Enough to warn of what was forgotten as a whole.
const BEFOREHAND: SampleLimits = SampleLimits {
    rows: 50,
    value_bytes_max: 64 << 10,
};

/// Somebody waits at the terminal. A database of a thousand columns takes about so long.
const BEFOREHAND_MAX: Duration = Duration::from_secs(5);
