//! A database with a table of sealed values, keys in the environment, and the binary pointed at both.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use reseal::format::{Carried, Cipher, by_name, seeded};
use reseal::key::{Algorithm, KeyEncoding, KeyId, KeyMaterial, Keyset, write_tink_json};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{self, Database, reseal_process};

/// One of the two databases.
pub enum Place {
    Sqlite,
    Postgres(Database),
}

/// A test's own database and folder.
pub struct Desk {
    pub place: Place,
    pub folder: TempDir,
}

/// How values are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Text,
    Bytes,
}

/// What a run of the binary left.
pub struct Run {
    pub exit: i32,
    pub json: Value,
    pub stdout: String,
    pub stderr: String,
}

impl Desk {
    pub fn sqlite() -> Self {
        let desk = Self {
            place: Place::Sqlite,
            folder: support::tempdir(),
        };
        // Opening makes no file; the first write does.
        desk.open().pragma_update(None, "user_version", 1).unwrap();
        desk
    }

    pub fn postgres() -> Option<Self> {
        let place = Place::Postgres(support::postgres()?);
        let folder = support::tempdir();
        Some(Self { place, folder })
    }

    /// Both, or SQLite alone where there is no PostgreSQL.
    pub fn each() -> Vec<Self> {
        [Some(Self::sqlite()), Self::postgres()].into_iter().flatten().collect()
    }

    pub fn name(&self) -> &'static str {
        match self.place {
            Place::Sqlite => "SQLite",
            Place::Postgres(_) => "PostgreSQL",
        }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self.place, Place::Postgres(_))
    }

    pub fn url(&self) -> String {
        match &self.place {
            Place::Sqlite => format!("sqlite:{}", self.folder.path().join("app.db").display()),
            Place::Postgres(database) => database.url(),
        }
    }

    fn open(&self) -> Connection {
        let connection = Connection::open(self.folder.path().join("app.db")).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        connection
    }

    pub fn execute(&self, sql: &str) {
        match &self.place {
            Place::Sqlite => self
                .open()
                .execute_batch(sql)
                .unwrap_or_else(|error| panic!("{error}\nin: {sql}")),
            Place::Postgres(database) => database.execute(sql),
        }
    }

    /// The first column of every row as text; the query casts it.
    pub fn texts(&self, sql: &str) -> Vec<String> {
        match &self.place {
            Place::Sqlite => {
                let connection = self.open();
                let mut statement = connection.prepare(sql).unwrap();
                let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
                rows.map(|row| row.unwrap().unwrap_or_else(|| "NULL".to_owned())).collect()
            }
            Place::Postgres(database) => {
                let rows = database.texts(sql);
                rows.into_iter().map(|row| row.unwrap_or_else(|| "NULL".to_owned())).collect()
            }
        }
    }

    /// A table `t` with an integer key `id` and the encrypted column `c`.
    pub fn table(&self, column: Column) {
        let sql_type = match (&self.place, column) {
            (_, Column::Text) => "text",
            (Place::Sqlite, Column::Bytes) => "blob",
            (Place::Postgres(_), Column::Bytes) => "bytea",
        };
        let int = if self.is_postgres() { "int8" } else { "integer" };
        self.execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c {sql_type})"));
    }

    /// A literal of a value.
    pub fn literal(&self, column: Column, value: Option<&[u8]>) -> String {
        let Some(value) = value else { return "NULL".to_owned() };
        let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        match (&self.place, column) {
            (Place::Sqlite, Column::Text) => format!("CAST(x'{digits}' AS TEXT)"),
            (Place::Sqlite, Column::Bytes) => format!("x'{digits}'"),
            (Place::Postgres(_), Column::Text) => format!("convert_from('\\x{digits}', 'UTF8')"),
            (Place::Postgres(_), Column::Bytes) => format!("'\\x{digits}'::bytea"),
        }
    }

    /// Inserts rows, numbered from `first` on.
    pub fn insert(&self, column: Column, first: i64, values: &[Option<Vec<u8>>]) {
        for (chunk, part) in values.chunks(500).enumerate() {
            let start = first + chunk as i64 * 500;
            let rows: Vec<String> = (start..)
                .zip(part)
                .map(|(id, value)| format!("({id}, {})", self.literal(column, value.as_deref())))
                .collect();
            self.execute(&format!("INSERT INTO t (id, c) VALUES {}", rows.join(", ")));
        }
    }

    /// Every value of the table, byte for byte.
    pub fn values(&self, column: Column) -> BTreeMap<i64, Option<Vec<u8>>> {
        let bytes = match (&self.place, column) {
            (Place::Sqlite, _) => "lower(hex(c))",
            (Place::Postgres(_), Column::Text) => "encode(convert_to(c, 'UTF8'), 'hex')",
            (Place::Postgres(_), Column::Bytes) => "encode(c, 'hex')",
        };
        let rows = self.texts(&format!(
            "SELECT CAST(id AS text) || CASE WHEN c IS NULL THEN '' ELSE ':' || {bytes} END FROM t"
        ));
        rows.iter()
            .map(|row| match row.split_once(':') {
                Some((id, digits)) => (id.parse().unwrap(), Some(unhex(digits))),
                None => (row.parse().unwrap(), None),
            })
            .collect()
    }

    /// The binary in this desk's folder, the database's URL in the environment.
    pub fn process(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = reseal_process();
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("DATABASE_URL", self.url())
            .envs(environment.iter().copied());
        command
    }

    /// Runs it with `--json`.
    pub fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
        let output = self.process(arguments, environment).arg("--json").output().unwrap();
        Run::of(&output)
    }

    /// `reseal COMMAND` on table `t`, column `c`, with the keys of `pair`. `rotate` is confirmed.
    pub fn on_t(&self, command: &str, pair: &Pair, more: &[&str]) -> Run {
        let arguments = on_t(command, pair.format, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.run(&arguments, &[("OLD", &pair.old_text), ("NEW", &pair.new_text)])
    }
}

