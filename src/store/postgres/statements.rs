//! The text of every statement on the rows themselves, built once per relation from quoted catalogue names.

use std::fmt::Write as _;

use crate::store::Witness;
use crate::store::survey::{Column, ColumnClass, Survey};

/// Which bounds a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// It begins behind a key.
    pub lower: bool,
    /// It ends with a key.
    pub upper: bool,
    /// It has only rows that were written by some transactions.
    pub sifted: Option<Sifted>,
}

/// By which transactions a page's rows were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sifted {
    /// By one or after it.
    Since,
    /// By none of a list.
    Except,
}

/// The statement that reads a page. Parameters: the parts of the lower bound (if any), of the upper bound (if any), the transaction or
/// the list of them (if any), then the row limit and the size limit of a value. Result: ctid and xmin if versions are wanted, keys, contexts, then for each encrypted column its
/// value, or else the size of a value above the limit.
pub fn page(survey: &Survey, relation: &str, bounds: Bounds, versions: bool) -> String {
    let Bounds { lower, upper, sifted } = bounds;
    let mut sql = String::from(if versions { "SELECT t.ctid, t.xmin, " } else { "SELECT " });
    sql.push_str(&key_list(survey, "t."));
    for context in &survey.contexts {
        let cast = if context_type(context) == "text" { "::text" } else { "" };
        let _ = write!(sql, ", t.{}{cast}", context.sql_name);
    }
    let parts = survey.key.len();
    let (mut next, mut conditions) = (1, Vec::new());
    for (present, operator) in [(lower, ">"), (upper, "<=")] {
        if present {
            conditions.push(format!("{} {operator} {}", key_row(survey), key_parameters(survey, next)));
            next += parts;
        }
    }
    if let Some(sifted) = sifted {
        conditions.push(match sifted {
            // Transaction ids are compared as on a circle. Of rows frozen long ago some seem young, and are read for nothing. The
            // subquery is computed once, not for every row.
            Sifted::Since => format!("age(t.xmin) <= (SELECT age(${next}::int8::text::xid))"),
            // The list becomes a hash table once: compared one by one, hundreds would be compared for every row.
            Sifted::Except => format!("t.xmin NOT IN (SELECT unnest(${next}::xid[]))"),
        });
        next += 1;
    }
    for value in &survey.values {
        let name = &value.sql_name;
        let _ = write!(
            sql,
            ", CASE WHEN octet_length(t.{name}) <= ${limit} THEN t.{name} END, CASE WHEN octet_length(t.{name}) > ${limit} THEN octet_length(t.{name}) END",
            limit = next + 1
        );
    }
    if let Some(filter) = &survey.filter {
        conditions.push(format!("({filter}\n)"));
    }
    let _ = write!(sql, " FROM ONLY {relation} t");
    if !conditions.is_empty() {
        let _ = write!(sql, " WHERE {}", conditions.join(" AND "));
    }
    let _ = write!(sql, " ORDER BY {} LIMIT ${next}", key_list(survey, ""));
    sql
}

/// What a swap does beside swapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parts {
    /// Holds the range and advances it.
    pub fenced: bool,
    /// Records quarantine entries (only with a fence).
    pub quarantines: bool,
    /// Writes ahead of the range's cursor, which follows later (only with a fence).
    pub ahead: bool,
    /// The range follows only if no row lost its race (only with a fence).
    pub only_whole: bool,
    /// Frees what dead versions hold on the blocks that it writes to.
    pub tidies: bool,
}

