//! SQLite: its fixture, and what only SQLite has.

mod file;
mod moments;
mod samples;
mod survey;
mod writing;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reseal::store::Store;
use reseal::store::sqlite::SqliteStore;
use reseal::store::survey::Survey;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::stores::fixture::{Fixture, KeyTable, target};

/// A database file in a directory of its own, in WAL mode as most applications have it.
pub struct SqliteFixture {
    directory: tempfile::TempDir,
}

impl SqliteFixture {
    pub fn create() -> Option<Self> {
        let fixture = Self::rollback_journal();
        fixture.connect().pragma_update(None, "journal_mode", "WAL").unwrap();
        Some(fixture)
    }

    fn rollback_journal() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self { directory };
        // Opening makes no file; the first write does.
        Connection::open(fixture.path())
            .unwrap()
            .pragma_update(None, "user_version", 1)
            .unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn connect(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.path(), flags).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        // What tests write themselves need not survive a power cut.
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        connection
    }

    fn run(&self, sql: &str) {
        self.connect().execute_batch(sql).unwrap();
    }

    async fn survey(&self, columns: &[&str]) -> Survey {
        self.store().survey(&target("t", columns, &[])).await.unwrap()
    }
}

#[async_trait]
impl Fixture for SqliteFixture {
    fn store(&self) -> Box<dyn Store> {
        Box::new(SqliteStore::open(&self.path()).unwrap())
    }

    async fn execute(&self, sql: &str) {
        let (connection, sql) = (self.connect(), sql.to_owned());
        tokio::task::spawn_blocking(move || connection.execute_batch(&sql).unwrap())
            .await
            .unwrap();
    }

    async fn query(&self, sql: &str) -> Vec<Vec<Option<Vec<u8>>>> {
        let connection = self.connect();
        let mut statement = connection.prepare(sql).unwrap();
        let width = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let mut found = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            found.push(
                (0..width)
                    .map(|at| match row.get_ref(at).unwrap() {
                        ValueRef::Null => None,
                        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
                        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
                        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
                    })
                    .collect(),
            );
        }
        found
    }

    fn state_of_version_1(&self) -> &'static str {
        STATE_OF_VERSION_1
    }

    fn int(&self) -> &'static str {
        "INTEGER"
    }

    fn bytes(&self) -> &'static str {
        "BLOB"
    }

    fn uuid(&self) -> &'static str {
        "TEXT"
    }

    fn text_ignoring_case(&self) -> &'static str {
        "TEXT COLLATE NOCASE"
    }

    fn bytes_literal(&self, bytes: &[u8]) -> String {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("x'{digits}'")
    }

    fn more_key_tables(&self) -> Vec<KeyTable> {
        let numbers = || (0..25).map(|n| (n * 7 % 25).to_string()).collect::<Vec<_>>();
        vec![
            KeyTable {
                name: "without rowid, two columns",
                create: "CREATE TABLE t (n INTEGER, c TEXT, a TEXT, b INTEGER, PRIMARY KEY (b, a)) WITHOUT ROWID".to_owned(),
                key: "b, a",
                order: "b, a",
                rows: (0..25).map(|n| format!("{}, 'k{}'", n % 4, 25 - n)).collect(),
            },
            KeyTable {
                name: "without rowid, case ignored, descending",
                create: "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY DESC, n INTEGER, c TEXT) WITHOUT ROWID".to_owned(),
                key: "id",
                order: "id",
                rows: ["'b'", "'A'", "'C'", "'aa'", "'Z'"].map(str::to_owned).into(),
            },
            KeyTable {
                name: "bare rowid",
                create: "CREATE TABLE t (n INTEGER, c TEXT)".to_owned(),
                key: "",
                order: "n",
                rows: vec![String::new(); 25],
            },
            KeyTable {
                name: "rowid under another name, because a column took it",
                create: "CREATE TABLE t (rowid TEXT, n INTEGER, c TEXT)".to_owned(),
                key: "",
                order: "n",
                rows: vec![String::new(); 9],
            },
            KeyTable {
                name: "INT PRIMARY KEY, which allows NULL",
                create: "CREATE TABLE t (id INT PRIMARY KEY, n INTEGER, c TEXT)".to_owned(),
                key: "",
                order: "n",
                rows: vec![String::new(); 9],
            },
            KeyTable {
                name: "an index with a collation of its own",
                create: "CREATE TABLE t (id TEXT NOT NULL, n INTEGER, c TEXT); \
                         CREATE UNIQUE INDEX i ON t (id COLLATE NOCASE)"
                    .to_owned(),
                key: "id",
                order: "id COLLATE NOCASE",
                rows: ["'b'", "'A'", "'C'", "'aa'", "'Z'", "'_'"].map(str::to_owned).into(),
            },
            KeyTable {
                name: "mixed classes in one key column",
                create: "CREATE TABLE t (id BLOB NOT NULL PRIMARY KEY, n INTEGER, c TEXT)".to_owned(),
                key: "id",
                order: "id",
                rows: ["5", "'5'", "x'35'", "-1", "''", "x''", "'a'"].map(str::to_owned).into(),
            },
            KeyTable {
                name: "STRICT",
                create: "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, c TEXT) STRICT".to_owned(),
                key: "id",
                order: "id",
                rows: numbers(),
            },
            KeyTable {
                name: "two passes: a trigger on UPDATE, and a key that is not the rowid",
                create: "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, n INTEGER, c TEXT); \
                         CREATE TABLE IF NOT EXISTS seen (id TEXT); \
                         CREATE TRIGGER watch AFTER UPDATE ON t BEGIN INSERT INTO seen VALUES (new.id); END"
                    .to_owned(),
                key: "id",
                order: "id",
                rows: numbers().iter().map(|n| format!("'k{n}'")).collect(),
            },
            KeyTable {
                name: "an index on the value",
                create: "CREATE TABLE t (id TEXT NOT NULL, n INTEGER, c TEXT, PRIMARY KEY (id)) WITHOUT ROWID; \
                         CREATE INDEX by_value ON t (c)"
                    .to_owned(),
                key: "id",
                order: "id",
                rows: numbers().iter().map(|n| format!("'k{n}'")).collect(),
            },
        ]
    }
}

