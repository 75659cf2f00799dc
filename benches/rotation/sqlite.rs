//! SQLite: the floor is a rewrite inside the database, by key range in transactions of 1,000 rows. A no-op UPDATE would be skipped by
//! SQLite and is no floor, so every value is turned by one byte.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, params};

use super::process;
use super::sample::{Sample, note_bytes};

pub fn measure(rows: usize, rounds: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (source, work) = (folder.path().join("source.db"), folder.path().join("work.db"));
    let sample = fill(&source, rows)?;
    let mut results = Vec::new();
    for _ in 0..rounds {
        fresh_copy(&source, &work)?;
        let floor = floor(&work, rows)?;
        fresh_copy(&source, &work)?;
        let run = process::rotate(
            &format!("sqlite:{}", work.display()),
            &sample.old,
            &sample.new,
            &["--format", "aes-gcm", "--profile", "fast"],
        )?;
        results.push((floor, run));
    }
    super::report(&format!("SQLite, {rows} rows of 300 B AES-GCM, WAL"), &results);
    Ok(())
}

/// A copy that is on the disk: whoever commits first would otherwise wait for it.
fn fresh_copy(source: &Path, work: &Path) -> std::io::Result<()> {
    std::fs::copy(source, work)?;
    std::fs::File::open(work)?.sync_all()
}

fn fill(path: &Path, rows: usize) -> Result<Sample, Box<dyn Error>> {
    let mut sample = Sample::new("aes-gcm")?;
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.execute_batch(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, tenant_id INTEGER, email_ct BLOB, note_ct BLOB, updated_at TEXT)",
    )?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT INTO t VALUES (?, ?, ?, ?, '2026-01-01T00:00:00Z')")?;
        for row in 1..=rows {
            insert.execute(params![
                row as i64,
                (row * 31 % 1000) as i64,
                sample.seal(row, 92),
                sample.seal(row, note_bytes(row))
            ])?;
        }
    }
    transaction.execute("CREATE INDEX t_tenant ON t (tenant_id)", [])?;
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(sample)
}

fn floor(path: &Path, rows: usize) -> Result<f64, Box<dyn Error>> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "normal")?;
    let mut update = connection
        .prepare("UPDATE t SET note_ct = CAST(substr(note_ct, 2) || substr(note_ct, 1, 1) AS BLOB) WHERE id > ? AND id <= ?")?;
    let begun = Instant::now();
    for from in (0..rows).step_by(1_000) {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        update.execute(params![from as i64, (from + 1_000) as i64])?;
        connection.execute_batch("COMMIT")?;
    }
    Ok(rows as f64 / begun.elapsed().as_secs_f64())
}
