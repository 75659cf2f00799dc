//! Reading the catalogue. Nothing here writes.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::error::store_error;
use super::hazards::{hazards, server_state};
use super::types;
use crate::store::StoreError;
use crate::store::ident::quote_ident;
use crate::store::survey::{Column, ColumnClass, Observation, Relation, Survey, Target, require_rewritable};

/// Everything about the target that later steps rely on.
pub async fn survey(connection: &mut PgConnection, target: &Target) -> Result<Survey, StoreError> {
    let table = resolve(connection, &target.table).await?;
    let mut observations = Vec::new();
    match table.kind {
        'r' | 'p' => {}
        'v' | 'm' => observations.push(Observation::NotATable("a view".to_owned())),
        'f' => observations.push(Observation::NotATable("a foreign table".to_owned())),
        _ => observations.push(Observation::NotATable("not a table".to_owned())),
    }
    let columns = columns(connection, table.oid).await?;
    let find = |name: &str| {
        columns
            .iter()
            .find(|column| column.column.name == name)
            .or_else(|| columns.iter().find(|column| column.column.name == name.to_lowercase()))
            .ok_or_else(|| {
                StoreError::Refused(format!(
                    "{} has no column {}; it has: {}",
                    table.display,
                    name.escape_debug(),
                    columns.iter().map(|c| c.column.name.as_str()).collect::<Vec<_>>().join(", ")
                ))
            })
    };
    let mut values = Vec::new();
    for name in &target.columns {
        let found = find(name)?;
        if found.generated {
            observations.push(Observation::Generated(found.column.name.clone()));
        }
        values.push(found.column.clone());
    }
    let mut contexts = Vec::new();
    for name in &target.context_columns {
        contexts.push(find(name)?.column.clone());
    }

    let key = iteration_key(connection, &table, &columns, &mut observations).await?;
    let of_key: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
    let of_values: Vec<&str> = values.iter().map(|column| column.name.as_str()).collect();
    require_rewritable(&of_key, &of_values)?;
    let relations = relations(connection, table.oid).await?;
    if table.kind == 'r' && relations.len() > 1 {
        observations.push(Observation::NotATable(
            "a table with classic inheritance; name each child table on its own".to_owned(),
        ));
    }
    if relations.len() > 1 || table.kind == 'p' {
        observations.push(Observation::Leaves(relations.len()));
    }
    hazards(connection, &table, &values, &mut observations).await?;
    server_state(connection, &table, &mut observations).await?;
    if let Some(filter) = &target.filter
        && let Err(reason) = probe_filter(connection, &table.sql_name, filter).await?
    {
        observations.push(Observation::BadFilter(reason));
    }

    let server: String = scalar(connection, "SELECT current_setting('server_version')", table.oid).await?;
    let bytes: i64 = scalar(
        connection,
        "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree($1::oid::regclass)
         UNION ALL SELECT pg_total_relation_size($1::oid::regclass) ORDER BY 1 DESC LIMIT 1",
        table.oid,
    )
    .await?;
    Ok(Survey {
        table: table.display,
        table_id: table.oid,
        server: format!("PostgreSQL {server}"),
        rows_estimate: relations.iter().map(|relation| relation.rows_estimate).sum(),
        relations,
        key,
        contexts,
        values,
        filter: target.filter.clone(),
        bytes: bytes.unsigned_abs(),
        observations,
    })
}

/// A table that cannot be worked on, or is no longer there, gets no further, whoever overlooks the survey's observations.
pub async fn require_usable(connection: &mut PgConnection, survey: &Survey) -> Result<(), StoreError> {
    let refusal = survey.observations.iter().find_map(|fact| match fact {
        Observation::BadFilter(why) => Some(format!("the row condition is not one: {why}")),
        Observation::NotATable(what) => Some(format!("{} is {what}", survey.table)),
        Observation::NoUsableKey(why) => Some(format!("rows of {} cannot be told apart: {why}", survey.table)),
        _ => None,
    });
    if let Some(refusal) = refusal {
        return Err(StoreError::Refused(refusal));
    }
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_class WHERE oid = $1::int8::oid)")
        .bind(i64::from(survey.table_id))
        .fetch_one(connection)
        .await
        .map_err(store_error)?;
    if exists {
        Ok(())
    } else {
        Err(StoreError::Refused(format!("{} is no longer there", survey.table)))
    }
}

/// A table as the catalogue knows it.
pub(super) struct Resolved {
    pub(super) oid: u32,
    kind: char,
    pub(super) display: String,
    sql_name: String,
}

