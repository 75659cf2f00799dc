//! The text of an application's secret: wiped when dropped, never shown.

use zeroize::Zeroizing;

/// A secret as an application reads it. No `Debug`, no `Clone`; [`expose`](Self::expose) is the one way to the text.
pub struct SecretText {
    text: Zeroizing<String>,
}

impl SecretText {
    /// Takes the text. Buffers that it was copied from are the caller's to wipe.
    pub fn new(text: String) -> Self {
        Self {
            text: Zeroizing::new(text),
        }
    }

    /// The text itself. Every call site is a place to review.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl From<Zeroizing<String>> for SecretText {
    fn from(text: Zeroizing<String>) -> Self {
        Self { text }
    }
}
