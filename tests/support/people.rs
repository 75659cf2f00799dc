//! The table that rotations in tests run on, on either database: `people(id, email, note, seen)`, where email and note are Fernet tokens
//! and note may be NULL. One connection speaks for both databases, so that every test is written once.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use reseal::format::{Carried, Cipher, by_name, seeded};
use reseal::key::KeyMaterial;
use reseal::rotation::keyed::NamedKey;
use reseal::store::Store;
use reseal::store::postgres::PostgresStore;
use reseal::store::sqlite::SqliteStore;
use rusqlite::OptionalExtension;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Database, fernet_key, postgres, tempdir};

/// A database of one test, with the table in it.
pub struct Home {
    url: String,
    _folder: Option<TempDir>,
    database: Option<Database>,
}

impl Home {
    /// A file with this journal mode (`wal`, `delete`).
    pub fn sqlite(journal: &str) -> Self {
        let folder = tempdir();
        let path = folder.path().join("people.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", journal).unwrap();
        connection.execute_batch(TABLE).unwrap();
        Self {
            url: format!("sqlite:{}", path.display()),
            _folder: Some(folder),
            database: None,
        }
    }

    /// A database on the shared server, or `None` after saying that the test is skipped.
    pub fn postgres() -> Option<Self> {
        postgres().map(Self::on)
    }

    /// This database.
    pub fn on(database: Database) -> Self {
        Self::with(database, TABLE)
    }

    /// This database, with the table made by these statements.
    pub fn with(database: Database, tables: &str) -> Self {
        database.execute(tables);
        Self {
            url: database.url(),
            _folder: None,
            database: Some(database),
        }
    }

    /// As `--database` wants it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The SQLite file.
    pub fn file(&self) -> PathBuf {
        PathBuf::from(self.url.strip_prefix("sqlite:").expect("an SQLite database"))
    }

    /// The PostgreSQL database, for what only PostgreSQL can say.
    pub fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// The database as a rotation in this process wants it.
    pub fn store(&self) -> Arc<dyn Store> {
        match self.url.strip_prefix("sqlite:") {
            Some(path) => Arc::new(SqliteStore::open(path.as_ref()).unwrap()),
            None => Arc::new(PostgresStore::new(&self.url, "reseal test").unwrap()),
        }
    }

    /// A connection of its own.
    pub fn connect(&self) -> Live {
        Live::open(&self.url)
    }

    /// Fills the table with people number 1 to `count` under `key`, far apart from each other, and returns what the plaintexts are.
    pub fn fill(&self, count: i64, key: &FernetKey) -> Vec<(i64, Person)> {
        let people: Vec<(i64, Person)> = (1..=count).map(|n| (n * GAP, Person::new(n, 0))).collect();
        let stored: Vec<Stored> = people.iter().map(|(id, person)| person.seal(*id, key)).collect();
        self.connect().insert_all(&stored);
        people
    }
}

/// Room between the keys of the first rows, for rows inserted between them.
pub const GAP: i64 = 1_000;

const TABLE: &str =
    "CREATE TABLE people (id bigint NOT NULL PRIMARY KEY, email text NOT NULL, note text, seen bigint NOT NULL DEFAULT 0)";

/// What a row says. Both texts carry the person's number: a value in the wrong row or column is found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub email: String,
    pub note: Option<String>,
}

impl Person {
    /// Person `number` in this version.
    pub fn new(number: i64, version: u64) -> Self {
        Self {
            email: Self::email(number, version),
            note: Self::note(number, version),
        }
    }

    /// An email address that nobody else has.
    pub fn email(number: i64, version: u64) -> String {
        format!("email {number} v{version} <p{number}@example.com>")
    }

    /// A note of some length; every seventh is NULL.
    pub fn note(number: i64, version: u64) -> Option<String> {
        let length = usize::try_from((number.unsigned_abs() + version) % 7).unwrap();
        (length > 0).then(|| format!("note {number} v{version} {}", "Grüße ".repeat(length)))
    }

    /// The row as stored.
    pub fn seal(&self, id: i64, key: &FernetKey) -> Stored {
        Stored {
            id,
            email: key.seal(&self.email),
            note: self.note.as_deref().map(|note| key.seal(note)),
        }
    }

    /// Values that are not NULL.
    pub fn values(&self) -> u64 {
        1 + u64::from(self.note.is_some())
    }

    /// Whether both texts speak of the same person, each from its own column.
    pub fn is_one_person(&self) -> bool {
        let number = |text: &str, column: &str| text.strip_prefix(column)?.split(' ').next().map(str::to_owned);
        let email = number(&self.email, "email ");
        email.is_some() && self.note.as_deref().is_none_or(|note| number(note, "note ") == email)
    }
}

/// A row as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: i64,
    pub email: String,
    pub note: Option<String>,
}