/// The statement that swaps a batch: with a fence also the one that advances the range and records quarantine, all in one, so that a
/// batch is one round trip and one transaction by itself. Result: rows and values written, rows of the range moved (0: superseded),
/// microseconds that the server worked, and the transaction.
///
/// Parameters, in order: with a fence plan, range, epoch, cursor, done, rows, current, nulls, swaps; with quarantine entries their keys,
/// columns and reasons; then tid and xid arrays unless the witness is the old value; the key arrays; with the old value context and old value arrays;
/// and the new value arrays; where blocks are tidied first, the key arrays of one row of each.
pub fn swap(survey: &Survey, relation: &str, witness: Witness, parts: Parts) -> String {
    let Parts {
        fenced,
        quarantines,
        ahead,
        only_whole,
        tidies,
    } = parts;
    let mut arrays = Vec::new();
    let fixed = if fenced { FENCE_PARAMETERS } else { 0 } + if quarantines { QUARANTINE_PARAMETERS } else { 0 };
    let mut next = fixed + 1;
    let mut array = |sql_type: &str, alias: String| {
        arrays.push(format!("unnest(${next}::{sql_type}[]) AS {alias}"));
        next += 1;
    };
    let mut conditions = Vec::new();
    if witness != Witness::OldValue {
        array("tid", "tid".to_owned());
        array("xid", "x".to_owned());
        conditions.extend(["t.ctid = v.tid".to_owned(), "t.xmin = v.x".to_owned()]);
    }
    for (at, key) in survey.key.iter().enumerate() {
        array(key_type(key), format!("k{at}"));
        conditions.push(format!("t.{} = v.k{at}", key.sql_name));
        if key.class == ColumnClass::Text {
            // A collation may call two texts equal that differ in bytes.
            conditions.push(format!(
                "t.{}::text COLLATE \"C\" = v.k{at}::text COLLATE \"C\"",
                key.sql_name
            ));
        }
    }
    if witness == Witness::OldValue {
        for (at, context) in survey.contexts.iter().enumerate() {
            array(context_type(context), format!("c{at}"));
            conditions.push(match context_type(context) {
                "text" => format!(
                    "t.{}::text COLLATE \"C\" IS NOT DISTINCT FROM v.c{at} COLLATE \"C\"",
                    context.sql_name
                ),
                _ => format!("t.{} IS NOT DISTINCT FROM v.c{at}", context.sql_name),
            });
        }
        for (at, value) in survey.values.iter().enumerate() {
            array(value_type(value), format!("o{at}"));
            let same = match value.class {
                ColumnClass::Text => format!("t.{}::text COLLATE \"C\" = v.o{at} COLLATE \"C\"", value.sql_name),
                _ => format!("t.{} = v.o{at}", value.sql_name),
            };
            conditions.push(format!("(v.n{at} IS NULL OR {same})"));
        }
    }
    let (mut assignments, mut written) = (Vec::new(), Vec::new());
    for (at, value) in survey.values.iter().enumerate() {
        array(value_type(value), format!("n{at}"));
        // A column that stays is given itself: its TOAST pointer is kept, nothing is copied.
        let new = if survey.values.len() == 1 {
            format!("v.n{at}")
        } else {
            format!("coalesce(v.n{at}, t.{})", value.sql_name)
        };
        assignments.push(format!("{} = {new}", value.sql_name));
        written.push(format!("(v.n{at} IS NOT NULL)::int"));
    }
    if fenced {
        conditions.push("EXISTS (SELECT 1 FROM fence)".to_owned());
    }

    let source = format!("(SELECT {})", arrays.join(", "));
    let mut ctes = Vec::new();
    if tidies {
        // One row of each block is looked up by its key: only a scan that follows an index frees what dead versions held.
        let (mut keys, mut same) = (Vec::new(), Vec::new());
        for (at, key) in survey.key.iter().enumerate() {
            keys.push(format!("unnest(${}::{}[]) AS k{at}", next + at, key_type(key)));
            same.push(format!("t.{} = q.k{at}", key.sql_name));
        }
        ctes.push(format!(
            "tidied AS MATERIALIZED (SELECT count(*) AS n FROM (SELECT {}) q,
               LATERAL (SELECT 1 FROM ONLY {relation} t WHERE {} OFFSET 0) looked)",
            keys.join(", "),
            same.join(" AND ")
        ));
        conditions.push("(SELECT n FROM tidied) >= 0".to_owned());
    }
    if fenced {
        ctes.push(
            "fence AS MATERIALIZED (SELECT r.relation FROM reseal.range r JOIN reseal.plan p ON p.id = r.plan_id
               WHERE r.plan_id = $1 AND r.id = $2 AND r.epoch = $3 AND p.generation = $3 FOR UPDATE OF r)"
                .to_owned(),
        );
    }
    let mut from = format!("{source} v");
    if witness == Witness::VersionSkipLocked {
        ctes.push(format!(
            "free AS MATERIALIZED (SELECT v.* FROM {source} v JOIN ONLY {relation} t ON t.ctid = v.tid AND t.xmin = v.x
               FOR NO KEY UPDATE OF t SKIP LOCKED)"
        ));
        from = "free v".to_owned();
    }
    ctes.push(format!(
        "swapped AS (UPDATE ONLY {relation} AS t SET {} FROM {from} WHERE {} RETURNING {} AS written)",
        assignments.join(", "),
        conditions.join(" AND "),
        written.join(" + ")
    ));
    ctes.push(
        "total AS MATERIALIZED (SELECT count(*) AS n, coalesce(sum(written), 0)::int8 AS written FROM swapped)".to_owned(),
    );
    if !fenced {
        return format!(
            "WITH {} SELECT n, written, 1::int8, {TOOK}, {TRANSACTION} FROM total",
            ctes.join(",\n")
        );
    }
    if quarantines {
        let first = FENCE_PARAMETERS + 1;
        ctes.push(format!(
            "held AS (INSERT INTO reseal.quarantine (plan_id, relation, row_key, value_column, reason)
               SELECT $1, fence.relation, q.k, q.c, q.r
                 FROM fence, (SELECT unnest(${first}::bytea[]) AS k, unnest(${}::int4[]) AS c, unnest(${}::text[]) AS r) q
               ON CONFLICT DO NOTHING)",
            first + 1,
            first + 2
        ));
    }
    let follows = |then: &str, otherwise: &str| match only_whole {
        true => format!("CASE WHEN total.n = $9 THEN {then} ELSE {otherwise} END"),
        false => then.to_owned(),
    };
    let (cursor, done) = (follows("coalesce($4, cursor)", "cursor"), follows("done OR $5", "done"));
    let (scanned, nulls) = (follows("$6::int8", "0"), follows("$8::int8", "0"));
    let current = match ahead {
        true => "$7::int8 - total.written".to_owned(),
        false => follows("$7::int8", "- total.written"),
    };
    ctes.push(format!(
        "moved AS (UPDATE reseal.range SET cursor = {cursor}, done = {done}, rows_scanned = rows_scanned + {scanned},
             values_already_current = values_already_current + {current}, values_null = values_null + {nulls},
             rows_reencrypted = rows_reencrypted + total.n, values_reencrypted = values_reencrypted + total.written,
             lost_races = lost_races + $9 - total.n, updated_at = clock_timestamp()
           FROM total WHERE plan_id = $1 AND id = $2 AND epoch = $3 AND EXISTS (SELECT 1 FROM fence) RETURNING 1)"
    ));
    format!(
        "WITH {} SELECT n, written, (SELECT count(*) FROM moved), {TOOK}, {TRANSACTION} FROM total",
        ctes.join(",\n")
    )
}

