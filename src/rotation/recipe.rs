//! What to do with each column: formats joined with keys, associated data, and what counts as plaintext.

use std::path::PathBuf;

use ring::digest;

use super::judge::Reason;
use super::keyed::{KeyedCipher, NamedKey, Trust};
use crate::format::{AssociatedData, Format, TemplateError, UnfitKey};
use crate::key::{Fingerprint, KeyId, SealMeter};
use crate::store::control::PlanIdentity;
use crate::store::survey::{Column, Survey, Target};

/// What to do with values that are not sealed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlaintextPolicy {
    /// Quarantine them.
    #[default]
    Refuse,
    /// Seal them.
    Seal,
    /// Leave them, and do not count them as unfinished.
    Skip,
}

/// One encrypted column, as asked for.
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// How its values look now.
    pub from: &'static dyn Format,
    /// How they shall look.
    pub to: &'static dyn Format,
    /// The template of each value's associated data.
    pub associated_data: Option<String>,
}

/// One encrypted column, ready to work on.
pub struct ColumnRecipe {
    /// Its name.
    pub name: String,
    /// How its values look now.
    pub from: &'static dyn Format,
    /// How they shall look.
    pub to: &'static dyn Format,
    /// The template of each value's associated data, as given.
    pub template: Option<String>,
    /// The same, knowing where its columns stand in a row. Filled in from the survey.
    pub associated_data: Option<BoundTemplate>,
    /// The target.
    pub target: KeyedCipher,
    /// The sources, in the order in which they are tried.
    pub sources: Vec<KeyedCipher>,
    /// The most bytes that the column holds, if limited. Filled in from the survey.
    pub max_len: Option<u64>,
    /// Ids of keys that are no more, so that their values are told from those of strangers.
    pub destroyed: Vec<KeyId>,
}

/// Associated data whose columns are known positions of a row.
pub struct BoundTemplate {
    /// Renders it.
    pub data: AssociatedData,
    /// For each of its columns.
    pub positions: Vec<Position>,
}

/// Where a column of a template stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// A part of the primary key.
    Key(usize),
    /// A context column.
    Context(usize),
}

/// Everything about the values: no database in it.
pub struct Recipe {
    /// The columns, in the order of the target.
    pub columns: Vec<ColumnRecipe>,
    /// What plaintext gets.
    pub plaintext: PlaintextPolicy,
    /// The target key's name.
    pub target_label: String,
    /// The source keys' names.
    pub source_labels: Vec<String>,
    /// Whether a value without a time of its own (`--to-format fernet`) gets this one: seconds since 1970.
    pub now_seconds: u64,
    /// Counts what the target key seals, where that is kept.
    pub seals: Option<SealMeter>,
    fingerprints: (Vec<Fingerprint>, Fingerprint),
    texts: Vec<String>,
}

/// Why no recipe can be made of the keys and formats.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// A key does not fit the format of a column.
    #[error("column {column}: {cause}")]
    Unfit {
        /// The column.
        column: String,
        /// Why.
        cause: UnfitKey,
    },
    /// Nothing would change.
    #[error("the old and the new key are the same (fingerprint {0}), and so are the formats: nothing to rotate")]
    SameKey(Fingerprint),
    /// A template of associated data is not one.
    #[error("column {column}: --aad: {cause}")]
    Template {
        /// The column.
        column: String,
        /// Why.
        cause: TemplateError,
    },
    /// A template names a column that the table does not have.
    #[error("column {column}: --aad names {missing}, which the table does not have")]
    TemplateColumn {
        /// The encrypted column.
        column: String,
        /// What the template names.
        missing: String,
    },
    /// A template names a column that this very rotation rewrites.
    #[error(
        "column {column}: --aad names {named}, which is rewritten together with it: what is bound to the old value of {named} would not open beside the new one"
    )]
    TemplateRewritten {
        /// The encrypted column.
        column: String,
        /// The other one, or itself.
        named: String,
    },
    /// Associated data was given for a format that has none.
    #[error("column {column}: --aad was given, and {format} authenticates no associated data")]
    NoAssociatedData {
        /// The column.
        column: String,
        /// The format.
        format: &'static str,
    },
    /// No column was named.
    #[error("no column was named: a rotation of nothing would succeed and mean nothing")]
    NoColumns,
}

