//! What to do with each column: formats joined with keys, associated data, and what counts as plaintext.

use ring::digest;

use crate::format::associated::Template;
use crate::format::{Cipher, Format, UnfitKey};
use crate::key::{Fingerprint, KeyId, KeyMaterial};
use crate::store::control::PlanIdentity;
use crate::store::survey::Target;

/// A key with the name that reports give it.
pub struct NamedKey {
    /// `customer-data@2771811438` for a key of a keyring, otherwise its fingerprint.
    pub label: String,
    /// Its id in a keyset, if it has one.
    pub id: Option<KeyId>,
    /// Its bytes.
    pub material: KeyMaterial,
}

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
    /// Associated data of each value.
    pub associated_data: Option<Template>,
}

/// One encrypted column, ready to work on.
pub struct ColumnRecipe {
    /// Its name.
    pub name: String,
    /// How its values look now.
    pub from: &'static dyn Format,
    /// How they shall look.
    pub to: &'static dyn Format,
    /// Associated data of each value, and where each column of it stands in the row.
    pub associated_data: Option<BoundTemplate>,
    /// The target.
    pub target: KeyedCipher,
    /// The sources, in the order in which they are tried.
    pub sources: Vec<KeyedCipher>,
    /// The most bytes that the column holds, if limited. Filled in from the survey.
    pub max_len: Option<u64>,
}

/// A cipher with its key's names.
pub struct KeyedCipher {
    /// For reports.
    pub label: String,
    /// In ciphertexts.
    pub id: Option<KeyId>,
    /// Opens and seals.
    pub cipher: Box<dyn Cipher>,
}

/// A template whose columns are known positions of a row: keys first, then contexts.
pub struct BoundTemplate {
    /// The template.
    pub template: Template,
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
                spec.associated_data.as_ref().map_or("", Template::source)
            ));
            let unfit = |cause| RecipeError::Unfit {
                column: spec.name.clone(),
                cause,
            };
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
                associated_data: spec.associated_data.map(|template| BoundTemplate {
                    positions: Vec::new(),
                    template,
                }),
                target,
                sources,
                max_len: None,
            });
        }
        Ok(Self {
            columns,
            plaintext,
            target_label: to.label.clone(),
            source_labels: from.iter().map(|key| key.label.clone()).collect(),
            now_seconds,
            fingerprints: (from_prints, to_print),
            texts,
        })
    }

    /// Columns that associated data refers to, each once; the store decides which of them are key columns.
    pub fn template_columns(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for template in self.columns.iter().filter_map(|column| column.associated_data.as_ref()) {
            for name in template.template.columns() {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
        names
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
        let id = digest.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        PlanIdentity {
            id,
            table: table.to_owned(),
            columns,
            from,
            to,
        }
    }
}

impl KeyedCipher {
    fn join(format: &'static dyn Format, key: &NamedKey) -> Result<Self, UnfitKey> {
        Ok(Self {
            label: key.label.clone(),
            id: key.id,
            cipher: format.cipher(&key.material, key.id)?,
        })
    }
}
