//! The statements about one table, as text. Every name in them comes from the catalogue, quoted; every value is a parameter.
//!
//! Parameters have fixed places: `?1…` the key after which to start, then the key up to which to go, then one number.

use rusqlite::Connection;

use super::catalogue::{Table, TableColumn};
use super::filter;
use super::table_key::Access;
use crate::store::StoreError;
use crate::store::ident::{quote_ident, unquote_ident};
use crate::store::page::Shape;
use crate::store::survey::{Column, Survey};

/// A table with its key, context and value columns, as statements need them.
pub(super) struct Dataset {
    pub(super) relation: String,
    pub(super) shape: Shape,
    key: Vec<(String, String)>,
    contexts: Vec<String>,
    values: Vec<Value>,
    filter: Option<String>,
    access: String,
    by_rowid: bool,
}

struct Value {
    /// As the target of SET, where SQLite takes no table name.
    target: String,
    /// Qualified.
    column: String,
}

/// What a statement's interval is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Exclusive, below.
    pub(super) after: bool,
    /// Inclusive, above.
    pub(super) upto: bool,
}

impl Dataset {
    /// Looks the surveyed table up again: what it was must still be so.
    pub(super) fn find(connection: &Connection, survey: &Survey) -> Result<Self, StoreError> {
        let changed = || StoreError::Refused(format!("the table {} is not what it was when it was surveyed", survey.table));
        let [relation] = survey.relations.as_slice() else {
            return Err(StoreError::Refused(format!(
                "{} is not a table with rows of its own",
                survey.table
            )));
        };
        let name = relation
            .sql_name
            .strip_prefix("\"main\".")
            .and_then(unquote_ident)
            .ok_or_else(changed)?;
        let table = Table::find(connection, &name)?.ok_or_else(changed)?;
        let column = |wanted: &Column| table.column(&wanted.name).ok_or_else(changed);
        let key = table
            .key
            .as_ref()
            .ok_or_else(|| StoreError::Refused(format!("{} has no usable key", survey.table)))?;
        let same_key = key
            .parts
            .iter()
            .map(|part| &part.column.name)
            .eq(survey.key.iter().map(|column| &column.name));
        if !same_key {
            return Err(changed());
        }
        if let Some(filter) = &survey.filter
            && let Some(objection) = filter::objection(connection, &table, filter)?
        {
            return Err(StoreError::Refused(format!("the row condition cannot be used: {objection}")));
        }
        let sql_names = |columns: &[Column]| -> Result<Vec<String>, StoreError> {
            columns.iter().map(|wanted| Ok(column(wanted)?.sql_name.clone())).collect()
        };
        let values = survey
            .values
            .iter()
            .map(|wanted| Value::of(column(wanted)?))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            relation: table.sql_name.clone(),
            shape: Shape {
                keys: key.parts.len(),
                contexts: survey.contexts.len(),
                values: values.len(),
            },
            key: key
                .parts
                .iter()
                .map(|part| {
                    let collate = part
                        .collation
                        .as_ref()
                        .map_or(String::new(), |name| format!(" COLLATE {name}"));
                    (part.column.sql_name.clone(), collate)
                })
                .collect(),
            contexts: sql_names(&survey.contexts)?,
            values,
            filter: survey.filter.clone(),
            access: match &key.access {
                // Keeps the planner from another index and a sort.
                Access::Rowid { .. } => "NOT INDEXED".to_owned(),
                Access::Index { sql_name, .. } => format!("INDEXED BY {sql_name}"),
            },
            by_rowid: matches!(key.access, Access::Rowid { .. }),
        })
    }

    /// The next rows with all their cells: parameter [`number`](Self::number) is the limit, the one after it the largest size
    /// where `guarded`.
    pub(super) fn page(&self, bounds: Bounds, guarded: bool) -> String {
        let mut conditions = self.range(bounds);
        conditions.extend(self.filter.as_ref().map(|filter| format!("({filter})")));
        format!(
            "SELECT {} FROM {} {}{} ORDER BY {} LIMIT ?{}",
            self.cells(guarded).join(", "),
            self.relation,
            self.access,
            where_all(&conditions),
            self.order(""),
            self.number(),
        )
    }

    /// The key of the row that is `OFFSET` rows further on: the end of a batch by rows.
    pub(super) fn key_at_offset(&self, bounds: Bounds) -> String {
        format!("{} OFFSET ?{}", self.keys(bounds, ""), self.number())
    }

    /// The largest key.
    pub(super) fn last_key(&self, bounds: Bounds) -> String {
        self.keys(bounds, " DESC")
    }

    /// The next keys with the sizes of their values, 0 where the condition leaves the row out: the end of a batch by bytes.
    pub(super) fn sizes(&self, bounds: Bounds) -> String {
        let mut columns: Vec<String> = self.key.iter().map(|(name, _)| name.clone()).collect();
        columns.extend(self.values.iter().map(|value| {
            let size = format!("coalesce(octet_length({}), 0)", value.column);
            self.filter
                .as_ref()
                .map_or(size.clone(), |filter| format!("CASE WHEN ({filter}) THEN {size} ELSE 0 END"))
        }));
        format!(
            "SELECT {} FROM {} {}{} ORDER BY {} LIMIT ?{}",
            columns.join(", "),
            self.relation,
            self.access,
            where_all(&self.range(bounds)),
            self.order(""),
            self.number(),
        )
    }

    /// The statement that rewrites all rows of an interval through the functions of [`super::rewrite`].
    ///
    /// `reseal_due` has side effects, so that it must see exactly the rows of the interval that match the condition, each once.
    /// SQLite promises no order of evaluation for AND, but it does for CASE; only a bound on the rowid needs no such care, because
    /// it ends the scan itself.
    pub(super) fn rewrite(&self, after: bool, guarded: bool) -> String {
        let range = self.range(Bounds { after, upto: true });
        let mut first = if self.by_rowid { Vec::new() } else { range.clone() };
        first.extend(self.filter.as_ref().map(|filter| format!("({filter})")));
        let due = format!("{DUE}({})", self.cells(guarded).join(", "));
        let due = if first.is_empty() {
            due
        } else {
            format!("CASE WHEN {} THEN {due} ELSE 0 END", first.join(" AND "))
        };
        let keys: Vec<&str> = self.key.iter().map(|(name, _)| name.as_str()).collect();
        let assignments: Vec<String> = self
            .values
            .iter()
            .enumerate()
            .map(|(at, value)| format!("{} = {NEW}({at}, {}, {})", value.target, value.column, keys.join(", ")))
            .collect();
        let mut conditions = range;
        conditions.push(due);
        format!(
            "UPDATE {} {} SET {}{}",
            self.relation,
            self.access,
            assignments.join(", "),
            where_all(&conditions),
        )
    }

    /// The place of the number in the statements above.
    pub(super) fn number(&self) -> usize {
        2 * self.key.len() + 1
    }

    /// Whether the key is the rowid: its order is that of integers.
    pub(super) fn is_by_rowid(&self) -> bool {
        self.by_rowid
    }

    /// Whether a stretch of rowids tells how many rows of the dataset it holds at most, and about how many it holds.
    pub(super) fn is_rowid_enough(&self) -> bool {
        self.by_rowid && self.filter.is_none()
    }

    fn keys(&self, bounds: Bounds, direction: &str) -> String {
        let names: Vec<&str> = self.key.iter().map(|(name, _)| name.as_str()).collect();
        format!(
            "SELECT {} FROM {} {}{} ORDER BY {} LIMIT 1",
            names.join(", "),
            self.relation,
            self.access,
            where_all(&self.range(bounds)),
            self.order(direction),
        )
    }

    fn cells(&self, guarded: bool) -> Vec<String> {
        let keys = self.key.iter().map(|(name, _)| name.clone());
        let values = self.values.iter().map(|Value { column, .. }| {
            if !guarded {
                return column.clone();
            }
            // SQLite knows the size of a value without reading it.
            let max = self.number() + 1;
            format!(
                "CASE WHEN octet_length({column}) > ?{max} THEN octet_length({column}) \
                 WHEN typeof({column}) IN ('integer', 'real') THEN 0 ELSE {column} END"
            )
        });
        keys.chain(self.contexts.iter().cloned()).chain(values).collect()
    }

    fn range(&self, bounds: Bounds) -> Vec<String> {
        let width = self.key.len();
        let compare = |operator: &str, first: usize| {
            let names: Vec<&str> = self.key.iter().map(|(name, _)| name.as_str()).collect();
            let parameters: Vec<String> = (first..)
                .zip(&self.key)
                .map(|(at, (_, collate))| format!("?{at}{collate}"))
                .collect();
            if width == 1 {
                format!("{} {operator} {}", names[0], parameters[0])
            } else {
                format!("({}) {operator} ({})", names.join(", "), parameters.join(", "))
            }
        };
        let mut conditions = Vec::new();
        if bounds.after {
            conditions.push(compare(">", 1));
        }
        if bounds.upto {
            conditions.push(compare("<=", width + 1));
        }
        conditions
    }

    fn order(&self, direction: &str) -> String {
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|(name, collate)| format!("{name}{collate}{direction}"))
            .collect();
        parts.join(", ")
    }
}

impl Value {
    fn of(column: &TableColumn) -> Result<Self, StoreError> {
        Ok(Self {
            target: quote_ident(&column.name)?,
            column: column.sql_name.clone(),
        })
    }
}

fn where_all(conditions: &[String]) -> String {
    if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    }
}

/// Judges a row; true when it gets new values.
pub(super) const DUE: &str = "reseal_due";
/// A new value of a row that was judged.
pub(super) const NEW: &str = "reseal_new";
