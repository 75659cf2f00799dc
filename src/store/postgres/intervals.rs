//! Dividing a table into intervals of its key, by a sample of pages.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _, ValueRef as _};

use super::error::store_error;
use super::{statements, types};
use crate::store::StoreError;
use crate::store::control::Interval;
use crate::store::survey::{Relation, Survey};
use crate::store::value::{Cell, Key};

/// About `pieces` adjacent intervals over all relations, in proportion to their sizes.
pub async fn intervals(
    connection: &mut PgConnection,
    survey: &Survey,
    relations: &[Relation],
    pieces: usize,
    frozen: bool,
) -> Result<Vec<Interval>, StoreError> {
    let rows: u64 = relations.iter().map(|relation| relation.rows_estimate).sum::<u64>().max(1);
    let mut intervals = Vec::new();
    for relation in relations {
        let upper = if frozen {
            match largest_key(connection, survey, relation).await? {
                // Nothing there now; what comes later is for the sweep.
                None => continue,
                some => some,
            }
        } else {
            None
        };
        let share = (pieces as u64 * relation.rows_estimate).div_ceil(rows).max(1) as usize;
        let mut after = None;
        for boundary in boundaries(connection, survey, relation, share).await? {
            intervals.push(Interval {
                relation: relation.sql_name.clone(),
                after: after.replace(boundary.clone()),
                upto: Some(boundary),
            });
        }
        intervals.push(Interval {
            relation: relation.sql_name.clone(),
            after,
            upto: upper,
        });
    }
    Ok(intervals)
}

async fn largest_key(connection: &mut PgConnection, survey: &Survey, relation: &Relation) -> Result<Option<Key>, StoreError> {
    let descending: Vec<String> = survey.key.iter().map(|key| format!("{} DESC", key.sql_name)).collect();
    let sql = format!(
        "SELECT {} FROM ONLY {} ORDER BY {} LIMIT 1",
        statements::key_list(survey, ""),
        relation.sql_name,
        descending.join(", ")
    );
    sqlx::query(AssertSqlSafe(sql))
        .fetch_optional(connection)
        .await
        .map_err(store_error)?
        .map(|row| key_of(survey, &row).map_err(store_error))
        .transpose()
}

/// `share - 1` keys that divide the relation into parts of similar size, in ascending order and distinct.
async fn boundaries(
    connection: &mut PgConnection,
    survey: &Survey,
    relation: &Relation,
    share: usize,
) -> Result<Vec<Key>, StoreError> {
    if share < 2 {
        return Ok(Vec::new());
    }
    let wanted = (share * SAMPLE_ROWS_PER_PIECE) as f64;
    let percent = (100.0 * wanted / relation.rows_estimate.max(1) as f64).clamp(0.000_1, 100.0);
    let keys = statements::key_list(survey, "");
    let sql = format!(
        "SELECT {keys} FROM (SELECT {keys}, row_number() OVER (ORDER BY {keys}) AS n, count(*) OVER () AS total
           FROM ONLY {} TABLESAMPLE SYSTEM ({percent:.6})) s
          WHERE n > 1 AND (n * {share}) / total > ((n - 1) * {share}) / total AND n < total ORDER BY {keys}",
        relation.sql_name
    );
    // A named statement: the driver looks up types that it does not know (an enum's) between preparing and running an unnamed one.
    let rows = sqlx::query(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| key_of(survey, row).map_err(store_error)).collect()
}

fn key_of(survey: &Survey, row: &PgRow) -> Result<Key, sqlx::Error> {
    let mut scratches = vec![[0u8; 8]; survey.key.len()];
    let mut cells: Vec<Cell<'_>> = Vec::with_capacity(survey.key.len());
    for ((at, column), scratch) in survey.key.iter().enumerate().zip(&mut scratches) {
        let value = row.try_get_raw(at)?;
        let wire = if value.is_null() {
            None
        } else {
            Some(value.as_bytes().map_err(sqlx::Error::Decode)?)
        };
        cells.push(types::cell(column.class, wire, scratch));
    }
    Ok(Key::new(cells))
}

/// Enough that pieces differ by a few percent, few enough that sorting them is nothing.
const SAMPLE_ROWS_PER_PIECE: usize = 300;