/// Microseconds since the server began with the statement: without the network, and up to the commit.
const TOOK: &str = "(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000)::int8";
/// What `xmin` of the rows has the lower half of.
const TRANSACTION: &str = "txid_current()";

/// `("a", "b")`, or `"a"` alone.
pub fn key_row(survey: &Survey) -> String {
    let list = key_list(survey, "t.");
    if survey.key.len() == 1 { list } else { format!("({list})") }
}

/// The key columns, each behind `prefix`.
pub fn key_list(survey: &Survey, prefix: &str) -> String {
    survey
        .key
        .iter()
        .map(|key| format!("{prefix}{}", key.sql_name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn key_parameters(survey: &Survey, first: usize) -> String {
    let list = survey
        .key
        .iter()
        .enumerate()
        .map(|(at, key)| format!("${}::{}", first + at, key_type(key)))
        .collect::<Vec<_>>()
        .join(", ");
    if survey.key.len() == 1 { list } else { format!("({list})") }
}

/// The type that parameters for this key column have: its base type, so that the column's own operators and index apply.
fn key_type(column: &Column) -> &str {
    match column.class {
        ColumnClass::Int(2) => "int2",
        ColumnClass::Int(4) => "int4",
        ColumnClass::Int(_) => "int8",
        ColumnClass::Bytes => "bytea",
        ColumnClass::Uuid => "uuid",
        ColumnClass::Timestamp => "timestamp",
        ColumnClass::TimestampTz => "timestamptz",
        ColumnClass::Date => "date",
        _ => &column.type_name,
    }
}

/// The type in which a context column travels: its own where its cells have a canonical form, the server's text otherwise.
pub fn context_type(column: &Column) -> &str {
    match column.class {
        ColumnClass::Int(_)
        | ColumnClass::Bytes
        | ColumnClass::Uuid
        | ColumnClass::Timestamp
        | ColumnClass::TimestampTz
        | ColumnClass::Date => key_type(column),
        _ => "text",
    }
}

fn value_type(column: &Column) -> &'static str {
    match column.class {
        ColumnClass::Bytes => "bytea",
        _ => "text",
    }
}

/// How many parameters stand before the arrays of a fenced swap.
pub const FENCE_PARAMETERS: usize = 9;
/// How many arrays the quarantine entries of a swap are.
pub const QUARANTINE_PARAMETERS: usize = 3;