/// The arguments of a command on table `t`, column `c`.
pub fn on_t(command: &str, format: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = vec![
        command, "--table", "t", "--column", "c", "--format", format, "--from", "env:OLD", "--to", "env:NEW",
    ];
    if command == "rotate" {
        arguments.extend(["--yes", "--dual-read-confirmed"]);
    }
    arguments.extend(more);
    arguments.into_iter().map(str::to_owned).collect()
}

impl Run {
    pub fn of(output: &Output) -> Self {
        let stdout = String::from_utf8(output.stdout.clone()).unwrap();
        Self {
            exit: output.status.code().unwrap_or(-1),
            json: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            stdout,
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// Fails with everything that the run said.
    #[track_caller]
    pub fn expect(&self, exit: i32) -> &Self {
        assert_eq!(self.exit, exit, "{}\n{}", self.stderr, self.stdout);
        if !self.json.is_null() {
            // The document of `keys` tells of keys; its exit code is the process's alone.
            assert!(self.json["exit"].is_null() || self.json["exit"] == exit, "{}", self.stdout);
            assert!(self.stdout.starts_with("{\"schema\":\"reseal."), "{}", self.stdout);
        }
        self
    }

    /// Key and reason of every quarantined value of table `t`, column `c`.
    pub fn quarantined(&self) -> BTreeMap<i64, String> {
        let entries = self.json["quarantined"].as_array().unwrap();
        assert_eq!(self.json["quarantined_total"], entries.len());
        entries
            .iter()
            .map(|entry| {
                assert!(entry["table"].as_str().unwrap().ends_with('t'), "{entry}");
                assert_eq!(entry["column"], "c");
                assert_eq!(entry["primary_key"].as_object().unwrap().len(), 1);
                (
                    entry["primary_key"]["id"].as_i64().unwrap(),
                    entry["reason"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }

    /// The names of the preflight's findings of a severity.
    pub fn findings(&self, severity: &str) -> Vec<&str> {
        let findings = self.json["findings"].as_array().unwrap();
        findings
            .iter()
            .filter(|finding| finding["severity"] == severity)
            .map(|finding| finding["name"].as_str().unwrap())
            .collect()
    }
}

/// An old and a new key of a format, and how the environment holds them.
pub struct Pair {
    pub format: &'static str,
    pub old: Box<dyn Cipher>,
    pub new: Box<dyn Cipher>,
    pub old_id: Option<KeyId>,
    pub old_text: String,
    pub new_text: String,
}

impl Pair {
    /// Two fresh keys, as text or, for Tink, as keysets.
    pub fn of(format: &'static str) -> Self {
        let [(old, old_id, old_text), (new, _, new_text)] = [(); 2].map(|()| {
            if format.starts_with("tink") {
                let keyset = Keyset::generate("k".parse().unwrap(), Algorithm::Aes256Gcm, jiff::Timestamp::UNIX_EPOCH).unwrap();
                let key = keyset.primary();
                let material = KeyMaterial::import(key.material().unwrap().expose()).unwrap();
                let json = String::from_utf8(write_tink_json(&keyset).unwrap().to_vec()).unwrap();
                (material, Some(key.id()), json)
            } else {
                let text = support::fernet_key();
                (KeyEncoding::detect(text.as_bytes()).unwrap(), None, text)
            }
        });
        Self::join(format, (&old, old_id, old_text), (&new, None, new_text))
    }

    /// These keys.
    pub fn join(
        format: &'static str,
        (old, old_id, old_text): (&KeyMaterial, Option<KeyId>, String),
        (new, new_id, new_text): (&KeyMaterial, Option<KeyId>, String),
    ) -> Self {
        let layout = by_name(format).unwrap();
        let new_id = new_id.or_else(|| tink_id(&new_text));
        Self {
            format,
            old: layout.cipher(old, old_id).unwrap(),
            new: layout.cipher(new, new_id).unwrap(),
            old_id,
            old_text,
            new_text,
        }
    }

    pub fn old_value(&self, plaintext: &[u8], associated_data: &[u8]) -> Vec<u8> {
        seal(&*self.old, plaintext, associated_data)
    }

    pub fn new_value(&self, plaintext: &[u8], associated_data: &[u8]) -> Vec<u8> {
        seal(&*self.new, plaintext, associated_data)
    }

    /// The plaintext under the new key.
    #[track_caller]
    pub fn open_new(&self, stored: &[u8], associated_data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(stored.len() + 3);
        self.new.open(stored, associated_data, &mut out).unwrap();
        out
    }
}

fn tink_id(json: &str) -> Option<KeyId> {
    let keyset: Value = serde_json::from_str(json).ok()?;
    Some(KeyId(u32::try_from(keyset["primaryKeyId"].as_u64()?).unwrap()))
}

/// A value sealed in 2024.
pub fn seal(cipher: &dyn Cipher, plaintext: &[u8], associated_data: &[u8]) -> Vec<u8> {
    let carried = Carried {
        timestamp: Some(1_700_000_000),
        ..Carried::default()
    };
    let mut out = Vec::new();
    cipher.seal(plaintext, associated_data, carried, &mut seeded().unwrap(), &mut out);
    out
}

/// The plaintext of row `id`.
pub fn plaintext(id: i64) -> Vec<u8> {
    format!("customer number {id}, an ordinary plaintext").into_bytes()
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}
