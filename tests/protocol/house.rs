//! A managed house: a database with encrypted customers, a keyring, a configuration, and instances that follow it or do not.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use jiff::{SignedDuration, Timestamp};
use reseal::app::{Keyring, KeysetHandle, Options, ReportOptions, Reporting, Unlock};
use reseal::format::by_name;
use reseal::key::{self, Algorithm, KeyId, KeyState, KeyringEdit, Keyset, Previous, Seal, write_private};
use reseal::rotation::protocol::{GateRules, Managed, ManagedColumn, ManagedDataset, Place};
use reseal::store::ledger::ending::{EndingRecord, Endings};
use reseal::store::ledger::instance::{Instance, Instances, Report};
use reseal::store::ledger::rotation::{RotationRecord, Rotations};
use reseal::store::{self, Control, Store};
use serde_json::Value;

use crate::support::rotation::{Finished, Running};
use crate::support::{self, Database};

pub const KEYSET: &str = "customer-data";

/// Which kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

enum Base {
    Sqlite(PathBuf),
    Postgres(Database),
}

pub struct House {
    pub folder: tempfile::TempDir,
    identity: Identity,
    base: Base,
}

/// An application instance: seals, opens, reports.
pub struct App {
    pub handle: KeysetHandle,
    pub reporting: Reporting,
}

impl House {
    /// `rows` customers in each of two tables, all under the first key.
    pub fn build(kind: Kind, rows: i64) -> Option<Self> {
        let folder = support::tempdir();
        let base = match kind {
            Kind::Sqlite => {
                let path = folder.path().join("app.db");
                let connection = rusqlite::Connection::open(&path).unwrap();
                connection.pragma_update(None, "journal_mode", "WAL").unwrap();
                Base::Sqlite(path)
            }
            Kind::Postgres => Base::Postgres(support::postgres()?),
        };
        Some(Self::furnish(folder, base, rows))
    }

    /// The same in this database.
    #[allow(dead_code, reason = "not every test binary has a server of its own")]
    pub fn build_in(database: Database, rows: i64) -> Self {
        Self::furnish(support::tempdir(), Base::Postgres(database), rows)
    }

