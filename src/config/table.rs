//! One table of `reseal.toml`, taken apart key by key. What is left over in the end is an unknown key.
//!
//! Errors name keys, never values: a value may be a secret in the wrong place.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use toml::{Table, Value};

use super::file::ConfigFault;
use super::looks_secret;

/// A table under a name like `secret.SECRET_KEY`.
pub(super) struct Section<'f> {
    name: String,
    table: Table,
    known: Vec<&'static str>,
    folder: &'f Path,
}

impl<'f> Section<'f> {
    pub(super) fn new(name: impl Into<String>, table: Table, folder: &'f Path) -> Self {
        Self {
            name: name.into(),
            table,
            known: Vec::new(),
            folder,
        }
    }

    /// `section.key`, for errors.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    /// An error about one of the keys.
    pub(super) fn wrong(&self, key: &str, why: impl Into<String>) -> ConfigFault {
        ConfigFault::Value {
            key: self.path(key),
            why: why.into(),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, ConfigFault> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let Value::String(text) = value else {
            return Err(self.wrong(key, "is not a text"));
        };
        if looks_secret(&text) {
            return Err(ConfigFault::LooksSecret { key: self.path(key) });
        }
        if text.contains('\0') {
            return Err(self.wrong(key, "holds a NUL character"));
        }
        Ok(Some(text))
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, key: &'static str) -> Result<String, ConfigFault> {
        self.text(key)?.ok_or_else(|| ConfigFault::Missing { key: self.path(key) })
    }

    /// Something that is written as a text. The error of the type must not repeat it.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &'static str) -> Result<Option<T>, ConfigFault> {
        // Not through `text`: a reference type says itself what is wrong with a secret.
        let Some(value) = self.take(key) else { return Ok(None) };
        let Value::String(text) = value else {
            return Err(self.wrong(key, "is not a text"));
        };
        let parsed = text.parse().map_err(|error: T::Err| self.wrong(key, error.to_string()));
        parsed.map(Some)
    }

    /// A path, relative to the folder of the configuration.
    pub(super) fn file(&mut self, key: &'static str) -> Result<Option<PathBuf>, ConfigFault> {
        let text = self.text(key)?;
        if text.as_deref() == Some("") {
            return Err(self.wrong(key, "is empty"));
        }
        Ok(text.map(|text| self.folder.join(text)))
    }

    /// A number from 0.
    pub(super) fn count(&mut self, key: &'static str) -> Result<Option<usize>, ConfigFault> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = value.as_integer().and_then(|number| usize::try_from(number).ok());
        number.map(Some).ok_or_else(|| self.wrong(key, "is not a number from 0"))
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, ConfigFault> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.wrong(key, "is not true or false"))
    }

    /// A time such as `90d` or `12h`; a day has 24 hours.
    pub(super) fn duration(&mut self, key: &'static str) -> Result<Option<SignedDuration>, ConfigFault> {
        match self.duration_or_none(key)? {
            Some(duration) if duration.is_zero() => Err(self.wrong(key, "is no time at all; write one such as 90d or 12h")),
            duration => Ok(duration),
        }
    }

    /// The same where no time at all makes sense, too: `0d`.
    pub(super) fn duration_or_none(&mut self, key: &'static str) -> Result<Option<SignedDuration>, ConfigFault> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let span: Option<Span> = text.parse().ok();
        let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        duration
            .filter(|duration| !duration.is_negative())
            .map(Some)
            .ok_or_else(|| self.wrong(key, "is not a time such as 90d or 12h"))
    }

    /// A table inside.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Option<Section<'f>>, ConfigFault> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Section::new(self.path(key), table, self.folder))),
            Some(_) => Err(self.wrong(key, "is not a table")),
        }
    }

    /// The named tables of `[key.NAME]`, by name.
    pub(super) fn sections(&mut self, key: &'static str) -> Result<Vec<(String, Section<'f>)>, ConfigFault> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let Value::Table(table) = value else {
            return Err(self.wrong(key, "is not a table of named tables"));
        };
        let mut sections = Vec::new();
        for (name, value) in table {
            let Value::Table(inner) = value else {
                return Err(ConfigFault::Value {
                    key: self.path(key),
                    why: format!("holds a value where a named table [{key}.NAME] belongs"),
                });
            };
            if !is_name(&name) || looks_secret(&name) {
                return Err(self.wrong(key, "has a name that is not made of letters, digits, '.', '_' and '-'"));
            }
            sections.push((name.clone(), Section::new(format!("{key}.{name}"), inner, self.folder)));
        }
        Ok(sections)
    }

    /// The tables of an array.
    pub(super) fn array(&mut self, key: &'static str) -> Result<Vec<Section<'f>>, ConfigFault> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let Value::Array(values) = value else {
            return Err(self.wrong(key, "is not a list of tables"));
        };
        let mut sections = Vec::new();
        for (at, value) in values.into_iter().enumerate() {
            let Value::Table(inner) = value else {
                return Err(self.wrong(key, "is not a list of tables"));
            };
            sections.push(Section::new(format!("{}[{at}]", self.path(key)), inner, self.folder));
        }
        Ok(sections)
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self) -> Result<(), ConfigFault> {
        let Some(unknown) = self.table.keys().next() else {
            return Ok(());
        };
        let nearest = self.known.iter().max_by(|one, other| {
            let (one, other) = (strsim::jaro_winkler(one, unknown), strsim::jaro_winkler(other, unknown));
            one.total_cmp(&other)
        });
        // A key is shown unless it may be a secret itself.
        let shown = if is_name(unknown) && !looks_secret(unknown) {
            self.path(unknown)
        } else {
            self.path("(not shown)")
        };
        Err(ConfigFault::Unknown {
            key: shown,
            nearest: nearest.map_or("", |nearest| nearest),
        })
    }
}

fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_plain)
}

/// As for keysets: fits a file name and a log line.
const NAME_BYTES_MAX: usize = 64;
