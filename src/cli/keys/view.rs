//! Keysets as people and programs see them: ids, states, times, fingerprints. Never key material.

use std::path::Path;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::sealed::{Sealed, Tallies};
use crate::cli::{CliError, Context};
use crate::key::{Key, KeyId, KeyState, Keyring, Keyset, Origin};

/// The document of every `keys` command.
#[derive(Serialize)]
struct KeysDocument<'a> {
    command: &'static str,
    keyring: String,
    generation: u64,
    /// The key that the command made or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyId>,
    keysets: Vec<KeysetView<'a>>,
}

#[derive(Serialize)]
struct KeysetView<'a> {
    name: &'a str,
    revision: u64,
    primary: KeyId,
    keys: Vec<KeyView>,
}

#[derive(Serialize)]
struct KeyView {
    id: KeyId,
    algorithm: &'static str,
    state: &'static str,
    seals: bool,
    opens: bool,
    fingerprint: Option<String>,
    origin: &'static str,
    created_at: Option<Timestamp>,
    retired_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seals_counted: Option<Sealed>,
    transitions: Vec<TransitionView>,
}

#[derive(Serialize)]
struct TransitionView {
    state: &'static str,
    retired: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    offered: bool,
    at: Timestamp,
}

/// Prints the document for programs: all keysets, or the one that the command was about.
pub(super) fn document<'a>(
    context: &mut Context<'_>,
    command: &'static str,
    path: &Path,
    keyring: &'a Keyring,
    keysets: impl IntoIterator<Item = &'a Keyset>,
    key: Option<KeyId>,
) -> Result<(), CliError> {
    counted_document(context, command, path, keyring, keysets, key, None)
}

/// [`document`], with what was counted of each key's seals.
pub(super) fn counted_document<'a>(
    context: &mut Context<'_>,
    command: &'static str,
    path: &Path,
    keyring: &'a Keyring,
    keysets: impl IntoIterator<Item = &'a Keyset>,
    key: Option<KeyId>,
    tallies: Option<&Tallies>,
) -> Result<(), CliError> {
    let document = KeysDocument {
        command,
        keyring: path.display().to_string(),
        generation: keyring.generation(),
        key,
        keysets: keysets.into_iter().map(|keyset| KeysetView::of(keyset, tallies)).collect(),
    };
    context.output.document("reseal.keys/1", &document)
}

/// A keyset as a table.
pub(super) fn table(keyset: &Keyset) -> String {
    counted_table(keyset, None)
}

/// [`table`], with how many values each key has sealed.
pub(super) fn counted_table(keyset: &Keyset, tallies: Option<&Tallies>) -> String {
    let mut table = Table::new();
    let mut header = vec!["  KEY", "STATE", "ALGORITHM", "FINGERPRINT", "ORIGIN", "SINCE"];
    header.extend(tallies.map(|_| "SEALED"));
    table.load_style(presets::NOTHING).set_header(header);
    for key in keyset.keys() {
        let since = key.transitions().last().map(|last| last.at);
        let sealed = tallies.map(|tallies| tallies.of(key).and_then(|sealed| sealed.counted));
        let mut row = vec![
            format!("  {}", key.id()),
            if key.retired_at().is_some() {
                format!("{}, retired", key.state())
            } else {
                key.state().to_string()
            },
            key.algorithm().to_string(),
            key.fingerprint()
                .map_or("-".to_owned(), |fingerprint| fingerprint.to_string()),
            origin(key).to_owned(),
            since.map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()),
        ];
        row.extend(sealed.map(|counted| counted.map_or("-".to_owned(), |counted| counted.to_string())));
        table.add_row(row);
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{} (revision {})\n{}", keyset.name(), keyset.revision(), lines.join("\n"))
}

impl<'a> KeysetView<'a> {
    fn of(keyset: &'a Keyset, tallies: Option<&Tallies>) -> Self {
        Self {
            name: keyset.name().as_str(),
            revision: keyset.revision(),
            primary: keyset.primary().id(),
            keys: keyset.keys().iter().map(|key| KeyView::of(key, tallies)).collect(),
        }
    }
}

impl KeyView {
    fn of(key: &Key, tallies: Option<&Tallies>) -> Self {
        let state: KeyState = key.state();
        let transitions = key.transitions().iter();
        Self {
            id: key.id(),
            algorithm: key.algorithm().as_str(),
            state: state.as_str(),
            seals: state.seals(),
            opens: key.is_offered(),
            fingerprint: key.fingerprint().map(|fingerprint| fingerprint.to_string()),
            origin: origin(key),
            created_at: key.transitions().first().map(|first| first.at),
            retired_at: key.retired_at(),
            seals_counted: tallies.and_then(|tallies| tallies.of(key)),
            transitions: transitions
                .map(|t| TransitionView {
                    state: t.state.as_str(),
                    retired: t.retired,
                    offered: t.offered,
                    at: t.at,
                })
                .collect(),
        }
    }
}

fn origin(key: &Key) -> &'static str {
    match key.origin() {
        Origin::Generated => "generated",
        Origin::Imported => "imported",
    }
}
