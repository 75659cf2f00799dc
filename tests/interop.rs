//! The real thing: tables that Python programs have written are rotated by the binary, and Python reads every value back, with both keys
//! in the middle of a rotation and with the new key alone at its end.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;
use support::people::FernetKey;
use support::rotation::{Finished, Running, wait_until};
use support::{Database, passphrase, python, reseal_process, tempdir};
use tempfile::TempDir;

const ROWS: u64 = 2_000;

/// The database that Python creates its table in.
struct Desk {
    url: String,
    folder: TempDir,
    database: Option<Database>,
}

impl Desk {
    fn sqlite() -> Self {
        let folder = tempdir();
        let path = folder.path().join("customers.db");
        rusqlite::Connection::open(&path)
            .unwrap()
            .pragma_update(None, "journal_mode", "wal")
            .unwrap();
        Self {
            url: format!("sqlite:{}", path.display()),
            folder,
            database: None,
        }
    }

    fn postgres() -> Option<Self> {
        let database = support::postgres()?;
        Some(Self {
            url: database.url(),
            folder: tempdir(),
            database: Some(database),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a peer and takes what it printed; `None` where there is no Python.
    fn python(&self, script: &str, prepare: impl FnOnce(&mut Command)) -> Option<Value> {
        let mut command = python(script)?;
        command.env("DATABASE_URL", &self.url);
        prepare(&mut command);
        Some(printed(script, &command.output().unwrap()))
    }

    /// Values that the newest rotation has re-encrypted so far.
    fn reencrypted(&self) -> i64 {
        match &self.database {
            Some(database) if database.count("SELECT count(*) FROM pg_tables WHERE schemaname = 'reseal'") == 0 => 0,
            Some(database) => database.count("SELECT coalesce(sum(values_reencrypted), 0)::int8 FROM reseal.range"),
            None => rusqlite::Connection::open(self.url.trim_start_matches("sqlite:"))
                .unwrap()
                .query_row("SELECT sum(values_reencrypted) FROM reseal_range", [], |row| row.get(0))
                .unwrap_or(0),
        }
    }

    /// Starts a rotation and ends it in the middle: by an interrupt, or without a chance to tidy up.
    fn stop_in_the_middle(&self, command: Command, signal: Signal) -> Option<i32> {
        let mut running = Running::start(command);
        wait_until("the rotation is under way", || {
            assert!(running.is_running(), "it ended before its first batch");
            self.reencrypted() > 0
        });
        running.signal(signal);
        running.wait().code
    }
}

fn printed(what: &str, output: &Output) -> Value {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// The peers agree about plaintexts and NULLs.
fn assert_same(written: &Value, read: &Value) {
    for field in ["values", "nulls", "digest"] {
        assert_eq!(written[field], read[field], "{field}: {read}");
    }
    assert_eq!(read["unreadable"], Value::Array(Vec::new()));
}

#[test]
fn heavy_tokens_of_python_cryptography_in_postgres() {
    let Some(desk) = Desk::postgres() else { return };
    fernet(&desk, Signal::INT);
}

#[test]
fn heavy_tokens_of_python_cryptography_in_sqlite() {
    fernet(&Desk::sqlite(), Signal::KILL);
}

fn fernet(desk: &Desk, signal: Signal) {
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    let write = desk.python("write_fernet.py", |python| {
        python.args(["--rows", &ROWS.to_string()]).env("FERNET_KEY", old.text());
    });
    let Some(written) = write else { return };
    let read = |keys: &str| {
        desk.python("read_fernet.py", |python| {
            python.env("FERNET_KEYS", keys);
        })
        .unwrap()
    };
    let times = read(old.text())["timestamps"].clone();
    let rotate = |arguments: &[&str]| {
        let mut command = reseal_process();
        command
            .args(["rotate", "--database", "env:DATABASE_URL", "--table", "customers"])
            .args([
                "--column", "email", "--column", "note", "--format", "fernet", "--from", "env:OLD", "--to", "env:NEW",
            ])
            .args(["--dual-read-confirmed", "--yes", "--json"])
            .args(arguments)
            .env("DATABASE_URL", &desk.url)
            .env("OLD", old.text())
            .env("NEW", new.text());
        command
    };

    let code = desk.stop_in_the_middle(rotate(&["--profile", "gentle", "--batch-rows", "20"]), signal);
    assert_eq!(code, if signal == Signal::INT { Some(5) } else { None });
    // As the application reads while it lasts: the new key first.
    let middle = read(&format!("{},{}", new.text(), old.text()));
    assert_same(&written, &middle);
    assert_eq!(middle["timestamps"], times);
    let (under_new, under_old) = (middle["per_key"][0].as_u64().unwrap(), middle["per_key"][1].as_u64().unwrap());
    assert!(under_new > 0 && under_old > 0, "not the middle: {middle}");

    let finished = finish(rotate(&[]));
    assert_eq!(finished.document["values_reencrypted"], written["values"]);
    assert_eq!(finished.document["values_null"], written["nulls"]);
    let after = read(new.text());
    assert_same(&written, &after);
    assert_eq!(
        after["timestamps"], times,
        "creation times are kept, as MultiFernet.rotate keeps them"
    );
}

fn finish(command: Command) -> Finished {
    let finished = Running::start(command).wait();
    finished.assert_verified();
    finished
}

#[test]
fn heavy_ciphertexts_of_python_tink_in_postgres() {
    let Some(desk) = Desk::postgres() else { return };
    tink(&desk, "tink");
}

#[test]
fn heavy_ciphertexts_of_python_tink_in_sqlite() {
    tink(&Desk::sqlite(), "tink");
}

#[test]
fn heavy_base64_ciphertexts_of_python_tink_in_postgres() {
    let Some(desk) = Desk::postgres() else { return };
    tink(&desk, "tink-base64");
}

#[test]
fn heavy_base64_ciphertexts_of_python_tink_in_sqlite() {
    tink(&Desk::sqlite(), "tink-base64");
}

fn tink(desk: &Desk, format: &str) {
    let passphrase = passphrase();
    let reseal = |arguments: &[&str]| {
        let mut command = reseal_process();
        command
            .args(arguments)
            .current_dir(&desk.folder)
            .env("RESEAL_PASSPHRASE", &passphrase)
            .env("DATABASE_URL", &desk.url);
        command
    };
    let keys = |arguments: &str| {
        let arguments: Vec<&str> = ["keys"].into_iter().chain(arguments.split(' ')).collect();
        let output = reseal(&arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let peer = |script: &str, keyset: &Path, arguments: &[&str]| {
        desk.python(script, |python| {
            python.arg("--keyset").arg(keyset).args(arguments);
        })
    };
    let rotate = |arguments: &[&str]| {
        let mut command = reseal(&["rotate", "--database", "env:DATABASE_URL", "--table", "customers"]);
        command
            .args(["--column", "email", "--aad", "customers.email:{id}"])
            .args(["--column", "note", "--aad", "customers.note:{id}", "--format", format])
            .args([
                "--from",
                "keyring:customer-data",
                "--to",
                "keyring:customer-data",
                "--yes",
                "--json",
            ])
            .args(arguments);
        command
    };

    keys("generate customer-data");
    let first = desk.file("first.json");
    keys("export customer-data --as tink-json --out first.json");
    let rows = ROWS.to_string();
    let mut arguments = vec!["--rows", rows.as_str()];
    if format == "tink-base64" {
        arguments.push("--text");
    }
    let Some(written) = peer("tink_write.py", &first, &arguments) else {
        return;
    };

    keys("generate customer-data");
    keys("promote customer-data");
    keys("export customer-data --as tink-json --out both.json");
    let both = desk.file("both.json");
    let code = desk.stop_in_the_middle(rotate(&["--profile", "gentle", "--batch-rows", "20"]), Signal::INT);
    assert_eq!(code, Some(5));
    let middle = peer("tink_read.py", &both, &[]).unwrap();
    assert_same(&written, &middle);
    assert_eq!(middle["per_key"].as_object().unwrap().len(), 2, "not the middle: {middle}");

    let finished = finish(rotate(&[]));
    assert_eq!(finished.document["values_reencrypted"], written["values"]);
    let after = peer("tink_read.py", &both, &[]).unwrap();
    assert_same(&written, &after);
    let per_key = after["per_key"].as_object().unwrap();
    assert_eq!(per_key.len(), 1, "{after}");
    let old = middle["per_key"]
        .as_object()
        .unwrap()
        .keys()
        .find(|id| !per_key.contains_key(*id))
        .unwrap();

    // What readers are given when the old key is retired opens everything.
    keys(&format!("retire customer-data {old}"));
    keys("export customer-data --as tink-json --out last.json");
    let last = std::fs::read_to_string(desk.file("last.json")).unwrap();
    assert!(!last.contains(old.as_str()), "the old key is still given to readers");
    assert_same(&written, &peer("tink_read.py", &desk.file("last.json"), &[]).unwrap());
}
