//! Sessions in tables, on SQLite and PostgreSQL: what existed at the cut-off ends, what is created afterwards stays.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::{Database, postgres, random_bytes, reseal, tempdir};
use tempfile::TempDir;

/// A database with a configuration beside it.
struct Desk {
    folder: TempDir,
    postgres: Option<Database>,
}

impl Desk {
    /// One for each database that the machine has.
    fn all() -> Vec<Self> {
        let folder = tempdir();
        rusqlite::Connection::open(folder.path().join("app.db"))
            .unwrap()
            .execute_batch("PRAGMA journal_mode = wal")
            .unwrap();
        let sqlite = Self { folder, postgres: None };
        let postgres = postgres().map(|database| Self {
            folder: tempdir(),
            postgres: Some(database),
        });
        std::iter::once(sqlite).chain(postgres).collect()
    }

    fn connection(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.folder.path().join("app.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }

    fn execute(&self, sql: &str) {
        match &self.postgres {
            Some(database) => database.execute(sql),
            None => self.connection().execute_batch(sql).unwrap(),
        }
    }

    fn count(&self, sql: &str) -> i64 {
        match &self.postgres {
            Some(database) => database.count(sql),
            None => self.connection().query_row(sql, [], |row| row.get(0)).unwrap(),
        }
    }

    /// Rows 1 to `rows`, with `$n` in the values standing for the number.
    fn fill(&self, table: &str, values: &str, rows: u32) {
        let numbers = match self.postgres {
            Some(_) => format!("generate_series(1, {rows}) AS n"),
            None => {
                format!("(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows}) SELECT n FROM c)")
            }
        };
        self.execute(&format!("INSERT INTO {table} SELECT {values} FROM {numbers}"));
    }

    fn run(&self, section: &str, arguments: &str, exit: i32) -> Output {
        let config = format!("[database.main]\nurl = \"env:DATABASE_URL\"\n[session.web]\ndatabase = \"main\"\n{section}\n");
        fs::write(self.folder.path().join("reseal.toml"), config).unwrap();
        let url = self.postgres.as_ref().map_or("sqlite:app.db".to_owned(), Database::url);
        let mut command = reseal();
        command.current_dir(&self.folder).env("DATABASE_URL", url);
        command
            .args(["sessions", "invalidate", "web", "--yes", "--json"])
            .args(arguments.split_whitespace());
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        let kind = if self.postgres.is_some() { "PostgreSQL" } else { "SQLite" };
        assert_eq!(output.status.code(), Some(exit), "{kind}: {arguments}: {complaint}");
        output
    }

    fn invalidate(&self, section: &str, arguments: &str) -> Value {
        let output = self.run(section, arguments, 0);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["stores"][0].clone()
    }
}

const DJANGO: &str = "CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text NOT NULL, expire_date timestamp NOT NULL)";
const DJANGO_ROW: &str = "'old-' || n, 'signed', '2030-01-01'";

#[test]
fn every_row_of_django_ends_in_small_batches() {
    for desk in Desk::all() {
        desk.execute(DJANGO);
        let literal = if desk.postgres.is_some() {
            "'old-' || n, 'signed', timestamp '2030-01-01'"
        } else {
            DJANGO_ROW
        };
        desk.fill("django_session", literal, 5000);
        let counted = desk.invalidate("preset = \"django\"", "--dry-run");
        assert_eq!((&counted["matched"], &counted["ended"]), (&5000.into(), &0.into()));
        assert_eq!(desk.count("SELECT count(*) FROM django_session"), 5000);
        let ended = desk.invalidate("preset = \"django\"", "");
        assert_eq!(
            (&ended["ended"], &ended["left"], &ended["decided_by"]),
            (&5000.into(), &0.into(), &"snapshot".into())
        );
        assert_eq!(desk.count("SELECT count(*) FROM django_session"), 0);
        assert_eq!(desk.invalidate("preset = \"django\"", "")["ended"], 0);
    }
}

#[test]
fn whoever_logs_in_meanwhile_stays_and_what_comes_back_is_ended_again() {
    for desk in Desk::all() {
        desk.execute(DJANGO);
        let date = if desk.postgres.is_some() {
            "timestamp '2030-01-01'"
        } else {
            "'2030-01-01'"
        };
        desk.fill("django_session", &format!("'old-' || n, 'signed', {date}"), 20_000);
        let (stop, began) = (AtomicBool::new(false), AtomicBool::new(false));
        let (new, ended) = std::thread::scope(|scope| {
            let logins = scope.spawn(|| {
                let mut new = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Once rows go, the cut-off has passed: from now on every login is newer.
                    let passed = began.load(Ordering::Relaxed)
                        || desk.count("SELECT count(*) FROM django_session WHERE session_key LIKE 'old-%'") < 20_000;
                    let name = if passed { "new" } else { "early" };
                    let id: String = random_bytes::<12>().iter().map(|byte| format!("{byte:02x}")).collect();
                    desk.execute(&format!("INSERT INTO django_session VALUES ('{name}-{id}', 'x', {date})"));
                    if passed && !began.swap(true, Ordering::Relaxed) {
                        // A request that was under way writes its session back.
                        desk.execute(&format!(
                            "INSERT INTO django_session VALUES ('old-1', 'x', {date}) ON CONFLICT DO NOTHING"
                        ));
                    }
                    new += i64::from(passed);
                }
                new
            });
            let ended = desk.invalidate("preset = \"django\"", "");
            stop.store(true, Ordering::Relaxed);
            (logins.join().unwrap(), ended)
        });
        assert!(new > 0, "nobody logged in");
        assert_eq!(
            desk.count("SELECT count(*) FROM django_session WHERE session_key LIKE 'new-%'"),
            new,
            "{ended}"
        );
        assert_eq!(
            desk.count("SELECT count(*) FROM django_session WHERE session_key LIKE 'old-%'"),
            0,
            "{ended}"
        );
        assert_eq!(ended["left"], 0);
    }
}

#[test]
fn one_user_one_tenant_or_those_before_a_time() {
    for desk in Desk::all() {
        desk.execute(
            "CREATE TABLE sessions (id integer PRIMARY KEY, user_id bigint, tenant text, created_at timestamp, created_s bigint, revoked_at timestamp)",
        );
        for (id, user, tenant, created) in [
            (1, 7, "acme", "2026-01-01 00:00:00"),
            (2, 7, "it''s", "2026-01-02 00:00:00"),
            (3, 77, "acme", "2026-01-03 00:00:00"),
            (4, 8, "acme", "2026-01-04 00:00:00"),
        ] {
            let seconds = 1_767_225_600 + (id - 1) * 86_400;
            desk.execute(&format!(
                "INSERT INTO sessions VALUES ({id}, {user}, '{tenant}', '{created}', {seconds}, NULL)"
            ));
        }
        let section = "preset = \"laravel\"\ntenant = \"tenant\"\ncreated = \"created_at\"";
        let seconds = "table = \"sessions\"\nkey = \"id\"\ncreated = \"created_s\"\ncreated_as = \"seconds\"";
        let count =
            |arguments: &str, section: &str| desk.invalidate(section, &format!("{arguments} --dry-run"))["matched"].clone();
        assert_eq!(count("--user 7", section), 2);
        assert_eq!(count("--tenant it's", section), 1);
        assert_eq!(count("--user 7 --tenant acme", section), 1);
        assert_eq!(count("--before 2026-01-03T00:00:00Z", section), 2);
        assert_eq!(count("--before 2026-01-03T00:00:00Z", seconds), 2);

        let revoke = format!("{section}\nrevoke = \"revoked_at\"");
        assert_eq!(desk.invalidate(&revoke, "--user 7")["ended"], 2);
        assert_eq!(desk.count("SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL"), 2);
        assert_eq!(
            desk.invalidate(&revoke, "")["ended"],
            2,
            "those revoked before are not counted again"
        );
        assert_eq!(desk.invalidate(section, "--before 2026-01-03T00:00:00Z")["ended"], 2);
        assert_eq!(desk.count("SELECT count(*) FROM sessions WHERE id >= 3"), 2);
    }
}

#[test]
fn what_the_table_cannot_tell_and_hostile_names_are_refused() {
    for desk in Desk::all() {
        desk.execute(DJANGO);
        desk.execute("CREATE TABLE plain (a text, b text)");
        desk.fill("plain", "'a', 'b'", 3);
        for (section, arguments) in [
            ("preset = \"django\"", "--user 1"),
            ("preset = \"django\"", "--tenant 1"),
            ("preset = \"django\"", "--before 2026-01-01T00:00:00Z"),
            ("table = \"plain\"\nkey = \"a\"", ""),
            ("table = \"nowhere\"\nkey = \"a\"", ""),
            ("table = \"plain\"\nkey = \"missing\"", ""),
            ("table = \"plain; DROP TABLE plain\"\nkey = \"a\"", ""),
            ("table = 'plain\" WHERE 1=1; --'\nkey = \"a\"", ""),
            ("table = \"django_session\"\nkey = 'session_key\" IS NOT NULL; --'", ""),
        ] {
            desk.run(section, arguments, 4);
        }
        assert_eq!(desk.count("SELECT count(*) FROM plain"), 3);
        desk.run("preset = \"nonsense\"", "", 3);
    }
}

#[test]
fn a_database_that_is_read_only_refuses_and_one_that_refuses_a_row_stops_the_run() {
    for desk in Desk::all() {
        let Some(database) = &desk.postgres else { continue };
        desk.execute(DJANGO);
        desk.fill("django_session", "'old-' || n, 'signed', timestamp '2030-01-01'", 100);
        let separator = if database.url().contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}options=-c%20default_transaction_read_only%3Don", database.url());
        let config = "[database.main]\nurl = \"env:DATABASE_URL\"\n[session.web]\ndatabase = \"main\"\npreset = \"django\"\n";
        fs::write(desk.folder.path().join("reseal.toml"), config).unwrap();
        let mut command = reseal();
        command.current_dir(&desk.folder).env("DATABASE_URL", url);
        let output = command.args(["sessions", "invalidate", "--yes"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("read-only") && said.contains("nothing was touched"), "{said}");
        assert_eq!(desk.count("SELECT count(*) FROM django_session"), 100);

        let counted = command.arg("--dry-run").output().unwrap();
        let said = String::from_utf8_lossy(&counted.stderr);
        assert_eq!(counted.status.code(), Some(0), "counting writes nothing: {said}");
        assert!(said.contains("100 sessions"), "{said}");

        desk.execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF old.session_key = 'old-77' THEN RAISE 'secret of ada'; END IF; RETURN old; END $$;
             CREATE TRIGGER keep BEFORE DELETE ON django_session FOR EACH ROW EXECUTE FUNCTION keep()",
        );
        // Incomplete, as a rotation is when the database refuses a statement; what the trigger said is not repeated.
        let output = desk.run("preset = \"django\"", "", 5);
        for text in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(text).contains("ada"));
        }
        desk.execute("DROP TRIGGER keep ON django_session");
        assert_eq!(desk.invalidate("preset = \"django\"", "")["left"], 0);
    }
}

