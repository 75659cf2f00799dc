//! What was last seen of the databases of a keyset, beside its keyring: one that was restored from a backup meanwhile is older than that,
//! and another one behind the same name says that it is another.
//!
//! A restored database is no damage, but nobody should go on in it without a look: values that were moved are back under keys that
//! readers are no longer given. In another database (staging, by mistake) the rotation would leave the one that is meant as it is, and
//! yet change its keys. The file holds counts that grow with runs, and ids, and no secret; without it nothing is noticed, and nothing
//! else changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ledgers::Ledgers;
use super::{Managed, ProtocolError};
use crate::key::write_private;
use crate::rotation::progress::Stop;
use crate::store::DatabaseIdentity;

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marks {
    version: u32,
    /// Whether a rotation was open: only without one may the progress tables be dropped.
    open: bool,
    /// What grows with every run of a rotation, by database, of all plans and keysets.
    runs: BTreeMap<String, u64>,
    /// Who they are, by database; not in files of version 1.
    #[serde(default)]
    databases: BTreeMap<String, DatabaseIdentity>,
}

/// What says how the rest is read.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

/// Refuses databases that are others than those last seen, or older, unless the operator has accepted that.
pub(super) async fn compare(managed: &Managed, ledgers: &mut Ledgers<'_>, stop: &Stop) -> Result<(), ProtocolError> {
    let marks = read(managed)?;
    let (mut others, mut older) = (Vec::new(), Vec::new());
    for (at, place) in managed.places.iter().enumerate() {
        let now = ledgers.identity(at, stop).await?;
        if marks.databases.get(&place.name).is_some_and(|seen| now.is_another_than(seen)) {
            // Its count is none of those that were seen.
            others.push(format!("{} ({})", place.name, place.store.describe()));
            continue;
        }
        let seen = marks.runs.get(&place.name).copied().unwrap_or(0);
        match ledgers.runs(at, stop).await? {
            Some(now) if now < seen => older.push(format!("{} (its count of runs is {now}, and was {seen})", place.name)),
            None if seen > 0 && marks.open => older.push(format!("{} (no run of a rotation, after {seen})", place.name)),
            _ => {}
        }
    }
    let accepts = |name: &str| managed.options.accepted.iter().any(|accepted| accepted == name);
    if !others.is_empty() && !accepts(OTHER) {
        return Err(ProtocolError::refused(
            format!(
                "not the database that keyset {} was last rotated in, though it goes by the same name: database {}",
                managed.keyset,
                others.join(", ")
            ),
            format!(
                "look at its url in the configuration; a database that was dumped and restored, or brought to a newer PostgreSQL by pg_upgrade, is another one, too, and a file of SQLite that was replaced by one in which no rotation has run: if it is the one that is meant, --accept {OTHER}"
            ),
        ));
    }
    if older.is_empty() || accepts(RESTORED) {
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
    let before = read(managed)?;
    let mut marks = Marks {
        version: VERSION,
        open,
        ..Marks::default()
    };
    for (at, place) in managed.places.iter().enumerate() {
        if let Some(runs) = ledgers.runs(at, stop).await? {
            marks.runs.insert(place.name.clone(), runs);
        }
        let identity = ledgers.identity(at, stop).await?;
        if let Some(known) = known(identity, before.databases.get(&place.name)) {
            marks.databases.insert(place.name.clone(), known);
        }
    }
    // Counts, names and ids of databases: nothing that fails to be written.
    let text = serde_json::to_vec(&marks).unwrap_or_default();
    write_private(&path(managed), &text, true).map_err(|error| unusable(managed, &error))
}

/// Who a database is known to be: a server that does not say so this time is still the one that was seen. A file says something always,
/// and one whose id is gone will draw another.
fn known(now: DatabaseIdentity, seen: Option<&DatabaseIdentity>) -> Option<DatabaseIdentity> {
    let known = if now == DatabaseIdentity::default() {
        seen.cloned()
    } else {
        Some(now)
    };
    known.filter(|known| known.id.is_some())
}

fn read(managed: &Managed) -> Result<Marks, ProtocolError> {
    let text = match std::fs::read(path(managed)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Marks::default()),
        Err(error) => return Err(unusable(managed, &error)),
    };
    let damaged = |_| unusable(managed, &"it is damaged");
    let Header { version } = serde_json::from_slice(&text).map_err(damaged)?;
    match version {
        1..=VERSION => serde_json::from_slice(&text).map_err(damaged),
        _ => Err(unusable(managed, &"a newer reseal wrote it")),
    }
}

fn unusable(managed: &Managed, why: &dyn std::fmt::Display) -> ProtocolError {
    let path = path(managed);
    ProtocolError::refused(
        format!("{} cannot be used: {why}", path.display()),
        "mend that; the file may be deleted, and then a database that was restored from a backup, or that is another one, is not noticed this time",
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
const OTHER: &str = "other-database";
/// 2 brought who the databases are.
const VERSION: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_not_told_once_is_not_forgotten() {
        let of = |id: Option<&str>, file| DatabaseIdentity {
            id: id.map(str::to_owned),
            file,
        };
        let (seen, silent) = (of(Some("a"), None), of(None, None));
        assert_eq!(known(silent.clone(), Some(&seen)), Some(seen.clone()));
        assert_eq!(known(silent, None), None);
        assert_eq!(known(of(Some("b"), None), Some(&seen)), Some(of(Some("b"), None)));
        // The progress tables of a file were dropped.
        assert_eq!(known(of(None, Some(1)), Some(&of(Some("a"), Some(1)))), None);
    }
}
