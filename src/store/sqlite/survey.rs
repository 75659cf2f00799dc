//! What the catalogue says about a table, as facts for preflight. Reads only.

use rusqlite::{Connection, OptionalExtension as _};
use rustix::fs::{Access as FileAccess, access};

use super::catalogue::{Table, TableColumn};
use super::connect::DatabaseFile;
use super::ddl::{checks, fires_on_update};
use super::error::from_sqlite;
use super::filter;
use super::lex::{Token, tokens};
use super::size::Size;
use super::table_key::Access;
use crate::store::StoreError;
use crate::store::ident::{display_ident, quote_ident};
use crate::store::survey::{Column, Observation, Relation, Survey, Target, require_rewritable};

/// Surveys the target.
pub(super) fn survey(file: &DatabaseFile, target: &Target) -> Result<Survey, StoreError> {
    let connection = file.open_query_only()?;
    let table = Table::find(&connection, &target.table)?
        .ok_or_else(|| StoreError::Refused(format!("there is no table {} in {}", target.table, file.path.display())))?;
    let contexts = find_columns(&table, &target.context_columns)?;
    let values = find_columns(&table, &target.columns)?;
    let key: Vec<&TableColumn> = table
        .key
        .iter()
        .flat_map(|key| key.parts.iter().map(|part| &part.column))
        .collect();
    let of_key: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
    let of_values: Vec<&str> = values.iter().map(|column| column.name.as_str()).collect();
    require_rewritable(&of_key, &of_values)?;
    let is_table = table.kind == "table" && !table.name.to_ascii_lowercase().starts_with("sqlite_");
    let size = if is_table {
        Size::estimate(&connection, &table)?
    } else {
        Size::default()
    };

    let mut observations = Vec::new();
    observe_file(file, &connection, &mut observations)?;
    if is_table {
        observe_key(&table, &mut observations);
        observe_columns(&connection, &table, &values, &mut observations)?;
        observe_triggers(&connection, &table, &values, &mut observations)?;
        observe_update(&connection, &table, &values, &mut observations)?;
        if let Some(text) = &target.filter
            && let Some(objection) = filter::objection(&connection, &table, text)?
        {
            observations.push(Observation::BadFilter(objection));
        }
    } else {
        observations.push(Observation::NotATable(format!(
            "{} ({})",
            display_ident(&table.name),
            table.kind
        )));
    }

    Ok(Survey {
        table: display_ident(&table.name),
        table_id: 0,
        server: format!("SQLite {}", rusqlite::version()),
        relations: if is_table {
            vec![Relation {
                sql_name: table.sql_name.clone(),
                oid: 0,
                rows_estimate: size.rows,
            }]
        } else {
            Vec::new()
        },
        key: key.into_iter().map(public).collect(),
        contexts: contexts.into_iter().map(public).collect(),
        values: values.into_iter().map(public).collect(),
        filter: target.filter.clone(),
        rows_estimate: size.rows,
        bytes: size.bytes,
        observations,
    })
}

fn find_columns<'t>(table: &'t Table, names: &[String]) -> Result<Vec<&'t TableColumn>, StoreError> {
    names
        .iter()
        .map(|name| {
            let by_key = || {
                table
                    .key
                    .iter()
                    .flat_map(|key| &key.parts)
                    .map(|part| &part.column)
                    .find(|column| column.name == *name)
            };
            table.column(name).or_else(by_key).ok_or_else(|| {
                let there: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
                StoreError::Refused(format!(
                    "the table {} has no column {name}: it has {}",
                    display_ident(&table.name),
                    there.join(", ")
                ))
            })
        })
        .collect()
}

fn public(column: &TableColumn) -> Column {
    Column {
        name: column.name.clone(),
        sql_name: column.sql_name.clone(),
        type_name: column.type_name.clone(),
        class: column.class,
        nullable: column.nullable,
        // Declared lengths such as varchar(100) are not enforced.
        max_len: None,
        type_oids: (0, 0),
    }
}

fn observe_file(file: &DatabaseFile, connection: &Connection, found: &mut Vec<Observation>) -> Result<(), StoreError> {
    let names = file.names()?;
    if names > 1 {
        found.push(Observation::SeveralNames(names));
    }
    if connection.is_readonly("main").map_err(from_sqlite)? {
        found.push(Observation::ReadOnlyFile(
            "the database file cannot be written by this user".to_owned(),
        ));
    } else if let Some(folder) = file.path.parent()
        && access(folder, FileAccess::WRITE_OK).is_err()
    {
        found.push(Observation::ReadOnlyFile(
            "the folder of the database cannot be written: there is no place for its journal".to_owned(),
        ));
    }
    let mode: String = connection
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(from_sqlite)?;
    found.push(Observation::JournalMode(mode));
    Ok(())
}

