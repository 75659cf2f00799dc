//! Marks in a file: JSON, replaced whole and durably under a lock. Numbers and names, no secrets; anybody may read it.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{MarkOptions, MarkScope, Marked};
use crate::key::{Digest, Expected, Lock, Place, Uninterrupted};
use crate::secret::FileFault;
use crate::session::SessionError;

/// The marks of a file, and how they read: `{"schema": "reseal.not-before/1", "all": 0, "tenants": {…}, "users": {…}}`, in seconds
/// since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    schema: String,
    #[serde(default)]
    all: i64,
    #[serde(default)]
    tenants: BTreeMap<String, i64>,
    #[serde(default)]
    users: BTreeMap<String, i64>,
}

/// Why a file is none of marks.
#[derive(Debug, thiserror::Error)]
pub enum MarksFault {
    /// Not JSON, or other members than it should have.
    #[error("it is no file of not-before marks")]
    Malformed,
    /// A newer version's.
    #[error("its schema is not {MARK_FILE_SCHEMA}")]
    Schema,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            schema: MARK_FILE_SCHEMA.to_owned(),
            all: 0,
            tenants: BTreeMap::new(),
            users: BTreeMap::new(),
        }
    }
}

impl Marks {
    /// Reads the content of a file.
    pub fn parse(content: &[u8]) -> Result<Self, MarksFault> {
        let marks: Self = serde_json::from_slice(content).map_err(|_| MarksFault::Malformed)?;
        if marks.schema == MARK_FILE_SCHEMA {
            Ok(marks)
        } else {
            Err(MarksFault::Schema)
        }
    }

    /// The mark for a token of this tenant and user: the highest of all that concern it.
    pub fn not_before(&self, tenant: Option<&str>, user: Option<&str>) -> i64 {
        let of = |marks: &BTreeMap<String, i64>, name: Option<&str>| name.and_then(|name| marks.get(name)).copied();
        let (tenant, user) = (of(&self.tenants, tenant), of(&self.users, user));
        self.all.max(tenant.unwrap_or_default()).max(user.unwrap_or_default())
    }

    /// The marks of both, none lower than it was.
    pub fn raised_by(mut self, newer: Self) -> Self {
        self.all = self.all.max(newer.all);
        for (own, newer) in [(&mut self.tenants, newer.tenants), (&mut self.users, newer.users)] {
            for (name, mark) in newer {
                let own = own.entry(name).or_insert(mark);
                *own = mark.max(*own);
            }
        }
        self
    }

    /// Drops the marks of tenants and users up to this second, and those that everybody's mark covers.
    fn drop_spent(&mut self, until: i64) {
        let floor = until.max(self.all);
        self.tenants.retain(|_, mark| *mark > floor);
        self.users.retain(|_, mark| *mark > floor);
    }

    fn get(&self, scope: &MarkScope) -> Option<i64> {
        match scope {
            MarkScope::All => (self.all > 0).then_some(self.all),
            MarkScope::Tenant(name) => self.tenants.get(name).copied(),
            MarkScope::User(name) => self.users.get(name).copied(),
        }
    }

    fn set(&mut self, scope: &MarkScope, mark: i64) {
        match scope {
            MarkScope::All => self.all = mark,
            MarkScope::Tenant(name) => drop(self.tenants.insert(name.clone(), mark)),
            MarkScope::User(name) => drop(self.users.insert(name.clone(), mark)),
        }
    }
}

pub(super) fn raise(path: &Path, options: &MarkOptions, now: Timestamp) -> Result<Marked, SessionError> {
    let failed = |fault: FileFault| SessionError::File(fault);
    let place = Place::at(path).map_err(|error| failed(FileFault::Folder(error)))?.public();
    let _lock = Lock::take(&place, options.lock_wait).map_err(|fault| failed(FileFault::Lock(fault)))?;
    let content = place.read(FILE_BYTES_MAX).map_err(|fault| failed(FileFault::Read(fault)))?;
    let mut marks = match &content {
        Some(content) => Marks::parse(content).map_err(SessionError::Marks)?,
        None => Marks::default(),
    };
    let previous = marks.get(&options.scope);
    let not_before = options.wanted(now)?.max(previous.unwrap_or_default());
    let marked = Marked {
        not_before,
        previous,
        now,
    };
    if options.dry_run || previous == Some(not_before) {
        return Ok(marked);
    }
    marks.set(&options.scope, not_before);
    if let Some(spent) = options.spent_until(now) {
        marks.drop_spent(spent);
    }
    let mut text = serde_json::to_vec_pretty(&marks).map_err(|_| SessionError::Marks(MarksFault::Malformed))?;
    text.push(b'\n');
    if text.len() > FILE_BYTES_MAX {
        return Err(SessionError::Refused(format!(
            "the file of marks would have more than {FILE_BYTES_MAX} bytes: say token_lifetime = \"…\" in the configuration, so that older marks are dropped, or keep marks in a database"
        )));
    }
    let expected = content.map_or(Expected::Nothing, |content| Expected::Content(Digest::of(&content)));
    place
        .replace(&text, &expected, &mut Uninterrupted)
        .map_err(|fault| failed(FileFault::Replace(fault)))?;
    Ok(marked)
}

/// The first member of the file.
pub const MARK_FILE_SCHEMA: &str = "reseal.not-before/1";

/// Marks of a hundred thousand users. Every application reads the file whole; more belongs into a table.
pub(crate) const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
