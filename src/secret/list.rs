//! Lists of values in one variable: `a,b` or `["a","b"]`.

use zeroize::{Zeroize, Zeroizing};

use super::SecretText;
use super::settings::ListForm;

/// The values of a list, wiped when dropped.
pub(super) struct Values(Vec<Zeroizing<String>>);

impl Values {
    /// Reads a list. An empty text is an empty list; `None` when it is not written in this form.
    pub(super) fn read(text: &str, form: ListForm) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self(Vec::new()));
        }
        let values = match form {
            ListForm::Comma => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.map(|part| Zeroizing::new(part.to_owned())).collect()
            }
            ListForm::Json => {
                let read: Vec<String> = serde_json::from_str(text).ok()?;
                read.into_iter().map(Zeroizing::new).collect()
            }
        };
        Some(Self(values))
    }

    /// No value.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// One value, or none.
    pub(super) fn of(value: Option<SecretText>) -> Self {
        Self(value.iter().map(|value| Zeroizing::new(value.expose().to_owned())).collect())
    }

    /// Where the first value is for which this holds.
    pub(super) fn position(&self, is_meant: impl Fn(&str) -> bool) -> Option<usize> {
        self.0.iter().position(|value| is_meant(value))
    }

    /// Takes a value out.
    pub(super) fn take(&mut self, at: usize) -> Option<SecretText> {
        (at < self.0.len()).then(|| SecretText::from(self.0.remove(at)))
    }

    /// Takes the newest out.
    pub(super) fn take_first(&mut self) -> Option<SecretText> {
        self.take(0)
    }

    /// Puts a value in front, once, and drops what is beyond `keep`.
    pub(super) fn push_front(&mut self, value: &str, keep: Option<usize>) {
        self.0.retain(|present| present.as_str() != value);
        self.0.insert(0, Zeroizing::new(value.to_owned()));
        self.0.truncate(keep.unwrap_or(usize::MAX));
    }

    /// The newest.
    pub(super) fn first(&self) -> Option<SecretText> {
        self.0.first().map(|value| SecretText::from(value.clone()))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The list as text; `None` when a value cannot stand in this form.
    pub(super) fn write(&self, form: ListForm) -> Option<Zeroizing<String>> {
        match form {
            ListForm::Comma => {
                if self
                    .0
                    .iter()
                    .any(|value| value.contains(',') || value.trim() != value.as_str())
                {
                    return None;
                }
                let mut text = Zeroizing::new(String::with_capacity(self.0.iter().map(|value| value.len() + 1).sum()));
                for (at, value) in self.0.iter().enumerate() {
                    text.push_str(if at > 0 { "," } else { "" });
                    text.push_str(value);
                }
                Some(text)
            }
            ListForm::Json => {
                let mut plain: Vec<String> = self.0.iter().map(|value| value.as_str().to_owned()).collect();
                let text = serde_json::to_string(&plain).ok().map(Zeroizing::new);
                plain.zeroize();
                text
            }
        }
    }
}