async fn resolve(connection: &mut PgConnection, name: &str) -> Result<Resolved, StoreError> {
    let not_found = || {
        StoreError::Refused(format!(
            "there is no table {} (write it as in SQL: schema.table, \"Quoted\" where needed)",
            name.escape_debug()
        ))
    };
    if name.contains('\0') || name.len() > TABLE_NAME_BYTES_MAX {
        return Err(not_found());
    }
    // The name as SQL would read it; failing that (mixed case, odd characters), the bare name as the catalogue spells it.
    let parsed: Option<i64> = match sqlx::query("SELECT to_regclass($1)::oid::int8")
        .bind(name)
        .fetch_one(&mut *connection)
        .await
    {
        Ok(row) => row.try_get(0).map_err(store_error)?,
        Err(sqlx::Error::Database(_)) => None,
        Err(error) => return Err(store_error(error)),
    };
    let oid = match parsed {
        Some(oid) => Some(oid),
        None => sqlx::query("SELECT oid::int8 FROM pg_class WHERE relname = $1 AND pg_table_is_visible(oid)")
            .bind(name)
            .fetch_optional(&mut *connection)
            .await
            .map_err(store_error)?
            .map(|row| row.try_get(0).map_err(store_error))
            .transpose()?,
    };
    let oid = oid.ok_or_else(not_found)?;
    let row = sqlx::query(
        "SELECT c.relkind::text, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1::int8::oid",
    )
    .bind(oid)
    .fetch_one(&mut *connection)
    .await
    .map_err(store_error)?;
    let (kind, schema, relname): (String, String, String) = (
        row.try_get(0).map_err(store_error)?,
        row.try_get(1).map_err(store_error)?,
        row.try_get(2).map_err(store_error)?,
    );
    Ok(Resolved {
        oid: u32::try_from(oid).unwrap_or(0),
        kind: kind.chars().next().unwrap_or('?'),
        sql_name: qualified(&schema, &relname)?,
        display: format!("{schema}.{relname}"),
    })
}

fn qualified(schema: &str, name: &str) -> Result<String, StoreError> {
    Ok(format!("{}.{}", quote_ident(schema)?, quote_ident(name)?))
}

/// A column with its number.
struct Described {
    attnum: i16,
    generated: bool,
    column: Column,
}

async fn columns(connection: &mut PgConnection, table: u32) -> Result<Vec<Described>, StoreError> {
    // A domain is followed to its base type; its own length limit counts where the column has none.
    let rows = sqlx::query(
        "WITH RECURSIVE base AS (
             SELECT a.attnum, a.atttypid AS typ, a.atttypmod AS typmod FROM pg_attribute a
              WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
             UNION ALL
             SELECT base.attnum, t.typbasetype, CASE WHEN base.typmod >= 0 THEN base.typmod ELSE t.typtypmod END
               FROM base JOIN pg_type t ON t.oid = base.typ WHERE t.typtype = 'd')
         SELECT a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated::text,
                t.oid::int8, t.typarray::int8, t.typtype::text, t.typname::text, base.typmod
           FROM pg_attribute a JOIN base ON base.attnum = a.attnum JOIN pg_type t ON t.oid = base.typ AND t.typtype <> 'd'
          WHERE a.attrelid = $1::int8::oid ORDER BY a.attnum",
    )
    .bind(i64::from(table))
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get(1).map_err(store_error)?;
            let generated: String = row.try_get(4).map_err(store_error)?;
            let (base, array): (i64, i64) = (row.try_get(5).map_err(store_error)?, row.try_get(6).map_err(store_error)?);
            let (kind, typname): (String, String) =
                (row.try_get(7).map_err(store_error)?, row.try_get(8).map_err(store_error)?);
            let typmod: i32 = row.try_get(9).map_err(store_error)?;
            let base = u32::try_from(base).unwrap_or(0);
            let class = types::class(base, kind.chars().next().unwrap_or('b'), &typname);
            let sized = matches!(class, ColumnClass::Text | ColumnClass::Padded) && typmod >= VARHDRSZ;
            Ok(Described {
                attnum: row.try_get(0).map_err(store_error)?,
                generated: !generated.is_empty(),
                column: Column {
                    sql_name: quote_ident(&name)?,
                    name,
                    type_name: row.try_get(2).map_err(store_error)?,
                    class,
                    nullable: !row.try_get::<bool, _>(3).map_err(store_error)?,
                    max_len: sized.then(|| u64::from((typmod - VARHDRSZ).unsigned_abs())),
                    type_oids: (base, u32::try_from(array).unwrap_or(0)),
                },
            })
        })
        .collect()
}

