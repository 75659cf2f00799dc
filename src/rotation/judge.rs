//! What a value is: NULL, current, due, plaintext or unreadable. The one place that decides.
//!
//! A key id in the value selects exactly one key. Values that name no key are tried under the target first and then under the
//! sources; where the cipher does not commit to its key, a value that two keys accept is refused (SECURITY 1.7).

use std::fmt;

use crate::format::{
    Carried, Format, KeyHint, OpenError, TrialError, WORKING_ROOM, looks_sealed, make_room, open_exclusively, open_first,
};
use crate::key::KeyId;
use crate::store::page::Quarantined;
use crate::store::value::{Cell, Kind};

use super::keyed::{KeyedCipher, Trust};
use super::recipe::{ColumnRecipe, PlaintextPolicy};

/// What a value turned out to be. For `Current`, `Due` and `Plaintext` the plaintext stands at the end of the arena that was passed,
/// unless the judgement was by hint alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// SQL NULL.
    Null,
    /// Under the target key.
    Current,
    /// Under source number `source`: to be sealed anew.
    Due {
        /// Which source opened it.
        source: usize,
        /// What the format carries over.
        carried: Carried,
    },
    /// Not sealed, and to be sealed (`--plaintext seal`).
    DuePlaintext,
    /// Not sealed, and to be left (`--plaintext skip`).
    Plaintext,
    /// Not to be touched.
    Unreadable(Reason),
}

/// Why a value cannot be read. Stable texts: scripts compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The value names a key that is neither target nor source.
    UnknownKey(KeyId),
    /// The value names a key that was destroyed: nothing opens it any more.
    DestroyedKey(KeyId),
    /// It has the shape of the format and opens under no key.
    Opens(OpenError),
    /// It is not of the format at all.
    NotSealed,
    /// Two keys accept it.
    Ambiguous,
    /// It appeared under a compromised key after every writer was to have switched.
    MayBeForged,
    /// It is under a key that has leaked, and whose values had all been moved.
    UnderSpentKey(KeyId),
    /// A column that its associated data refers to is NULL.
    NullContext,
    /// Neither text nor bytes.
    WrongType,
    /// The value is text, and the new format writes bytes.
    NotText,
    /// Larger than the limit.
    TooLarge(u64),
    /// The new value would not fit into the column.
    DoesNotFit {
        /// What it would take.
        needs: usize,
        /// What the column holds.
        holds: u64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey(id) => write!(f, "sealed with key {id}, which is neither the old nor the new key"),
            Self::DestroyedKey(id) => write!(f, "sealed with key {id}, which was destroyed: nothing opens it any more"),
            Self::Opens(error) => write!(f, "{error}"),
            Self::NotSealed => f.write_str("not a sealed value: plaintext, or another format"),
            Self::Ambiguous => f.write_str("opens under two different keys: forged, or a key is listed twice"),
            Self::MayBeForged => {
                f.write_str("appeared under the compromised key after the ranges were worked through: it may be forged")
            }
            Self::UnderSpentKey(id) => write!(
                f,
                "sealed with key {id}, which has leaked and under which nothing was left: it may be forged"
            ),
            Self::NullContext => f.write_str("a column that its associated data refers to is NULL"),
            Self::WrongType => f.write_str("neither text nor bytes"),
            Self::NotText => f.write_str("stored as text, and its new form is bytes"),
            Self::TooLarge(bytes) => write!(f, "{bytes} bytes: larger than the limit for one value"),
            Self::DoesNotFit { needs, holds } => write!(f, "its new form takes {needs} bytes, the column holds {holds}"),
        }
    }
}

impl Reason {
    /// Whether an entry of the quarantine was made for this reason.
    pub fn is(self, entry: &Quarantined) -> bool {
        entry.reason == self.to_string()
    }
}

/// How sure a judgement must be that a value is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// A key id in the value is believed when it names the target: the verification opens the value later.
    Hint,
    /// Every value is opened.
    Open,
}

/// Judges one value. `plain` grows by the plaintext where there is one; on `Unreadable` it is as it was.
pub fn judge(
    column: &ColumnRecipe,
    policy: PlaintextPolicy,
    cell: Cell<'_>,
    associated_data: &[u8],
    depth: Depth,
    plain: &mut Vec<u8>,
) -> Verdict {
    let start = plain.len();
    let mut verdict = decide(column, policy, cell, associated_data, depth, plain);
    if let Verdict::Due { source, .. } = verdict
        && let KeyedCipher {
            trust: Trust::Spent,
            id: Some(id),
            ..
        } = column.sources[source]
    {
        verdict = Verdict::Unreadable(Reason::UnderSpentKey(id));
    }
    if matches!(verdict, Verdict::Unreadable(_)) {
        plain.truncate(start);
    }
    verdict
}

