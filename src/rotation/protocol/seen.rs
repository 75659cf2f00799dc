//! What was last seen of the databases of a keyset, beside its keyring: one that was restored from a backup meanwhile is older than that.
//!
//! Such a database is no damage, but nobody should go on in it without a look: values that were moved are back under keys that readers
//! are no longer given. The file holds counts that grow with runs, and no secret; without it nothing is noticed, and nothing else changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ledgers::Ledgers;
use super::{Managed, ProtocolError};
use crate::key::write_private;
use crate::rotation::progress::Stop;

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marks {
    version: u32,
    /// Whether a rotation was open: only without one may the progress tables be dropped.
    open: bool,
    /// What grows with every run of a rotation, by database, of all plans and keysets.
    runs: BTreeMap<String, u64>,
}

/// Refuses databases that are older than when they were last seen, unless the operator has accepted that.
pub(super) async fn compare(managed: &Managed, ledgers: &mut Ledgers<'_>, stop: &Stop) -> Result<(), ProtocolError> {
    let marks = read(managed)?;
    let mut older = Vec::new();
    for (at, place) in managed.places.iter().enumerate() {
        let seen = marks.runs.get(&place.name).copied().unwrap_or(0);
        match ledgers.runs(at, stop).await? {
            Some(now) if now < seen => older.push(format!("{} (its count of runs is {now}, and was {seen})", place.name)),
            None if seen > 0 && marks.open => older.push(format!("{} (no run of a rotation, after {seen})", place.name)),
            _ => {}
        }
    }
    if older.is_empty() || managed.options.accepted.iter().any(|name| name == RESTORED) {
        return Ok(());
    }
    Err(ProtocolError::refused(
        format!(
            "older than when it was last seen, and perhaps restored from a backup: database {}",
            older.join(", ")
        ),
        format!(
            "see under which keys its values are (reseal verify {keyset}), and give those back to readers (reseal keys stage {keyset} KEY); then go on from what is there with --accept {RESTORED}",
            keyset = managed.keyset
        ),
    ))
}

/// Remembers the databases as they are now.
pub(super) async fn remember(
    managed: &Managed,
    ledgers: &mut Ledgers<'_>,
    open: bool,
    stop: &Stop,
) -> Result<(), ProtocolError> {
    let mut marks = Marks {
        version: VERSION,
        open,
        runs: BTreeMap::new(),
    };
    for (at, place) in managed.places.iter().enumerate() {
        if let Some(runs) = ledgers.runs(at, stop).await? {
            marks.runs.insert(place.name.clone(), runs);
        }
    }
    // Counts and names of databases: nothing that fails to be written.
    let text = serde_json::to_vec(&marks).unwrap_or_default();
    write_private(&path(managed), &text, true).map_err(|error| unusable(managed, &error))
}

fn read(managed: &Managed) -> Result<Marks, ProtocolError> {
    let text = match std::fs::read(path(managed)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Marks::default()),
        Err(error) => return Err(unusable(managed, &error)),
    };
    let marks: Marks = serde_json::from_slice(&text).map_err(|_| unusable(managed, &"it is damaged"))?;
    match marks.version {
        VERSION => Ok(marks),
        _ => Err(unusable(managed, &"a newer reseal wrote it")),
    }
}

fn unusable(managed: &Managed, why: &dyn std::fmt::Display) -> ProtocolError {
    let path = path(managed);
    ProtocolError::refused(
        format!("{} cannot be used: {why}", path.display()),
        "mend that; the file may be deleted, and then a database that was restored from a backup is not noticed this time",
    )
}

/// One file a keyset: whoever writes it holds the keyset's lock.
fn path(managed: &Managed) -> PathBuf {
    let mut name = managed.keyring.clone().into_os_string();
    name.push(".seen.");
    name.push(managed.keyset.as_str());
    PathBuf::from(name)
}

/// What `--accept` takes.
pub(super) const RESTORED: &str = "restored";
const VERSION: u32 = 1;