fn observe_key(table: &Table, found: &mut Vec<Observation>) {
    let Some(key) = &table.key else {
        found.push(Observation::NoUsableKey(display_ident(&table.name)));
        return;
    };
    let names = || {
        key.parts
            .iter()
            .map(|part| part.column.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match key.access {
        Access::Rowid { declared: true } | Access::Index { primary: true, .. } => {}
        Access::Rowid { declared: false } => {
            found.push(Observation::KeyIs(names()));
            found.push(Observation::Note(
                "without an INTEGER PRIMARY KEY, VACUUM may renumber rows: run none during the rotation".to_owned(),
            ));
        }
        Access::Index { primary: false, .. } => found.push(Observation::KeyIs(names())),
    }
}

fn observe_columns(
    connection: &Connection,
    table: &Table,
    values: &[&TableColumn],
    found: &mut Vec<Observation>,
) -> Result<(), StoreError> {
    for value in values.iter().filter(|value| value.generated) {
        found.push(Observation::Generated(value.name.clone()));
    }
    for column in table.columns.iter().filter(|column| column.generated) {
        found.push(Observation::Note(format!(
            "{} is a generated column: it follows the columns it is made of",
            column.name
        )));
    }
    for index in &table.indexes {
        let sql = schema_sql(connection, "index", &index.name)?;
        for value in values {
            let plain = index.parts.iter().any(|part| part.column.as_ref() == Some(&value.name));
            // Expressions and conditions are only in the text; what stands after the table's name may name a column.
            let computed = (index.partial || index.parts.iter().any(|part| part.column.is_none()))
                && sql
                    .iter()
                    .skip_while(|token| **token != Token::Open)
                    .any(|token| token.names(&value.name));
            if plain || computed {
                found.push(Observation::IndexOnValue {
                    index: index.name.clone(),
                    column: value.name.clone(),
                    unique: index.unique,
                });
            }
        }
    }
    for value in values {
        for (child, parent) in foreign_keys(connection, table, &value.name)? {
            found.push(Observation::ForeignKeyOnValue(format!("{child} refers to {parent}")));
        }
    }
    let sql = schema_sql(connection, "table", &table.name)?;
    for value in values {
        if checks(&sql).any(|check| check.iter().any(|token| token.names(&value.name))) {
            found.push(Observation::CheckOnValue(value.name.clone()));
        }
    }
    Ok(())
}

/// Foreign keys in which the column takes part, on either side, as (child, parent).
fn foreign_keys(connection: &Connection, table: &Table, column: &str) -> Result<Vec<(String, String)>, StoreError> {
    let mut statement = connection
        .prepare(
            "SELECT m.name || '.' || f.\"from\", f.\"table\" || coalesce('.' || f.\"to\", '') \
             FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table' AND \
             ((m.name = ?1 COLLATE NOCASE AND f.\"from\" = ?2 COLLATE NOCASE) \
              OR (f.\"table\" = ?1 COLLATE NOCASE AND f.\"to\" = ?2 COLLATE NOCASE))",
        )
        .map_err(from_sqlite)?;
    statement
        .query_map([&table.name, column], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(from_sqlite)
}

fn observe_triggers(
    connection: &Connection,
    table: &Table,
    values: &[&TableColumn],
    found: &mut Vec<Observation>,
) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name")
        .map_err(from_sqlite)?;
    let triggers = statement
        .query_map([&table.name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(from_sqlite)?;
    for (name, sql) in triggers {
        let columns: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
        // What cannot be read is reported rather than passed over.
        if tokens(&sql).map_or(true, |tokens| fires_on_update(&tokens, &columns)) {
            found.push(Observation::UpdateTrigger(name));
        }
    }
    Ok(())
}

/// Whether this connection can prepare an UPDATE of the columns at all: the schema may need functions, collations or modules that
/// only the application brings along.
fn observe_update(
    connection: &Connection,
    table: &Table,
    values: &[&TableColumn],
    found: &mut Vec<Observation>,
) -> Result<(), StoreError> {
    for value in values.iter().filter(|value| !value.generated) {
        let column = quote_ident(&value.name)?;
        if let Err(error) = connection.prepare(&format!("UPDATE {} SET {column} = {column}", table.sql_name)) {
            found.push(Observation::CannotUpdate(from_sqlite(error).to_string()));
        }
    }
    Ok(())
}

fn schema_sql(connection: &Connection, kind: &str, name: &str) -> Result<Vec<Token>, StoreError> {
    let sql: Option<String> = connection
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE type = ?1 AND name = ?2",
            [kind, name],
            |row| row.get(0),
        )
        .optional()
        .map_err(from_sqlite)?
        .flatten();
    Ok(sql.and_then(|sql| tokens(&sql).ok()).unwrap_or_default())
}
