//! The statements, which the two databases share but for the way in which they name parameters and times.

use jiff::Timestamp;

use super::table::{Action, CreatedAs, TableLayout};
use crate::session::{Selection, SessionError};
use crate::store::StoreError;
use crate::store::ident::quote_ident;

/// Which rows are meant, with the values that select them.
pub(super) struct Condition {
    user: Option<String>,
    tenant: Option<String>,
    before: Option<Timestamp>,
}

/// What differs between the databases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Sqlite,
}

/// The names of a table as the catalogue spells them, quoted.
pub(super) struct Names {
    pub(super) table: String,
    pub(super) key: String,
    pub(super) user: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) created: Option<(String, CreatedAs)>,
    pub(super) revoked: Option<String>,
    /// What rows lie on the disk by, where reading them in that order must be asked for: batches then touch each page of the table once.
    pub(super) storage_order: Option<&'static str>,
}

/// The statements of one run. Those with a condition take its values as parameters, in order.
pub(super) struct Statements {
    /// An empty temporary table with the type of the key.
    pub(super) make: String,
    /// Reads the keys into it, and numbers them.
    pub(super) fill: String,
    /// Reads numbers and keys, the keys as text, with numbers above the first parameter up to the second.
    pub(super) keys: String,
    /// Ends the sessions with numbers above the first parameter up to the second.
    pub(super) end: String,
    /// Counts what is left of the snapshot.
    pub(super) left: String,
    /// Counts what is there now.
    pub(super) present: String,
    /// The values of the condition.
    pub(super) values: Vec<String>,
}

impl Condition {
    /// Refuses what the table cannot tell.
    pub(super) fn of(layout: &TableLayout, selection: &Selection) -> Result<Self, SessionError> {
        let refused = |why: &str| Err(SessionError::Refused(why.to_owned()));
        if selection.user.is_some() && layout.user.is_none() {
            return refused("the table has no column with the user; configure user = \"COLUMN\", or end all sessions");
        }
        if selection.tenant.is_some() && layout.tenant.is_none() {
            return refused("the table has no column with the tenant; configure tenant = \"COLUMN\"");
        }
        if selection.before.is_some() && layout.created.is_none() {
            return refused(
                "the table has no column with the time of creation; without --before, the sessions that exist now are ended",
            );
        }
        Ok(Self {
            user: selection.user.clone(),
            tenant: selection.tenant.clone(),
            before: selection.before,
        })
    }
}

impl Names {
    /// The names of a layout, each looked up in the catalogue. `find` gives the spelling of a column.
    pub(super) fn resolve(
        table: String,
        layout: &TableLayout,
        find: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, StoreError> {
        let column = |name: &str| {
            let spelled = find(name);
            let spelled = spelled.ok_or_else(|| StoreError::Refused(format!("table {} has no column {name}", layout.table)))?;
            quote_ident(&spelled)
        };
        let optional = |name: Option<&String>| name.map(|name| column(name)).transpose();
        let created = layout.created.as_ref();
        Ok(Self {
            table,
            key: column(&layout.key)?,
            user: optional(layout.user.as_ref())?,
            tenant: optional(layout.tenant.as_ref())?,
            created: created
                .map(|(name, form)| Ok::<_, StoreError>((column(name)?, *form)))
                .transpose()?,
            revoked: match &layout.action {
                Action::Delete => None,
                Action::Revoke(name) => Some(column(name)?),
            },
            storage_order: None,
        })
    }
}

impl Statements {
    pub(super) fn new(dialect: Dialect, names: &Names, condition: &Condition) -> Self {
        let Names { table, key, .. } = names;
        let parameter = |number: usize| match dialect {
            Dialect::Postgres => format!("${number}"),
            Dialect::Sqlite => format!("?{number}"),
        };
        let mut values = Vec::new();
        let mut terms = Vec::new();
        for (column, value) in [(&names.user, &condition.user), (&names.tenant, &condition.tenant)] {
            if let (Some(column), Some(value)) = (column, value) {
                values.push(value.clone());
                terms.push(format!("CAST({column} AS text) = {}", parameter(values.len())));
            }
        }
        if let (Some((column, form)), Some(before)) = (&names.created, condition.before) {
            values.push(before.as_millisecond().to_string());
            let limit = format!("CAST({} AS bigint)", parameter(values.len()));
            terms.push(format!("{} < {limit}", milliseconds(dialect, column, *form)));
        }
        if let Some(revoked) = &names.revoked {
            terms.push(format!("{revoked} IS NULL"));
        }
        let terms = if terms.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", terms.join(" AND "))
        };
        let not_revoked = names
            .revoked
            .as_ref()
            .map_or(String::new(), |revoked| format!(" AND {revoked} IS NULL"));
        let order = names
            .storage_order
            .map_or(String::new(), |order| format!(" ORDER BY {order}"));
        let batch = format!(
            "{key} IN (SELECT k FROM {SNAPSHOT} WHERE n > {} AND n <= {})",
            parameter(1),
            parameter(2)
        );
        Self {
            make: match dialect {
                Dialect::Postgres => format!(
                    "CREATE TEMPORARY TABLE {SNAPSHOT} AS SELECT CAST(0 AS bigint) AS n, {key} AS k FROM {table} WHERE 1 = 0"
                ),
                // Without a type, so that keys stay what they are.
                Dialect::Sqlite => format!("CREATE TEMPORARY TABLE {SNAPSHOT} (n INTEGER PRIMARY KEY, k)"),
            },
            fill: match dialect {
                Dialect::Postgres => {
                    format!("INSERT INTO {SNAPSHOT} (n, k) SELECT row_number() OVER (), {key} FROM {table}{terms}{order}")
                }
                // The numbers of an empty table count from 1.
                Dialect::Sqlite => format!("INSERT INTO {SNAPSHOT} (k) SELECT {key} FROM {table}{terms}{order}"),
            },
            keys: format!(
                "SELECT n, {} FROM {SNAPSHOT} WHERE n > {} AND n <= {} ORDER BY n",
                match dialect {
                    Dialect::Postgres => "CAST(k AS text)",
                    // Bytes need not be text.
                    Dialect::Sqlite => "CASE typeof(k) WHEN 'blob' THEN hex(k) ELSE CAST(k AS text) END",
                },
                parameter(1),
                parameter(2)
            ),
            end: match &names.revoked {
                None => format!("DELETE FROM {table} WHERE {batch}"),
                Some(revoked) => {
                    format!("UPDATE {table} SET {revoked} = CURRENT_TIMESTAMP WHERE {batch} AND {revoked} IS NULL")
                }
            },
            left: format!(
                "SELECT count(*) FROM {SNAPSHOT} WHERE EXISTS (SELECT 1 FROM {table} WHERE {key} = {SNAPSHOT}.k{not_revoked})"
            ),
            present: format!("SELECT count(*) FROM {table}{terms}"),
            values,
        }
    }
}

/// The time in a column as milliseconds since 1970.
fn milliseconds(dialect: Dialect, column: &str, form: CreatedAs) -> String {
    match (form, dialect) {
        (CreatedAs::Milliseconds, _) => column.to_owned(),
        (CreatedAs::Seconds, _) => format!("{column} * CAST(1000 AS bigint)"),
        (CreatedAs::Timestamp, Dialect::Postgres) => format!("extract(epoch FROM {column}) * 1000"),
        (CreatedAs::Timestamp, Dialect::Sqlite) => format!("unixepoch({column}, 'subsec') * 1000"),
    }
}

/// The temporary table. It belongs to one connection.
const SNAPSHOT: &str = "reseal_sessions";
