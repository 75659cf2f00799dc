//! How rows of a table are identified and ordered: which of its keys serves, if one does.

use rusqlite::Connection;

use super::catalogue::{Index, Table, TableColumn};
use super::error::from_sqlite;
use crate::store::StoreError;
use crate::store::ident::quote_ident;
use crate::store::survey::ColumnClass;

/// How rows are identified and ordered.
pub(super) struct TableKey {
    pub(super) parts: Vec<KeyPart>,
    pub(super) access: Access,
}

/// One column of the key.
pub(super) struct KeyPart {
    pub(super) column: TableColumn,
    /// The order of the index; `None` for the rowid.
    pub(super) collation: Option<String>,
}

/// How a range of the key is read in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// By rowid, under the name that this table leaves free for it.
    Rowid {
        /// Whether a column declared INTEGER PRIMARY KEY is its name: otherwise VACUUM may renumber rows.
        declared: bool,
    },
    /// By this index.
    Index {
        /// Its name, quoted.
        sql_name: String,
        /// Whether it is the PRIMARY KEY.
        primary: bool,
    },
}

impl Table {
    /// Whether there is a primary key in which no row has a NULL. SQLite allows NULL in primary keys where NOT NULL is not said,
    /// which hardly anybody knows and hardly any table has. A row that comes later with one is found by the verification, and listed.
    pub(super) fn primary_key_is_complete(&self, connection: &Connection) -> Result<bool, StoreError> {
        let parts: Vec<String> = self
            .columns
            .iter()
            .filter(|column| column.primary_key > 0)
            .map(|column| format!("{} IS NULL", column.sql_name))
            .collect();
        if parts.is_empty() || self.kind != "table" {
            return Ok(false);
        }
        let sql = format!(
            "SELECT NOT EXISTS (SELECT 1 FROM {} WHERE {})",
            self.sql_name,
            parts.join(" OR ")
        );
        connection.query_row(&sql, [], |row| row.get(0)).map_err(from_sqlite)
    }

    /// The best key: INTEGER PRIMARY KEY; the primary key; a unique index; the bare rowid. Only keys that no row can lack, whose
    /// order this connection knows, and that hold no floating point where there is another choice.
    pub(super) fn choose_key(&self) -> Result<Option<TableKey>, StoreError> {
        if let Some(column) = self.rowid_alias() {
            return Ok(Some(TableKey {
                parts: vec![KeyPart {
                    column: TableColumn {
                        class: ColumnClass::Int(8),
                        nullable: false,
                        ..column.clone()
                    },
                    collation: None,
                }],
                access: Access::Rowid { declared: true },
            }));
        }
        let primary = self.indexes.iter().filter(|index| index.primary);
        let unique = self.indexes.iter().filter(|index| index.unique && !index.primary);
        let mut floating = None;
        for index in primary.chain(unique) {
            let Some(parts) = self.key_of(index) else { continue };
            let has_float = parts.iter().any(|part| part.column.class == ColumnClass::Float);
            let key = TableKey {
                parts,
                access: Access::Index {
                    sql_name: quote_ident(&index.name)?,
                    primary: index.primary,
                },
            };
            if !has_float {
                return Ok(Some(key));
            }
            floating.get_or_insert(key);
        }
        Ok(self.bare_rowid().or(floating))
    }

    /// The column that is another name of the rowid: the only column of the primary key, of type INTEGER, without an index of its
    /// own (`INTEGER PRIMARY KEY DESC` has one, and is none).
    fn rowid_alias(&self) -> Option<&TableColumn> {
        if self.without_rowid || self.indexes.iter().any(|index| index.primary) {
            return None;
        }
        let mut primary = self.columns.iter().filter(|column| column.primary_key > 0);
        match (primary.next(), primary.next()) {
            (Some(column), None) if column.type_name.eq_ignore_ascii_case("INTEGER") => Some(column),
            _ => None,
        }
    }

    fn key_of(&self, index: &Index) -> Option<Vec<KeyPart>> {
        let direction = index.parts.first()?.descending;
        if index.partial || index.parts.len() > KEY_COLUMNS_MAX {
            return None;
        }
        index
            .parts
            .iter()
            .map(|part| {
                let column = self.column(part.column.as_deref()?)?;
                // Only these are the same in every program; and row values need one direction.
                let known = ["BINARY", "NOCASE", "RTRIM"]
                    .iter()
                    .any(|name| part.collation.eq_ignore_ascii_case(name));
                (!column.nullable && !column.generated && known && part.descending == direction).then(|| KeyPart {
                    column: column.clone(),
                    collation: Some(part.collation.clone()),
                })
            })
            .collect()
    }