/// The primary key; else a unique index over columns that are all NOT NULL, without expressions and conditions.
async fn iteration_key(
    connection: &mut PgConnection,
    table: &Resolved,
    columns: &[Described],
    observations: &mut Vec<Observation>,
) -> Result<Vec<Column>, StoreError> {
    let candidates = sqlx::query(
        "SELECT i.indisprimary, c.relname::text, (i.indkey::int2[])[0:i.indnkeyatts - 1]
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
          WHERE i.indrelid = $1::int8::oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
          ORDER BY i.indisprimary DESC, i.indnkeyatts, c.relname",
    )
    .bind(i64::from(table.oid))
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    for row in &candidates {
        let primary: bool = row.try_get(0).map_err(store_error)?;
        let index: String = row.try_get(1).map_err(store_error)?;
        let attnums: Vec<i16> = row.try_get(2).map_err(store_error)?;
        let key: Vec<Column> = attnums
            .iter()
            .filter_map(|attnum| columns.iter().find(|column| column.attnum == *attnum))
            .map(|described| described.column.clone())
            .collect();
        if key.len() != attnums.len() || key.iter().any(|column| column.nullable) {
            continue;
        }
        if !primary {
            observations.push(Observation::KeyIs(format!("unique index {index}")));
        }
        return Ok(key);
    }
    observations.push(Observation::NoUsableKey(
        "no primary key, and no unique index over columns that are all NOT NULL".to_owned(),
    ));
    Ok(Vec::new())
}

/// The plain tables under `table`: itself, or the leaves of its partition tree.
pub async fn relations(connection: &mut PgConnection, table: u32) -> Result<Vec<Relation>, StoreError> {
    let rows = sqlx::query(
        "WITH RECURSIVE tree AS (
             SELECT $1::int8::oid AS oid
             UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid AND NOT i.inhdetachpending)
         SELECT c.oid::int8, n.nspname::text, c.relname::text,
                (CASE WHEN c.reltuples >= 0 AND c.relpages > 0
                      THEN c.reltuples / c.relpages * pg_relation_size(c.oid) / current_setting('block_size')::int
                      ELSE pg_relation_size(c.oid) / 200.0 END)::float8
           FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind = 'r' ORDER BY c.oid",
    )
    .bind(i64::from(table))
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    rows.iter()
        .map(|row| {
            let (schema, name): (String, String) = (row.try_get(1).map_err(store_error)?, row.try_get(2).map_err(store_error)?);
            Ok(Relation {
                sql_name: qualified(&schema, &name)?,
                oid: u32::try_from(row.try_get::<i64, _>(0).map_err(store_error)?).unwrap_or(0),
                rows_estimate: row.try_get::<f64, _>(3).map_err(store_error)?.max(0.0) as u64,
            })
        })
        .collect()
}

/// Which of these columns this user may not update.
pub async fn missing_update_privileges(
    connection: &mut PgConnection,
    relation: &Relation,
    values: &[Column],
) -> Result<Vec<String>, StoreError> {
    let names: Vec<&str> = values.iter().map(|column| column.name.as_str()).collect();
    let rows =
        sqlx::query("SELECT name FROM unnest($2::text[]) name WHERE NOT has_column_privilege($1::int8::oid, name, 'UPDATE')")
            .bind(i64::from(relation.oid))
            .bind(names)
            .fetch_all(connection)
            .await
            .map_err(store_error)?;
    rows.iter().map(|row| row.try_get(0).map_err(store_error)).collect()
}

/// Parses the condition inside parentheses and inside brackets, in a read-only transaction, without running it: a text that closes
/// the one (`1) OR (1`) does not parse in the other.
async fn probe_filter(connection: &mut PgConnection, table: &str, filter: &str) -> Result<Result<(), String>, StoreError> {
    if filter.contains('\0') || filter.len() > FILTER_BYTES_MAX {
        return Ok(Err("it holds a NUL byte or is too long".to_owned()));
    }
    let mut transaction = connection.begin().await.map_err(store_error)?;
    sqlx::raw_sql("SET TRANSACTION READ ONLY")
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
    for probe in [
        // On one line: a comment would swallow the end of whatever statement the condition stands in.
        format!("SELECT 1 FROM {table} t WHERE ({filter}) LIMIT 0"),
        format!("SELECT ARRAY[{filter}\n] FROM {table} t LIMIT 0"),
        format!("SELECT CASE WHEN {filter}\nTHEN 1 END FROM {table} t LIMIT 0"),
    ] {
        // The extended protocol takes exactly one statement.
        let outcome = sqlx::query(AssertSqlSafe(probe)).fetch_all(&mut *transaction).await;
        if let Err(error) = outcome {
            transaction.rollback().await.map_err(store_error)?;
            return match store_error(error) {
                lost @ StoreError::Disconnected(_) => Err(lost),
                refused => Ok(Err(refused.to_string())),
            };
        }
    }
    transaction.rollback().await.map_err(store_error)?;
    Ok(Ok(()))
}

async fn scalar<T>(connection: &mut PgConnection, sql: &'static str, table: u32) -> Result<T, StoreError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    let query = if sql.contains("$1") {
        sqlx::query_scalar(sql).bind(i64::from(table))
    } else {
        sqlx::query_scalar(sql)
    };
    query.fetch_one(connection).await.map_err(store_error)
}

/// `varchar(n)` stores n plus this in `atttypmod`.
const VARHDRSZ: i32 = 4;
/// Schema and name, each at most 63 bytes, quoted.
const TABLE_NAME_BYTES_MAX: usize = 300;
const FILTER_BYTES_MAX: usize = 10_000;
