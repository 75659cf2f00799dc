//! The statements that a guard is made of: triggers that refuse, the constraint that proves.

use std::fmt::Write as _;

use crate::store::StoreError;
use crate::store::guard::{GuardSpec, GuardedColumn};
use crate::store::ident::quote_ident;
use crate::store::survey::{Column, ColumnClass, Survey};

/// A table as statements name it.
pub(super) struct Table {
    pub(super) sql_name: String,
    pub(super) partitioned: bool,
}

/// When the insertion of a row is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// Before it happens.
    Before,
    /// When it has happened: what `ON CONFLICT DO UPDATE` proposes and does not insert is then never looked at.
    After,
}

/// The statements that take constraints and triggers away.
pub(super) fn without(table: &Table, constraints: &[String], triggers: &[String]) -> Result<String, StoreError> {
    let (mut sql, table) = (String::new(), &table.sql_name);
    for name in constraints {
        let _ = write!(sql, "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {};", quote_ident(name)?);
    }
    for name in triggers {
        let _ = write!(sql, "DROP TRIGGER IF EXISTS {} ON {table};", quote_ident(name)?);
    }
    Ok(sql)
}

/// The statements that add this column's constraint, unscanned.
pub(super) fn unproved(table: &Table, survey: &Survey, plan: &str, guarded: &GuardedColumn) -> Result<String, StoreError> {
    let column = &survey.values[guarded.column];
    let mut sql = String::new();
    // What the constraint says to a stale writer quotes the row: the triggers speak first.
    push_triggers(&mut sql, table, column, plan, guarded, Arrival::Before);
    let _ = write!(
        sql,
        "ALTER TABLE {} ADD CONSTRAINT {} CHECK (NOT ({})) NOT VALID;",
        table.sql_name,
        quote_ident(&constraint_name(plan, guarded))?,
        begins(column, &column.sql_name, &guarded.beginnings)
    );
    Ok(sql)
}

/// The constraint of this column.
pub(super) fn constraint_name(plan: &str, guarded: &GuardedColumn) -> String {
    format!("{}{}", constraint_prefix(plan), guarded.column)
}

/// The statements that leave a guard standing while rows are rotated, and none of these constraints: under them, rows that are still to
/// be rotated could not be updated.
pub(super) fn standing(table: &Table, survey: &Survey, spec: &GuardSpec, constraints: &[String]) -> Result<String, StoreError> {
    let mut sql = without(table, constraints, &[])?;
    // A row that moves to another partition announces itself right before it arrives there.
    let arrival = if table.partitioned { Arrival::Before } else { Arrival::After };
    for guarded in &spec.columns {
        push_triggers(&mut sql, table, &survey.values[guarded.column], &spec.plan, guarded, arrival);
    }
    Ok(sql)
}

/// The triggers of one column. They come after the application's own, which may still change the value.
fn push_triggers(sql: &mut String, table: &Table, column: &Column, plan: &str, guarded: &GuardedColumn, arrival: Arrival) {
    let (name, number) = (&column.sql_name, guarded.column);
    let prefix = trigger_prefix(plan);
    let new = format!("NEW.{name}");
    let refused = begins(column, &new, &guarded.beginnings);
    let changed = format!(
        "{} IS DISTINCT FROM {}",
        exact(column, &new),
        exact(column, &format!("OLD.{name}"))
    );
    let refuse = format!(
        "EXECUTE FUNCTION {}({}, {}, {})",
        REFUSE.trim_end_matches("()"),
        literal(&guarded.keys.join(",")),
        literal(&guarded.message),
        literal(&guarded.hint)
    );
    // In a partitioned table an update may move a row to another partition, where it arrives as an insert: an old row that moves as it
    // is announces itself, for this transaction.
    let passing = format!("{PASSING}{number}");
    let mark = format!("hashtextextended({new}::text, 0)::text");
    let arriving = if table.partitioned {
        format!("({refused}) AND current_setting('{passing}', true) IS DISTINCT FROM {mark}")
    } else {
        refused.clone()
    };
    let table = &table.sql_name;
    let when = match arrival {
        Arrival::Before => "BEFORE",
        Arrival::After => "AFTER",
    };
    let _ = write!(
        sql,
        "CREATE OR REPLACE TRIGGER {prefix}{number}_insert {when} INSERT ON {table} FOR EACH ROW WHEN ({arriving}) {refuse};
         CREATE OR REPLACE TRIGGER {prefix}{number}_update BEFORE UPDATE ON {table} FOR EACH ROW
           WHEN ({changed} AND ({refused})) {refuse};"
    );
    if arriving != refused {
        let _ = write!(
            sql,
            "CREATE OR REPLACE TRIGGER {prefix}{number}_move BEFORE UPDATE ON {table} FOR EACH ROW
               WHEN (NOT ({changed}) AND ({refused})) EXECUTE FUNCTION {}({}, {});",
            LET_MOVE.trim_end_matches("()"),
            literal(&passing),
            literal(&column.name)
        );
    }
}

/// SQL that says whether a value begins with one of these.
fn begins(column: &Column, value: &str, beginnings: &[Vec<u8>]) -> String {
    let each: Vec<String> = beginnings
        .iter()
        .map(|beginning| {
            if column.class == ColumnClass::Bytes {
                let digits: String = beginning.iter().map(|byte| format!("{byte:02x}")).collect();
                format!(
                    "substring({value}::bytea FROM 1 FOR {}) = decode('{digits}', 'hex')",
                    beginning.len()
                )
            } else {
                format!(
                    "left({}, {}) = {}",
                    exact(column, value),
                    beginning.len(),
                    literal(&String::from_utf8_lossy(beginning))
                )
            }
        })
        .collect();
    each.join(" OR ")
}

/// A value of which two are equal only if their bytes are.
fn exact(column: &Column, value: &str) -> String {
    match column.class {
        ColumnClass::Bytes => value.to_owned(),
        _ => format!("{value}::text COLLATE \"C\""),
    }
}

/// A string literal that no setting reads in another way.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Last in the alphabet, which is the order in which triggers fire.
pub(super) fn trigger_prefix(plan: &str) -> String {
    format!("zz_reseal_guard_{plan}_")
}

pub(super) fn constraint_prefix(plan: &str) -> String {
    format!("reseal_guard_{plan}_")
}

/// Refuses; its arguments are the keys that it refuses, what the writer is told, and what can be done.
pub(super) const REFUSE: &str = "reseal.refuse_old_key()";
/// Announces a row that moves to another partition; its arguments are the setting that says so, and the column.
pub(super) const LET_MOVE: &str = "reseal.let_old_row_move()";
/// A setting of the transaction, followed by the column's number.
const PASSING: &str = "reseal.passing_";

/// The functions, with what makes each.
pub(super) const FUNCTIONS: [(&str, &str); 2] = [
    (
        REFUSE,
        "CREATE FUNCTION reseal.refuse_old_key() RETURNS trigger LANGUAGE plpgsql AS $body$
         BEGIN
             RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = TG_ARGV[1], HINT = TG_ARGV[2],
                 SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
         END $body$",
    ),
    (
        LET_MOVE,
        "CREATE FUNCTION reseal.let_old_row_move() RETURNS trigger LANGUAGE plpgsql AS $body$
         DECLARE mark text;
         BEGIN
             EXECUTE format('SELECT pg_catalog.hashtextextended(($1).%I::text, 0)::text', TG_ARGV[1]) INTO mark USING NEW;
             PERFORM pg_catalog.set_config(TG_ARGV[0], mark, true);
             RETURN NEW;
         END $body$",
    ),
];
