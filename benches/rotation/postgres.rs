//! PostgreSQL: the floor is `UPDATE t SET note_ct = note_ct` in batches by key range over as many connections.

use std::error::Error;
use std::time::Instant;

use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor as _, PgPool};

use super::process;
use super::sample::{Sample, note_bytes};

/// What is measured beside the rotation of one column.
pub struct Extent {
    /// The table is vacuumed meanwhile.
    pub vacuum: bool,
    /// In each round, both encrypted columns of the table are rotated as well.
    pub second_column: bool,
}

pub fn measure(rows: usize, rounds: usize, connections: usize, extent: &Extent) -> Result<(), Box<dyn Error>> {
    let database = std::env::var("RESEAL_TEST_POSTGRES").map_err(|_| "RESEAL_TEST_POSTGRES is not set: run scripts/bench")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let pool = runtime.block_on(
        PgPoolOptions::new()
            .max_connections(connections as u32 + 1)
            .connect(&database),
    )?;
    let sample = runtime.block_on(fill(&pool, rows))?;
    let (mut results, mut growths, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    let vacuums: &[&str] = if extent.vacuum { &["--vacuum"] } else { &[] };
    for _ in 0..rounds {
        runtime.block_on(fresh(&pool))?;
        let before = runtime.block_on(bytes(&pool))?;
        let floor = runtime.block_on(floor(&pool, rows, connections))?;
        let floor_growth = runtime.block_on(bytes(&pool))? / before;
        runtime.block_on(fresh(&pool))?;
        let workers = connections.to_string();
        let arguments = [&["--format", "aes-gcm", "--workers", &workers], vacuums].concat();
        let run = process::rotate(&database, &sample.old, &sample.new, &arguments)?;
        growths.push((floor_growth, runtime.block_on(bytes(&pool))? / before));
        if extent.second_column {
            runtime.block_on(fresh(&pool))?;
            let arguments = [&arguments[..], &["--column", "email_ct"]].concat();
            let both = process::rotate(&database, &sample.old, &sample.new, &arguments)?;
            let cost = run.rows_per_second / both.rows_per_second;
            println!(
                "both columns: {:.0} rows/s, {cost:.2} x the time of one",
                both.rows_per_second
            );
            costs.push(cost);
        }
        results.push((floor, run));
    }
    let what = format!(
        "PostgreSQL, {rows} rows of 300 B AES-GCM, {connections} connections{}",
        if extent.vacuum { ", --vacuum" } else { "" }
    );
    super::report(&what, &results);
    let (floors, ours): (Vec<f64>, Vec<f64>) = growths.into_iter().unzip();
    println!(
        "{what}: MEDIAN growth of the table: floor {:.2} x, reseal {:.2} x",
        super::median(floors),
        super::median(ours)
    );
    if extent.second_column {
        println!(
            "{what}: MEDIAN time of both columns: {:.2} x that of one",
            super::median(costs)
        );
    }
    runtime.block_on(pool.execute("DROP TABLE t, t_source; DROP SCHEMA reseal CASCADE"))?;
    Ok(())
}

async fn fill(pool: &PgPool, rows: usize) -> Result<Sample, Box<dyn Error>> {
    let mut sample = Sample::new("aes-gcm")?;
    pool.execute(
        "DROP TABLE IF EXISTS t_source;
         CREATE TABLE t_source (id int8, tenant_id int4, email_ct bytea, note_ct bytea, updated_at timestamptz)",
    )
    .await?;
    for first in (1..=rows).step_by(10_000) {
        let last = rows.min(first + 9_999);
        let ids: Vec<i64> = (first..=last).map(|id| id as i64).collect();
        let emails: Vec<Vec<u8>> = (first..=last).map(|id| sample.seal(id, 92)).collect();
        let notes: Vec<Vec<u8>> = (first..=last).map(|id| sample.seal(id, note_bytes(id))).collect();
        sqlx::query(
            "INSERT INTO t_source SELECT i, i * 31 % 1000, e, n, now() FROM unnest($1::int8[], $2::bytea[], $3::bytea[]) AS v(i, e, n)",
        )
        .bind(ids)
        .bind(emails)
        .bind(notes)
        .execute(pool)
        .await?;
    }
    Ok(sample)
}

/// The table as it is before any rotation: freshly written, indexed, vacuumed, checkpointed.
async fn fresh(pool: &PgPool) -> Result<(), Box<dyn Error>> {
    pool.execute(
        "DROP TABLE IF EXISTS t; DROP SCHEMA IF EXISTS reseal CASCADE;
         CREATE TABLE t (id int8 PRIMARY KEY, tenant_id int4, email_ct bytea, note_ct bytea, updated_at timestamptz) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT * FROM t_source ORDER BY id;
         CREATE INDEX ON t (tenant_id)",
    )
    .await?;
    pool.execute("VACUUM ANALYZE t").await?;
    pool.execute("CHECKPOINT").await?;
    Ok(())
}

/// Of the table without its indexes.
async fn bytes(pool: &PgPool) -> Result<f64, sqlx::Error> {
    let bytes: i64 = sqlx::query_scalar("SELECT pg_table_size('t')").fetch_one(pool).await?;
    Ok(bytes as f64)
}

async fn floor(pool: &PgPool, rows: usize, connections: usize) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..connections {
        let pool = pool.clone();
        let (mut from, to) = (
            (rows * worker / connections) as i64,
            (rows * (worker + 1) / connections) as i64,
        );
        workers.spawn(async move {
            let mut connection = pool.acquire().await?;
            while from < to {
                let end = to.min(from + 1_000);
                sqlx::query("UPDATE t SET note_ct = note_ct WHERE id > $1 AND id <= $2")
                    .bind(from)
                    .bind(end)
                    .execute(&mut *connection)
                    .await?;
                from = end;
            }
            Ok::<_, sqlx::Error>(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    Ok(rows as f64 / begun.elapsed().as_secs_f64())
}