/// One of the two encrypted columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Email,
    Note,
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Note => "note",
        }
    }
}

/// A Fernet key made for one test.
pub struct FernetKey {
    text: String,
    cipher: Box<dyn Cipher>,
}

impl FernetKey {
    pub fn generate() -> Self {
        let text = fernet_key();
        let material = KeyMaterial::import(&URL_SAFE.decode(&text).unwrap()).unwrap();
        let cipher = by_name("fernet").unwrap().cipher(&material, None).unwrap();
        Self { text, cipher }
    }

    /// As a rotation in this process wants it.
    pub fn named(&self, label: &str) -> NamedKey {
        NamedKey {
            label: label.to_owned(),
            id: None,
            material: KeyMaterial::import(&URL_SAFE.decode(&self.text).unwrap()).unwrap(),
        }
    }

    /// For the environment of a process.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn seal(&self, plaintext: &str) -> String {
        let carried = Carried {
            timestamp: Some(1_700_000_000),
            ..Carried::default()
        };
        let mut token = Vec::new();
        self.cipher
            .seal(plaintext.as_bytes(), b"", carried, &mut seeded().unwrap(), &mut token);
        String::from_utf8(token).unwrap()
    }

    /// The plaintext, or `None` under any other key.
    pub fn open(&self, token: &str) -> Option<String> {
        let mut plaintext = Vec::new();
        self.cipher.open(token.as_bytes(), b"", &mut plaintext).ok()?;
        Some(String::from_utf8(plaintext).unwrap())
    }
}

/// The sums of the newest plan's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub rows_scanned: u64,
    pub values_reencrypted: u64,
    pub rows_reencrypted: u64,
    pub values_already_current: u64,
    pub values_null: u64,
    pub lost_races: u64,
}

/// Rows and counters of one instant.
pub struct Snapshot {
    pub rows: Vec<Stored>,
    /// Absent before the first rotation.
    pub totals: Option<Totals>,
    /// Rotations that were ever begun.
    pub plans: u64,
}

/// A connection to either database. Both number parameters `$1`, `$2`, … in the order of their first use.
pub enum Live {
    Sqlite(rusqlite::Connection),
    Postgres(Runtime, PgConnection),
}

