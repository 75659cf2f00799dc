//! SQLite.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, params_from_iter};

use super::SessionTable;
use super::statement::{Condition, Dialect, Names, Statements};
use super::table::TableLayout;
use crate::store::StoreError;
use crate::store::ident::quote_ident;
use crate::store::sqlite::{DatabaseFile, blocking, from_sqlite};

pub(super) struct SqliteTable {
    /// Locked by one call at a time, on the blocking pool.
    state: Arc<Mutex<State>>,
    /// The time of the batches whose pages are only in the write-ahead log.
    logged: Duration,
    /// A number that changes when another connection has written.
    data_version: Option<i64>,
    /// When that was noticed.
    others_seen: Option<Instant>,
}

struct State {
    file: DatabaseFile,
    connection: Connection,
    statements: Statements,
}

impl SqliteTable {
    pub(super) async fn open(path: &str, layout: &TableLayout, condition: Condition) -> Result<Self, StoreError> {
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        let layout = layout.clone();
        let state = blocking(move || {
            let file = DatabaseFile::find(&path)?;
            let connection = file.open()?;
            file.sync_less(&connection)?;
            for (setting, value) in [
                // Negative: in KiB.
                ("cache_size", -CACHE_KIB),
                // The keys of what is to end lie in a file that has no name, for this user alone; in memory they would grow with
                // the sessions.
                ("temp_store", TEMP_STORE_FILE),
                // Done between batches instead of at the end of whichever makes the log too long.
                ("wal_autocheckpoint", 0),
            ] {
                connection.pragma_update(None, setting, value).map_err(from_sqlite)?;
            }
            let names = resolve(&connection, &layout)?;
            let statements = Statements::new(Dialect::Sqlite, &names, &condition);
            Ok(State {
                file,
                connection,
                statements,
            })
        })
        .await?;
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            logged: Duration::ZERO,
            data_version: None,
            others_seen: None,
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Statements) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let state = Arc::clone(&self.state);
        blocking(move || {
            // A call that panicked has left the connection as it was: SQLite rolls back.
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            work(&state.connection, &state.statements).map_err(from_sqlite)
        })
        .await
    }

    /// Copies the write-ahead log into the database, if there is one.
    async fn copy_log(&self) -> Result<(), StoreError> {
        self.run(|connection, _| {
            // PASSIVE waits for nobody and makes nobody wait; what a reader still needs stays for the next time. What was written
            // meanwhile is copied, too: the log begins anew only when nothing in it is left to be copied.
            let mut copy = connection.prepare_cached("PRAGMA main.wal_checkpoint(PASSIVE)")?;
            for _ in 0..COPIES_MAX {
                let (in_log, copied): (i64, i64) = copy.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?;
                if in_log == copied {
                    break;
                }
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl SessionTable for SqliteTable {
    async fn snapshot(&mut self) -> Result<(Timestamp, u64), StoreError> {
        let (now, rows) = self
            .run(|connection, statements| {
                connection.execute_batch(&statements.make)?;
                let now = connection.query_row(NOW, [], |row| row.get(0))?;
                let rows = connection.execute(&statements.fill, params_from_iter(&statements.values))?;
                Ok((now, rows))
            })
            .await?;
        Ok((time(now)?, u64::try_from(rows).unwrap_or(u64::MAX)))
    }

    async fn keys(&mut self, from: u64, to: u64) -> Result<Vec<(u64, String)>, StoreError> {
        self.run(move |connection, statements| {
            let mut statement = connection.prepare_cached(&statements.keys)?;
            let rows = statement.query_map([limit(from), limit(to)], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?))
            })?;
            rows.collect()
        })
        .await
    }

    async fn spare(&mut self, numbers: &[u64]) -> Result<(), StoreError> {
        let numbers = numbers.to_vec();
        self.run(move |connection, _| {
            let transaction = connection.unchecked_transaction()?;
            let mut statement = transaction.prepare_cached("DELETE FROM temp.reseal_sessions WHERE n = ?1")?;
            for number in numbers {
                statement.execute([limit(number)])?;
            }
            drop(statement);
            transaction.commit()
        })
        .await
    }

    async fn end(&mut self, from: u64, to: u64) -> Result<u64, StoreError> {
        let (from, to) = (limit(from), limit(to));
        let began = Instant::now();
        let rows = self
            .run(move |connection, statements| connection.prepare_cached(&statements.end)?.execute([from, to]))
            .await?;
        self.logged += began.elapsed();
        Ok(u64::try_from(rows).unwrap_or(u64::MAX))
    }

    async fn left(&mut self) -> Result<u64, StoreError> {
        self.copy_log().await?;
        let state = Arc::clone(&self.state);
        blocking(move || state.lock().unwrap_or_else(PoisonError::into_inner).file.settle()).await?;
        let left: i64 = self
            .run(|connection, statements| connection.query_row(&statements.left, [], |row| row.get(0)))
            .await?;
        Ok(u64::try_from(left).unwrap_or_default())
    }

    async fn between_batches(&mut self) -> Result<(), StoreError> {
        let version = self
            .run(|connection, _| connection.pragma_query_value(None, "data_version", |row| row.get(0)))
            .await?;
        if self.data_version.replace(version).is_some_and(|before| before != version) {
            self.others_seen = Some(Instant::now());
        }
        let is_shared = self.others_seen.is_some_and(|seen| seen.elapsed() < OTHERS_REMEMBERED);
        if self.logged < LOG_TIME && !is_shared {
            tokio::time::sleep(GAP).await;
            return Ok(());
        }
        self.logged = Duration::ZERO;
        self.copy_log().await
    }

    async fn present(&mut self) -> Result<(Timestamp, u64), StoreError> {
        let (now, present): (i64, i64) = self
            .run(|connection, statements| {
                let now = connection.query_row(NOW, [], |row| row.get(0))?;
                let present =
                    connection.query_row(&statements.present, params_from_iter(&statements.values), |row| row.get(0))?;
                Ok((now, present))
            })
            .await?;
        Ok((time(now)?, u64::try_from(present).unwrap_or_default()))
    }
}

fn time(milliseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| StoreError::State("the clock is out of range".to_owned()))
}