impl Recipe {
    /// Joins columns with keys. `from` may be empty for a verification that only asks for the target.
    pub fn new(
        specs: Vec<ColumnSpec>,
        from: &[NamedKey],
        to: &NamedKey,
        plaintext: PlaintextPolicy,
        now_seconds: u64,
    ) -> Result<Self, RecipeError> {
        if specs.is_empty() {
            return Err(RecipeError::NoColumns);
        }
        let to_print = Fingerprint::of(&to.material);
        let from_prints: Vec<Fingerprint> = from.iter().map(|key| Fingerprint::of(&key.material)).collect();
        for (key, print) in from.iter().zip(&from_prints) {
            let same_format = specs.iter().any(|spec| spec.from.name() == spec.to.name());
            if *print == to_print && key.id == to.id && same_format {
                return Err(RecipeError::SameKey(*print));
            }
        }
        let mut texts = Vec::new();
        let mut columns = Vec::new();
        for spec in specs {
            texts.push(format!(
                "{}:{}>{}:{}",
                spec.name,
                spec.from.name(),
                spec.to.name(),
                spec.associated_data.as_deref().unwrap_or("")
            ));
            let unfit = |cause| RecipeError::Unfit {
                column: spec.name.clone(),
                cause,
            };
            if let Some(format) = [spec.from, spec.to]
                .into_iter()
                .find(|format| !format.binds_associated_data())
                && spec.associated_data.is_some()
            {
                return Err(RecipeError::NoAssociatedData {
                    column: spec.name,
                    format: format.name(),
                });
            }
            let target = KeyedCipher::join(spec.to, to).map_err(unfit)?;
            let sources = from
                .iter()
                .map(|key| KeyedCipher::join(spec.from, key))
                .collect::<Result<_, _>>()
                .map_err(unfit)?;
            columns.push(ColumnRecipe {
                name: spec.name,
                from: spec.from,
                to: spec.to,
                template: spec.associated_data,
                associated_data: None,
                target,
                sources,
                max_len: None,
                destroyed: Vec::new(),
            });
        }
        Ok(Self {
            columns,
            plaintext,
            target_label: to.label.clone(),
            source_labels: from.iter().map(|key| key.label.clone()).collect(),
            now_seconds,
            seals: None,
            fingerprints: (from_prints, to_print),
            texts,
        })
    }

    /// Counts what the target key seals in the file at `path`, where one of the formats limits it.
    #[must_use]
    pub fn with_seals_counted(mut self, path: PathBuf) -> Self {
        let max = self.columns.iter().map(|column| column.to.values_per_key_max()).min();
        self.seals = max
            .filter(|max| *max < u64::MAX)
            .map(|max| SealMeter::new(path, self.fingerprints.1, max));
        self
    }

    /// Names the keys that were destroyed.
    #[must_use]
    pub fn with_destroyed(mut self, ids: &[KeyId]) -> Self {
        for column in &mut self.columns {
            column.destroyed = ids.to_vec();
        }
        self
    }

    /// Says of sources how far they are to be believed; of the others, whatever is under them is moved.
    #[must_use]
    pub fn with_trust(mut self, trust: &[(KeyId, Trust)]) -> Self {
        for source in self.columns.iter_mut().flat_map(|column| &mut column.sources) {
            let said = trust.iter().find(|(id, _)| source.id == Some(*id));
            source.trust = said.map_or(Trust::Full, |(_, trust)| *trust);
        }
        self
    }

    /// Whether something may be under a source that somebody else has sealed.
    pub fn distrusts(&self) -> bool {
        let mut sources = self.columns.iter().flat_map(|column| &column.sources);
        sources.any(|source| source.trust != Trust::Full)
    }

