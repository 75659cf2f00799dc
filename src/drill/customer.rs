//! The records of a rehearsal: invented customers, and how the application keeps them in encrypted columns.

use std::fmt;

use rand::rngs::ChaCha20Rng;
use rand::{RngExt as _, seq::IndexedRandom as _};
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::app::{HandleError, Keyring, KeysetHandle, OpenError, SealError};
use crate::format::{AssociatedData, Component, Format, UnknownFormat, by_name, tag};

/// A customer, as the application sees one.
#[derive(Clone, PartialEq, Eq)]
pub struct Customer {
    /// Full name.
    pub name: String,
    /// Address.
    pub email: String,
    /// What the staff wrote, if anything.
    pub notes: Option<String>,
    /// Kept in the clear.
    pub tier: String,
}

/// A customer, as the table holds one.
pub struct Row {
    /// Sealed, text.
    pub name: String,
    /// Sealed, bytes.
    pub email: Vec<u8>,
    /// Sealed, bytes, or NULL.
    pub notes: Option<Vec<u8>>,
    /// In the clear.
    pub tier: String,
}

/// What a record holds, as a digest: the model keeps these and no plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Content([u8; 16]);

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An encrypted column of the table.
pub struct SealedColumn {
    /// Its name.
    pub name: &'static str,
    /// The name of its format.
    pub format: &'static str,
    /// The template of its associated data.
    pub template: &'static str,
}

/// The encrypted columns, in the order of the table: two formats, and both kinds of template.
pub const COLUMNS: [SealedColumn; 3] = [
    SealedColumn {
        name: "name",
        format: "aes-gcm-base64",
        template: "customers.name:{id}",
    },
    SealedColumn {
        name: "email",
        format: "tink",
        template: "customers.email:{id}",
    },
    SealedColumn {
        name: "notes",
        format: "tink",
        template: "auto:customers.notes",
    },
];

impl SealedColumn {
    /// The format itself.
    pub fn format(&self) -> Result<&'static dyn Format, UnknownFormat> {
        by_name(self.format)
    }

    /// The associated data of this column's value in the row `id`.
    pub fn place(&self, id: i64) -> Vec<u8> {
        let text = id.to_string();
        let component = |_| Component {
            tag: tag::INTEGER,
            bytes: text.as_bytes(),
        };
        let mut place = Vec::new();
        if let Ok(template) = AssociatedData::parse(self.template, &["id"]) {
            // An id is never NULL.
            let _ = template.render(component, &mut place);
        }
        place
    }
}

impl Customer {
    /// Invents one: short and long names, every fourth without notes, a few with pages of them.
    pub fn invent(rng: &mut ChaCha20Rng) -> Self {
        let (first, last) = (pick(FIRST, rng), pick(LAST, rng));
        let name = match rng.random_range(0..8) {
            0 => format!("{first} {} {last}-{}", pick(FIRST, rng), pick(LAST, rng)),
            _ => format!("{first} {last}"),
        };
        let number: u32 = rng.random_range(1..100_000);
        Self {
            name,
            email: format!("{}.{}{number}@{}", ascii(first), ascii(last), pick(HOSTS, rng)),
            notes: Self::invent_notes(rng),
            tier: pick(TIERS, rng).to_owned(),
        }
    }

    /// Invents what the staff wrote.
    pub fn invent_notes(rng: &mut ChaCha20Rng) -> Option<String> {
        let sentences = match rng.random_range(0..100) {
            0..25 => return None,
            25..30 => 0,
            30..85 => rng.random_range(1..4),
            85..99 => rng.random_range(4..12),
            _ => rng.random_range(12..60),
        };
        let notes: Vec<&str> = (0..sentences).map(|_| pick(NOTES, rng)).collect();
        Some(notes.join(" "))
    }