    /// The PostgreSQL database, for what only PostgreSQL can say.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn database(&self) -> Option<&Database> {
        match &self.base {
            Base::Postgres(database) => Some(database),
            Base::Sqlite(_) => None,
        }
    }

    fn furnish(folder: tempfile::TempDir, base: Base, rows: i64) -> Self {
        let house = Self {
            folder,
            identity: Identity::generate(),
            base,
        };
        write_private(
            &house.path("identity"),
            house.identity.to_string().expose_secret().as_bytes(),
            false,
        )
        .unwrap();
        let seal = Seal::Recipients(vec![house.identity.to_public()]);
        let mut edit = KeyringEdit::create(&house.path("reseal.keyring"), seal, Duration::ZERO).unwrap();
        for name in [KEYSET, "orders"] {
            edit.insert(Keyset::generate(name.parse().unwrap(), Algorithm::Aes256Gcm, Timestamp::now()).unwrap())
                .unwrap();
        }
        edit.commit(Previous::Kept).unwrap();
        house.configure("[policy]\nbackup_horizon = \"35d\"\n");
        house.execute(
            "CREATE TABLE customers (id BIGINT PRIMARY KEY, email TEXT); CREATE TABLE notes (id BIGINT PRIMARY KEY, note TEXT)",
        );
        let keyring = house.keyring_in_use(Duration::from_secs(3600));
        let handle = keyring.keyset_in(KEYSET, by_name("tink-base64").unwrap()).unwrap();
        for (table, column) in TABLES {
            let values: Vec<String> = (1..=rows)
                .map(|id| {
                    format!(
                        "({id}, '{}')",
                        text(
                            &handle
                                .seal(plain(id).as_bytes(), place(table, column, id).as_bytes())
                                .unwrap()
                        )
                    )
                })
                .collect();
            for values in values.chunks(200) {
                house.execute(&format!("INSERT INTO {table} VALUES {}", values.join(", ")));
            }
        }
        house
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration, with this at its end.
    pub fn configure(&self, rest: &str) {
        let mut text =
            "[keyring]\nfile = \"reseal.keyring\"\nidentity = \"identity\"\n[database.main]\nurl = \"env:DATABASE_URL\"\n"
                .to_owned();
        for (table, column) in TABLES {
            text.push_str(&format!(
                "[dataset.{table}]\ndatabase = \"main\"\ntable = \"{table}\"\nkeyset = \"{KEYSET}\"\ncolumns = [{{ name = \"{column}\", format = \"tink-base64\", aad = \"{table}.{column}:{{id}}\" }}]\n"
            ));
        }
        std::fs::write(self.path("reseal.toml"), text + rest).unwrap();
    }

    pub fn url(&self) -> String {
        match &self.base {
            Base::Sqlite(path) => format!("sqlite:{}", path.display()),
            Base::Postgres(database) => database.url(),
        }
    }

    pub fn execute(&self, sql: &str) {
        match &self.base {
            Base::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(Duration::from_secs(30)).unwrap();
                connection.execute_batch(sql).unwrap();
            }
            Base::Postgres(database) => database.execute(sql),
        }
    }

    /// Says what the database answered where it refused.
    pub fn try_execute(&self, sql: &str) -> Result<(), String> {
        let Base::Postgres(database) = &self.base else {
            panic!("a PostgreSQL house")
        };
        database.try_execute(sql)
    }

    /// The values of a table by id.
    pub fn values(&self, table: &str, column: &str) -> Vec<(i64, String)> {
        let sql = format!("SELECT id || '|' || {column} FROM {table} ORDER BY id");
        Self::by_id(self.texts(&sql))
    }

    /// The first column of an answer.
    pub fn texts(&self, sql: &str) -> Vec<String> {
        match &self.base {
            Base::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                let mut statement = connection.prepare(sql).unwrap();
                statement
                    .query_map([], |row| row.get(0))
                    .unwrap()
                    .map(Result::unwrap)
                    .collect()
            }
            Base::Postgres(database) => database.texts(sql).into_iter().flatten().collect(),
        }
    }

    /// Lines of an id, a stroke and a value.
    pub fn by_id(lines: Vec<String>) -> Vec<(i64, String)> {
        let split = |line: String| {
            let (id, value) = line.split_once('|').unwrap();
            (id.parse().unwrap(), value.to_owned())
        };
        lines.into_iter().map(split).collect()
    }

    fn unlock(&self) -> Unlock {
        Unlock::Identities(vec![self.identity.clone()])
    }

    pub fn keyring(&self) -> key::Keyring {
        key::Keyring::open(&self.path("reseal.keyring"), &self.unlock(), 0).unwrap()
    }

    /// State, retired or not, offered or not, of each key of the keyset, in the order of their making.
    pub fn keys(&self) -> Vec<(KeyId, KeyState, bool, bool)> {
        let keyring = self.keyring();
        let keyset = keyring.keyset(&KEYSET.parse().unwrap()).unwrap();
        let keys = keyset.keys().iter();
        keys.map(|key| (key.id(), key.state(), key.retired_at().is_some(), key.is_offered()))
            .collect()
    }

    pub fn change(&self, change: impl FnOnce(&mut Keyset)) {
        let mut edit = KeyringEdit::begin(&self.path("reseal.keyring"), self.unlock(), 0, Duration::from_secs(5)).unwrap();
        change(edit.keyring_mut().keyset_mut(&KEYSET.parse().unwrap()).unwrap());
        edit.commit(Previous::Kept).unwrap();
    }

    /// Puts one more keyset into the keyring.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn add(&self, keyset: Keyset) {
        let mut edit = KeyringEdit::begin(&self.path("reseal.keyring"), self.unlock(), 0, Duration::from_secs(5)).unwrap();
        edit.insert(keyset).unwrap();
        edit.commit(Previous::Kept).unwrap();
    }

    fn keyring_in_use(&self, poll_every: Duration) -> Keyring {
        let options = Options {
            poll_every,
            ..Options::default()
        };
        Keyring::open_with(self.path("reseal.keyring"), self.unlock(), options).unwrap()
    }

    /// An instance that follows the keyring.
    pub fn app(&self, name: &str) -> App {
        self.app_that_looks_every(name, Duration::from_millis(20))
    }

    /// An instance that never looks at the keyring again.
    pub fn stale_app(&self, name: &str) -> App {
        self.app_that_looks_every(name, Duration::from_secs(3600))
    }

    fn app_that_looks_every(&self, name: &str, every: Duration) -> App {
        let keyring = self.keyring_in_use(every);
        let handle = keyring.keyset_in(KEYSET, by_name("tink-base64").unwrap()).unwrap();
        let options = ReportOptions {
            every: Duration::from_millis(200),
            lease: Duration::from_secs(60),
            version: "shop 1".to_owned(),
        };
        let reporting = keyring.report_with(&self.url(), name, options).unwrap();
        let app = App { handle, reporting };
        eventually("the instance is listed", || {
            let listed = self.instances();
            listed
                .iter()
                .any(|one| one.instance == app.reporting.instance())
                .then_some(())
        });
        app
    }

    /// Says that an instance has this revision.
    pub fn ack(&self, instance: &str, revision: u64, lease: Duration) {
        self.with_control(async |control| {
            control.migrate().await.unwrap();
            let report = Report {
                instance,
                keyset: KEYSET,
                revision,
                seals_with: None,
                compromised_opens: 0,
                version: "by hand",
                lease,
            };
            Instances::of(control).report(&report).await.unwrap();
        });
    }

    pub fn instances(&self) -> Vec<Instance> {
        self.with_control(async |control| Instances::of(control).list(Some(KEYSET)).await.unwrap())
    }

    pub fn open_rotation(&self) -> Option<RotationRecord> {
        self.with_control(async |control| Rotations::of(control).open(KEYSET).await.unwrap())
    }

    /// What the open rotation, or the last one, has on record of sessions.
    pub fn endings(&self) -> Vec<EndingRecord> {
        self.with_control(async |control| {
            let Some(latest) = Rotations::of(control).list().await.unwrap().into_iter().next() else {
                return Vec::new();
            };
            Endings::of(control).list(&latest.id).await.unwrap()
        })
    }

    /// How many parts of what existed at cut-offs are kept.
    pub fn snapshots(&self) -> usize {
        let table = match &self.base {
            Base::Sqlite(_) => "reseal_session_snapshot",
            Base::Postgres(_) => "reseal.session_snapshot",
        };
        self.texts(&format!("SELECT snapshot FROM {table}")).len()
    }

    /// Values that batches have moved so far.
    pub fn moved(&self) -> u64 {
        self.with_control(async |control| {
            if !control.exists().await.unwrap() {
                return 0;
            }
            let mut sum = 0;
            for plan in control.plans().await.unwrap() {
                sum += control.totals(&plan.identity.id).await.unwrap().values_reencrypted;
            }
            sum
        })
    }

    pub fn has_state(&self) -> bool {
        self.with_control(async |control| control.exists().await.unwrap())
    }

    fn with_control<T>(&self, work: impl AsyncFnOnce(&mut dyn Control) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut control = store::open(&self.url(), "tests").unwrap().control().await.unwrap();
            work(&mut *control).await
        })
    }

    /// What `reseal rotate` makes of the configuration, with this connection to the database, and nobody to wait for.
    pub fn managed(&self, store: Arc<dyn Store>) -> Managed {
        let datasets = TABLES.map(|(table, column)| ManagedDataset {
            name: table.to_owned(),
            place: 0,
            table: table.to_owned(),
            columns: vec![ManagedColumn {
                name: column.to_owned(),
                format: Some(by_name("tink-base64").unwrap()),
                associated_data: Some(format!("{table}.{column}:{{id}}")),
            }],
            filter: None,
        });
        Managed {
            keyset: KEYSET.parse().unwrap(),
            keyring: self.path("reseal.keyring"),
            unlock: self.unlock(),
            places: vec![Place {
                name: "main".to_owned(),
                store,
            }],
            datasets: datasets.into(),
            options: reseal::rotation::Options::default(),
            gates: GateRules {
                expect: Some(0),
                timeout: Duration::from_secs(60),
                evict_after: None,
            },
            backup_horizon: Some(SignedDuration::from_hours(24)),
            now: Timestamp::now,
            sessions: Vec::new(),
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = support::reseal_process();
        command
            .args(arguments)
            .arg("--json")
            .current_dir(self.folder.path())
            .env("DATABASE_URL", self.url());
        command
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.start(arguments).wait()
    }

    /// `reseal rotate` with these arguments, to its end.
    pub fn rotate(&self, arguments: &[&str]) -> Finished {
        self.run(&[&["rotate", KEYSET, "--yes"], arguments].concat())
    }

    /// Starts it, and waits until it stands in this phase.
    pub fn rotate_until(&self, phase: &str, arguments: &[&str]) -> Running {
        let mut running = self.start(&[&["rotate", KEYSET, "--yes"], arguments].concat());
        eventually(phase, || {
            assert!(running.is_running(), "it ended before {phase}");
            self.open_rotation().filter(|record| record.phase == phase)
        });
        running
    }

    /// Holds every rotation for a while on its way to this phase, before the step is durable. The progress tables must be there.
    pub fn hold_before(&self, phase: &str) {
        match &self.base {
            // Counting to a hundred million takes SQLite seconds.
            Base::Sqlite(_) => self.execute(&format!(
                "CREATE TRIGGER hold BEFORE UPDATE ON reseal_rotation WHEN NEW.phase = '{phase}' AND OLD.phase <> '{phase}'
                 BEGIN SELECT count(*) FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000000) SELECT n FROM c); END"
            )),
            Base::Postgres(_) => self.execute(&format!(
                "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(25); RETURN NEW; END $$;
                 CREATE TRIGGER hold BEFORE UPDATE ON reseal.rotation FOR EACH ROW
                 WHEN (NEW.phase = '{phase}' AND OLD.phase <> '{phase}') EXECUTE FUNCTION hold()"
            )),
        }
    }

    /// Lets them pass. Whoever is held must be dead.
    pub fn let_pass(&self) {
        match &self.base {
            Base::Sqlite(_) => self.execute("DROP TRIGGER hold"),
            Base::Postgres(_) => {
                // A server does not notice the death of a client whose statement sleeps.
                self.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'",
                );
                self.execute("DROP TRIGGER hold ON reseal.rotation; DROP FUNCTION hold()");
            }
        }
    }

    /// Every value opens for this application, in its place, to what it was.
    pub fn assert_readable(&self, app: &App) {
        for at in TABLES {
            Self::assert_opens(app, at, self.values(at.0, at.1));
        }
    }

    /// The same of values that were read elsewhere.
    pub fn assert_opens(app: &App, (table, column): (&str, &str), values: Vec<(i64, String)>) {
        for (id, value) in values {
            let opened = app.handle.open(value.as_bytes(), place(table, column, id).as_bytes());
            let opened = opened.unwrap_or_else(|error| panic!("{table} {id}: {error}"));
            assert_eq!(&*opened, plain(id).as_bytes());
        }
    }

    /// The keys that values stand under.
    pub fn keys_in_data(&self) -> Vec<KeyId> {
        let mut keys = Vec::new();
        let format = by_name("tink-base64").unwrap();
        for (table, column) in TABLES {
            for (_, value) in self.values(table, column) {
                match format.hint(value.as_bytes()) {
                    reseal::format::KeyHint::Key(id) if !keys.contains(&id) => keys.push(id),
                    reseal::format::KeyHint::Key(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        keys
    }
}

/// What a document says of a gate.
pub fn gate<'d>(document: &'d Value, phase: &str) -> &'d Value {
    let phases = document["phases"].as_array().unwrap();
    let phase = phases
        .iter()
        .find(|one| one["name"] == phase)
        .unwrap_or_else(|| panic!("no {phase}: {document}"));
    &phase["gate"]
}

pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn plain(id: i64) -> String {
    format!("customer {id}")
}

fn place(table: &str, column: &str, id: i64) -> String {
    format!("{table}.{column}:{id}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub const TABLES: [(&str, &str); 2] = [("customers", "email"), ("notes", "note")];

/// Batch by batch, so that there is a middle.
pub const SLOWLY: &[&str] = &[
    "--profile",
    "gentle",
    "--batch-rows",
    "10",
    "--workers",
    "1",
    "--gate-timeout",
    "60s",
];
/// Long enough for every gate of a test that must open.
pub const PATIENT: &[&str] = &["--gate-timeout", "60s"];
/// For gates that must not.
pub const BRIEF: &[&str] = &["--gate-timeout", "1s"];