/// Keys as bytes and as numbers are compared as the table compares them, and the rows need not lie by a rowid.
#[test]
fn keys_of_every_type_end_in_sqlite() {
    for (table, keys) in [
        ("CREATE TABLE s (id BLOB PRIMARY KEY, d TEXT)", "(x'00ff', 'x'), (x'01', 'x')"),
        ("CREATE TABLE s (id INTEGER PRIMARY KEY, d TEXT)", "(7, 'x'), (-3, 'x')"),
        (
            "CREATE TABLE s (id NUMERIC UNIQUE, d TEXT)",
            "(7, 'x'), (1.5, 'x'), ('a', 'x')",
        ),
        (
            "CREATE TABLE s (id TEXT PRIMARY KEY, rowid TEXT, _rowid_ TEXT, oid TEXT)",
            "('7', 1, 2, 3), ('b', 1, 2, 3)",
        ),
        (
            "CREATE TABLE s (id TEXT COLLATE NOCASE PRIMARY KEY, d TEXT) WITHOUT ROWID",
            "('a', 'x'), ('B', 'x')",
        ),
    ] {
        let desk = Desk::all().swap_remove(0);
        desk.execute(&format!("{table}; INSERT INTO s VALUES {keys}"));
        let rows = desk.count("SELECT count(*) FROM s");
        let ended = desk.invalidate("table = \"s\"\nkey = \"id\"", "");
        assert_eq!(
            (&ended["matched"], &ended["ended"], &ended["left"]),
            (&rows.into(), &rows.into(), &0.into()),
            "{table}"
        );
        assert_eq!(desk.count("SELECT count(*) FROM s"), 0, "{table}");
    }
}

#[test]
fn heavy_a_run_that_is_killed_is_continued_by_the_same_command() {
    for desk in Desk::all() {
        let rows = 200_000;
        desk.execute(DJANGO);
        let date = if desk.postgres.is_some() {
            "timestamp '2030-01-01'"
        } else {
            "'2030-01-01'"
        };
        desk.fill("django_session", &format!("'old-' || n, 'signed', {date}"), rows);
        desk.invalidate("preset = \"django\"", "--dry-run");
        let url = desk.postgres.as_ref().map_or("sqlite:app.db".to_owned(), Database::url);
        let mut command = support::reseal_process();
        command.current_dir(&desk.folder).env("DATABASE_URL", url);
        command
            .args(["sessions", "invalidate", "--yes"])
            .stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let count = || desk.count("SELECT count(*) FROM django_session");
        while count() > i64::from(rows) * 9 / 10 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = count();
        assert!(left > 0, "it had finished before it was killed");
        // One who logged in meanwhile is older than the cut-off of the next run, and ends with the rest.
        let ended = desk.invalidate("preset = \"django\"", "");
        assert_eq!((&ended["left"], count()), (&0.into(), 0));
        assert!(ended["ended"].as_i64().unwrap() <= left);
    }
}
