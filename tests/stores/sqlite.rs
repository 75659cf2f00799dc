//! SQLite: its fixture, and what only SQLite has.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use reseal::store::page::Page;
use reseal::store::sqlite::SqliteStore;
use reseal::store::survey::{ColumnClass, Observation, Survey};
use reseal::store::value::Kind;
use reseal::store::{PageEnd, PageLimits, RetryClass, Store, StoreError};
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::stores::contract::fencing::{claimed, fence};
use crate::stores::fixture::{Fixture, KeyTable, target, texts};
use crate::stores::toy::{Toy, batch, read_numbers, rotate, rows, session, whole};

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

#[test]
fn a_database_that_does_not_exist_is_an_error_and_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["missing.db", "file:missing.db?mode=rwc", "missing/app.db"] {
        let error = SqliteStore::open(&directory.path().join(name)).err().unwrap();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    }
    assert!(SqliteStore::open(directory.path()).is_err());
    assert!(SqliteStore::open(Path::new("")).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    fs::write(&path, "not a database, but long enough to be looked at ".repeat(50)).unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_file_that_went_away_is_not_made_anew() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)");
    let store = fixture.store();
    let survey = fixture.survey(&["c"]).await;
    fs::remove_file(fixture.path()).unwrap();
    assert!(store.session(&survey).await.is_err());
    assert!(store.control().await.is_err());
    assert!(!fixture.path().exists());
}

#[tokio::test]
async fn several_names_for_the_file_are_seen_and_links_are_followed() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)");
    assert!(
        !fixture
            .survey(&["c"])
            .await
            .observations
            .contains(&Observation::SeveralNames(2))
    );
    let link = fixture.directory.path().join("link.db");
    std::os::unix::fs::symlink(fixture.path(), &link).unwrap();
    let through_link = SqliteStore::open(&link).unwrap();
    assert!(through_link.describe().ends_with("app.db"));
    fs::hard_link(fixture.path(), fixture.directory.path().join("second.db")).unwrap();
    let survey = through_link.survey(&target("t", &["c"], &[])).await.unwrap();
    assert!(survey.observations.contains(&Observation::SeveralNames(2)));
}

#[tokio::test]
async fn journal_mode_and_durability_stay_as_they_are() {
    for mode in ["wal", "delete", "truncate"] {
        let fixture = SqliteFixture::rollback_journal();
        fixture.connect().pragma_update(None, "journal_mode", mode).unwrap();
        fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1')");
        let store = fixture.store();
        let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
        claimed(&*store, &survey).await;
        rotate(&mut *session, &whole(&survey), rows(10)).await;
        let persistent = if mode == "wal" { "wal" } else { "delete" };
        assert!(
            survey.observations.contains(&Observation::JournalMode(persistent.to_owned())),
            "{:?}",
            survey.observations
        );
        let now: String = fixture
            .connect()
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(now, persistent);
        assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["n:1"]);
    }
}

