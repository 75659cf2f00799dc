//! Ending the sessions of a cut-off that was taken before, in tables: what is there now and was not there then is spared.

use zeroize::Zeroizing;

use super::{SessionTable, TableLayout, end_snapshot, open, snapshot};
use crate::session::snapshot::Gathering;
use crate::session::{CutOff, DecidedBy, Ended, SETTLE, Selection, SessionError};

/// Takes the cut-off. Ends nothing.
pub(in crate::session) async fn cut(url: &Zeroizing<String>, layout: &TableLayout, salt: &str) -> Result<CutOff, SessionError> {
    let mut table = open(url, layout, &Selection::default()).await?;
    let (at, last) = snapshot(table.as_mut()).await?;
    let mut gathering = Gathering::under(salt);
    for_keys(table.as_mut(), last, |key| {
        gathering.note(key);
        false
    })
    .await?;
    Ok(CutOff {
        at,
        decided_by: DecidedBy::Snapshot,
        sessions: gathering.finish(),
    })
}

/// Ends what was there at the cut-off. Whatever was ended before, the same call continues.
pub(in crate::session) async fn end_known(
    url: &Zeroizing<String>,
    layout: &TableLayout,
    cut_off: &CutOff,
) -> Result<Ended, SessionError> {
    let mut table = open(url, layout, &Selection::default()).await?;
    let (_, last) = snapshot(table.as_mut()).await?;
    for_keys(table.as_mut(), last, |key| !cut_off.sessions.contains(key)).await?;
    let mut ended = Ended::new(cut_off.at, cut_off.decided_by);
    ended.matched = cut_off.sessions.len();
    ended.passes = 1;
    end_snapshot(table.as_mut(), last, SETTLE, &mut ended).await?;
    Ok(ended)
}

/// Looks at every key of the snapshot; those for which `is_spared` says so leave it.
async fn for_keys(
    table: &mut dyn SessionTable,
    last: u64,
    mut is_spared: impl FnMut(&[u8]) -> bool,
) -> Result<(), SessionError> {
    let mut from = 0;
    while from < last {
        let keys = table.keys(from, from + KEYS).await?;
        let spared: Vec<u64> = keys
            .iter()
            .filter(|(_, key)| is_spared(key.as_bytes()))
            .map(|(number, _)| *number)
            .collect();
        if !spared.is_empty() {
            table.spare(&spared).await?;
        }
        from += KEYS;
    }
    Ok(())
}

/// Keys of one answer: some megabytes.
const KEYS: u64 = 20_000;
