//! What the schema says about one table: its kind, its columns, and the key by which its rows are identified and ordered.
//!
//! Names are looked up as SQLite does (ASCII letters without case); from then on only the catalogue's spelling is used.

use rusqlite::{Connection, OptionalExtension as _};

use super::error::from_sqlite;
use crate::store::StoreError;
use crate::store::ident::quote_ident;
use crate::store::survey::ColumnClass;

/// A table of the main database.
pub(super) struct Table {
    pub(super) name: String,
    /// `"main"."t"`.
    pub(super) sql_name: String,
    /// `table`, `view`, `virtual`, `shadow`.
    pub(super) kind: String,
    pub(super) without_rowid: bool,
    pub(super) columns: Vec<TableColumn>,
    pub(super) indexes: Vec<Index>,
    /// The key, if there is a usable one.
    pub(super) key: Option<TableKey>,
}

/// A column as it was declared.
#[derive(Clone)]
pub(super) struct TableColumn {
    pub(super) name: String,
    /// Qualified by the table, so that it can never be taken for a string when the column is gone.
    pub(super) sql_name: String,
    pub(super) type_name: String,
    pub(super) class: ColumnClass,
    pub(super) nullable: bool,
    /// Position in the primary key, from 1; 0 outside.
    primary_key: u32,
    /// Computed from other columns.
    pub(super) generated: bool,
}

/// An index.
pub(super) struct Index {
    pub(super) name: String,
    pub(super) unique: bool,
    /// Whether it was made for PRIMARY KEY.
    primary: bool,
    pub(super) partial: bool,
    pub(super) parts: Vec<IndexPart>,
}

/// A part of an index.
pub(super) struct IndexPart {
    /// `None` for an expression.
    pub(super) column: Option<String>,
    descending: bool,
    collation: String,
}

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
    /// Looks `typed` up, as a name or as `main.name`.
    pub(super) fn find(connection: &Connection, typed: &str) -> Result<Option<Self>, StoreError> {
        let mut found = lookup(connection, typed)?;
        if found.is_none()
            && let Some((schema, name)) = typed.split_once('.')
            && schema.eq_ignore_ascii_case("main")
        {
            found = lookup(connection, name)?;
        }
        let Some((name, kind, without_rowid, strict)) = found else {
            return Ok(None);
        };
        let columns = columns(connection, &name, without_rowid, strict)?;
        let indexes = indexes(connection, &name)?;
        let mut table = Self {
            sql_name: format!("\"main\".{}", quote_ident(&name)?),
            name,
            kind,
            without_rowid,
            columns,
            indexes,
            key: None,
        };
        table.key = table.choose_key()?;
        if matches!(&table.key, Some(key) if key.access == (Access::Rowid { declared: false }))
            && table.primary_key_is_complete(connection)?
        {
            for column in table.columns.iter_mut().filter(|column| column.primary_key > 0) {
                column.nullable = false;
            }
            table.key = table.choose_key()?;
        }
        Ok(Some(table))
    }

    /// The column with this name.
    pub(super) fn column(&self, typed: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(typed))
    }

    /// Whether there is a primary key in which no row has a NULL. SQLite allows NULL in primary keys where NOT NULL is not said,
    /// which hardly anybody knows and hardly any table has. A row that comes later with one is found by the verification, and listed.
    fn primary_key_is_complete(&self, connection: &Connection) -> Result<bool, StoreError> {
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
    fn choose_key(&self) -> Result<Option<TableKey>, StoreError> {
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

fn lookup(connection: &Connection, name: &str) -> Result<Option<(String, String, bool, bool)>, StoreError> {
    connection
        .query_row(
            "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
            [name],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .optional()
        .map_err(from_sqlite)
}

fn columns(connection: &Connection, table: &str, without_rowid: bool, strict: bool) -> Result<Vec<TableColumn>, StoreError> {
    let qualifier = quote_ident(table)?;
    let mut statement = connection
        .prepare("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")
        .map_err(from_sqlite)?;
    let rows = statement
        .query_map([table], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, bool>(2)?,
                row.get::<_, u32>(3)?,
                row.get::<_, u32>(4)?,
            ))
        })
        .map_err(from_sqlite)?;
    rows.map(|row| {
        let (name, type_name, not_null, primary_key, hidden) = row.map_err(from_sqlite)?;
        Ok(TableColumn {
            sql_name: format!("{qualifier}.{}", quote_ident(&name)?),
            name,
            class: class_of(&type_name, strict),
            type_name,
            nullable: !(not_null || (without_rowid && primary_key > 0)),
            primary_key,
            generated: matches!(hidden, 2 | 3),
        })
    })
    .collect()
}

fn indexes(connection: &Connection, table: &str) -> Result<Vec<Index>, StoreError> {
    let mut statement = connection
        .prepare("SELECT name, \"unique\", origin, partial FROM pragma_index_list(?1, 'main') ORDER BY seq DESC")
        .map_err(from_sqlite)?;
    let mut indexes = statement
        .query_map([table], |row| {
            Ok(Index {
                name: row.get(0)?,
                unique: row.get(1)?,
                primary: row.get::<_, String>(2)? == "pk",
                partial: row.get(3)?,
                parts: Vec::new(),
            })
        })
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(from_sqlite)?;
    let mut statement = connection
        .prepare("SELECT name, \"desc\", coll FROM pragma_index_xinfo(?1, 'main') WHERE \"key\" ORDER BY seqno")
        .map_err(from_sqlite)?;
    for index in &mut indexes {
        index.parts = statement
            .query_map([&index.name], |row| {
                Ok(IndexPart {
                    column: row.get(0)?,
                    descending: row.get(1)?,
                    collation: row.get(2)?,
                })
            })
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(from_sqlite)?;
    }
    Ok(indexes)
}

/// Affinity by the rules of the manual ("Determination Of Column Affinity"), as far as it matters here: STRICT tables hold what they
/// declare, REAL makes floating point of every number, and elsewhere the type follows the value.
fn class_of(type_name: &str, strict: bool) -> ColumnClass {
    let declared = type_name.to_ascii_uppercase();
    if strict {
        return match declared.as_str() {
            "INT" | "INTEGER" => ColumnClass::Int(8),
            "TEXT" => ColumnClass::Text,
            "BLOB" => ColumnClass::Bytes,
            "REAL" => ColumnClass::Float,
            _ => ColumnClass::Dynamic,
        };
    }
    let has = |part: &str| declared.contains(part);
    let real = ["REAL", "FLOA", "DOUB"].into_iter().any(has);
    let earlier_rule = ["INT", "CHAR", "CLOB", "TEXT", "BLOB"].into_iter().any(has);
    if real && !earlier_rule {
        ColumnClass::Float
    } else {
        ColumnClass::Dynamic
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

    #[test]
    fn names_are_found_without_case_and_kept_as_spelt() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE \"We\"\"Ird\"(\"C;1\" TEXT)").unwrap();
        for typed in ["we\"ird", "MAIN.We\"Ird"] {
            let table = Table::find(&connection, typed).unwrap().unwrap();
            assert_eq!(table.sql_name, "\"main\".\"We\"\"Ird\"");
            assert_eq!(table.column("c;1").unwrap().sql_name, "\"We\"\"Ird\".\"C;1\"");
        }
        assert!(Table::find(&connection, "other.We\"Ird").unwrap().is_none());
    }
}