    /// What it holds.
    pub fn content(&self) -> Content {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [Some(&self.name), Some(&self.email), self.notes.as_ref(), Some(&self.tier)] {
            // Lengths set neighbouring parts apart, and NULL apart from every length.
            let length = part.map_or(u64::MAX, |text| text.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(part.map_or(b"", |text| text.as_bytes()));
        }
        let mut content = [0; 16];
        content.copy_from_slice(&context.finish().as_ref()[..16]);
        Content(content)
    }
}

/// The application's code around its columns: one handle each.
pub struct Cabinet {
    name: KeysetHandle,
    email: KeysetHandle,
    notes: KeysetHandle,
}

/// Why an application has no access to its columns.
#[derive(Debug, thiserror::Error)]
pub enum CabinetError {
    /// A format of the table is unknown.
    #[error(transparent)]
    Format(#[from] UnknownFormat),
    /// The keyring does not serve it.
    #[error(transparent)]
    Handle(#[from] HandleError),
}

impl Cabinet {
    /// Handles for all columns.
    pub fn new(keyring: &Keyring, keyset: &str) -> Result<Self, CabinetError> {
        let [name, email, notes] = &COLUMNS;
        Ok(Self {
            name: keyring.keyset_in(keyset, name.format()?)?,
            email: keyring.keyset_in(keyset, email.format()?)?,
            notes: keyring.keyset_in(keyset, notes.format()?)?,
        })
    }

    /// The keyset revision that everything sealed from now on uses, or a newer one.
    pub fn revision(&self) -> u64 {
        let handles = [&self.name, &self.email, &self.notes];
        handles.into_iter().map(KeysetHandle::revision).min().unwrap_or(0)
    }

    /// Seals a record for the row `id`.
    pub fn seal(&self, id: i64, customer: &Customer) -> Result<Row, SealError> {
        let [name, email, _] = &COLUMNS;
        let sealed_name = self.name.seal(customer.name.as_bytes(), &name.place(id))?;
        Ok(Row {
            // The format's text form is ASCII.
            name: String::from_utf8_lossy(&sealed_name).into_owned(),
            email: self.email.seal(customer.email.as_bytes(), &email.place(id))?,
            notes: self.seal_notes(id, customer.notes.as_deref())?,
            tier: customer.tier.clone(),
        })
    }

    /// Seals notes alone.
    pub fn seal_notes(&self, id: i64, notes: Option<&str>) -> Result<Option<Vec<u8>>, SealError> {
        let [_, _, column] = &COLUMNS;
        notes
            .map(|notes| self.notes.seal(notes.as_bytes(), &column.place(id)))
            .transpose()
    }

    /// Opens the row `id`.
    pub fn open(&self, id: i64, row: &Row) -> Result<Customer, OpenError> {
        let [name, email, notes] = &COLUMNS;
        let text = |opened: &[u8]| String::from_utf8_lossy(opened).into_owned();
        // First the one that names its key: where a key is missing, its error says which.
        let opened_email = self.email.open(&row.email, &email.place(id))?;
        Ok(Customer {
            name: text(&self.name.open(row.name.as_bytes(), &name.place(id))?),
            email: text(&opened_email),
            notes: match &row.notes {
                Some(stored) => Some(text(&self.notes.open(stored, &notes.place(id))?)),
                None => None,
            },
            tier: row.tier.clone(),
        })
    }
}

fn pick<'a>(from: &[&'a str], rng: &mut ChaCha20Rng) -> &'a str {
    from.choose(rng).copied().unwrap_or_default()
}

/// A mailbox name has no accents.
fn ascii(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

const FIRST: &[&str] = &[
    "Ada", "Bo", "Chidi", "Dolores", "Émile", "Fatima", "Grzegorz", "Hana", "Ingrid", "João", "Kwame", "Li", "Mária", "Noor",
    "Olu", "Priya", "Quentin", "Rosa", "Søren", "Thuy", "Uma", "Vasilisa", "Wei", "Ximena", "Yusuf", "Zoë",
];
const LAST: &[&str] = &[
    "Adeyemi",
    "Bianchi",
    "Castillo",
    "Dubois",
    "Eriksen",
    "Fernández",
    "García",
    "Haddad",
    "Ivanova",
    "Jensen",
    "Kowalczyk",
    "Lindqvist",
    "Müller",
    "Nguyen",
    "O'Brien",
    "Petrov",
    "Quispe",
    "Rossi",
    "Schmidt",
    "Tanaka",
    "Ueda",
    "Vargas",
    "Wójcik",
    "Xu",
    "Yılmaz",
    "Zhang",
];
const HOSTS: &[&str] = &["example.org", "example.com", "mail.example.net", "post.example.edu"];
const TIERS: &[&str] = &["free", "plus", "business", "enterprise"];
const NOTES: &[&str] = &[
    "Prefers to be called in the afternoon.",
    "Asked for an invoice with VAT id.",
    "Moved house; parcel went to the old address.",
    "Möchte Rechnungen auf Papier.",
    "Refund approved, see the attached form.",
    "Verified by phone.",
    "Needs an accessible entrance at the venue.",
    "お客様は日本語での対応を希望しています。",
    "Do not call on Fridays.",
];