impl Live {
    /// Connects to the database of this URL.
    pub fn open(url: &str) -> Self {
        match url.strip_prefix("sqlite:") {
            Some(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(PATIENCE).unwrap();
                connection.pragma_update(None, "synchronous", "normal").unwrap();
                Live::Sqlite(connection)
            }
            None => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut connection = runtime.block_on(PgConnection::connect(url)).unwrap();
                // Nothing is proved by waiting for the disk after each of the application's writes.
                runtime
                    .block_on(sqlx::raw_sql("SET synchronous_commit = off").execute(&mut connection))
                    .unwrap();
                Live::Postgres(runtime, connection)
            }
        }
    }

    /// Runs statements without parameters.
    pub fn execute(&mut self, sql: &str) {
        match self {
            Self::Sqlite(connection) => connection.execute_batch(sql).unwrap(),
            Self::Postgres(runtime, connection) => {
                runtime
                    .block_on(sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection))
                    .unwrap();
            }
        }
    }

    pub fn insert(&mut self, row: &Stored) {
        match self {
            Self::Sqlite(connection) => {
                connection.execute(INSERT, (row.id, &row.email, &row.note)).unwrap();
            }
            Self::Postgres(runtime, connection) => {
                let insert = sqlx::query(INSERT).bind(row.id).bind(&row.email).bind(&row.note);
                runtime.block_on(insert.execute(connection)).unwrap();
            }
        }
    }

    fn insert_all(&mut self, rows: &[Stored]) {
        self.execute("BEGIN");
        for row in rows {
            self.insert(row);
        }
        self.execute("COMMIT");
    }

    /// Replaces one value and returns the one that stood there, `None` where there is no such row.
    pub fn replace(&mut self, id: i64, column: Column, new: Option<&str>) -> Option<Option<String>> {
        let name = column.name();
        self.change(
            id,
            &format!("SELECT {name} FROM people WHERE id = $1"),
            &format!("UPDATE people SET {name} = $1 WHERE id = $2"),
            new,
        )
    }

    /// Deletes a row and returns the values that stood in it, `None` where there is no such row.
    pub fn delete(&mut self, id: i64) -> Option<Stored> {
        let found = self.rows("SELECT id, email, note FROM people WHERE id = $1", id, true);
        let sql = "DELETE FROM people WHERE id = $1";
        match self {
            Self::Sqlite(connection) => {
                connection.execute(sql, [id]).unwrap();
            }
            Self::Postgres(runtime, connection) => {
                runtime.block_on(sqlx::query(sql).bind(id).execute(connection)).unwrap();
            }
        }
        self.execute("COMMIT");
        found.into_iter().next()
    }

    /// Gives a row another primary key. Says whether there was one.
    pub fn rekey(&mut self, from: i64, to: i64) -> bool {
        let sql = "UPDATE people SET id = $1 WHERE id = $2";
        let changed = match self {
            Self::Sqlite(connection) => connection.execute(sql, [to, from]).unwrap() as u64,
            Self::Postgres(runtime, connection) => {
                let update = sqlx::query(sql).bind(to).bind(from);
                runtime.block_on(update.execute(connection)).unwrap().rows_affected()
            }
        };
        changed == 1
    }

    /// Changes a column that is not encrypted. Says whether there was such a row.
    pub fn touch(&mut self, id: i64) -> bool {
        let sql = "UPDATE people SET seen = seen + 1 WHERE id = $1";
        let changed = match self {
            Self::Sqlite(connection) => connection.execute(sql, [id]).unwrap() as u64,
            Self::Postgres(runtime, connection) => {
                let update = sqlx::query(sql).bind(id);
                runtime.block_on(update.execute(connection)).unwrap().rows_affected()
            }
        };
        changed == 1
    }

    /// Where PostgreSQL keeps the newest version of a row.
    pub fn address(&mut self, id: i64) -> String {
        let Self::Postgres(runtime, connection) = self else {
            panic!("only PostgreSQL tells")
        };
        let query = sqlx::query_scalar("SELECT ctid::text FROM people WHERE id = $1").bind(id);
        runtime.block_on(query.fetch_one(connection)).unwrap()
    }

    /// What the control tables say about ranges and plans, field by field.
    pub fn control(&mut self) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => {
                let mut fields = Vec::new();
                for table in ["reseal_plan", "reseal_range"] {
                    let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
                    let width = statement.column_count();
                    let mut rows = statement.query([]).unwrap();
                    while let Some(row) = rows.next().unwrap() {
                        fields.extend((0..width).map(|at| format!("{:?}", row.get_ref(at).unwrap())));
                    }
                }
                fields
            }
            Self::Postgres(runtime, connection) => {
                let query = "SELECT p::text FROM reseal.plan p UNION ALL (SELECT r::text FROM reseal.range r ORDER BY id)";
                runtime.block_on(sqlx::query_scalar(query).fetch_all(connection)).unwrap()
            }
        }
    }

    /// Some rows from this key on.
    pub fn some_from(&mut self, id: i64) -> Vec<Stored> {
        self.rows(
            "SELECT id, email, note FROM people WHERE id >= $1 ORDER BY id LIMIT 20",
            id,
            false,
        )
    }

    /// Everything, as of one instant.
    pub fn snapshot(&mut self) -> Snapshot {
        let postgres = matches!(self, Self::Postgres(..));
        self.execute(if postgres {
            "BEGIN ISOLATION LEVEL REPEATABLE READ"
        } else {
            "BEGIN"
        });
        let rows = self.rows(
            "SELECT id, email, note FROM people WHERE id >= $1 ORDER BY id",
            i64::MIN,
            false,
        );
        let totals = self.totals();
        let plans = totals.map_or(0, |_| self.plans());
        self.execute("COMMIT");
        Snapshot { rows, totals, plans }
    }

    /// Rows rewritten by all plans together.
    pub fn rows_moved(&mut self) -> u64 {
        let sum = "SELECT CAST(coalesce(sum(rows_reencrypted), 0) AS bigint) FROM reseal.range";
        let rows: i64 = match self {
            Self::Sqlite(connection) => {
                let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'reseal_range'";
                let exists = connection.query_row(exists, [], |_| Ok(())).optional().unwrap();
                let sum = sum.replace("reseal.", "reseal_");
                exists.map_or(0, |()| connection.query_row(&sum, [], |row| row.get(0)).unwrap())
            }
            Self::Postgres(runtime, connection) => runtime.block_on(async {
                let exists = "SELECT to_regclass('reseal.range') IS NOT NULL";
                if sqlx::query_scalar(exists).fetch_one(&mut *connection).await.unwrap() {
                    sqlx::query_scalar(sum).fetch_one(connection).await.unwrap()
                } else {
                    0
                }
            }),
        };
        rows.unsigned_abs()
    }

    /// The counters of the newest plan.
    pub fn totals(&mut self) -> Option<Totals> {
        let of = |numbers: [i64; 6]| {
            let [
                rows_scanned,
                values_reencrypted,
                rows_reencrypted,
                values_already_current,
                values_null,
                lost_races,
            ] = numbers.map(i64::unsigned_abs);
            Totals {
                rows_scanned,
                values_reencrypted,
                rows_reencrypted,
                values_already_current,
                values_null,
                lost_races,
            }
        };
        match self {
            Self::Sqlite(connection) => {
                let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'reseal_range'";
                connection.query_row(exists, [], |_| Ok(())).optional().unwrap()?;
                let sql = TOTALS.replace("reseal.", "reseal_").replace("plan_id", "plan");
                let row = connection.query_row(&sql, [], |row| {
                    let mut numbers = [0; 6];
                    for (at, number) in numbers.iter_mut().enumerate() {
                        *number = row.get(at)?;
                    }
                    Ok(numbers)
                });
                Some(of(row.unwrap()))
            }
            Self::Postgres(runtime, connection) => runtime.block_on(async {
                let exists: bool = sqlx::query_scalar("SELECT to_regclass('reseal.range') IS NOT NULL")
                    .fetch_one(&mut *connection)
                    .await
                    .unwrap();
                if !exists {
                    return None;
                }
                let row: PgRow = sqlx::query(TOTALS).fetch_one(connection).await.unwrap();
                let mut numbers = [0; 6];
                for (at, number) in numbers.iter_mut().enumerate() {
                    *number = row.get(at);
                }
                Some(of(numbers))
            }),
        }
    }

    fn plans(&mut self) -> u64 {
        let plans: i64 = match self {
            Self::Sqlite(connection) => connection
                .query_row("SELECT count(*) FROM reseal_plan", [], |row| row.get(0))
                .unwrap(),
            Self::Postgres(runtime, connection) => {
                let count = sqlx::query_scalar("SELECT count(*) FROM reseal.plan");
                runtime.block_on(count.fetch_one(connection)).unwrap()
            }
        };
        plans.unsigned_abs()
    }

    /// Whether nobody else holds the right to write (SQLite).
    pub fn may_write(&mut self) -> bool {
        match self {
            Self::Sqlite(connection) => {
                connection.busy_timeout(std::time::Duration::ZERO).unwrap();
                let free = connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
                connection.busy_timeout(PATIENCE).unwrap();
                free
            }
            Self::Postgres(..) => true,
        }
    }

    /// Reads one value, locked until the write that follows it.
    fn change(&mut self, id: i64, read: &str, write: &str, new: Option<&str>) -> Option<Option<String>> {
        match self {
            Self::Sqlite(connection) => {
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                let found = connection.query_row(read, [id], |row| row.get(0)).optional().unwrap();
                connection.execute(write, (new, id)).unwrap();
                connection.execute_batch("COMMIT").unwrap();
                found
            }
            Self::Postgres(runtime, connection) => runtime.block_on(async {
                let mut transaction = connection.begin().await.unwrap();
                let found = sqlx::query_scalar(AssertSqlSafe(format!("{read} FOR UPDATE")))
                    .bind(id)
                    .fetch_optional(&mut *transaction)
                    .await
                    .unwrap();
                sqlx::query(AssertSqlSafe(write))
                    .bind(new)
                    .bind(id)
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                transaction.commit().await.unwrap();
                found
            }),
        }
    }

    /// Rows of a query with one parameter. `locked` begins a transaction in which nobody else can change them.
    fn rows(&mut self, sql: &str, parameter: i64, locked: bool) -> Vec<Stored> {
        match self {
            Self::Sqlite(connection) => {
                if locked {
                    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                }
                let mut statement = connection.prepare_cached(sql).unwrap();
                let rows = statement.query_map([parameter], |row| {
                    Ok(Stored {
                        id: row.get(0)?,
                        email: row.get(1)?,
                        note: row.get(2)?,
                    })
                });
                rows.unwrap().map(Result::unwrap).collect()
            }
            Self::Postgres(runtime, connection) => runtime.block_on(async {
                let mut sql = sql.to_owned();
                if locked {
                    sqlx::raw_sql("BEGIN").execute(&mut *connection).await.unwrap();
                    sql.push_str(" FOR UPDATE");
                }
                let query = sqlx::query(AssertSqlSafe(sql)).bind(parameter);
                let rows = query.fetch_all(connection).await.unwrap();
                rows.iter()
                    .map(|row| Stored {
                        id: row.get(0),
                        email: row.get(1),
                        note: row.get(2),
                    })
                    .collect()
            }),
        }
    }
}

/// How long the application waits for SQLite's write lock.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

const INSERT: &str = "INSERT INTO people (id, email, note) VALUES ($1, $2, $3)";

const TOTALS: &str =
    "SELECT CAST(coalesce(sum(rows_scanned), 0) AS bigint), CAST(coalesce(sum(values_reencrypted), 0) AS bigint),
    CAST(coalesce(sum(rows_reencrypted), 0) AS bigint), CAST(coalesce(sum(values_already_current), 0) AS bigint),
    CAST(coalesce(sum(values_null), 0) AS bigint), CAST(coalesce(sum(lost_races), 0) AS bigint)
    FROM reseal.range WHERE plan_id = (SELECT id FROM reseal.plan ORDER BY created_at DESC LIMIT 1)";
