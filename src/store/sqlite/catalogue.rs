//! What the schema says about one table: its kind, its columns, and the key by which its rows are identified and ordered.
//!
//! Names are looked up as SQLite does (ASCII letters without case); from then on only the catalogue's spelling is used.

use rusqlite::{Connection, OptionalExtension as _};

use super::error::from_sqlite;
use super::table_key::{Access, TableKey};
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
    pub(super) primary_key: u32,
    /// Computed from other columns.
    pub(super) generated: bool,
}

/// An index.
pub(super) struct Index {
    pub(super) name: String,
    pub(super) unique: bool,
    /// Whether it was made for PRIMARY KEY.
    pub(super) primary: bool,
    pub(super) partial: bool,
    pub(super) parts: Vec<IndexPart>,
}

/// A part of an index.
pub(super) struct IndexPart {
    /// `None` for an expression.
    pub(super) column: Option<String>,
    pub(super) descending: bool,
    pub(super) collation: String,
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
