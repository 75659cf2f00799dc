//! Which database it is, whatever its address says: another one behind the same name is told from it.

use serde::{Deserialize, Serialize};

/// What a database says of itself. It is of this shape in a file, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseIdentity {
    /// Drawn when the database, or what Reseal keeps in it, was made. A copy has the same; `None` where it is not told, or not yet drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The number of the file that it is, where it is one: tells whether an id that is gone was lost in this very file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
}

impl DatabaseIdentity {
    /// Whether this is another database than the one that was `seen`. What is not told is not held against it.
    pub fn is_another_than(&self, seen: &Self) -> bool {
        match (&self.id, &seen.id) {
            (Some(id), Some(seen)) => id != seen,
            // The progress tables were dropped, and the id with them; or this file never had any.
            (None, Some(_)) => self.file.is_some() && seen.file.is_some() && self.file != seen.file,
            (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_told_is_compared() {
        let of = |id: Option<&str>, file| DatabaseIdentity {
            id: id.map(str::to_owned),
            file,
        };
        let (known, hidden) = (of(Some("a"), Some(1)), of(None, None));
        for (now, seen, is_another) in [
            (&known, &known, false),
            (&of(Some("a"), Some(2)), &known, false),
            (&of(Some("b"), Some(1)), &known, true),
            (&of(None, Some(1)), &known, false),
            (&of(None, Some(2)), &known, true),
            (&hidden, &known, false),
            (&of(Some("b"), None), &hidden, false),
            (&known, &of(None, Some(2)), false),
        ] {
            assert_eq!(now.is_another_than(seen), is_another, "{now:?} after {seen:?}");
        }
    }
}