    fn bare_rowid(&self) -> Option<TableKey> {
        if self.without_rowid || self.kind != "table" {
            return None;
        }
        let name = ["rowid", "_rowid_", "oid"]
            .into_iter()
            .find(|name| self.column(name).is_none())?;
        let table = self.sql_name.strip_prefix("\"main\".")?;
        Some(TableKey {
            parts: vec![KeyPart {
                column: TableColumn {
                    name: name.to_owned(),
                    sql_name: format!("{table}.{name}"),
                    type_name: "INTEGER".to_owned(),
                    class: ColumnClass::Int(8),
                    nullable: false,
                    primary_key: 0,
                    generated: false,
                },
                collation: None,
            }],
            access: Access::Rowid { declared: false },
        })
    }
}

/// Far above any sensible key, and with the value columns below SQLite's limit of function arguments.
const KEY_COLUMNS_MAX: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(ddl: &str) -> Table {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(ddl).unwrap();
        Table::find(&connection, "T").unwrap().unwrap()
    }

    /// Names of the key columns, and whether the key is the rowid.
    type Found = Option<(Vec<String>, bool)>;

    fn key(ddl: &str) -> Found {
        table(ddl).key.map(|key| {
            let names = key.parts.iter().map(|part| part.column.name.clone()).collect();
            (names, matches!(key.access, Access::Rowid { .. }))
        })
    }

    fn named(names: &[&str], rowid: bool) -> Found {
        Some((names.iter().map(|name| (*name).to_owned()).collect(), rowid))
    }

    #[test]
    fn the_key_is_what_identifies_every_row() {
        let cases: [(&str, Found); 15] = [
            ("CREATE TABLE t(Id INTEGER PRIMARY KEY, c)", named(&["Id"], true)),
            ("CREATE TABLE t(id INT PRIMARY KEY, c)", named(&["id"], false)),
            (
                "CREATE TABLE t(id INT PRIMARY KEY, c); INSERT INTO t VALUES (NULL, 1)",
                named(&["rowid"], true),
            ),
            ("CREATE TABLE t(id INT NOT NULL PRIMARY KEY, c)", named(&["id"], false)),
            ("CREATE TABLE t(id INTEGER PRIMARY KEY DESC, c)", named(&["id"], false)),
            (
                "CREATE TABLE t(a TEXT, b, c, PRIMARY KEY(b, a)) WITHOUT ROWID",
                named(&["b", "a"], false),
            ),
            ("CREATE TABLE t(a TEXT NOT NULL UNIQUE, c)", named(&["a"], false)),
            ("CREATE TABLE t(a TEXT UNIQUE, c)", named(&["rowid"], true)),
            (
                "CREATE TABLE t(a TEXT NOT NULL, c); CREATE UNIQUE INDEX i ON t(a) WHERE a > 'b'",
                named(&["rowid"], true),
            ),
            (
                "CREATE TABLE t(a TEXT NOT NULL, c); CREATE UNIQUE INDEX i ON t(lower(a))",
                named(&["rowid"], true),
            ),
            (
                "CREATE TABLE t(a NOT NULL, b NOT NULL, c); CREATE UNIQUE INDEX i ON t(a, b DESC)",
                named(&["rowid"], true),
            ),
            ("CREATE TABLE t(rowid, c)", named(&["_rowid_"], true)),
            ("CREATE TABLE t(rowid, _rowid_, oid, c)", None),
            ("CREATE TABLE t(id REAL NOT NULL PRIMARY KEY, c)", named(&["rowid"], true)),
            ("CREATE VIEW t AS SELECT 1 AS c", None),
        ];
        for (ddl, expected) in cases {
            assert_eq!(key(ddl), expected, "{ddl}");
        }
        let real = table("CREATE TABLE t(id REAL PRIMARY KEY, c) WITHOUT ROWID").key.unwrap();
        assert_eq!(real.parts[0].column.class, ColumnClass::Float);
    }
}