fn limit(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The table and its columns as the catalogue spells them. Names are compared as SQLite compares them.
fn resolve(connection: &Connection, layout: &TableLayout) -> Result<Names, StoreError> {
    let typed = layout.table.strip_prefix("main.").unwrap_or(&layout.table);
    let found = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let found = connection.query_row(found, [typed], |row| row.get::<_, String>(0));
    let table = match found {
        Ok(name) => name,
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            return Err(StoreError::Refused(format!("there is no table {}", layout.table)));
        }
        Err(error) => return Err(from_sqlite(error)),
    };
    let columns = texts(connection, "SELECT name FROM pragma_table_info(?1, 'main')", &table)?;
    let primary = texts(
        connection,
        "SELECT name FROM pragma_table_info(?1, 'main') WHERE pk > 0",
        &table,
    )?;
    let unique = texts(
        connection,
        "SELECT min(i.name) FROM pragma_index_list(?1, 'main') l, pragma_index_info(l.name, 'main') i
         WHERE l.\"unique\" = 1 AND l.partial = 0 GROUP BY l.name HAVING count(*) = 1 AND min(i.name) IS NOT NULL",
        &table,
    )?;
    let is_key = |name: &String| name.eq_ignore_ascii_case(&layout.key);
    let is_unique = (primary.len() == 1 && primary.iter().all(is_key)) || unique.iter().any(is_key);
    let without_rowid: i64 = connection
        .query_row(
            "SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'",
            [&table],
            |row| row.get(0),
        )
        .map_err(from_sqlite)?;
    let mut names = Names::resolve(format!("main.{}", quote_ident(&table)?), layout, |name| {
        columns.iter().find(|column| column.eq_ignore_ascii_case(name)).cloned()
    })?;
    if !is_unique {
        return Err(StoreError::Refused(format!(
            "column {} of {} is not unique: it does not identify a session",
            layout.key, layout.table
        )));
    }
    // An index on the key would give its own order, which is a random one on the disk. A column may bear one of the three names.
    let is_free = |name: &&&str| !columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    if without_rowid == 0 {
        names.storage_order = ["rowid", "_rowid_", "oid"].iter().find(is_free).copied();
    }
    Ok(names)
}

fn texts(connection: &Connection, sql: &str, table: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare(sql).map_err(from_sqlite)?;
    let rows = statement.query_map([table], |row| row.get(0)).map_err(from_sqlite)?;
    rows.collect::<Result<_, _>>().map_err(from_sqlite)
}

/// Sessions lie in indexes at random, and all pages that a batch changes should fit: some thousands. The others are read anew from the
/// system's cache, which costs a microsecond each; a cache that holds whole indexes would grow with the sessions.
const CACHE_KIB: i64 = 16 * 1024;

/// How much is written to the log before it is copied into the database: some ten thousands of pages. Much less, and the same pages of
/// indexes are copied, and synced, again and again.
const LOG_TIME: Duration = Duration::from_secs(2);

/// Between two batches. SQLite has no queue: whoever waits for the file looks again now and then, and must find it free.
const GAP: Duration = Duration::from_millis(8);

/// The second copies what was written during the first, which is little.
const COPIES_MAX: u32 = 3;

/// An application whose own write finds the log long copies it before it goes on. So while one writes, nothing is left for it to copy
/// but the last batch.
const OTHERS_REMEMBERED: Duration = Duration::from_secs(10);

/// As SQLite counts them: 1 is a file, 2 memory.
const TEMP_STORE_FILE: i64 = 1;

const NOW: &str = "SELECT CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER)";