fn decide(
    column: &ColumnRecipe,
    policy: PlaintextPolicy,
    cell: Cell<'_>,
    associated_data: &[u8],
    depth: Depth,
    plain: &mut Vec<u8>,
) -> Verdict {
    let stored = match cell.kind {
        Kind::Null => return Verdict::Null,
        Kind::Text | Kind::Bytes => cell.bytes,
        Kind::Oversize => return Verdict::Unreadable(Reason::TooLarge(cell.oversize().unwrap_or(u64::MAX))),
        _ => return Verdict::Unreadable(Reason::WrongType),
    };
    // A plaintext arena that grew by itself would leave plaintexts in the memory that it gave up.
    make_room(plain, stored.len() + WORKING_ROOM);
    let one_format = column.from.name() == column.to.name();

    let target_hint = column.to.hint(stored);
    let as_target = match target_hint {
        KeyHint::Key(id) if Some(id) == column.target.id => {
            if depth == Depth::Hint {
                return Verdict::Current;
            }
            return match column.target.cipher.open(stored, associated_data, plain) {
                Ok(_) => Verdict::Current,
                Err(error) => Verdict::Unreadable(Reason::Opens(error)),
            };
        }
        KeyHint::Key(id) if one_format => return open_named(column, id, stored, associated_data, plain),
        KeyHint::Key(id) => Reason::UnknownKey(id),
        KeyHint::Unnamed => match column.target.cipher.open(stored, associated_data, plain) {
            Ok(_) if one_format && others_accept(column.to, &column.sources, stored, associated_data, plain) => {
                return Verdict::Unreadable(Reason::Ambiguous);
            }
            Ok(_) => return Verdict::Current,
            Err(error) => Reason::Opens(error),
        },
        KeyHint::UnknownVersion(version) => Reason::Opens(OpenError::UnknownVersion(version)),
        KeyHint::Foreign => Reason::NotSealed,
    };

    let as_source = match if one_format {
        column.to.hint(stored)
    } else {
        column.from.hint(stored)
    } {
        KeyHint::Key(id) => return open_named(column, id, stored, associated_data, plain),
        KeyHint::Unnamed => match open_tried(column, stored, associated_data, plain) {
            Ok(verdict) => return verdict,
            Err(reason) => reason,
        },
        KeyHint::UnknownVersion(version) => Reason::Opens(OpenError::UnknownVersion(version)),
        KeyHint::Foreign => Reason::NotSealed,
    };
    match (as_target, as_source) {
        (Reason::NotSealed, Reason::NotSealed) => match policy {
            PlaintextPolicy::Refuse => Verdict::Unreadable(Reason::NotSealed),
            PlaintextPolicy::Skip => Verdict::Plaintext,
            PlaintextPolicy::Seal => {
                plain.extend_from_slice(stored);
                Verdict::DuePlaintext
            }
        },
        (Reason::NotSealed, reason) | (reason, _) => Verdict::Unreadable(reason),
    }
}

/// Whose sealed value a plaintext is: the format's name, if it is one (B09).
pub fn nested_in(column: &ColumnRecipe, plaintext: &[u8]) -> Option<&'static str> {
    let names_our_key = |format: &'static dyn Format| match format.hint(plaintext) {
        KeyHint::Key(id) => column.sources.iter().chain([&column.target]).any(|key| key.id == Some(id)),
        _ => false,
    };
    let own = [column.to, column.from].into_iter().find(|format| names_our_key(*format));
    own.map(Format::name).or_else(|| looks_sealed(plaintext))
}

/// The value names its key: that key, and no other.
fn open_named(column: &ColumnRecipe, id: KeyId, stored: &[u8], associated_data: &[u8], plain: &mut Vec<u8>) -> Verdict {
    let Some(source) = column.sources.iter().position(|source| source.id == Some(id)) else {
        return Verdict::Unreadable(if column.destroyed.contains(&id) {
            Reason::DestroyedKey(id)
        } else {
            Reason::UnknownKey(id)
        });
    };
    match column.sources[source].cipher.open(stored, associated_data, plain) {
        Ok(carried) => Verdict::Due { source, carried },
        Err(error) => Verdict::Unreadable(Reason::Opens(error)),
    }
}

/// The value names no key: each source in turn.
fn open_tried(column: &ColumnRecipe, stored: &[u8], associated_data: &[u8], plain: &mut Vec<u8>) -> Result<Verdict, Reason> {
    let ciphers = column.sources.iter().map(|source| &*source.cipher);
    let opened = if column.from.is_committing() {
        open_first(ciphers, stored, associated_data, plain)
    } else {
        open_exclusively(ciphers, stored, associated_data, plain)
    };
    match opened {
        Ok((source, carried)) => Ok(Verdict::Due { source, carried }),
        Err(TrialError::Ambiguous(..)) => Err(Reason::Ambiguous),
        Err(TrialError::Unreadable(error)) => Err(Reason::Opens(error)),
        Err(TrialError::NoKey) => Err(Reason::Opens(OpenError::Authentication)),
    }
}

/// Whether another key accepts the value too, where the cipher leaves that possible.
fn others_accept(
    format: &dyn Format,
    others: &[KeyedCipher],
    stored: &[u8],
    associated_data: &[u8],
    plain: &mut Vec<u8>,
) -> bool {
    if format.is_committing() {
        return false;
    }
    let end = plain.len();
    let accepted = others
        .iter()
        .any(|other| other.cipher.open(stored, associated_data, plain).is_ok());
    plain.truncate(end);
    accepted
}
