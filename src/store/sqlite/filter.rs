//! The operator's row condition: kept inside its parentheses, and judged by SQLite before any statement uses it.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::catalogue::Table;
use super::error::from_sqlite;
use super::lex::{Token, tokens};
use crate::store::StoreError;

/// Why `filter` is no condition on rows of `table`, if so.
pub(super) fn objection(connection: &Connection, table: &Table, filter: &str) -> Result<Option<String>, StoreError> {
    if let Some(found) = escape(filter) {
        return Ok(Some(found.to_owned()));
    }
    // By default SQLite takes a misspelt "column" for a string, and the condition would leave out rows without a word. Only here:
    // triggers of the application may rely on it.
    let strings = DbConfig::SQLITE_DBCONFIG_DQS_DML;
    let before = connection.db_config(strings).map_err(from_sqlite)?;
    connection.set_db_config(strings, false).map_err(from_sqlite)?;
    let objection = probe(connection, table, filter).unwrap_or_else(|error| Some(from_sqlite(error).to_string()));
    connection.set_db_config(strings, before).map_err(from_sqlite)?;
    Ok(objection)
}

/// Lets SQLite judge the condition. Nothing runs unless it only reads.
fn probe(connection: &Connection, table: &Table, filter: &str) -> rusqlite::Result<Option<String>> {
    let sql = format!("SELECT 1 FROM {} WHERE ({filter}) LIMIT 0", table.sql_name);
    let mut statement = connection.prepare(&sql)?;
    if !statement.readonly() || statement.parameter_count() > 0 {
        return Ok(Some("it does more than read rows".to_owned()));
    }
    statement.exists([])?;
    Ok(None)
}

/// What in `filter` could end the parentheses around it, or the statement.
fn escape(filter: &str) -> Option<&'static str> {
    let Ok(tokens) = tokens(filter) else {
        return Some("a quote in it does not end");
    };
    let mut depth = 0_usize;
    for token in tokens {
        match token {
            Token::Open => depth += 1,
            Token::Close if depth == 0 => return Some("it closes a parenthesis that it did not open"),
            Token::Close => depth -= 1,
            Token::Semicolon => return Some("it contains a semicolon"),
            Token::Comment => return Some("it contains a comment"),
            Token::Parameter => return Some("it contains a parameter"),
            Token::Other('\0') => return Some("it contains a NUL character"),
            _ => {}
        }
    }
    (depth > 0).then_some("it opens a parenthesis that it does not close")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_the_parentheses() {
        for hostile in [
            "1) OR (1",
            "1; DROP TABLE t",
            "1 -- ",
            "1 /* */",
            "1) --",
            "id = ?1",
            "id = :id",
            "'",
            "(1",
            "1\0",
            "[a) OR (1",
        ] {
            assert!(escape(hostile).is_some(), "{hostile}");
        }
        for honest in [
            "tenant = ')'",
            "id IN (1, 2)",
            "\"a;b\" > 'x--y'",
            "note LIKE '%/*%'",
            "a - -1 = 2",
        ] {
            assert_eq!(escape(honest), None, "{honest}");
        }
    }
}