#[tokio::test]
async fn the_class_of_each_value_is_kept() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c); \
         INSERT INTO t VALUES (1, 'o:text'), (2, CAST('o:blob' AS BLOB)), (3, 42), (4, 1.5), (5, NULL), (6, x'00'), (7, zeroblob(3))",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let mut page = Page::new(session.shape());
    session.page(&whole(&survey), None, rows(10), &mut page).await.unwrap();
    let kinds: Vec<Kind> = (0..7).map(|row| page.value(row, 0).kind).collect();
    use Kind::{Bytes, Null, Other, Text};
    assert_eq!(kinds, [Text, Bytes, Other, Other, Null, Bytes, Bytes]);
    let batches = rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(batches[0].quarantined.len(), 4);
    let found = texts(&fixture, "SELECT typeof(c) || ' ' || quote(c) FROM t ORDER BY id").await;
    let expected = [
        "text 'n:text'",
        "blob X'6E3A626C6F62'",
        "integer 42",
        "real 1.5",
        "null NULL",
        "blob X'00'",
        "blob X'000000'",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn values_above_sqlites_own_limit_are_passed_by() {
    let fixture = SqliteFixture::create().unwrap();
    // Above the 16 MiB that the session lets SQLite load, in an encrypted column and in one beside it.
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c, d, beside); \
         INSERT INTO t VALUES (1, 'o:1', 'o:1', NULL), (2, zeroblob(20000000), 'o:2', NULL), (3, 'o:3', 3, zeroblob(20000000)), \
                              (4, 'o:4', NULL, NULL)",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c", "d"], &[])).await;
    let limits = PageLimits {
        value_bytes_max: 100,
        ..rows(1000)
    };
    let mut page = Page::new(session.shape());
    let end = session.page(&whole(&survey), None, limits, &mut page).await.unwrap();
    assert_eq!((page.len(), end), (4, PageEnd::End));
    assert_eq!(page.value(1, 0).oversize(), Some(20_000_000));
    assert_eq!((page.value(2, 1).kind, page.value(3, 1).kind), (Kind::Other, Kind::Null));
    let (survey, mut session) = session_again(&fixture).await;
    let batches = rotate(&mut *session, &whole(&survey), limits).await;
    assert_eq!(batches.iter().map(|batch| batch.tally.rows).sum::<u64>(), 4);
    let found = texts(
        &fixture,
        "SELECT substr(c, 1, 3) || '|' || coalesce(d, '') FROM t ORDER BY id",
    )
    .await;
    assert_eq!(found, ["n:1|n:1", "\0\0\0|n:2", "n:3|3", "n:4|"]);
}

async fn session_again(fixture: &SqliteFixture) -> (Survey, Box<dyn reseal::store::Session>) {
    session(&*fixture.store(), &target("t", &["c", "d"], &[])).await
}

#[tokio::test]
async fn a_trigger_that_writes_other_rows_is_not_overwritten() {
    let fixture = SqliteFixture::create().unwrap();
    // Updating row 1 makes the application's trigger write row 3, after row 3 was judged and before it is updated.
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); \
         INSERT INTO t VALUES (1, 'o:1'), (2, 'o:2'), (3, 'o:3'), (4, 'o:4'); \
         CREATE TRIGGER cascade AFTER UPDATE ON t WHEN new.id = 1 BEGIN \
             UPDATE t SET c = 'o:trigger' WHERE id = 3; DELETE FROM t WHERE id = 4; END",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    assert!(
        survey
            .observations
            .contains(&Observation::UpdateTrigger("cascade".to_owned()))
    );
    let done = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap();
    assert_eq!(
        texts(&fixture, "SELECT c FROM t ORDER BY id").await,
        ["n:1", "n:2", "o:trigger"]
    );
    assert_eq!((done.written.rows, done.written.lost_races), (2, 2));
}

#[tokio::test]
async fn rows_that_a_trigger_skips_are_not_counted() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); \
         INSERT INTO t VALUES (1, 'o:1'), (2, 'o:2'), (3, 'o:3'); \
         CREATE TRIGGER guard BEFORE UPDATE ON t WHEN old.id = 2 BEGIN SELECT raise(IGNORE); END",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let done = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap();
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["n:1", "o:2", "n:3"]);
    assert_eq!((done.written.rows, done.written.lost_races), (2, 1));
}

#[tokio::test]
async fn nothing_due_writes_nothing_but_the_range() {
    let fixture = SqliteFixture::rollback_journal();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT, d TEXT); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
         INSERT INTO t SELECT i, 'n:' || i, CASE WHEN i = 7 THEN 'plain' END FROM n",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c", "d"], &[])).await;
    let (mut control, _) = claimed(&*store, &survey).await;
    let range = control.ranges("plan").await.unwrap().remove(0);
    let run = async |session: &mut dyn reseal::store::Session, advance| {
        let before = fs::read(fixture.path()).unwrap();
        batch(session, &range.interval, None, rows(5000), Some(&fence(&range)), advance)
            .await
            .unwrap();
        let after = fs::read(fixture.path()).unwrap();
        assert_eq!(before.len(), after.len());
        let changed = before
            .chunks(4096)
            .zip(after.chunks(4096))
            .filter(|(before, after)| before != after);
        changed.count()
    };
    // The first batch records row 7 in quarantine: three pages with the file's change counter. The second only moves the range.
    assert_eq!(run(&mut *session, true).await, 3);
    assert_eq!(run(&mut *session, true).await, 2);
    assert_eq!(run(&mut *session, false).await, 0);
}