const STATE_OF_VERSION_1: &str = "
CREATE TABLE reseal_meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE reseal_plan (
    id TEXT NOT NULL PRIMARY KEY,
    table_name TEXT NOT NULL,
    column_names TEXT NOT NULL,
    from_keys TEXT NOT NULL,
    to_key TEXT NOT NULL,
    generation INTEGER NOT NULL,
    status TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE reseal_range (
    plan TEXT NOT NULL,
    id INTEGER NOT NULL,
    relation TEXT NOT NULL,
    after_key BLOB,
    upto_key BLOB,
    cursor_key BLOB,
    epoch INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    rows_scanned INTEGER NOT NULL DEFAULT 0,
    values_reencrypted INTEGER NOT NULL DEFAULT 0,
    rows_reencrypted INTEGER NOT NULL DEFAULT 0,
    values_already_current INTEGER NOT NULL DEFAULT 0,
    values_null INTEGER NOT NULL DEFAULT 0,
    lost_races INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (plan, id)
) WITHOUT ROWID;
CREATE TABLE reseal_quarantine (
    plan TEXT NOT NULL,
    relation TEXT NOT NULL,
    row_key BLOB NOT NULL,
    column_index INTEGER NOT NULL,
    reason TEXT NOT NULL,
    found_at TEXT NOT NULL,
    PRIMARY KEY (plan, relation, row_key, column_index)
) WITHOUT ROWID;
INSERT INTO reseal_meta VALUES ('version', '1');
INSERT INTO reseal_plan VALUES ('old', 't', 'c', 'a', 'b', 4, 'running', 'ada@host', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z');
INSERT INTO reseal_range (plan, id, relation, epoch, rows_reencrypted, updated_at) VALUES ('old', 0, 't', 4, 12, '2026-01-01T00:00:00.000Z');
";
