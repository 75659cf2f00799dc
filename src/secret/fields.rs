//! What env files and manifests have in common: named values in a text of which everything else stays as it is.

use zeroize::Zeroizing;

use super::SecretText;

/// A text with named values. Whatever is not the value of a name that was put stays byte for byte.
pub trait Fields {
    /// The value of a name; `None` when the name does not occur.
    fn value(&self, name: &str) -> Result<Option<SecretText>, FieldError>;

    /// Gives a name a value: in its place, or, when the name does not occur, directly after `after`, which must occur.
    fn put(&mut self, name: &str, value: &str, after: &str) -> Result<(), FieldError>;

    /// Whether a name occurs, exactly once.
    fn has(&self, name: &str) -> Result<bool, FieldError>;

    /// The whole text.
    fn text(&self) -> &[u8];
}

/// Why a value is not read or written. Names, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// It does not occur.
    #[error("{0} does not occur in it")]
    Missing(String),
    /// Which one is read depends on the reader.
    #[error("{0} occurs more than once in it; which one counts depends on who reads it")]
    Twice(String),
    /// Readers disagree about what is written there.
    #[error("programs disagree about the present value of {name} ({why})")]
    Ambiguous {
        /// The name.
        name: String,
        /// What they disagree about.
        why: &'static str,
    },
    /// No way of writing it is read alike by all readers.
    #[error("the value of {0} holds characters that programs read differently, however it is quoted")]
    Unwritable(String),
    /// Not a text of this form, or in a notation that is not edited.
    #[error("{0}")]
    Shape(&'static str),
}

/// Replaces a range of a secret buffer without leaving copies behind.
pub(super) fn splice(text: &mut Zeroizing<Vec<u8>>, range: std::ops::Range<usize>, with: &[u8]) {
    let mut spliced = Zeroizing::new(Vec::with_capacity(text.len() - range.len() + with.len()));
    spliced.extend_from_slice(&text[..range.start]);
    spliced.extend_from_slice(with);
    spliced.extend_from_slice(&text[range.end..]);
    *text = spliced;
}