#[tokio::test]
async fn a_locked_database_asks_to_try_again() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1')");
    let store = SqliteStore::open(&fixture.path())
        .unwrap()
        .busy_timeout(Duration::from_millis(20));
    let (survey, mut session) = session(&store, &target("t", &["c"], &[])).await;
    let other = fixture.connect();
    other
        .execute_batch("BEGIN IMMEDIATE; UPDATE t SET c = 'o:app' WHERE id = 1")
        .unwrap();
    let error = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap_err();
    let is_lock = matches!(
        error,
        StoreError::Retry {
            class: RetryClass::LockTimeout,
            ..
        }
    );
    assert!(is_lock, "{error:?}");
    // Reading goes on meanwhile.
    let mut page = Page::new(session.shape());
    session.page(&whole(&survey), None, rows(10), &mut page).await.unwrap();
    assert_eq!(page.value(0, 0).bytes, b"o:1");
    other.execute_batch("COMMIT").unwrap();
    rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["n:app"]);
}

#[tokio::test]
async fn a_reader_that_blocks_the_commit_leaves_nothing_half_done() {
    let fixture = SqliteFixture::rollback_journal();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1'), (2, 'o:2')");
    let store = SqliteStore::open(&fixture.path())
        .unwrap()
        .busy_timeout(Duration::from_millis(20));
    let (survey, mut session) = session(&store, &target("t", &["c"], &[])).await;
    let reader = fixture.connect();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    let error = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    reader.execute_batch("COMMIT").unwrap();
    // Rolled back, so that the application can write at once.
    fixture.run("UPDATE t SET c = 'o:app' WHERE id = 2");
    rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["n:1", "n:app"]);
}

#[tokio::test]
async fn a_transaction_that_sqlite_itself_rolled_back_is_over() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1'), (2, 'o:2'); \
         CREATE TRIGGER refuse AFTER UPDATE ON t WHEN new.id = 2 BEGIN SELECT raise(ROLLBACK, 'not now'); END",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let error = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Row { .. }), "{error:?}");
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["o:1", "o:2"]);
    fixture.run("DROP TRIGGER refuse");
    rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["n:1", "n:2"]);
}

#[tokio::test]
async fn a_cancelled_call_leaves_a_session_that_can_reconnect() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1')");
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let other = fixture.connect();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let interval = whole(&survey);
    let waiting = batch(&mut *session, &interval, None, rows(10), None, false);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    let error = batch(&mut *session, &interval, None, rows(10), None, false)
        .await
        .unwrap_err();
    assert!(error.wants_reconnect(), "{error:?}");
    other.execute_batch("COMMIT").unwrap();
    session.reconnect().await.unwrap();
    rotate(&mut *session, &interval, rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["n:1"]);
}

#[tokio::test]
async fn a_panicking_rewriter_writes_nothing_and_comes_back() {
    struct Panics;
    impl reseal::store::Rewriter for Panics {
        fn rewrite(&mut self, _: &Page, _: &mut reseal::store::page::Swaps) -> Result<(), reseal::store::RewriteStopped> {
            panic!("a bug in the rewriter");
        }
    }
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1')");
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let reseal::store::Writer::InPlace(writer) = session.writer() else {
        panic!("SQLite writes in place");
    };
    let (_, swaps, result) = writer
        .rewrite_and_advance(&whole(&survey), None, rows(10), Box::new(Panics), None, false)
        .await;
    assert!(matches!(result, Err(StoreError::Rewriter)), "{result:?}");
    assert_eq!(swaps.tally.rows, 0);
    let (_, _, result) = writer
        .rewrite_and_advance(&whole(&survey), None, rows(10), Box::new(Toy), None, false)
        .await;
    assert_eq!(result.unwrap().written.rows, 1);
}