    /// Columns that associated data refers to beside the primary key, each once.
    pub fn context_columns(&self, survey: &Survey) -> Result<Vec<String>, RecipeError> {
        let mut names: Vec<String> = Vec::new();
        for column in &self.columns {
            let Some(data) = column.parse_template(survey)? else {
                continue;
            };
            for name in data.columns() {
                if position(&survey.key, name).is_none() && !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        Ok(names)
    }

    /// Tells every column where it stands in the surveyed table.
    pub fn bind(&mut self, survey: &Survey) -> Result<(), RecipeError> {
        for (column, value) in self.columns.iter_mut().zip(&survey.values) {
            column.name.clone_from(&value.name);
            column.max_len = value.max_len;
            let Some(data) = column.parse_template(survey)? else {
                continue;
            };
            let rewritten = |name: &&String| position(&survey.values, name).is_some();
            if let Some(named) = data.columns().iter().find(rewritten) {
                return Err(RecipeError::TemplateRewritten {
                    column: column.name.clone(),
                    named: named.clone(),
                });
            }
            let positions = data
                .columns()
                .iter()
                .map(|name| {
                    let key = position(&survey.key, name).map(Position::Key);
                    key.or_else(|| position(&survey.contexts, name).map(Position::Context))
                        .ok_or_else(|| RecipeError::TemplateColumn {
                            column: column.name.clone(),
                            missing: name.escape_debug().to_string(),
                        })
                })
                .collect::<Result<_, _>>()?;
            column.associated_data = Some(BoundTemplate { data, positions });
        }
        Ok(())
    }

    /// What makes this rotation the one that an earlier run began.
    pub fn identity(&self, table: &str, target: &Target) -> PlanIdentity {
        let mut from: Vec<String> = self.fingerprints.0.iter().map(ToString::to_string).collect();
        from.sort();
        let (from, to) = (from.join(","), self.fingerprints.1.to_string());
        let columns = self.texts.join("; ");
        let mut digest = digest::Context::new(&digest::SHA256);
        for part in [table, &columns, target.filter.as_deref().unwrap_or(""), &from, &to] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let id = digest.finish().as_ref()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        PlanIdentity {
            id,
            table: table.to_owned(),
            columns,
            from,
            to,
        }
    }
}

impl ColumnRecipe {
    /// Why a plaintext of this length cannot be sealed into the column.
    pub fn misfit(&self, plaintext_len: usize) -> Option<Reason> {
        let (needs, holds) = (self.to.sealed_len(plaintext_len), self.max_len?);
        (needs as u64 > holds).then_some(Reason::DoesNotFit { needs, holds })
    }

    fn parse_template(&self, survey: &Survey) -> Result<Option<AssociatedData>, RecipeError> {
        let key: Vec<&str> = survey.key.iter().map(|column| column.name.as_str()).collect();
        self.template
            .as_deref()
            .map(|template| AssociatedData::parse(template, &key))
            .transpose()
            .map_err(|cause| RecipeError::Template {
                column: self.name.clone(),
                cause,
            })
    }
}

/// The columns of a [`PlanIdentity`] for people: `email (fernet), note (aes-gcm to tink)`. What it does not understand stays as it is.
pub fn columns_for_people(recorded: &str) -> String {
    let describe = |text: &str| {
        let (left, right) = text.split_once('>')?;
        let ((name, from), (to, _)) = (left.rsplit_once(':')?, right.split_once(':')?);
        Some(match from == to {
            true => format!("{name} ({from})"),
            false => format!("{name} ({from} to {to})"),
        })
    };
    let columns = recorded
        .split("; ")
        .map(|text| describe(text).unwrap_or_else(|| text.to_owned()));
    columns.collect::<Vec<_>>().join(", ")
}

fn position(columns: &[Column], name: &str) -> Option<usize> {
    let exact = columns.iter().position(|column| column.name == name);
    exact.or_else(|| columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_columns_are_told_as_people_read_them() {
        let told = |recorded| columns_for_people(recorded);
        assert_eq!(told("email:fernet>fernet:"), "email (fernet)");
        assert_eq!(
            told("a:b:tink>tink:t.a:{id}; note:aes-gcm>tink:t.note:{id}"),
            "a:b (tink), note (aes-gcm to tink)"
        );
        assert_eq!(told("of another version"), "of another version");
    }
}