#[tokio::test]
async fn the_functions_cannot_be_called_by_the_schema() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1'); \
         CREATE TRIGGER evil AFTER UPDATE ON t BEGIN SELECT reseal_new(0, new.c, new.id); END",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    assert!(
        batch(&mut *session, &whole(&survey), None, rows(10), None, false)
            .await
            .is_err()
    );
    assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["o:1"]);
}

#[tokio::test]
async fn the_survey_tells_what_a_careful_operator_wants_to_know() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE parent (token TEXT PRIMARY KEY); \
         CREATE TABLE t (Id INTEGER PRIMARY KEY, c TEXT REFERENCES parent(token) CHECK (length(c) < 1000), d TEXT UNIQUE, \
                         len GENERATED ALWAYS AS (length(d)) VIRTUAL, plain TEXT); \
         CREATE INDEX by_expression ON t (lower(plain)); CREATE INDEX by_part ON t (Id) WHERE plain IS NOT NULL; \
         CREATE TRIGGER touched AFTER UPDATE OF plain ON t BEGIN SELECT 1; END; \
         CREATE TRIGGER inserted AFTER INSERT ON t BEGIN UPDATE t SET plain = NULL; END; \
         CREATE VIEW seen AS SELECT * FROM t; CREATE VIRTUAL TABLE search USING fts5(body)",
    );
    fixture.run("INSERT INTO t (c, d) VALUES (NULL, 'x'), (NULL, 'y')");
    let facts = |survey: &Survey, wanted: Observation| {
        assert!(
            survey.observations.contains(&wanted),
            "{wanted:?} is not in {:?}",
            survey.observations
        );
    };
    let index = |index: &str, column: &str, unique| Observation::IndexOnValue {
        index: index.to_owned(),
        column: column.to_owned(),
        unique,
    };
    let survey = fixture.survey(&["C", "D", "len", "PLAIN"]).await;
    assert_eq!(survey.server, format!("SQLite {}", rusqlite::version()));
    assert_eq!((survey.table.as_str(), survey.rows_estimate), ("t", 2));
    assert!(survey.bytes >= 4096);
    assert_eq!(
        (survey.key[0].name.as_str(), survey.key[0].class),
        ("Id", ColumnClass::Int(8))
    );
    assert_eq!(survey.values[3].name, "plain");
    facts(&survey, Observation::JournalMode("wal".to_owned()));
    facts(
        &survey,
        Observation::ForeignKeyOnValue("t.c refers to parent.token".to_owned()),
    );
    facts(&survey, Observation::CheckOnValue("c".to_owned()));
    facts(&survey, Observation::Generated("len".to_owned()));
    facts(&survey, index("sqlite_autoindex_t_1", "d", true));
    facts(&survey, index("by_expression", "plain", false));
    facts(&survey, index("by_part", "plain", false));
    facts(&survey, Observation::UpdateTrigger("touched".to_owned()));
    let triggers = survey
        .observations
        .iter()
        .filter(|fact| matches!(fact, Observation::UpdateTrigger(_)));
    assert_eq!(triggers.count(), 1);
    assert_eq!(
        fixture.survey(&["d"]).await.observations.len(),
        3,
        "journal mode, unique index, generated column"
    );

    for (name, column) in [
        ("seen", "c"),
        ("search", "body"),
        ("search_data", "block"),
        ("sqlite_schema", "sql"),
    ] {
        let survey = fixture.store().survey(&target(name, &[column], &[])).await.unwrap();
        let is_refused = survey
            .observations
            .iter()
            .any(|fact| matches!(fact, Observation::NotATable(_)));
        assert!(is_refused, "{name}: {:?}", survey.observations);
        assert!(fixture.store().session(&survey).await.is_err(), "{name}");
    }
    for columns in [["Id"].as_slice(), &["c", "C"]] {
        let error = fixture.store().survey(&target("t", columns, &[])).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_schema_that_only_its_application_can_write_is_reported() {
    let fixture = SqliteFixture::create().unwrap();
    let connection = fixture.connect();
    connection
        .create_scalar_function("app_only", 1, FunctionFlags::SQLITE_DETERMINISTIC, |_| Ok(1))
        .unwrap();
    connection
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); CREATE INDEX i ON t (app_only(c))")
        .unwrap();
    let survey = fixture.survey(&["c"]).await;
    let reported = survey
        .observations
        .iter()
        .any(|fact| matches!(fact, Observation::CannotUpdate(why) if why.contains("app_only")));
    assert!(reported, "{:?}", survey.observations);
}

#[tokio::test]
async fn tables_without_an_exact_key_are_refused() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (rowid, _rowid_, oid, c TEXT); INSERT INTO t VALUES (1, 2, 3, 'o:1')");
    let survey = fixture.survey(&["c"]).await;
    assert!(survey.observations.contains(&Observation::NoUsableKey("t".to_owned())));
    assert!(fixture.store().session(&survey).await.is_err());

    // Floating point in a key column that may hold anything: found by the first row that has it, before anything is written.
    fixture.run("DROP TABLE t; CREATE TABLE t (id NUMERIC PRIMARY KEY, c TEXT) WITHOUT ROWID");
    fixture.run("INSERT INTO t VALUES (1, 'o:1'), (1.5, 'o:2')");
    let (survey, mut session) = session(&*fixture.store(), &target("t", &["c"], &[])).await;
    let mut page = Page::new(session.shape());
    let read = session.page(&whole(&survey), None, rows(10), &mut page).await;
    assert!(matches!(read, Err(StoreError::Refused(_))), "{read:?}");
    let written = batch(&mut *session, &whole(&survey), None, rows(10), None, false).await;
    assert!(matches!(written, Err(StoreError::Refused(_))), "{written:?}");
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["o:1", "o:2"]);
}

#[tokio::test]
async fn a_column_dropped_behind_the_session_is_an_error_and_no_text() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT, d TEXT); INSERT INTO t VALUES (1, 'o:1', 'o:1')");
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c", "d"], &["d"])).await;
    fixture.run("ALTER TABLE t DROP COLUMN d");
    let mut page = Page::new(session.shape());
    let read = session.page(&whole(&survey), None, rows(10), &mut page).await;
    assert!(matches!(read, Err(StoreError::Refused(_))), "{read:?}");
    assert!(
        batch(&mut *session, &whole(&survey), None, rows(10), None, false)
            .await
            .is_err()
    );
    assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["o:1"]);
}

#[tokio::test]
async fn the_whole_range_of_rowids_is_divided_evenly() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, c TEXT)");
    for (n, id) in [i64::MIN, -5, 0, 5, i64::MAX].iter().enumerate() {
        fixture
            .connect()
            .execute("INSERT INTO t VALUES (?1, ?2, 'o:x')", (id, n as i64))
            .unwrap();
    }
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &["n"])).await;
    for frozen in [true, false] {
        let intervals = store.intervals(&survey, 4, frozen).await.unwrap();
        assert_eq!(intervals.len(), 4);
        let distinct: HashSet<_> = intervals.iter().map(|interval| interval.upto.clone()).collect();
        assert_eq!(distinct.len(), 4);
        let mut found = Vec::new();
        for interval in &intervals {
            found.extend(read_numbers(&mut *session, interval, rows(1)).await);
        }
        assert_eq!(found, [0, 1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn the_lock_file_is_private_goes_away_and_follows_no_link() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)");
    let (store, survey) = (fixture.store(), fixture.survey(&["c"]).await);
    let path = fixture.directory.path().join("app.db-reseal-lock");
    let lock = store.lock(&survey, "ada@host", false).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "ada@host");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(lock);
    assert!(!path.exists());
    // What a killed process leaves behind is a file without a lock.
    fs::write(&path, "a longer name of somebody who died").unwrap();
    let lock = store.lock(&survey, "ada@host", false).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "ada@host");
    drop(lock);
    let victim = fixture.directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    assert!(store.lock(&survey, "ada@host", false).await.is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}
